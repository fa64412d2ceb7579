"""What the estimator looks at: turned photos alike, borders left out, different things once each."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest
import torch

from abair.model import views
from abair.model.backbone import SIZES
from abair.model.look import CROPS, context_view, look_at, to_standard_orientation

TINY, FIRST = SIZES["tiny"], SIZES["nano"]


def _photo(height: int = 300, width: int = 420, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _orientations(pixels: np.ndarray) -> Iterator[np.ndarray]:
    for quarter, mirrored in product(range(4), (False, True)):
        turned = np.rot90(pixels, quarter)
        yield turned[:, ::-1] if mirrored else turned


@pytest.mark.parametrize("shape", [(300, 420), (420, 300), (64, 64), (1, 9), (2, 1), (1, 1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_photo_looks_the_same_in_all_orientations(shape: tuple[int, int], dtype: type) -> None:
    photo = _photo(*shape)
    photo = (
        photo.astype(np.float32) / 255
        if dtype is np.float32
        else photo.astype(dtype) * (257 if dtype is np.uint16 else 1)
    )
    looks = [look_at(turned, TINY) for turned in _orientations(photo)]
    for look in looks:
        assert look.crops.shape == (CROPS, 3, 64, 64)
        assert torch.equal(look.crops, looks[0].crops)
        assert torch.equal(look.view, looks[0].view)


def test_the_first_releases_backbone_looks_at_photos_as_they_lie() -> None:
    for turned in _orientations(_photo()):
        look = look_at(turned, FIRST)
        assert torch.equal(look.crops, views.crops(turned))
        assert torch.equal(look.view, views.global_view(turned))
        assert torch.equal(context_view(turned, FIRST), look.view)


def test_the_light_comes_to_lie_to_the_right_and_below() -> None:
    rows, columns = np.mgrid[:40, :60]
    slope = np.repeat((2 * columns + rows)[..., None], 3, axis=2).astype(np.uint8)
    for turned in _orientations(slope):
        assert np.array_equal(to_standard_orientation(turned), slope)


def test_a_border_is_not_looked_at() -> None:
    photo = _photo(350, 560)
    framed = np.pad(photo, ((64, 9), (30, 200), (0, 0)), constant_values=255)
    assert torch.equal(context_view(framed, TINY), context_view(photo, TINY))
    for one, other in zip(look_at(framed, TINY), look_at(photo, TINY), strict=True):
        assert torch.equal(one, other)


def test_even_areas_are_looked_at_once() -> None:
    scene = np.full((700, 700, 3), 200, np.uint8)
    scene[:, 350:] = 90
    scene[500:640, 40:200] = _photo(140, 160)
    crops = look_at(scene, TINY).crops
    plain = [crop for crop in crops if float(crop.std(dim=(1, 2)).max()) == 0]
    assert sorted(round(float(crop.mean()) * 255) for crop in plain) == [90, 200]
    assert len(crops) - len(plain) == CROPS - 2


def test_a_wall_is_sixteen_times_the_same_crop() -> None:
    crops = look_at(np.full((300, 300, 3), 128, np.uint8), TINY).crops
    assert crops.shape == (CROPS, 3, 64, 64)
    assert float(crops.std()) == 0


@pytest.mark.parametrize("factor", [0.95, 1.05])
def test_a_little_more_or_less_light_shows_the_same_places(factor: float) -> None:
    photo = (_photo() * 0.9).astype(np.float32) / 255
    one, other = look_at(photo, TINY), look_at(photo * np.float32(factor), TINY)
    torch.testing.assert_close(other.crops, one.crops * factor)
