"""Borders of one colour: found on all sides, within each other, and told from the picture itself."""

from __future__ import annotations

import numpy as np
import pytest

from abair.model.borders import find_content, without_borders


def _photo(height: int = 300, width: int = 420, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _frame(photo: np.ndarray, sides: tuple[int, int, int, int], colour: int) -> np.ndarray:
    top, bottom, left, right = sides
    return np.pad(photo, ((top, bottom), (left, right), (0, 0)), constant_values=colour)


@pytest.mark.parametrize("visible", [False, True])
@pytest.mark.parametrize("colour", [0, 255, 119])
@pytest.mark.parametrize("sides", [(64, 64, 64, 64), (200, 100, 0, 0), (0, 0, 1, 300), (900, 900, 1500, 1500)])
def test_a_border_is_no_part_of_the_photo(sides: tuple[int, int, int, int], colour: int, visible: bool) -> None:
    photo = _photo(350, 560)
    framed = _frame(photo, sides, colour)
    assert np.array_equal(framed[find_content(framed, visible=visible)], photo)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_borders_lie_within_each_other_in_any_depth(dtype: type) -> None:
    photo = _photo()
    framed = _frame(_frame(_frame(photo, (30, 30, 30, 30), 250), (2, 2, 2, 2), 0), (9, 0, 9, 0), 255)
    framed = _frame(framed, (0, 9, 0, 9), 255)
    if dtype is np.float32:
        framed = framed.astype(np.float32) / 255
    elif dtype is np.uint16:
        framed = framed.astype(np.uint16) * 257
    assert framed[find_content(framed, visible=True)].shape == photo.shape


def test_even_areas_of_the_picture_itself_stay() -> None:
    photo = _photo()
    sky, sea = photo.copy(), photo.copy()
    sky[:120] = 230
    sea[:60], sea[-60:] = 230, 40
    page = np.full((200, 200, 3), 255, np.uint8)
    stars = np.zeros((200, 200, 3), np.uint8)
    stars[100, 100] = 255
    for picture in (sky, sea, page, stars, photo[:1], photo[:, :1]):
        assert without_borders(picture).shape == picture.shape


def test_what_becomes_the_photo_little_by_little_does_not_end_visibly() -> None:
    dark = _photo() // 16
    fade = np.minimum(1, np.concatenate([np.arange(150), np.arange(150)[::-1]]) / 60)
    night = np.rint(dark * np.maximum(0, fade - 0.3)[:, None, None]).astype(np.uint8)
    assert without_borders(night).shape[0] < len(night)
    assert night[find_content(night, visible=True)].shape == night.shape
    framed = _frame(dark, (40, 40, 40, 40), 0)
    assert np.array_equal(framed[find_content(framed, visible=True)], dark)


def test_an_uneven_border_has_to_end_farther_from_its_colour() -> None:
    scanned = _frame(np.full((100, 100, 3), 242, np.uint8), (20, 20, 0, 0), 250)
    assert find_content(scanned, visible=True).rows == slice(20, 120)
    scanned[:20:2, ::3] -= 4
    assert find_content(scanned, visible=True).rows == slice(0, 140)


@pytest.mark.parametrize("colour", [8, 128, 250])
@pytest.mark.parametrize("sigma", [1, 2])
def test_a_scanned_border_has_grain(colour: int, sigma: int) -> None:
    photo = _photo()
    framed = _frame(photo, (70, 40, 60, 70), colour)
    grain = np.rint(np.random.default_rng(1).normal(0, sigma, framed.shape))
    grain[70:-40, 60:-70] = 0
    scanned = (framed + grain).clip(0, 255).astype(np.uint8)
    assert np.array_equal(scanned[find_content(scanned, visible=True)], photo)
    dust = scanned.copy()
    dust[30, 200] = 128 if colour != 128 else 255
    assert find_content(dust).rows.start == 30, "what lies in a border is content"
    sloped = _frame(photo, (70, 40, 60, 70), colour).astype(np.float64)
    sloped[:70] += np.linspace(0, 5, 70)[:, None, None] * (1 if colour < 200 else -1)
    assert find_content(sloped.astype(np.uint8)).rows.start == 70
