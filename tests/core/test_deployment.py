"""The bundle: every file is the one that was named, or it is not used."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from abair import deployment as module
from abair.deployment import AdapterRef, BackboneRef, Deployment, FileRef, file_ref, read_deployment, write_deployment
from abair.errors import DeploymentError
from abair.locations import FILE_NAME
from abair.training.bundle import _replace_folder

FILES = (
    "backbone.safetensors",
    "noise/adapter_config.json",
    "noise/adapter_model.safetensors",
    "rain/adapter_config.json",
    "rain/adapter_model.safetensors",
    "estimator.safetensors",
)


def _bundle(folder: Path) -> Deployment:
    """A complete bundle of two adapters; what the files hold does not matter here."""
    refs = {}
    for number, name in enumerate(FILES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode() + bytes(100 * number))
        refs[name] = file_ref(folder / name, folder)
    adapters = tuple(
        AdapterRef(
            degradation=name,
            title=name.title(),
            distribution=f"abair-{name}",
            version="1.0",
            config=refs[f"{name}/adapter_config.json"],
            weights=refs[f"{name}/adapter_model.safetensors"],
        )
        for name in ("noise", "rain")
    )
    deployment = Deployment(
        name="test-1",
        created=datetime(2026, 1, 2, tzinfo=UTC),
        labels=("noise", "rain", "clean"),
        backbone=BackboneRef(size="tiny", fingerprint="0" * 64, file=refs[FILES[0]]),
        adapters=adapters,
        estimator=refs[FILES[-1]],
    )
    write_deployment(deployment, folder)
    return deployment


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    _bundle(tmp_path)
    return tmp_path


def _edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    file = folder / FILE_NAME
    document = json.loads(file.read_text(encoding="utf-8"))
    change(document)
    file.write_text(json.dumps(document), encoding="utf-8")
    return file


def test_written_and_read_back_it_is_the_same(tmp_path: Path) -> None:
    written = _bundle(tmp_path)
    for path in (tmp_path, tmp_path / FILE_NAME, str(tmp_path)):
        read = read_deployment(path)
        assert read == written
        assert read.folder == tmp_path
        read.verify()
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == sorted(
        [FILE_NAME, FILES[0], FILES[-1]]
    )


def test_a_bundle_may_be_moved(folder: Path, tmp_path: Path) -> None:
    moved = folder.rename(tmp_path.parent / f"{tmp_path.name}-moved")
    deployment = read_deployment(moved)
    deployment.verify()
    assert deployment.find(deployment.estimator) == moved / "estimator.safetensors"


def test_it_names_every_file_of_the_bundle(folder: Path) -> None:
    assert sorted(file.path for file in read_deployment(folder).files()) == sorted(FILES)


def test_a_file_is_described_by_path_size_and_hash(folder: Path) -> None:
    path = folder / "noise" / "adapter_config.json"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    described = file_ref(path, folder)
    assert described == FileRef(path="noise/adapter_config.json", size=path.stat().st_size, sha256=digest)


def test_it_cannot_be_changed_in_memory(folder: Path) -> None:
    with pytest.raises(ValidationError):
        read_deployment(folder).name = "other"  # type: ignore[misc]


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (_flip, "was changed: found SHA-256 .*, expected .*restore the bundle"),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), "was changed: found SHA-256 .*, expected .*restore"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "was changed: found SHA-256 .*, expected .*restore"),
        (lambda path: path.write_bytes(b""), r"was changed: found SHA-256 .* \(0 bytes\), expected .*restore"),
        (lambda path: path.unlink(), "is missing; expected a file with SHA-256 .*restore the bundle"),
        (lambda path: (path.unlink(), path.mkdir()), "is a folder; expected a file with SHA-256 .*restore the bundle"),
        (
            lambda path: (path.unlink(), path.symlink_to(path.parent / "nowhere")),
            "is missing; expected a file with SHA-256 .*restore the bundle",
        ),
    ],
)
def test_a_file_that_is_not_the_one_named_is_refused(
    folder: Path, name: str, tamper: Callable[[Path], object], message: str
) -> None:
    deployment = read_deployment(folder)
    deployment.verify()
    tamper(folder / name)
    with pytest.raises(DeploymentError, match=message) as caught:
        deployment.verify()
    assert str(caught.value).startswith(f"deployment test-1: {folder / name} ")
    with pytest.raises(DeploymentError, match=message):
        deployment.find(next(file for file in deployment.files() if file.path == name))


def test_two_files_in_each_others_place_are_refused(folder: Path) -> None:
    first, second = folder / FILES[2], folder / FILES[4]
    first.rename(folder / "aside")
    second.rename(first)
    (folder / "aside").rename(second)
    with pytest.raises(DeploymentError, match="was changed"):
        read_deployment(folder).verify()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="everything is readable to root")
def test_an_unreadable_file_is_one_clear_error(folder: Path) -> None:
    (folder / FILES[0]).chmod(0)
    with pytest.raises(DeploymentError, match=r"backbone\.safetensors cannot be read"):
        read_deployment(folder).verify()


@pytest.mark.parametrize(
    "path", ["../x", "a/../../x", "/etc/passwd", "..", ".", "", "a\\..\\..\\x", "\\\\host\\x", "a/..", "//x"]
)
def test_a_path_that_leaves_the_bundle_is_refused(folder: Path, path: str) -> None:
    _edit(folder, lambda document: document["estimator"].update(path=path))
    with pytest.raises(DeploymentError, match=r"estimator: .*expected one below the bundle's folder"):
        read_deployment(folder)


@pytest.mark.parametrize(
    "labels",
    [
        ["rain", "noise", "clean"],
        ["clean", "noise", "rain"],
        ["noise", "rain"],
        ["noise", "rain", "clean", "clean"],
        ["noise", "clean"],
        ["noise", "haze", "clean"],
        [],
    ],
)
def test_labels_in_another_order_than_the_adapters_are_refused(folder: Path, labels: list[str]) -> None:
    _edit(folder, lambda document: document.update(labels=labels))
    with pytest.raises(DeploymentError, match=r"labels.*expected"):
        read_deployment(folder)


def test_a_degradation_with_two_adapters_is_refused(folder: Path) -> None:
    def double(document: dict[str, Any]) -> None:
        document["adapters"].append(document["adapters"][0])
        document["labels"] = ["noise", "rain", "noise", "clean"]

    _edit(folder, double)
    with pytest.raises(DeploymentError, match="each once"):
        read_deployment(folder)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda d: d.update(format=2), "format"),
        (lambda d: d.update(name=""), "name"),
        (lambda d: d.update(extra=1), "extra"),
        (lambda d: d.pop("created"), "created"),
        (lambda d: d.pop("backbone"), "backbone"),
        (lambda d: d["backbone"].update(fingerprint="short"), r"backbone\.fingerprint"),
        (lambda d: d["backbone"]["file"].update(sha256="F" * 64), r"backbone\.file\.sha256"),
        (lambda d: d["backbone"]["file"].update(size=-1), r"backbone\.file\.size"),
        (lambda d: d["adapters"][1].pop("weights"), r"adapters\.1\.weights"),
        (lambda d: d["estimator"].update(url="x"), r"estimator\.url"),
    ],
)
def test_a_document_of_another_form_is_refused_and_the_place_named(
    folder: Path, change: Callable[[dict[str, Any]], object], where: str
) -> None:
    file = _edit(folder, change)
    with pytest.raises(
        DeploymentError, match=rf"not a deployment: {where}: .*expected a bundle's {FILE_NAME}"
    ) as caught:
        read_deployment(folder)
    assert str(caught.value).startswith(str(file))


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff\xfe\x00", b"[" * 10_000])
def test_a_file_that_is_no_deployment_is_refused(folder: Path, text: bytes) -> None:
    (folder / FILE_NAME).write_bytes(text)
    with pytest.raises(
        DeploymentError, match=rf"{FILE_NAME}: (not a deployment|found a binary file).*expected a bundle"
    ):
        read_deployment(folder)


def test_nothing_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeploymentError, match=r"no deployment can be read there .*expected a bundle's folder"):
        read_deployment(tmp_path)
    with pytest.raises(DeploymentError, match="no deployment can be read there"):
        read_deployment(tmp_path / "none")


def test_an_interrupted_write_leaves_the_bundle_as_it_was(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (folder / FILE_NAME).read_bytes()
    other = read_deployment(folder).model_copy(update={"name": "other"})

    def broken(_source: Path, _target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(KeyboardInterrupt):
        write_deployment(other, folder)
    assert (folder / FILE_NAME).read_bytes() == before


def test_reading_and_checking_needs_no_torch(folder: Path) -> None:
    code = (
        "import sys; from abair.deployment import read_deployment\n"
        "read_deployment(sys.argv[1]).verify(); sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(module.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code, folder], env=environment, timeout=60, check=False)
    assert done.returncode == 0


def test_a_bundle_is_replace_folder_and_anything_else_is_left_alone(bundle: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    shutil.copytree(bundle, target)
    (target / "old.txt").write_text("of the old bundle")

    def interrupted() -> None:
        with _replace_folder(target) as aside:
            (aside / "half").write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        interrupted()
    assert (target / "old.txt").exists()
    read_deployment(target).verify()
    with _replace_folder(target) as aside:
        shutil.copyfile(bundle / "deployment.json", aside / "deployment.json")
    assert [path.name for path in target.iterdir()] == ["deployment.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    other = tmp_path / "photos"
    other.mkdir()
    (other / "a.jpg").write_text("mine")
    with pytest.raises(DeploymentError, match="found something that is no bundle"), _replace_folder(other):
        pass
    assert (other / "a.jpg").read_text() == "mine"
