"""Haze and darkness are taken away smoothly: what follows the photo stays, bars in an even sky go."""

from __future__ import annotations

import numpy as np
import pytest

from abair import Restorer, inference
from abair.inference.guided_filter import filter_change, part_to_filter

CHANGE = np.array([1.7, 1.6, 1.4])
SHIFT = np.array([-90, -80, -50])


def _hazy(photo: np.ndarray, dtype: type = np.uint8) -> np.ndarray:
    """A photo under a sky: the lower half is the photo, hazed, and the upper one nearly even."""
    sky = 190 + np.linspace(0, 12, photo.shape[1])[None, :, None] * np.ones((len(photo), 1, 3))
    scene = np.concatenate([sky, 60 + photo * 0.5])
    return _as(scene, dtype)


def _as(values: np.ndarray, dtype: type) -> np.ndarray:
    if dtype is np.float32:
        return (values / 255).astype(np.float32)
    factor = 257 if dtype is np.uint16 else 1
    scaled: np.ndarray = np.rint(values.clip(0, 255) * factor).astype(dtype)
    return scaled


def _levels(pixels: np.ndarray) -> np.ndarray:
    factor = {"uint8": 1, "uint16": 1 / 257, "float32": 255}[pixels.dtype.name]
    return pixels.astype(np.float64) * factor


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_bars_in_a_sky_go_and_what_scales_the_photo_stays(photo: np.ndarray, dtype: type) -> None:
    hazy = _hazy(photo, dtype)
    scaled = (_levels(hazy) * CHANGE + SHIFT).clip(0, 255)
    bars = 12 * np.sin(np.arange(hazy.shape[1]) * 2 * np.pi / 40)[None, :, None]
    sky = slice(0, len(photo) - 40)
    filtered, with_bars = _as(scaled, dtype), _as(scaled + bars, dtype)
    for result in (filtered, with_bars):
        filter_change(result, hazy, 1.0)
    assert np.abs(_levels(filtered) - scaled).max() < 2
    left = np.std(_levels(with_bars)[sky] - scaled[sky])
    assert left < np.std(bars) / 4
    again = _as(scaled + bars, dtype)
    filter_change(again, hazy, 0.5)
    half = np.std(_levels(again)[sky] - scaled[sky])
    assert half == pytest.approx((np.std(bars) + left) / 2, rel=0.1)


def test_what_the_photo_itself_shows_there_is_left_to_the_network(photo: np.ndarray) -> None:
    noisy = np.random.default_rng(0).integers(0, 256, (128, 192, 3), dtype=np.uint8)
    restored = np.random.default_rng(1).integers(90, 110, noisy.shape, dtype=np.uint8)
    result = restored.copy()
    filter_change(result, noisy, 1.0)
    assert np.abs(result.astype(int) - restored).mean() < 2


def test_only_smooth_damage_is_filtered(photo: np.ndarray) -> None:
    hazy = _hazy(photo)
    result = np.random.default_rng(0).integers(0, 256, hazy.shape, dtype=np.uint8)
    before = result.copy()
    filter_change(result, hazy, 0.0)
    assert np.array_equal(result, before)
    assert part_to_filter({"haze": 0.2, "low-light": 0.2, "noise": 0.4, "clean": 0.2}) == pytest.approx(0.75)
    assert part_to_filter({"haze": 0.01, "clean": 0.99}) == pytest.approx(1)
    for weights in ({"rain": 0.4, "snow": 0.4, "clean": 0.2}, {"noise": 1.0, "clean": 0.0}, {"clean": 1.0}):
        assert part_to_filter(weights) == 0


@pytest.mark.parametrize("shape", [(1, 1), (3, 700), (700, 2), (65, 67), (1100, 130)])
def test_no_size_is_too_small_and_no_row_is_left_out(shape: tuple[int, int]) -> None:
    even = np.full((*shape, 3), 150, np.uint8)
    result = np.full_like(even, 90)
    filter_change(result, even, 1.0)
    assert np.array_equal(result, np.full_like(even, 90))


def test_a_photo_is_filtered_as_its_mirror_image_is(photo: np.ndarray) -> None:
    tall = np.concatenate([_hazy(photo)] * 5)[:1500]
    result = np.random.default_rng(0).integers(90, 140, tall.shape, dtype=np.uint8)
    mirrored = np.ascontiguousarray(result[::-1])
    filter_change(result, tall, 1.0)
    filter_change(mirrored, np.ascontiguousarray(tall[::-1]), 1.0)
    assert np.abs(result.astype(int) - mirrored[::-1]).max() <= 1


def test_the_restorer_filters_what_is_restored_as_haze(photo: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    hazy, factory = _hazy(photo), Restorer.load("factory")
    used = {label: factory(hazy, weights={label: 1}).image for label in ("haze", "noise")}
    monkeypatch.setattr(inference.restorer, "filter_change", lambda *_: None)
    network = {label: factory(hazy, weights={label: 1}).image for label in used}
    assert np.array_equal(used["noise"], network["noise"])
    assert not np.array_equal(used["haze"], network["haze"])
    filter_change(network["haze"], hazy, 1.0)
    assert np.array_equal(used["haze"], network["haze"])
