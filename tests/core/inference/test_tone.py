"""A photo without colours gets none: black and white stays so, and a toned print keeps its tone."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from abair import Restorer
from abair.inference.tone import Tone

SEPIA = np.array([1.0, 0.86, 0.66])


def noisy_grey(photo: np.ndarray) -> np.ndarray:
    grey = photo.mean(axis=2) + np.random.default_rng(0).normal(0, 15, photo.shape[:2])
    return np.repeat(grey.clip(0, 255).round().astype(np.uint8)[..., None], 3, axis=2)


def toned(grey: np.ndarray, quality: int | None = None) -> np.ndarray:
    image = Image.fromarray((grey * SEPIA).round().astype(np.uint8))
    if quality is not None:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        image = Image.open(file)
    return np.asarray(image)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_black_and_white_stored_as_colours_comes_back_neutral(
    restorer: Restorer, photo: np.ndarray, dtype: type
) -> None:
    pixels = noisy_grey(photo)
    factor = {np.uint8: 1, np.uint16: 257, np.float32: 1 / 255}[dtype]
    given = (pixels.astype(float) * factor).astype(dtype)
    for options in ({"policy": "backbone"}, {"weights": {"noise": 1.0}}, {}):
        restored = restorer(given, **options).image.astype(np.float64) / factor
        assert np.ptp(restored, axis=2).max() <= 1
    assert not np.array_equal(restorer(given, policy="backbone").image, given)


@pytest.mark.parametrize("quality", [None, 90])
def test_a_toned_print_keeps_its_tone(photo: np.ndarray, quality: int | None) -> None:
    pixels = toned(noisy_grey(photo), quality)
    tone = Tone.find(pixels)
    assert tone is not None
    assert not tone.neutral
    restored = (pixels + np.random.default_rng(1).normal(0, 6, pixels.shape)).astype(np.float32) / 255
    brightness = restored.mean(axis=2, keepdims=True)
    tone.apply(restored)
    inside = (restored > 0.02).all(2) & (restored < 0.98).all(2)
    assert np.allclose(restored.mean(axis=2, keepdims=True)[inside], brightness[inside], atol=1e-3)
    assert np.percentile(np.abs(restored - brightness * SEPIA / SEPIA.mean())[inside], 99) * 255 < 5


def test_a_tone_that_may_be_haze_is_not_kept(photo: np.ndarray) -> None:
    pixels = toned(noisy_grey(photo))
    tone = Tone.find(pixels)
    assert tone is not None
    dehazed = (pixels * 0.7).astype(np.float32) / 255 + 0.001
    before = dehazed.copy()
    tone.apply(dehazed)
    assert np.array_equal(dehazed, before)


@pytest.mark.parametrize("part", [1.0, 0.1, 0.04])
def test_colours_are_told_from_none_in_the_dark_and_in_haze(photo: np.ndarray, part: float) -> None:
    dark = (photo * part).round().astype(np.uint8)
    hazy = (photo * part + 200 * (1 - part)).round().astype(np.uint8)
    assert Tone.find(dark) is None
    assert Tone.find(hazy) is None
    assert Tone.find(noisy_grey(photo)) is not None
    assert Tone.find((noisy_grey(photo) * part).round().astype(np.uint8)) is not None


@pytest.mark.parametrize("print_", [noisy_grey, lambda photo: toned(noisy_grey(photo))])
def test_a_spot_of_colour_is_enough(photo: np.ndarray, print_: Callable[[np.ndarray], np.ndarray]) -> None:
    pixels = print_(photo).copy()
    assert Tone.find(pixels) is not None
    pixels[20:30, 20:30] = (180, 30, 40)
    assert Tone.find(pixels) is None


PAPER = np.array([244, 232, 205])


def written(*inks: tuple[int, int, int], step: int = 12) -> np.ndarray:
    """A page of cream paper with thin strokes of ink, softened as a scanner does."""
    page = np.tile(PAPER.astype(np.float64), (240, 320, 1))
    for place in range(20, 220, step):
        ink = np.array(inks[place // step % len(inks)])
        page[place : place + 2, 30:290:3] = ink
        page[place + 2, 30:290:3] = (PAPER + ink) / 2
    return page.round().astype(np.uint8)


@pytest.mark.parametrize("ink", [(170, 40, 50), (40, 40, 130), (30, 30, 30), (40, 110, 60)])
def test_ink_on_tinted_paper_keeps_its_colour(ink: tuple[int, int, int]) -> None:
    page = written(ink)
    tone = Tone.find(page)
    result = page.copy()
    if tone is not None:
        tone.apply(result)
    strokes = (page == ink).all(axis=2)
    assert strokes.sum() > 1000
    assert np.abs(result[strokes].astype(int) - ink).max() <= 6


def test_two_inks_have_no_tone() -> None:
    assert Tone.find(written((170, 40, 50), (40, 40, 130))) is None


def test_one_colour_has_a_tone_and_is_left_as_it_is(restorer: Restorer) -> None:
    flat = np.full((40, 50, 3), (200, 120, 40), np.uint8)
    assert Tone.find(flat) is not None
    assert np.array_equal(restorer(flat, weights={"clean": 1}).image, flat)


def test_an_undamaged_toned_print_is_not_changed(restorer: Restorer, photo: np.ndarray) -> None:
    pixels = toned(noisy_grey(photo), 75)
    assert np.array_equal(restorer(pixels, weights={"clean": 1}).image, pixels)


def test_noise_of_many_colours_on_black_and_white_goes(photo: np.ndarray) -> None:
    grey = np.repeat(photo.mean(axis=2, keepdims=True), 3, axis=2)
    noisy = (grey + np.random.default_rng(0).normal(0, 1.5, photo.shape)).clip(0, 255).round().astype(np.uint8)
    tone = Tone.find(noisy)
    assert tone is not None
    result = noisy.astype(np.float32) / 255
    tone.apply(result)
    assert np.ptp(result, axis=2).mean() < 0.2 * np.ptp(noisy / 255, axis=2).mean()


@pytest.mark.parametrize("colours", [(1, 1, 1), tuple(SEPIA)])
def test_a_large_monochrome_photo_takes_no_copy_in_float32(restorer: Restorer, colours: tuple[float, ...]) -> None:
    ramp = np.linspace(40, 220, 400, dtype=np.float32)[None, :, None].repeat(6000, axis=0)
    pixels = np.rint(ramp * np.asarray(colours, np.float32)).astype(np.uint8)
    assert Tone.find(pixels) is not None
    tracemalloc.start()
    restored = restorer(pixels, policy="backbone").image
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert not np.array_equal(restored, pixels)
    assert peak < 3 * pixels.nbytes


@pytest.mark.parametrize("shift", [-0.4, 0.4])
def test_floats_beyond_black_and_white_are_no_error(photo: np.ndarray, shift: float) -> None:
    grey = np.repeat(photo[..., :1].astype(np.float32) / 255, 3, axis=2) + np.float32(shift)
    found = Tone.find(grey)
    assert found is not None
    assert found.neutral
