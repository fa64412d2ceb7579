"""`abair bench quality` from its options to its files, with a restorer that is quick."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.core.cli.conftest import Judged

from abair.cli import app, loading
from abair.deployment import read_deployment
from abair.evaluation import benchmark
from abair.evaluation.datasets import find
from abair.evaluation.reports import markdown, write
from abair.locations import FACTORY


class FakeRestorer:
    """Takes away half of the darkness, or all of it where it is told that there is haze."""

    labels = ("haze", "noise", "clean")
    deployment = read_deployment(FACTORY)

    def __init__(self, deployment: str | None = None, device: str = "cpu", precision: str = "float32") -> None:
        self.precision = precision

    def estimate(self, image: np.ndarray) -> dict[str, float]:
        return self.judge(image).weights

    def judge(self, image: np.ndarray) -> Judged:
        return Judged({"haze": 0.6, "noise": 0.3, "clean": 0.1}, 0.9, 0.2)

    def __call__(
        self, image: np.ndarray, *, quality: str, policy: str = "soft", weights: dict[str, float] | None = None
    ) -> Any:
        return SimpleNamespace(image=image + np.float32(0.05 + 0.05 * (weights or {}).get("haze", 0.0)))


@pytest.fixture(autouse=True)
def _quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "load_restorer", FakeRestorer)
    monkeypatch.setattr(loading, "load_synthesizers", lambda reporter: {})


def _pairs(folder: str, *names: str) -> None:
    for half, value in {"clean": 100, "degraded": 75}.items():
        for name in names:
            path = Path(folder, half, f"{name}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((16, 16, 3), value, np.uint8)).save(path)


def _haze(data: str = "sets") -> None:
    for name in ("SOTS_indoor", "SOTS_outdoor", "Rain100L", "GoPro", "LOL_eval15"):
        _pairs(f"{data}/{name}", "1", "2")


def test_tables_and_page_are_written_and_what_is_missing_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _haze()
    for name in ("1", "2"):
        Path("sets/CBSD68").mkdir(exist_ok=True)
        Image.fromarray(np.full((16, 16, 3), 100, np.uint8)).save(f"sets/CBSD68/{name}.png")
    _pairs("sets/Hail", "a")
    code = app.run(["bench", "quality", "--data", "sets", "--limit", "1", "--out", "o", "--results", "docs/results.md"])
    said = capsys.readouterr()
    assert code == 0, said.err
    assert sorted(path.name for path in Path("o").iterdir()) == ["results.json", "table.md"]
    assert "test set HIDE is not measured" in said.err
    report = json.loads(Path("o/results.json").read_text())
    assert {found["count"] for found in report["sets"]} == {1}
    assert [table["key"] for table in report["tables"]] == [
        "five_tasks", "three_tasks", "unseen_sets", "unseen_degradations", "clean", "saved", "files"
    ]  # fmt: skip
    assert all(len(found["data_sha256"]) == len(found["weights_sha256"]) == 64 for found in report["sets"])
    rain = next(found for found in report["sets"] if found["key"] == "Rain100L")
    assert rain["mean_y"]["input"]["psnr"] > rain["mean"]["input"]["psnr"]
    assert said.out == Path("o/table.md").read_text() + "\n"
    page = Path("docs/results.md").read_text()
    assert "abair bench quality --data sets --results docs/results.md --limit 1 --out o\n" in page


@pytest.mark.slow
def test_with_three_of_the_five_tasks_the_radar_plot_is_drawn_for_the_folder_and_for_the_page(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _haze()
    monkeypatch.setattr(FakeRestorer, "labels", ("haze", "noise", "rain", "blur", "low-light", "clean"))
    asked = ["bench", "quality", "--data", "sets", "--sets", "five_tasks", "--out", "o", "--results", "docs/results.md"]
    assert app.run(asked) == 0
    assert Image.open("o/radar.png").size == Image.open("docs/results-radar.png").size
    assert "](results-radar.png)" in Path("docs/results.md").read_text()


def test_the_page_says_nothing_of_where_things_lie_on_this_machine(tmp_path: Path) -> None:
    _haze()
    _pairs("sets/Rain100L", "3")
    Path("sets/Rain100L/clean/3.png").unlink()
    data, page = tmp_path / "sets", tmp_path / "page.md"
    assert app.run(["bench", "quality", "--data", str(data), "--out", str(tmp_path / "o"), "--results", str(page)]) == 1
    text = page.read_text()
    assert str(tmp_path) not in text
    assert "abair bench quality --data path/to/sets --results path/to/page.md --out path/to/o\n" in text
    assert "left out: path/to/sets/Rain100L/degraded/3.png" in text


def test_the_page_says_in_which_precision_it_was_measured() -> None:
    _haze()
    for options, words in (([], False), (["--precision", "auto"], True)):
        assert app.run(["bench", "quality", "--data", "sets", "--results", "page.md", *options]) == 0
        text = Path("page.md").read_text()
        assert ("--precision auto" in text, "- precision auto\n" in text) == (words, words)


def test_sets_are_chosen_by_their_keys_and_an_unknown_one_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    _haze()
    assert app.run(["bench", "quality", "--data", "sets", "--sets", "GoPro, Rain100L"]) == 0
    assert [found["key"] for found in json.loads(Path("bench/results.json").read_text())["sets"]] == [
        "GoPro",
        "Rain100L",
    ]
    capsys.readouterr()
    assert app.run(["bench", "quality", "--data", "sets", "--sets", "GoPro,Rain", "--out", "new"]) == 1
    assert app.run(["bench", "quality", "--data", "sets", "--sets", "GoPro,", "--out", "new"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert "test set Rain: not known; expected some of CBSD68_s25" in said[0]
    assert "--sets" in said[1]
    assert not Path("new").exists()


def test_the_judgement_on_real_photographs_is_written_with_its_pictures(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def restore(_: FakeRestorer, image: np.ndarray, **__: object) -> Any:
        return SimpleNamespace(image=image // 2)

    monkeypatch.setattr(FakeRestorer, "__call__", restore)
    for name in ("damaged/haze/a.png", "tricky/wall/b.png", "tricky/wall/c.png"):
        Path("photos", name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((70, 90, 3), 100, np.uint8)).save(f"photos/{name}")
    assert app.run(["bench", "field", "--data", "photos", "--out", "o", "--limit", "1"]) == 0
    said = capsys.readouterr()
    assert sorted(path.name for path in Path("o").iterdir()) == ["field.html", "field.json", "field.md"]
    assert said.out == Path("o/field.md").read_text() + "\n"
    report = json.loads(Path("o/field.json").read_text())
    assert [(photo["file"], photo["expected"]) for photo in report["photos"]] == [
        ("damaged/haze/a.png", "haze"),
        ("tricky/wall/b.png", "clean"),
    ]
    assert "damaged/haze/a.png" in Path("o/field.html").read_text()
    assert app.run(["bench", "field", "--data", "none", "--out", "p"]) == 1
    assert "none: found no photos, expected" in capsys.readouterr().err
    assert not Path("p").exists()
    assert app.run(["bench", "field", "--data", "photos", "--out", "o/field.md"]) == 1
    assert "o/field.md: no folder can be made there (File exists); choose another --out" in capsys.readouterr().err


def test_test_sets_that_are_missing_are_named(
    abair: Callable[..., SimpleNamespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    report = SimpleNamespace(problems=("x.png: damaged",))
    monkeypatch.setattr(find, "find_sets", lambda *_, limit: find.FoundSets((), {"GoPro": f"found no pairs, {limit}"}))
    monkeypatch.setattr(benchmark, "evaluate", lambda *_, **__: report)
    monkeypatch.setattr(write, "write_results", lambda _, out: [out / "r"])
    monkeypatch.setattr(markdown, "overview", lambda _: "| table |")
    done = abair("bench", "quality", "--data", "sets", "--limit", "3")
    assert done.code == 1
    assert done.out[0] == "| table |"
    assert done.err[0] == "abair: warning: test set GoPro is not measured: found no pairs, 3"
    assert done.err[1] == "abair: x.png: damaged"
