"""Files of more than 8 bits a channel that Pillow cannot decode keep them, by imagecodecs and tifffile."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from tests.support.image_files import exif_block, noise, profile, set_tag, smooth

from abair import images
from abair.errors import ImageError
from abair.images import further_formats
from abair.images.reader import open_photo


def deep(bits: int, channels: int = 3) -> np.ndarray:
    """A ramp over all values of so many bits, (40, 64, C) uint16."""
    ramp = np.linspace(0, 2**bits - 1, 40 * 64).astype(np.uint16).reshape(40, 64, 1)
    return np.concatenate([np.roll(ramp, channel, axis=0) for channel in range(channels)], axis=2)


def widened(samples: np.ndarray, bits: int) -> np.ndarray:
    return np.rint(samples * (65535 / (2**bits - 1)))


def refusal(path: Path) -> str:
    with pytest.raises(ImageError) as caught:
        images.read(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_12_bit_jpeg_keeps_them_and_what_it_says(tmp_path: Path) -> None:
    data = imagecodecs.jpeg_encode(deep(12), bitspersample=12, level=98)
    exif = exif_block(6)
    (tmp_path / "a.jpg").write_bytes(data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:])
    photo = images.read(tmp_path / "a.jpg")
    assert (photo.format, photo.warnings) == ("JPEG", ())
    assert photo.pixels.shape == (64, 40, 3)
    assert np.median(np.abs(photo.pixels - np.rot90(widened(deep(12), 12), -1))) < 40  # an 8-bit step is 257
    assert photo.exif is not None
    assert b"Maker" in photo.exif
    written = images.write(tmp_path / "b.tif", images.finish(photo, photo.pixels))
    assert (written.warnings, images.read(tmp_path / "b.tif").pixels.dtype) == ((), np.uint16)


def test_a_damaged_12_bit_jpeg_is_called_damaged(tmp_path: Path) -> None:
    data = imagecodecs.jpeg_encode(deep(12), bitspersample=12, level=98)
    (tmp_path / "a.jpg").write_bytes(data[:400])
    assert "damaged" in refusal(tmp_path / "a.jpg")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("tail", [b"", b"\xff"])
def test_a_12_bit_jpeg_may_lack_its_end_marker_and_no_pixel(tmp_path: Path, channels: int, tail: bytes) -> None:
    samples = deep(12, channels)
    data = imagecodecs.jpeg_encode(samples if channels == 3 else samples[..., 0], bitspersample=12, level=98)
    (tmp_path / "a.jpg").write_bytes(data)
    whole = images.read(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes(data.removesuffix(b"\xff\xd9") + tail)
    photo = images.read(tmp_path / "a.jpg")
    assert (whole.warnings, photo.warnings) == ((), ("its end marker is missing; its pixels are complete",))
    assert np.array_equal(photo.pixels, whole.pixels)
    for missing in (6, 20, 200):
        (tmp_path / "a.jpg").write_bytes(data[:-missing])
        assert "damaged" in refusal(tmp_path / "a.jpg")


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("bits", [10, 12, 16])
def test_a_deep_jpeg_2000_file_is_read_exactly(tmp_path: Path, bits: int, channels: int) -> None:
    samples = deep(bits, channels)
    (tmp_path / "a.jp2").write_bytes(imagecodecs.jpeg2k_encode(samples, level=0, bitspersample=bits, codecformat="jp2"))
    (tmp_path / "a.j2k").write_bytes(imagecodecs.jpeg2k_encode(samples, level=0, bitspersample=bits, codecformat="j2k"))
    for name in ("a.jp2", "a.j2k"):
        photo = images.read(tmp_path / name)
        assert photo.warnings == ()
        assert np.abs(photo.pixels - widened(samples[..., :3], bits)).max() <= 1, name


@pytest.mark.parametrize("bits", [10, 12])
def test_a_deep_avif_file_keeps_its_bits(tmp_path: Path, bits: int) -> None:
    (tmp_path / "a.avif").write_bytes(imagecodecs.avif_encode(deep(bits), level=100, bitspersample=bits))
    photo = images.read(tmp_path / "a.avif")
    assert photo.pixels.dtype == np.uint16
    assert np.abs(photo.pixels - widened(deep(bits), bits)).mean() < 100
    assert photo.warnings == ()


@pytest.mark.parametrize(("bits", "channels"), [(12, 3), (16, 1), (16, 2), (16, 3), (16, 4)])
def test_a_deep_jpeg_xl_file_is_read_exactly(tmp_path: Path, bits: int, channels: int) -> None:
    pytest.importorskip("pylibjxl", reason="its wheels are not for every platform")
    samples = deep(bits, channels)
    encoded = samples[..., 0] if channels == 1 else samples
    (tmp_path / "a.jxl").write_bytes(imagecodecs.jpegxl_encode(encoded, lossless=True, bitspersample=bits))
    photo = images.read(tmp_path / "a.jxl")
    colours = samples[..., :3] if channels > 2 else samples[..., :1].repeat(3, axis=2)
    assert np.abs(photo.pixels - widened(colours, bits)).max() <= 1
    assert (photo.alpha is not None, photo.grey, photo.warnings) == (channels in {2, 4}, channels < 3, ())


def test_without_imagecodecs_8_bits_come_with_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.avif").write_bytes(imagecodecs.avif_encode(deep(10), level=100, bitspersample=10))
    (tmp_path / "a.jpg").write_bytes(imagecodecs.jpeg_encode(deep(12), bitspersample=12))
    monkeypatch.setattr(further_formats, "has_imagecodecs", lambda: False)
    assert "a 12-bit JPEG, which needs imagecodecs; install it with: pip install 'abair[formats]'" in refusal(
        tmp_path / "a.jpg"
    )
    photo = images.read(tmp_path / "a.avif")
    assert photo.pixels.dtype == np.uint8
    assert photo.warnings == ("its 10 bits a channel cannot be read; going on with 8",)


def test_a_deep_jpeg_xl_file_keeps_what_it_says(tmp_path: Path) -> None:
    pytest.importorskip("pylibjxl", reason="its wheels are not for every platform")
    contents = bytes(4) + exif_block()[6:]  # behind the place where it begins
    exif = (len(contents) + 8).to_bytes(4, "big") + b"Exif" + contents
    whole = imagecodecs.jpegxl_encode(deep(16), lossless=True)
    place = whole.index(b"jxlc") - 4
    (tmp_path / "a.jxl").write_bytes(whole[:place] + exif + whole[place:])
    photo = images.read(tmp_path / "a.jxl")
    assert photo.pixels.dtype == np.uint16
    assert photo.exif is not None
    assert b"Maker" in photo.exif


def test_the_depth_of_an_avif_file_is_found_wherever_it_is_stated(tmp_path: Path) -> None:
    data = imagecodecs.avif_encode(deep(10), level=100, bitspersample=10)
    first = int.from_bytes(data[:4], "big")
    free = (70_000).to_bytes(4, "big") + b"free" + bytes(69_992)
    (tmp_path / "a.avif").write_bytes(data[:first] + free + data[first:])
    with contextlib.suppress(ImageError):  # places of pixels count from the start, so only the header is right
        assert images.read(tmp_path / "a.avif").warnings == ()
    with open_photo(tmp_path / "a.avif") as file:
        assert file._image.info["bits"] == 10  # type: ignore[union-attr]


def test_a_jpeg_2000_file_may_state_the_depth_of_each_channel(tmp_path: Path) -> None:
    data = imagecodecs.jpeg2k_encode(noise(40, 56), level=0, codecformat="jp2")
    place = data.index(b"ihdr")
    header = data.index(b"jp2h") - 4
    length = int.from_bytes(data[header : header + 4], "big")
    each = b"\0\0\0\x0bbpcc\7\7\7"
    changed = bytearray(data)
    changed[place + 14] = 255
    changed[header : header + 4] = (length + len(each)).to_bytes(4, "big")
    changed[place + 18 : place + 18] = each
    (tmp_path / "a.jp2").write_bytes(changed)
    assert np.array_equal(images.read(tmp_path / "a.jp2").pixels, noise(40, 56))


@pytest.mark.parametrize("photometric", ["separated", "cielab", "ycbcr"])
@pytest.mark.parametrize("compression", ["lerc", "png"])
def test_other_colours_are_not_taken_for_rgb(tmp_path: Path, photometric: str, compression: str) -> None:
    samples = noise(40, 56, 4 if photometric == "separated" else 3)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric=photometric, compression=compression)
    named = {"separated": "CMYK", "cielab": "CIE Lab", "ycbcr": "YCbCr"}[photometric]
    text = refusal(tmp_path / "a.tif")
    assert f"found a TIFF of 8-bit {named} samples with {compression.upper()} compression, expected grey or RGB" in text


@pytest.mark.parametrize("compression", ["jpeg2000", "jpegxl", "jpegxr", "lerc", "png", "webp"])
def test_a_strip_that_holds_more_than_its_page_is_refused_before_it_is_decoded(
    tmp_path: Path, compression: str
) -> None:
    samples = np.zeros((900, 1000, 3), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb", compression=compression, rowsperstrip=900)
    for tag in (256, 257, 278):  # width, height, rows a strip
        set_tag(tmp_path / "a.tif", tag, 16)
    assert "found a part of 1000 x 900 pixels, expected at most 16 x 16" in refusal(tmp_path / "a.tif")


def test_many_channels_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", np.zeros((20, 20, 100), np.float32), photometric="minisblack", planarconfig="contig"
    )
    assert "found 100 channels" in refusal(tmp_path / "a.tif")


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_planes_with_transparency_need_no_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: str | None
) -> None:
    samples = noise(40, 56, 4)
    tifffile.imwrite(
        tmp_path / "a.tif", samples.transpose(2, 0, 1), photometric="rgb", planarconfig="separate",
        extrasamples=["unassalpha"], compression=compression,
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "tifffile", None)
    photo = images.read(tmp_path / "a.tif")
    assert np.array_equal(photo.pixels, samples[..., :3])
    assert photo.alpha is not None
    assert np.array_equal(photo.alpha, samples[..., 3])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_floating_point_tiff_becomes_16_bits(tmp_path: Path, dtype: type, channels: int) -> None:
    samples, icc = (deep(16, channels) / 65535).astype(dtype), profile()
    options = {"extrasamples": ["unassalpha"]} if channels == 4 else {}
    tifffile.imwrite(
        tmp_path / "a.tif", samples if channels > 1 else samples[..., 0], compression="zlib",
        predictor=dtype != np.float16,
        photometric="rgb" if channels > 1 else "minisblack", iccprofile=icc, resolution=(300, 300),
        resolutionunit="INCH", **options,
    )  # fmt: skip
    photo = images.read(tmp_path / "a.tif")
    assert (photo.pixels.dtype, photo.grey, photo.alpha is not None) == (np.uint16, channels == 1, channels == 4)
    expected = samples[..., :3] if channels > 1 else samples.repeat(3, axis=2)
    assert np.abs(photo.pixels - expected.astype(np.float64) * 65535).max() <= 1
    assert (photo.icc_profile, photo.dpi, photo.warnings) == (icc, (300.0, 300.0), ())


@pytest.mark.parametrize(("low", "high"), [(-0.5, 1.0), (0.0, 1.5), (0.0, np.nan), (0.0, np.inf)])
def test_floats_outside_0_to_1_are_refused_and_named(tmp_path: Path, low: float, high: float) -> None:
    samples = np.full((20, 30, 3), low, np.float32)
    samples[0, 0] = high
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb")
    assert "found floating-point samples from" in refusal(tmp_path / "a.tif")


def test_a_floating_point_jpeg_xl_file_is_read_or_refused_alike(tmp_path: Path) -> None:
    pytest.importorskip("pylibjxl", reason="its wheels are not for every platform")
    samples = (deep(16) / 65535).astype(np.float32)
    (tmp_path / "a.jxl").write_bytes(imagecodecs.jpegxl_encode(samples, lossless=True))
    assert np.abs(images.read(tmp_path / "a.jxl").pixels - samples * 65535.0).max() <= 1
    (tmp_path / "a.jxl").write_bytes(imagecodecs.jpegxl_encode(samples * 3, lossless=True))
    assert "found floating-point samples from 0 to 3" in refusal(tmp_path / "a.jxl")


@pytest.mark.parametrize("compression", ["jpeg2000", "jpegxl", "jpegxr", "lerc", "png"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_compressions_that_pillow_lacks_are_read_exactly(tmp_path: Path, compression: str, dtype: type) -> None:
    samples = noise(40, 56, 3, dtype)
    options = {"compressionargs": {"lossless": True}} if compression == "jpegxl" else {}
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb", compression=compression, **options)
    photo = images.read(tmp_path / "a.tif")
    assert np.array_equal(photo.pixels, samples)
    assert images.probe(tmp_path / "a.tif") == (56, 40)


def test_planes_beside_the_colours_are_named(tmp_path: Path) -> None:
    samples = noise(40, 56, 4)
    tifffile.imwrite(
        tmp_path / "a.tif", samples.transpose(2, 0, 1), photometric="rgb", planarconfig="separate",
        extrasamples=["unspecified"], extratags=[(274, "H", 1, 6, True)],
    )  # fmt: skip
    photo = images.read(tmp_path / "a.tif")
    assert np.array_equal(photo.pixels, np.rot90(samples[..., :3], -1))
    assert photo.warnings == ("left out: a channel beside colours and transparency",)


def test_white_may_be_stored_as_0(tmp_path: Path) -> None:
    samples = noise(40, 56, 1)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="miniswhite", compression="png")
    assert np.array_equal(images.read(tmp_path / "a.tif").pixels[..., 0], 255 - samples)


@pytest.mark.parametrize("missing", ["tifffile", "imagecodecs"])
def test_what_has_to_be_installed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", smooth(), photometric="rgb", compression="jpeg2000")
    monkeypatch.setitem(sys.modules, missing, None)
    assert (
        "found a TIFF of 8-bit RGB samples with JPEG 2000 compression, but tifffile and imagecodecs are missing; "
        "install them with: pip install 'abair[formats]', or convert it to 8 or 16 bits with LZW compression"
    ) in refusal(tmp_path / "a.tif")


def test_a_truncated_deep_tiff_is_refused_in_one_line(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", noise(64, 64), photometric="rgb", compression="jpeg2000")
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(data[:-3000])
    assert "damaged" in refusal(tmp_path / "a.tif")
