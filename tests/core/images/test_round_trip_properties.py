"""Whatever is written without loss is read again bit for bit."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from abair import images
from abair.images import Photo

pytestmark = pytest.mark.slow

FORMATS = {".png": "PNG", ".tiff": "TIFF", ".webp": "WEBP", ".bmp": "BMP"}


@st.composite
def photos(draw: st.DrawFn, *, suffix: str) -> Photo:
    """Draw a photo that the format can hold without loss."""
    dtype = np.uint16 if suffix in {".png", ".tiff"} and draw(st.booleans()) else np.uint8
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    grey = suffix != ".webp" and draw(st.booleans())  # WebP has no grey
    samples = draw(arrays.arrays(dtype, (height, width, 1 if grey else 3)))
    alpha = draw(arrays.arrays(dtype, (height, width))) if suffix != ".bmp" and draw(st.booleans()) else None
    dpi = draw(st.none() | st.tuples(st.integers(2, 2400), st.integers(2, 2400))) if suffix != ".webp" else None
    return Photo(
        np.repeat(samples, 3, axis=2) if grey else samples,
        alpha,
        grey,
        FORMATS[suffix],
        exif=None,
        icc_profile=None,
        dpi=None if dpi is None else (float(dpi[0]), float(dpi[1])),
        lossless=True,
    )


@st.composite
def files(draw: st.DrawFn) -> tuple[str, Photo]:
    """Draw a suffix and a photo for it."""
    suffix = draw(st.sampled_from(sorted(FORMATS)))
    return suffix, draw(photos(suffix=suffix))


@given(files())
@settings(deadline=None, max_examples=150, derandomize=True)
def test_what_is_written_is_read_again_bit_for_bit(file: tuple[str, Photo]) -> None:
    suffix, photo = file
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        images.write(path, images.finish(photo, photo.pixels))
        again = images.read(path)
    assert again.format == photo.format
    assert again.pixels.dtype == photo.pixels.dtype
    assert np.array_equal(again.pixels, photo.pixels)
    if photo.alpha is None:
        assert again.alpha is None
    elif again.alpha is None:  # WebP drops a channel that is opaque everywhere
        assert suffix == ".webp"
        assert (photo.alpha == 255).all()
    else:
        assert again.alpha.dtype == photo.alpha.dtype
        assert np.array_equal(again.alpha, photo.alpha)
    # TIFF keeps no 16-bit grey with alpha
    kept_grey = not (suffix == ".tiff" and photo.alpha is not None and photo.pixels.dtype == np.uint16)
    assert again.grey == (photo.grey and kept_grey)
    assert again.lossless
    if photo.dpi is not None:
        assert again.dpi is not None
        # PNG and BMP state whole pixels per metre
        assert np.allclose(again.dpi, photo.dpi, atol=0.02, rtol=0)


@given(files())
@settings(deadline=None, max_examples=40, derandomize=True)
def test_a_second_round_trip_writes_the_same_bytes(file: tuple[str, Photo]) -> None:
    suffix, photo = file
    with tempfile.TemporaryDirectory() as folder:
        first, second = Path(folder) / f"a{suffix}", Path(folder) / f"b{suffix}"
        images.write(first, images.finish(photo, photo.pixels))
        again = images.read(first)
        images.write(second, images.finish(again, again.pixels))
        third = images.read(second)
        assert np.array_equal(third.pixels, again.pixels)
        images.write(first, images.finish(third, third.pixels), overwrite=True)
        assert first.read_bytes() == second.read_bytes()
