"""Three golden pictures: what the factory deployment makes of damaged photos.

After a change of the weights or of the blend that is meant:
`pytest tests/house/test_golden.py --update-golden`, then look at the pictures.

The tolerance is for the order of floating-point sums, which differs between processors and numbers
of threads: results then differ by about 1e-6, which moves a value that lies between two levels by
one level. Other weights, another blend or another rounding move many values, and further.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from abair import CLEAN, Restorer
from abair.data.sample_photos import sample_photos
from abair.data.synthesizers import load_synthesizer
from abair.discovery import discover
from abair.locations import FACTORY
from abair.metrics import psnr

GOLDEN = Path(__file__).parents[1] / "golden"
LARGEST = 2
"""Largest difference of a value, in levels of 8 bits."""
MEAN = 0.02
"""Largest mean difference, in levels of 8 bits."""
SIDE = 96
BYTES = 40_000

Pixels = NDArray[np.uint8]

# name of the golden picture: the photo, its first row and column, and the labels of the damage, in their order
CASES = {
    "noise": ("astronaut", 0, 160, ("noise",)),
    "low-light": ("coffee", 100, 180, ("low-light",)),
    "haze-and-noise": ("motorcycle", 60, 200, ("haze", "noise")),
}


@pytest.fixture(scope="module")
def restorer() -> Restorer:
    """With the weights that ship."""
    return Restorer.load(FACTORY)


@cache
def clean_photo(name: str) -> Pixels:
    photo, top, left, _ = CASES[name]
    return np.ascontiguousarray(sample_photos()[photo][top : top + SIDE, left : left + SIDE])


@cache
def damaged_photo(name: str) -> Pixels:
    """The clean photo after the plugins' synthesisers with fixed seeds, in 8 bits as from a file."""
    image = torch.from_numpy(clean_photo(name).astype(np.float32) / 255).permute(2, 0, 1).contiguous()
    for seed, label in enumerate(CASES[name][3]):
        image = load_synthesizer(discover().get(label))(image, torch.Generator().manual_seed(seed))
    levels: Pixels = image.mul(255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    return levels


def difference(one: Pixels, other: Pixels) -> tuple[int, float]:
    """The largest and the mean difference of values, in levels."""
    levels = np.abs(one.astype(int) - other.astype(int))
    return int(levels.max()), float(levels.mean())


def fits(one: Pixels, other: Pixels) -> bool:
    """Whether two pictures are equal within the tolerance."""
    largest, mean = difference(one, other)
    return largest <= LARGEST and mean <= MEAN


def golden_picture(name: str) -> Pixels:
    with Image.open(GOLDEN / f"{name}.png") as image:
        return np.asarray(image.convert("RGB"))


def test_there_are_three_small_golden_pictures(request: pytest.FixtureRequest, restorer: Restorer) -> None:
    if request.config.getoption("--update-golden"):
        GOLDEN.mkdir(exist_ok=True)
        for name in CASES:
            Image.fromarray(restorer(damaged_photo(name)).image).save(GOLDEN / f"{name}.png", optimize=True)
    found = sorted(GOLDEN.iterdir())
    assert [path.name for path in found] == sorted(f"{name}.png" for name in CASES)
    assert len(found) == 3
    assert all(path.stat().st_size < BYTES for path in found)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_factory_restores_what_it_restored_before(restorer: Restorer, name: str) -> None:
    restored = restorer(damaged_photo(name)).image
    largest, mean = difference(restored, golden_picture(name))
    assert largest <= LARGEST, f"{name}: differs by up to {largest} levels, {mean:.3f} on average"
    assert mean <= MEAN, f"{name}: differs by {mean:.3f} levels on average"


@pytest.mark.parametrize("name", CASES)
def test_a_golden_picture_is_nearer_to_the_clean_photo_than_the_damaged_one(name: str) -> None:
    clean, damaged, golden = (
        pixels.astype(np.float64) / 255 for pixels in (clean_photo(name), damaged_photo(name), golden_picture(name))
    )
    assert psnr(golden, clean) > psnr(damaged, clean) + 1


@pytest.mark.parametrize("name", CASES)
def test_a_small_change_of_the_blend_is_seen(restorer: Restorer, name: str) -> None:
    damaged, golden = damaged_photo(name), golden_picture(name)
    weights = restorer.estimate(damaged)
    assert fits(restorer(damaged, weights=weights).image, golden)
    strongest = max((label for label in weights if label != CLEAN), key=weights.__getitem__)
    assert not fits(restorer(damaged, weights={**weights, strongest: 0.97 * weights[strongest]}).image, golden)
    assert not fits(restorer(damaged, policy="backbone").image, golden)


@pytest.mark.parametrize("name", CASES)
def test_a_small_change_of_the_network_is_seen(name: str) -> None:
    restorer = Restorer.load(FACTORY)
    with torch.no_grad():
        restorer._blender.backbone.output.weight.mul_(1.02)
    assert not fits(restorer(damaged_photo(name)).image, golden_picture(name))


@pytest.mark.slow
def test_a_small_change_of_the_estimator_is_seen() -> None:
    restorer = Restorer.load(FACTORY)
    restorer._estimator.temperature.mul_(1.5)
    assert not all(fits(restorer(damaged_photo(name)).image, golden_picture(name)) for name in CASES)


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_the_number_of_threads_stays_within_the_tolerance(restorer: Restorer, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert fits(restorer(damaged_photo("noise")).image, golden_picture("noise"))
    finally:
        torch.set_num_threads(before)
