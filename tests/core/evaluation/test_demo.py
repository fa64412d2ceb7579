"""The demo and its pictures, with a restorer that is quick."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from abair.errors import ImageError
from abair.evaluation.demo import FILES, LONGEST_SIDE, run_demo
from abair.evaluation.policies import ImageResult, Score
from abair.evaluation.reports.contact_sheet import (
    CELL,
    GAP,
    HEAD_WIDTH,
    MARGIN,
    Comparison,
    SheetRow,
    before_after,
    contact_sheet,
)

LABELS = ("noise", "blur", "clean")


class FakeRestorer:
    """Pulls a picture towards grey by the weight of `noise`."""

    labels, precision = LABELS, "float32"
    deployment = SimpleNamespace(name="fake-1", backbone=SimpleNamespace(size="nano", fingerprint="ab" * 32))

    def estimate(self, image: np.ndarray) -> dict[str, float]:
        return {"noise": 0.7, "blur": 0.3, "clean": 0.0}

    def __call__(
        self, image: np.ndarray, *, quality: str, policy: str = "soft", weights: Mapping[str, float] | None = None
    ) -> Any:
        part = np.float32(0.2 * (weights or {}).get("noise", 0.0))
        return SimpleNamespace(image=image * (1 - part) + np.float32(0.5) * part)


def _grainy(clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return (clean + 0.2 * torch.randn(clean.shape, generator=generator)).clamp(0, 1)


SYNTHESIZERS = {"noise": _grainy, "blur": _grainy, "snow": _grainy}


def _photos() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.integers(0, 256, (60, 500, 3), dtype=np.uint8) for name in ("a", "b")}


def _demo(out: Path, **options: Any) -> Any:
    options = {"photos": _photos()} | options
    return run_demo(FakeRestorer(), options.pop("synthesizers", SYNTHESIZERS), out, **options)  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_demo_measures_every_photo_under_every_degradation_and_the_mixtures(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    report = _demo(tmp_path / "new" / "demo", progress=lambda done, total, text: told.append((done, total)))
    assert [found.key for found in report.sets] == ["noise", "blur", "snow", "blur+noise"]
    assert all([image.name for image in found.images] == ["a", "b"] for found in report.sets)
    assert told[-1] == (8, 8)
    assert {"SW", "OH", "Oracle", "backbone", "input"} == set(report.sets[0].mean)
    assert "Oracle" not in report.sets[2].mean, "snow has no adapter"


@pytest.mark.slow
def test_the_demo_writes_its_pictures_and_tables(tmp_path: Path) -> None:
    report = _demo(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    with Image.open(tmp_path / "contact.png") as sheet:
        assert sheet.width > 5 * CELL[0]
        assert sheet.height > 4 * CELL[1]
    table = (tmp_path / "table.md").read_text()
    assert sum(line.split()[:2] in (["|", "a"], ["|", "b"]) for line in table.splitlines()) == 8
    assert json.loads((tmp_path / "results.json").read_text())["deployment"] == report.deployment


@pytest.mark.rare
@pytest.mark.exhaustive
@pytest.mark.slow
def test_the_same_seed_gives_the_same_damage_and_another_seed_another(tmp_path: Path) -> None:
    first, again, other = (_demo(tmp_path / str(i), seed=seed).sets for i, seed in enumerate((0, 0, 1)))
    assert first == again
    assert first[0].images[0].scores != other[0].images[0].scores


@pytest.mark.slow
def test_photos_are_reduced_to_a_side_that_is_quick(tmp_path: Path) -> None:
    seen: list[tuple[int, ...]] = []

    def synthesizer(clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        seen.append(tuple(clean.shape))
        return _grainy(clean, generator)

    _demo(tmp_path, synthesizers={"noise": synthesizer})
    assert seen == [(3, 46, LONGEST_SIDE)] * 2


def test_a_demo_of_nothing_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="install a plugin"):
        _demo(tmp_path, synthesizers={})
    with pytest.raises(ImageError, match="found no photos"):
        _demo(tmp_path, photos={})
    (tmp_path / "file").write_text("")
    with pytest.raises(ImageError, match=r"file: cannot be made .*--out"):
        _demo(tmp_path / "file")


def _row(labels: tuple[str, ...] = LABELS, side: tuple[int, int] = (300, 400), oracle: bool = True) -> SheetRow:
    grey = np.full((*side, 3), 0.5, np.float32)
    policies = ["input", "backbone", "OH", "SW", *(["Oracle"] if oracle else [])]
    scores: Any = {policy: Score(psnr=20.0, ssim=0.5) for policy in policies}
    weights = {label: 1 / len(labels) for label in labels}
    result = ImageResult(name="a", weights=weights, scores=scores)
    return SheetRow("noise", "a", grey, dict.fromkeys(scores, grey), result, ("noise",))


def _pixels(figure: Figure) -> np.ndarray:
    """What the figure's file would hold, (H, W, 3) uint8."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi="figure")
    return np.asarray(Image.open(buffer).convert("RGB"))


def test_a_sheet_has_one_row_of_cells_a_picture_whatever_the_pictures_sizes() -> None:
    one, two = (
        _pixels(contact_sheet([_row(side=side) for side in sides], LABELS))
        for sides in ([(300, 400)], [(7, 5), (999, 40)])
    )
    assert one.shape[1] == two.shape[1]
    assert two.shape[0] - one.shape[0] == CELL[1] + GAP


def test_a_sheet_takes_many_labels_long_names_and_rows_without_an_oracle() -> None:
    labels = (*(f"a-rather-long-degradation-{i}" for i in range(30)), "clean")
    figure = contact_sheet([_row(labels, oracle=False)], labels)
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    assert {"no adapter", "a-rathe…ation-0"} <= {text.get_text() for text in texts}
    assert all(text.get_window_extent(renderer).x0 >= 0 for text in texts)


def test_cells_are_cut_out_at_the_pictures_own_scale() -> None:
    row = _row()
    stripes = np.zeros((300, 400, 3), np.float32)
    stripes[:, ::2] = 1
    row.pictures["SW"][:] = stripes
    sheet = _pixels(contact_sheet([row], LABELS))
    x = MARGIN + HEAD_WIDTH + GAP + 3 * (CELL[0] + GAP)
    cell = sheet[60:120, x : x + CELL[0]]
    assert (cell[:, ::2] == cell[0, 0]).all()
    assert (cell[:, 1::2] == cell[0, 1]).all()
    assert {cell[0, 0, 0], cell[0, 1, 0]} == {0, 255}


def test_before_and_after_lie_on_their_sides_of_the_slant() -> None:
    black, white = np.zeros((300, 300, 3), np.float32), np.full((300, 300, 3), 0.75, np.float32)
    picture = _pixels(before_after([Comparison("noise", black, white)] * 5))
    assert picture[150, 30].tolist() == [0, 0, 0]
    assert picture[150, 270].tolist() == [191, 191, 191]
    assert picture.shape[1] == 4 * 300 + 3 * GAP
    assert picture.shape[0] > 600, "the fifth panel begins a second line"


def test_pictures_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="found no rows"):
        contact_sheet([], LABELS)
    with pytest.raises(ValueError, match="found no comparisons"):
        before_after([])
