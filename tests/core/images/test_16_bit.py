"""16-bit PNG and TIFF are read and written bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.support.image_files import ORIENTATION, noise, png_16, same_again, save, smooth, tiff_16

from abair import images


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("interlaced", [False, True])
def test_16_bit_png_is_kept_bit_for_bit(tmp_path: Path, channels: int, interlaced: bool) -> None:
    samples = noise(37, 29, channels, np.uint16)
    source = png_16(tmp_path / "a.png", samples, interlaced=interlaced)
    written = same_again(source, tmp_path / "b.png")
    for photo in (images.read(source), written):
        assert photo.pixels.dtype == np.uint16
        assert photo.grey is (channels < 3)
        colours = samples[..., None] if channels == 1 else samples[..., :3] if channels > 2 else samples[..., :1]
        assert np.array_equal(photo.pixels, np.broadcast_to(colours, (37, 29, 3)))
        if channels in {2, 4}:
            assert photo.alpha is not None
            assert np.array_equal(photo.alpha, samples[..., -1])
        else:
            assert photo.alpha is None


def test_16_bit_png_written_in_strips_is_still_exact(tmp_path: Path) -> None:
    samples = noise(900, 500, 3, np.uint16)  # more than one strip, filters reach over their borders
    written = same_again(png_16(tmp_path / "a.png", samples), tmp_path / "b.png")
    assert np.array_equal(written.pixels, samples)
    again = same_again(tmp_path / "b.png", tmp_path / "c.tiff")
    assert np.array_equal(again.pixels, samples)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planar", [False, True])
def test_16_bit_colour_tiff_is_kept_bit_for_bit(tmp_path: Path, channels: int, order: str, planar: bool) -> None:
    samples = noise(37, 29, channels, np.uint16)
    source = tiff_16(tmp_path / "a.tif", samples, order=order, planar=planar)
    for photo in (images.read(source), same_again(source, tmp_path / "b.tif")):
        assert np.array_equal(photo.pixels, samples[..., :3])
        assert photo.pixels.dtype == np.uint16
        assert (photo.alpha is not None) == (channels == 4)
        if photo.alpha is not None:
            assert np.array_equal(photo.alpha, samples[..., 3])


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("predictor", [1, 2])
@pytest.mark.parametrize("tile", [0, 16])
def test_16_bits_of_a_compressed_tiff_are_read(
    tmp_path: Path, channels: int, order: str, planar: bool, predictor: int, tile: int
) -> None:
    samples = noise(37, 29, channels, np.uint16)
    path = tiff_16(tmp_path / "a.tif", samples, order=order, planar=planar, predictor=predictor, tile=tile)
    photo = images.read(path)
    assert photo.pixels.dtype == np.uint16
    assert np.array_equal(photo.pixels, samples[..., :3])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("predictor", [0, 2])
def test_16_bit_planes_are_turned_upright(tmp_path: Path, orientation: int, predictor: int) -> None:
    samples = noise(37, 29, 3, np.uint16)
    path = tiff_16(tmp_path / "a.tif", samples, planar=True, predictor=predictor, orientation=orientation)
    photo = images.read(path)
    eight = np.asarray(Image.fromarray((samples >> 8).astype(np.uint8)))
    turned = images.read(save(tmp_path / "b.tif", eight, tiffinfo={ORIENTATION: orientation}))
    assert photo.pixels.dtype == np.uint16
    assert np.array_equal(photo.pixels >> 8, turned.pixels)
    assert images.probe(path) == (photo.pixels.shape[1], photo.pixels.shape[0])


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_16_bit_grey_tiff_is_kept_bit_for_bit(tmp_path: Path, compression: str | None) -> None:
    samples = noise(37, 29, 1, np.uint16)
    source = save(tmp_path / "a.tif", samples, compression=compression)
    photo = same_again(source, tmp_path / "b.tif")
    assert photo.grey
    assert np.array_equal(photo.pixels[..., 2], samples)
    with Image.open(tmp_path / "b.tif") as written:  # a reader that is not ours agrees
        assert np.array_equal(np.asarray(written), samples)


def test_our_16_bit_tiff_is_read_by_another_library(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    samples = noise(37, 29, 3, np.uint16)
    same_again(png_16(tmp_path / "a.png", samples), tmp_path / "b.tif")
    assert np.array_equal(tifffile.imread(tmp_path / "b.tif"), samples)


def test_a_16_bit_colour_key_becomes_alpha(tmp_path: Path) -> None:
    samples = noise(9, 9, 3, np.uint16)
    photo = images.read(png_16(tmp_path / "a.png", samples, key=samples[4, 5].astype(">u2").tobytes()))
    assert photo.alpha is not None
    assert photo.alpha[4, 5] == 0
    assert (photo.alpha == 0).sum() == 1


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".bmp"])
def test_16_bits_are_rounded_to_8_with_a_warning_where_the_format_ends_there(tmp_path: Path, suffix: str) -> None:
    samples = np.maximum(smooth().astype(int) * 257 - 100, 0).astype(
        np.uint16
    )  # rounding up, cutting would be off by 1
    photo = same_again(png_16(tmp_path / "a.png", samples), tmp_path / f"b{suffix}")
    assert ["16 bit" in warning for warning in photo.warnings] == [True]
    assert photo.pixels.dtype == np.uint8
    assert np.abs(photo.pixels.astype(int) - smooth()).mean() < (1.0 if suffix == ".jpg" else 1e-9)
