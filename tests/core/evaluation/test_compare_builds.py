"""Two builds are measured in turn, each in a process of its own; here both are of a few lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from abair.cli import app
from abair.errors import DeploymentError
from abair.evaluation.compare_builds import BuildReport, Measurement, compare_builds, find_build
from abair.locations import SHIPPED

FAKE = """
import time

class Restored:
    def __init__(self, image):
        self.image = image

class Restorer:
    labels = ("noise", "clean")

    @classmethod
    def load(cls, deployment, precision):
        {load}
        return cls()

    def estimate(self, photo):
        return dict(noise=1.0, clean=0.0)

    def __call__(self, photo, *, weights):
        with open({log!r}, "a") as log:
            log.write(f"{name} {{photo.shape[0]}} {{weights}}\\n")
        time.sleep({seconds})
        return Restored(photo)
"""


def fake_build(folder: Path, seconds: float, load: str = "pass") -> Path:
    """Make a checkout whose restoring sleeps; its torch is one line, so that it starts at once."""
    package, torch = folder / "core" / "abair", folder / "core" / "torch"
    package.mkdir(parents=True)
    torch.mkdir()
    text = FAKE.format(load=load, log=str(folder.parent / "log"), name=folder.name, seconds=seconds)
    (package / "__init__.py").write_text(text)
    (torch / "__init__.py").write_text("__version__ = '0'\ndef set_num_threads(count): pass\n")
    return folder


@pytest.fixture
def builds(tmp_path: Path) -> tuple[Path, Path]:
    return fake_build(tmp_path / "this", 0.02), fake_build(tmp_path / "other", 0.3)


def test_builds_take_turns_and_the_ratio_is_of_this_one_to_the_other(builds: tuple[Path, Path], tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    report = compare_builds(
        builds[1], tmp_path, megapixels=[0.01], threads=[1], rounds=2,
        progress=lambda done, total, text: told.append((done, total)), package=builds[0] / "core" / "abair",
    )  # fmt: skip
    rounds = (tmp_path / "log").read_text().splitlines()
    photos = [line.split()[0] for line in rounds if line.split()[1] == "82"]
    assert photos == ["this", "other", "this", "other"]
    assert {line.partition("{")[2] for line in rounds} == {"'noise': 1.0}"}
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    (comparison,) = report.comparisons
    assert [len(comparison.this), len(comparison.other)] == [2, 2]
    assert comparison.ratios["restore, s"] < 0.7
    assert comparison.this[0].peak_bytes > 1e6
    assert comparison.this[0].mean == comparison.other[0].mean
    assert "restore, CPU s" in report.markdown()
    written = json.loads(report.model_dump_json())
    assert set(written["comparisons"][0]["ratios"]) == set(comparison.ratios)
    assert BuildReport.model_validate(report.model_dump()) == report


def test_the_command_prints_the_ratios_and_writes_them(
    builds: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["bench", "speed", "--against", str(builds[1]), "--deployment", "paper", "--out", str(tmp_path / "o")]
    code = app.run([*arguments, "--megapixels", "0.01", "--rounds", "1"])
    said = capsys.readouterr()
    assert code == 0, said.err
    assert "ratio" in said.out
    assert said.out == (tmp_path / "o" / "against.md").read_text() + "\n"
    assert json.loads((tmp_path / "o" / "against.json").read_text())["deployment"] == SHIPPED.joinpath("paper").name


def test_weights_that_a_build_cannot_read_are_one_line_with_its_reason(
    builds: tuple[Path, Path], tmp_path: Path
) -> None:
    other = fake_build(tmp_path / "older", 0, load="raise ValueError('not a deployment')")
    with pytest.raises(DeploymentError, match=r"older.core: this build cannot restore with .*not a deployment.*--depl"):
        compare_builds(other, tmp_path, megapixels=[0.01], threads=[1], rounds=1, package=builds[0] / "core" / "abair")


@pytest.mark.parametrize("made", ["bin/python", ""])
def test_an_environment_is_named_by_its_folder_or_its_python(tmp_path: Path, made: str) -> None:
    python = tmp_path / (made or "python3")
    python.parent.mkdir(exist_ok=True)
    python.touch(0o755)
    build = find_build(tmp_path if made else python)
    assert build == (str(python), None)


def test_a_folder_without_a_build_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeploymentError, match="found no build of ABAIR; expected a checkout"):
        find_build(tmp_path)


@pytest.mark.parametrize("option", ["--megapixels", "--threads"])
@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "many", "1,,2"])
def test_sizes_that_are_no_numbers_are_wrong_usage(option: str, value: str) -> None:
    assert app.run(["bench", "speed", option, value]) == 2


def test_a_fraction_of_a_thread_is_wrong_usage() -> None:
    assert app.run(["bench", "speed", "--threads", "1.5"]) == 2


def test_the_figures_of_a_measurement_are_all_needed() -> None:
    assert set(Measurement.model_fields) == {"start", "restore", "peak_bytes", "mean", "abair", "torch"}
