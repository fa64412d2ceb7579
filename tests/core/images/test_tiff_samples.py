"""Intact TIFFs that Pillow cannot open are read by tifffile in full depth, or named; none is called damaged."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from tests.support.image_files import Tags, exif_block, noise, profile, same_again, smooth, tiff

from abair import images
from abair.errors import ImageError


def deep(bits: int, channels: int) -> np.ndarray:
    """Noise of so many bits, (40, 56, C)."""
    return noise(40, 56, channels, np.uint16).reshape(40, 56, channels) >> (16 - bits)


def widened(samples: np.ndarray, bits: int) -> np.ndarray:
    full = 65535 if bits > 8 else 255
    wide = np.rint(samples * (full / (2**bits - 1)))
    return wide if wide.shape[2] > 2 else wide[..., :1].repeat(3, axis=2)


def refusal(path: Path) -> str:
    with pytest.raises(ImageError) as caught:
        images.read(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("compress", [bytes, zlib.compress])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("bits", [2, 4, 6, 9, 10, 11, 12, 13, 14, 15])
def test_other_depths_than_8_and_16_bits_get_their_full_range(
    tmp_path: Path, bits: int, channels: int, order: str, compress: Callable[[bytes], bytes]
) -> None:
    samples = deep(bits, channels)
    digits = samples[..., None] >> np.arange(bits - 1, -1, -1) & 1
    packed = np.packbits(digits.reshape(40, -1).astype(bool), axis=1).tobytes()
    tags: Tags = {256: [56], 257: [40], 258: [bits] * channels, 259: [1 if compress is bytes else 8]}
    tags |= {262: [2 if channels > 1 else 1], 277: [channels], 278: [40]} | ({338: [2]} if channels == 4 else {})
    photo = images.read(tiff(tmp_path / "a.tif", (tags, [compress(packed)]), order=order))
    assert np.abs(photo.pixels - widened(samples[..., :3], bits)).max() <= 1
    assert (photo.pixels.dtype, photo.warnings) == (np.uint16 if bits > 8 else np.uint8, ())
    assert (photo.grey, photo.alpha is not None) == (channels == 1, channels == 4)


@pytest.mark.parametrize("channels", [3, 4])
def test_webp_in_a_tiff_is_read_exactly_and_counts_as_lossy(tmp_path: Path, channels: int) -> None:
    samples = noise(40, 56, channels)
    tifffile.imwrite(
        tmp_path / "a.tif", samples, photometric="rgb", compression="webp", compressionargs={"lossless": True},
        extrasamples=["unassalpha"] * (channels - 3),
    )  # fmt: skip
    photo = images.read(tmp_path / "a.tif")
    assert np.array_equal(photo.pixels, samples[..., :3])
    assert photo.alpha is None if channels == 3 else np.array_equal(photo.alpha, samples[..., 3])
    assert not photo.lossless


@pytest.mark.parametrize("photometric", ["rgb", "minisblack"])
def test_12_bit_jpeg_in_a_tiff_keeps_its_bits(tmp_path: Path, photometric: str) -> None:
    ramp = np.linspace(0, 4095, 40 * 56).astype(np.uint16).reshape(40, 56)
    stored = np.stack([ramp] * 3, axis=2) if photometric == "rgb" else ramp
    tifffile.imwrite(
        tmp_path / "a.tif", stored, photometric=photometric, compression="jpeg", bitspersample=12,
        compressionargs={"level": 98},
    )  # fmt: skip
    photo = images.read(tmp_path / "a.tif")
    assert np.median(np.abs(photo.pixels - widened(np.stack([ramp] * 3, axis=2), 12))) < 40  # an 8-bit step is 257


def test_12_bit_jpeg_in_a_tiff_has_an_end(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", deep(12, 3), photometric="rgb", compression="jpeg", bitspersample=12)
    data = (tmp_path / "a.tif").read_bytes()
    end = data.rindex(b"\xff\xd9")
    (tmp_path / "a.tif").write_bytes(data[:end] + bytes(2) + data[end + 2 :])
    assert "truncated" in refusal(tmp_path / "a.tif")


def test_a_part_of_12_bit_jpeg_that_holds_more_than_its_page_is_refused(tmp_path: Path) -> None:
    strip = imagecodecs.jpeg_encode(np.zeros((900, 1000), np.uint16), bitspersample=12)
    tags: Tags = {256: [16], 257: [16], 258: [12], 259: [7], 262: [0], 277: [1], 278: [16]}
    assert "found a part of 1000 x 900 pixels" in refusal(tiff(tmp_path / "a.tif", (tags, [strip])))


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "zstd", "packbits"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_big_endian_bigtiff_is_read(tmp_path: Path, compression: str | None, dtype: type) -> None:
    samples = noise(40, 56, 3, dtype)
    tifffile.imwrite(
        tmp_path / "a.tif", samples, photometric="rgb", bigtiff=True, byteorder=">", compression=compression
    )
    photo = images.read(tmp_path / "a.tif")
    assert np.array_equal(photo.pixels, samples)
    assert (photo.pixels.dtype, photo.warnings) == (dtype, ())
    assert images.probe(tmp_path / "a.tif") == (56, 40)


def test_black_and_white_in_a_big_endian_bigtiff_is_grey(tmp_path: Path) -> None:
    samples = noise(40, 56, 1) > 127
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="miniswhite", bigtiff=True, byteorder=">")
    assert np.array_equal(images.read(tmp_path / "a.tif").pixels[..., 0], np.where(samples, 0, 255))


def test_a_big_endian_bigtiff_keeps_what_it_says(tmp_path: Path) -> None:
    samples, icc, xmp = noise(40, 56, 3, np.uint16), profile(), b"<x:xmpmeta/>"
    tifffile.imwrite(
        tmp_path / "a.tif", samples, photometric="rgb", bigtiff=True, byteorder=">", metadata=None, iccprofile=icc,
        resolution=(300, 300), resolutionunit="INCH",
        extratags=[
            (274, 3, 1, 6, True), (315, 2, 0, "J\u00fcrgen".encode(), True), (700, 1, len(xmp), xmp, True),
            (34735, 3, 4, (1, 1, 0, 0), True), (34664, 16, 1, 0, True),  # becomes the EXIF directory
        ],
    )  # fmt: skip
    data = bytearray((tmp_path / "a.tif").read_bytes())
    entry = data.index((34664).to_bytes(2, "big") + (16).to_bytes(2, "big"))
    data[entry + 1] += 1
    data[entry + 12 : entry + 20] = len(data).to_bytes(8, "big")
    date = b"2020:01:02 03:04:05\0"
    nested = (1).to_bytes(8, "big") + bytes((0x90, 0x03, 0, 2)) + len(date).to_bytes(8, "big")
    data += nested + (len(data) + 36).to_bytes(8, "big") + bytes(8) + date
    (tmp_path / "a.tif").write_bytes(data)
    photo = images.read(tmp_path / "a.tif")
    assert np.array_equal(photo.pixels, np.rot90(samples, -1))
    assert images.probe(tmp_path / "a.tif") == (40, 56)
    assert (photo.icc_profile, photo.dpi, photo.annotations.xmp) == (icc, (300.0, 300.0), xmp)
    assert photo.exif is not None
    assert "J\u00fcrgen".encode() in photo.exif
    assert date in photo.exif
    assert photo.warnings == ("left out of its tags: GeoTIFF",)
    assert same_again(tmp_path / "a.tif", tmp_path / "b.tif").dpi == (300.0, 300.0)


def test_pages_of_a_big_endian_bigtiff_are_told_apart(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif", bigtiff=True, byteorder=">") as file:
        file.write(smooth(16, 12), photometric="rgb", subfiletype=1)
        file.write(smooth(), photometric="rgb")
    assert np.array_equal(images.read(tmp_path / "a.tif").pixels, smooth())
    with tifffile.TiffWriter(tmp_path / "b.tif", bigtiff=True, byteorder=">") as file:
        for _ in range(2):
            file.write(smooth(), photometric="rgb")
    assert "a TIFF of 2 pages" in refusal(tmp_path / "b.tif")


@pytest.mark.parametrize("compression", [None, "lzw"])
@pytest.mark.parametrize(("dtype", "extra"), [(np.uint8, 2), (np.uint16, 2), (np.uint8, 0), (np.uint16, 0)])
def test_grey_in_planes_with_transparency_or_more(
    tmp_path: Path, dtype: type, extra: int, compression: str | None
) -> None:
    samples = noise(40, 56, 2, dtype)
    tifffile.imwrite(
        tmp_path / "a.tif", samples.transpose(2, 0, 1), photometric="minisblack", planarconfig="separate",
        extrasamples=[extra], compression=compression,
    )  # fmt: skip
    photo = images.read(tmp_path / "a.tif")
    assert np.array_equal(photo.pixels[..., 0], samples[..., 0])
    assert photo.alpha is None if extra == 0 else np.array_equal(photo.alpha, samples[..., 1])
    assert photo.warnings == (() if extra else ("left out: a channel beside colours and transparency",))


@pytest.mark.parametrize(
    ("dtype", "options", "named"),
    [
        (np.uint16, {"photometric": "cielab"}, "16-bit CIE Lab samples with no compression"),
        (np.uint16, {"photometric": "ycbcr", "compression": "lzw"}, "16-bit YCbCr samples with LZW compression"),
        (np.int32, {"photometric": "rgb", "compression": "zlib"}, "signed 32-bit RGB samples with deflate compression"),
        (np.uint32, {"photometric": "rgb"}, "32-bit RGB samples with no compression"),
        (np.uint64, {"photometric": "rgb"}, "64-bit RGB samples with no compression"),
        (np.complex64, {"photometric": "minisblack"}, "complex 64-bit grey samples with no compression"),
        (np.int64, {"photometric": "minisblack"}, "signed 64-bit grey samples with no compression"),
        (
            np.uint8,
            {"photometric": "cielab", "bigtiff": True, "byteorder": ">"},
            "8-bit CIE Lab samples with no compression",
        ),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, dtype: type, options: dict[str, object], named: str) -> None:
    samples = noise(40, 56, 3 if options["photometric"] != "minisblack" else 1).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", samples, **options)
    text = refusal(tmp_path / "a.tif")
    assert f"found a TIFF of {named}, expected " in text
    assert "of 8 or 16 bits" in text
    assert "convert it to that first" in text
    assert "damaged" not in text


@pytest.mark.parametrize(
    "options",
    [
        {"bitspersample": 10}, {"compression": "webp"}, {"compression": "jpegxr"},
        {"bigtiff": True, "byteorder": ">", "compression": "lzw"}, {"bigtiff": True, "byteorder": ">"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("missing", [10, 400, 3000])
def test_a_truncated_file_is_called_damaged(tmp_path: Path, options: dict[str, object], missing: int) -> None:
    samples = deep(10, 3) if "bitspersample" in options else noise(40, 56)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb", **options)
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(data[:-missing])
    assert "damaged" in refusal(tmp_path / "a.tif")


def test_jxrlib_says_nothing_itself(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", noise(40, 56), photometric="rgb", compression="jpegxr")
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(data.replace(b"\x82\xbc\x0b\0", b"\x99\xbc\x0b\0"))  # a resolution's tag
    images.read(tmp_path / "a.tif")
    assert capfd.readouterr() == ("", "")


def test_exif_of_a_file_that_pillow_cannot_decode_is_kept(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", deep(10, 3), photometric="rgb", bitspersample=10, datetime=True)
    again = same_again(tmp_path / "a.tif", tmp_path / "b.tif")
    assert again.exif is not None
    assert again.exif != exif_block()


@pytest.mark.parametrize("compression", ["lzw", "zlib", "zstd", "packbits", "lzma"])
@pytest.mark.parametrize("options", [{"bigtiff": True}, {"bigtiff": True, "predictor": True}, {"tile": (16, 32)}])
@pytest.mark.parametrize("extra", [[], ["unassalpha"], ["assocalpha"]])
def test_compressed_planes_keep_16_bits(
    tmp_path: Path, compression: str, options: dict[str, object], extra: list[str]
) -> None:
    samples = noise(40, 56, 3 + len(extra), np.uint16)
    options = options if compression != "packbits" else {**options, "predictor": None}
    tifffile.imwrite(
        tmp_path / "a.tif", samples.transpose(2, 0, 1), photometric="rgb", planarconfig="separate",
        extrasamples=extra, compression=compression, extratags=[(274, "H", 1, 6, True)], **options,
    )  # fmt: skip
    photo = images.read(tmp_path / "a.tif")
    assert (photo.pixels.dtype, photo.warnings) == (np.uint16, ())
    upright = np.rot90(samples, -1)
    assert photo.alpha is None if not extra else np.array_equal(photo.alpha, upright[..., 3])
    if extra == ["assocalpha"]:
        straight = np.minimum(upright[..., :3] * (65535 / np.maximum(upright[..., 3:], 1)), 65535)
        assert np.abs(photo.pixels - straight).max() <= 1
    else:
        assert np.array_equal(photo.pixels, upright[..., :3])


def test_without_tifffile_compressed_planes_of_a_bigtiff_have_8_bits_and_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = noise(40, 56, 3, np.uint16)
    tifffile.imwrite(
        tmp_path / "a.tif", samples.transpose(2, 0, 1), photometric="rgb", planarconfig="separate", compression="lzw",
        bigtiff=True,
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "tifffile", None)
    photo = images.read(tmp_path / "a.tif")
    assert photo.pixels.dtype == np.uint8
    assert photo.warnings == (
        "its 16 bits cannot be read (tifffile and imagecodecs are missing; install them with: pip install "
        "'abair[formats]'); going on with 8",
    )
