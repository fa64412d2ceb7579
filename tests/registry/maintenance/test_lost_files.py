"""Every file that deployments need: lost, altered, cut off, or unreadable, it is told rightly and put back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from tests.conftest import Open
from tests.registry.maintenance.conftest import Call, make_second, object_of
from tests.support.outcomes import sqlite
from tests.support.plugin_package import Plugin, Tiny

from abair.deployment import read_deployment
from abair_registry.db import audit
from abair_registry.maintenance.integrity import live_files

KINDS = ("backbone", "estimator", "adapter rain, config", "adapter rain, weights", "replay of 4 labels")
DAMAGES: dict[str, Callable[[Path], object]] = {
    "lost": Path.unlink,
    "altered": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"!"),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
}


def paths(open_registry: Open) -> dict[str, Path]:
    """Where each file of the live deployment lies, by what it is."""
    with open_registry() as registry:
        return {file.description: registry.blobs.path(file.sha256) for file in live_files(registry)[1]}


def events(open_registry: Open) -> list[dict[str, list[str]]]:
    """The details of the events that tell what was mended."""
    with open_registry() as registry, registry.database.read() as session:
        return [event.detail for event in audit.events(session, "registry") if event.action == "mend"]


@sqlite
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "damage"), [*((kind, "lost") for kind in KINDS), *(("estimator", damage) for damage in DAMAGES)][1:]
)
def test_a_damaged_file_is_told_and_put_back_from_the_package(
    call: Call, home: Path, open_registry: Open, kind: str, damage: str
) -> None:
    path = paths(open_registry)[kind]
    whole = path.read_bytes()
    DAMAGES[damage](path)
    for command in (("verify",), ("doctor", "--dry-run")):
        found = call(*command)
        assert found.code == 1
        told = [line for line in found.err.splitlines() if f": {kind}: {path} " in line]
        assert len(told) == 1
        assert "deployment.json" not in found.err
        assert ("is missing" if damage == "lost" else "was changed: found SHA-256") in told[0]
        assert told[0].endswith("the package holds it; run: abair-registry doctor")
        assert not path.exists() or path.read_bytes() != whole
    found = call("doctor", "--json")
    told = [line for line in object_of(found)["mended"] if "put back from the package" in line]
    assert (found.code, len(told)) == (0, 1)
    assert path.read_bytes() == whole
    assert events(open_registry)[0]["mended"][: len(told)] == told
    assert call("verify").code == 0
    assert object_of(call("doctor", "--json"))["mended"] == []


@sqlite
def test_all_blobs_at_once_are_put_back_and_serve(call: Call, home: Path, tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    shutil.rmtree(home / "blobs")
    told = call("estimate", str(tmp_path / "a.png"), abair=True)
    assert (told.code, "is missing; expected a file with SHA-256" in told.err) == (1, True)
    assert told.err.endswith("; run: abair-registry doctor\n")
    found = call("doctor")
    assert found.code == 0, found.err
    assert found.out.count("put back from the package") == 7  # the three adapters have one configuration
    read_deployment(home).verify()
    assert call("verify").out == "9 files, all as recorded\n"


@sqlite
def test_what_nothing_holds_is_told_with_what_would_help_and_without_a_circle(
    call: Call, home: Path, open_registry: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(home / "blobs")
    (home / "deployment.json").unlink()
    monkeypatch.delenv("ABAIR_FACTORY")  # the package's own factory has other files
    for command in (("verify",), ("doctor",), ("doctor", "--dry-run")):
        found = call(*command)
        lines = [line for line in found.err.splitlines() if "nothing here holds it" in line]
        assert (found.code, len(lines)) == (1, 9)
        assert all(f"put it back from a backup of {home}" in line for line in lines)
        assert all("abair-registry pull --from URL" in line for line in lines)
        assert not any("run: abair-registry doctor" in line for line in lines)
    assert "run: abair-registry doctor" not in call("doctor").err
    assert "give the URL to this command (pull --from" in call("pull").err


@sqlite
def test_an_installed_plugin_that_holds_the_same_bytes_gives_them_without_being_imported(
    call: Call, home: Path, open_registry: Open, bundle: Path, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = bundle / "adapters" / "rain"
    tiny = Tiny.read(bundle / "backbone.safetensors", adapter)
    folder = Plugin(module="raise SystemExit('imported')").make(site, tiny)
    known = paths(open_registry)
    for kind in ("adapter rain, weights", "adapter noise, weights"):
        known[kind].unlink()
    monkeypatch.delenv("ABAIR_FACTORY")
    found = call("doctor")
    assert "mended: adapter rain, weights: put back from the installed abair-frost 1.0" in found.out.splitlines()
    assert "adapter noise, weights" in found.err
    known["adapter rain, weights"].unlink()
    (folder / "adapters" / "tiny" / "adapter_model.safetensors").write_bytes(b"other bytes")
    assert "adapter rain, weights" in call("doctor").err
    assert not known["adapter rain, weights"].exists()


@sqlite
@pytest.mark.slow
def test_a_bundle_in_mlflow_gives_back_what_serves_and_the_shared_folder_the_rest(
    call: Call, home: Path, empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copyfile(empty_store, home / "mlflow.db")
    assert call("doctor").code == 0  # which registers the champion
    (tmp_path / "shared").mkdir()
    url = (tmp_path / "shared").as_uri()
    assert call("push", "--to", url).code == 0
    monkeypatch.delenv("ABAIR_FACTORY")
    shutil.rmtree(home / "blobs")
    told = call("verify").err
    assert told.count("MLflow's bundle of deployment 1 holds it; run: abair-registry doctor") == 8
    found = call("doctor")
    assert (found.code, found.out.count("put back from MLflow's bundle of deployment 1")) == (1, 6)
    assert "replay of 4 labels" in found.err
    read_deployment(home).verify()
    monkeypatch.setenv("ABAIR_SHARED_URL", url)
    assert f"the shared folder {url} holds it; run: abair-registry doctor" in call("verify").err
    found = call("doctor")
    assert (found.code, found.out.count(f"put back from the shared folder {url}")) == (0, 1)
    monkeypatch.setenv("ABAIR_SHARED_URL", "file:///no/such/folder")
    assert call("verify").code == 0  # it is asked only when something is lost


@sqlite
def test_what_only_an_earlier_deployment_needs_is_told_as_a_rollback_that_would_fail(
    call: Call, home: Path, open_registry: Open, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = paths(open_registry)["estimator"]
    with open_registry() as registry:
        make_second(registry)
    first.unlink()
    said = call("verify").err
    assert f"deployment 1, which could not be gone back to: estimator: {first} is missing" in said
    assert "the package holds it" in said
    assert "run: abair-registry verify, which says what helps" in call("rollback").err
    # the live one's is told first, with the earlier deployment that could serve in its place
    monkeypatch.delenv("ABAIR_FACTORY")
    paths(open_registry)["estimator"].unlink()
    lines = [line for line in call("verify").err.splitlines() if " is missing; expected SHA-256" in line]
    assert ["deployment 1," in line for line in lines] == [False, True]
    assert "rollback --to" not in lines[0]
    assert lines[1].endswith(f"put it back from a backup of {home} if that deployment is to serve again")
    first.write_bytes((bundle / "estimator.safetensors").read_bytes())
    assert "let an earlier deployment serve: abair-registry rollback --to 1" in call("verify").err


@sqlite
def test_a_folder_in_a_files_place_is_told_and_left(call: Call, home: Path, open_registry: Open) -> None:
    path = paths(open_registry)["estimator"]
    path.unlink()
    path.mkdir()
    found = call("verify")
    assert f"estimator: {path} is a folder; expected SHA-256" in found.err
    assert f"move {path} away, then run: abair-registry doctor" in found.err
    found = call("doctor", "--json")
    assert found.code == 1
    (problem,) = (line for line in object_of(found)["problems"] if line.startswith("estimator"))
    assert "is a folder" in problem
    assert f"found a folder, expected the file of that SHA-256; move {path} away" in problem
    assert "abair-registry doctor" not in problem
    assert json.loads(call("verify", "--json").out)["files"] == 9
    path.rename(home / "away")
    assert call("doctor").code == 0
