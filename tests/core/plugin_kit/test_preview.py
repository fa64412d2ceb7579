"""`abair plugin preview`: clean photos, each beside degraded versions from mild to strong."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from tests.support.command import Abair

from abair import discovery
from abair.contract import Card, Degradation
from abair.data import synthesizers
from abair.plugin_kit import preview


def darken(clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Darker by a random amount: the simplest synthesiser that has a severity."""
    return clean * (1 - 0.9 * torch.rand((), generator=generator))


@pytest.fixture
def dusk(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """An installed plugin `dusk`, whose synthesiser is what stands under `degrade`."""
    card = Card(authors=("a",), licence="l", training_data="t")
    degradation = Degradation(name="dusk", title="Dusk", synthesizer="dusk:degrade", adapters=Path("none"), card=card)
    found = discovery.Found(degradation, "abair-dusk", "1.2")
    plugin: dict[str, Any] = {"degrade": darken, "found": found}
    plugins = discovery.Plugins(None, found={"dusk": found})  # type: ignore[arg-type]
    monkeypatch.setattr(discovery, "discover", lambda: plugins)
    monkeypatch.setattr(synthesizers, "load_synthesizer", lambda _: plugin["degrade"])
    return plugin


def photo(name: str, size: tuple[int, int] = (300, 200)) -> Path:
    pixels = np.random.default_rng(0).integers(60, 250, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(name)
    return Path(name)


def test_the_sheet_shows_each_photo_clean_and_damaged_from_mild_to_strong(abair: Abair, dusk: dict[str, Any]) -> None:
    photo("a.png")
    photo("b.png", (40, 90))
    done = abair("plugin", "preview", "dusk", "a.png", "b.png", "-o", "dusk.png", "--seeds", "4")
    assert (done.code, done.err) == (0, ["abair: written: dusk.png"])
    drawn = np.asarray(Image.open("dusk.png"))
    width, height = preview.CELL
    cells = [preview._MARGIN + column * (width + preview._GAP) for column in range(5)]
    for row, name in enumerate(("a.png", "b.png")):
        top = preview._HEAD + row * (height + preview._LABEL)
        shown = [drawn[top : top + height, left : left + width].astype(float) for left in cells]
        clean = np.asarray(ImageOps.fit(Image.open(name), preview.CELL))
        assert np.array_equal(shown[0], clean)  # pixel by pixel: a sheet that resamples would hide noise
        light = [float(cell.mean()) for cell in shown]
        assert light == sorted(light, reverse=True)
        assert light[1] > 0.9 * light[0]
        assert light[-1] < 0.25 * light[0]


def test_the_samples_shown_spread_evenly_over_the_range() -> None:
    pixels = np.zeros((1, 1, 3), np.float32)
    drawn = [10.0, 11.0, 11.5, 12.0, 19.0, 21.0, 30.0, 30.1]
    samples = [preview.Sample(seed, value, pixels) for seed, value in enumerate(drawn)]
    assert [sample.psnr for sample in preview.select_evenly(samples, 3)] == [30.1, 21.0, 10.0]
    assert sorted(sample.psnr for sample in preview.select_evenly(samples, 8)) == drawn


def test_quartiles_are_told_over_enough_samples_even_for_one_photo(dusk: dict[str, Any]) -> None:
    seeds = []

    def counted(clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        seeds.append(generator.initial_seed())
        return darken(clean, generator)

    preview.preview(dusk["found"], counted, {"a": np.full((9, 9, 3), 90, np.uint8)}, 2)
    assert sorted(seeds) == list(range(preview.FEWEST))


def test_a_preview_is_written_again_and_again_and_replaces_nothing_else(abair: Abair, dusk: dict[str, Any]) -> None:
    photo("a.png")
    for _ in range(2):
        assert abair("plugin", "preview", "dusk", "a.png", "--seeds", "2").err == ["abair: written: dusk.png"]
    photo("dusk.png")  # a photo that happens to have the name
    mine = Path("dusk.png").read_bytes()
    done = abair("plugin", "preview", "dusk", "a.png", "--seeds", "2")
    assert done.code == 1
    assert len(done.err) == 1
    assert "--overwrite" in done.err[0]
    assert Path("dusk.png").read_bytes() == mine
    assert abair("plugin", "preview", "dusk", "a.png", "--seeds", "2", "--overwrite").code == 0
    assert Image.open("dusk.png").width > 2 * preview.CELL[0]


def test_a_photo_that_cannot_be_read_is_one_line_and_the_others_are_shown(abair: Abair, dusk: dict[str, Any]) -> None:
    photo("a.png")
    Path("b.png").write_text("no photo")
    done = abair("plugin", "preview", "dusk", "b.png", "a.png", "missing.png", "--seeds", "2")
    assert done.code == 1
    assert [line.split(":")[1].strip() for line in done.err] == ["b.png", "missing.png", "written"]
    assert Path("dusk.png").is_file()


def test_no_sheet_is_written_when_no_photo_can_be_read(abair: Abair, dusk: dict[str, Any]) -> None:
    done = abair("plugin", "preview", "dusk", "missing.png")
    assert done.code == 1
    assert len(done.err) == 1
    assert not Path("dusk.png").exists()


def _raises(clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    raise ZeroDivisionError("no light")


def _exits(clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    sys.exit(3)


@pytest.mark.parametrize(
    ("degrade", "words"),
    [
        (_raises, "failed: ZeroDivisionError: no light"),
        (_exits, "failed: SystemExit: 3"),
        (lambda clean, generator: None, "returned NoneType"),
        (lambda clean, generator: clean[:1], "returned shape (1, 192, 256)"),
        (lambda clean, generator: clean * float("nan"), "expected finite values"),
    ],
)
def test_a_synthesiser_that_fails_is_one_line_that_names_it(
    abair: Abair, dusk: dict[str, Any], degrade: Any, words: str
) -> None:
    photo("a.png")
    dusk["degrade"] = degrade
    done = abair("plugin", "preview", "dusk", "a.png")
    assert done.code == 1
    (line,) = done.err
    assert "plugin dusk (distribution abair-dusk): dusk:degrade" in line
    assert words in line
    assert not Path("dusk.png").exists()


def test_a_plugin_that_is_not_installed_is_the_first_complaint(abair: Abair, dusk: dict[str, Any]) -> None:
    Path("hail.png").write_text("mine")
    done = abair("plugin", "preview", "hail")
    assert done.code == 1
    (line,) = done.err
    assert "hail" in line
    assert "dusk" in line
