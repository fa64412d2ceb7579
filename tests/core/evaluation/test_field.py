"""The judgement on real photographs, by a restorer whose mistakes are known."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from abair.errors import ImageError
from abair.evaluation.field import FieldReport, choose_photos, judge
from abair.evaluation.reports.field import field_page, write_field


class Brightening:
    """Takes a photo for dark by its top left pixel alone, and then makes it brighter by 20 levels."""

    labels = ("haze", "low-light", "clean")
    deployment = SimpleNamespace(name="fake-1")

    def estimate(self, image: np.ndarray) -> dict[str, float]:
        dark = float(image[0, 0].mean() < 50)
        return {"haze": 0.0, "low-light": 0.9 * dark, "clean": 1 - 0.9 * dark}

    def judge(self, image: np.ndarray) -> tuple[dict[str, float], None, float]:
        return self.estimate(image), None, float(image[0, 0].mean() / 255)

    def __call__(self, image: np.ndarray, *, weights: dict[str, float] | None = None) -> Any:
        weights = self.estimate(image) if weights is None else weights
        part = 1 - weights.get("clean", 1 - sum(weights.values()))
        return SimpleNamespace(image=np.clip(image + 20.0 * part, 0, 255).round().astype(np.uint8))


def judged(folder: Path, limit: int | None = None) -> FieldReport:
    return judge(Brightening(), folder, choose_photos(folder, limit))  # type: ignore[arg-type]


def write(path: Path, *levels: int) -> None:
    """A photo of columns of these levels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.repeat(np.array(levels, np.uint8), 20)[None, :, None].repeat(30, 0).repeat(3, 2)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "damaged/night/a.png", 20, 20)
    write(tmp_path / "damaged/night/b.png", 120, 20)
    write(tmp_path / "damaged/old/c.png", 90, 90)
    write(tmp_path / "tricky/wall/d.png", 40, 40)
    write(tmp_path / "tricky/portrait/e.png", 200, 90)
    write(tmp_path / "bursts/room/1.png", 40, 40)
    write(tmp_path / "bursts/room/2.png", 60, 60)
    write(tmp_path / "mine.png", 49, 49)
    return tmp_path


def test_every_figure_is_that_of_known_mistakes(folder: Path) -> None:
    report = judged(folder)
    assert report.recognised() == (1, 2), "b's top left pixel is bright"
    assert report.kept() == (1, 2)
    assert report.unknown_auroc() == 0.5, "90 levels, against 20, 120, 40 and 200"
    assert report.largest_shift() == report.of("tricky")[1].shift == 18
    assert report.small_weight_shift() == 2
    assert report.burst_spreads() == {"room": 0.0}, "the darker frame came nearer to the other"
    flips = {name: round(8 * share) for name, share in report.flips().items()}
    # b is mirrored to a dark pixel; a quarter turn shows its right side first; 49 becomes 51
    assert flips == {"mirror": 1, "quarter turn": 1, "5 % crop": 0, "5 % exposure": 1}
    mine = report.of("")[0]
    assert (mine.file, mine.expected, mine.top) == ("mine.png", None, "low-light")


def test_damage_inside_a_border_is_compared_with_the_same_without_it(folder: Path) -> None:
    report = judged(folder)
    by_file = {photo.file: photo.in_borders for photo in report.photos}
    # a, of 20 levels, comes back at 38; inside a white border it is not taken for dark
    assert by_file["damaged/night/a.png"] == {
        9: pytest.approx(23.03, abs=0.01),
        64: 100.0,
        200: pytest.approx(23.03, abs=0.01),
    }
    assert by_file["damaged/night/b.png"] == {9: 100.0, 64: pytest.approx(23.03, abs=0.01), 200: 100.0}
    assert not any(found for file, found in by_file.items() if "night" not in file)
    mean, least = report.in_borders()[64]
    assert (mean, least) == (pytest.approx(61.5, abs=0.1), pytest.approx(23.03, abs=0.01))
    page = " ".join(field_page(report).split())
    assert "inside a border of 64 pixels: PSNR to the same without it, dB, mean and least | 61.5, 23.0 |" in page


def test_a_burst_that_comes_back_uneven_is_told(folder: Path) -> None:
    write(folder / "bursts/room/3.png", 51, 20)
    report = judged(folder)
    frames = {photo.file[-5]: photo for photo in report.of("bursts")}
    assert frames["1"].shift == 18
    assert frames["3"].shift == 0
    assert report.burst_spreads()["room"] == 0.0
    write(folder / "bursts/hall/1.png", 49, 49)
    write(folder / "bursts/hall/2.png", 51, 51)
    assert judged(folder).burst_spreads()["hall"] == pytest.approx(16 - 2, abs=0.1)


def test_the_page_names_kinds_and_the_worst(folder: Path) -> None:
    (folder / "tricky/wall/bad.png").write_text("no photo")
    report = judged(folder)
    assert len(report.problems) == 1
    page = " ".join(field_page(report).split())
    assert "largest weight right | 1 of 2 |" in page
    assert "damaged photos called clean | 2 of 3 |" in page
    assert "told from all other photos by `unknown`, AUROC | 0.50 |" in page
    assert "| damaged/old | 1 | - | clean 1 |" in page
    assert "| tricky/wall/d.png | low-light 0.90 | 18.0 |" in page
    assert "- left out: " in page
    paths = write_field(report, folder / "out")
    assert [path.name for path in paths] == ["field.json", "field.md"]
    assert type(report).model_validate_json(paths[0].read_text()) == report


def test_a_limit_is_of_each_folder_and_hidden_files_are_left_out(folder: Path) -> None:
    write(folder / "bursts/room/._1.png", 9, 9)
    report = judged(folder, limit=1)
    assert len(report.photos) == 6


def test_no_photos_are_an_error_that_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"found no photos, expected .*damaged/KIND"):
        judged(tmp_path)
    (tmp_path / "a.png").write_text("no photo")
    with pytest.raises(ImageError, match=r"no photo could be used; .*a\.png"):
        judged(tmp_path)
