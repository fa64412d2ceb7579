"""Image files: what goes in comes out, and whatever is wrong with a file costs one line and nothing else."""

from __future__ import annotations

import errno
import io
import logging
import os
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from abair.errors import ImageError
from abair.images import photo_file, pixels

ORIENTATION = 0x0112
pytestmark = [pytest.mark.filterwarnings("ignore:Corrupt EXIF"), pytest.mark.filterwarnings("ignore:Truncated File")]


def noise(height: int, width: int, channels: int = 3, dtype: type = np.uint8) -> np.ndarray:
    top = int(np.iinfo(dtype).max) + 1
    samples = np.random.default_rng(7).integers(0, top, (height, width, channels), dtype=dtype)
    return samples[..., 0] if channels == 1 else samples


def smooth(height: int = 64, width: int = 48) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 3, columns * 4, rows + columns], axis=2).astype(np.uint8)


def save(path: Path, samples: np.ndarray | Image.Image, **options: Any) -> Path:
    image = samples if isinstance(samples, Image.Image) else Image.fromarray(samples)
    image.save(path, **options)
    return path


def png_16(path: Path, samples: np.ndarray, *, interlaced: bool = False, key: bytes = b"") -> Path:
    """A 16-bit PNG made by hand, so that the reader is not tested against the writer."""
    height, width = samples.shape[:2]
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = b""
    for top, left, down, right in passes:
        part = samples[top::down, left::right]
        if part.size:
            rows += b"".join(b"\0" + row.astype(">u2").tobytes() for row in part)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, int(interlaced))
    parts = [chunk(b"IHDR", header), chunk(b"tRNS", key) if key else b"", chunk(b"IDAT", zlib.compress(rows))]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b""))
    return path


def tiff_16(path: Path, samples: np.ndarray, *, order: str = "<", planar: bool = False) -> Path:
    """An uncompressed 16-bit TIFF made by hand, interleaved or one plane a channel."""
    height, width, channels = samples.shape
    planes = [samples[..., i] for i in range(channels)] if planar else [samples]
    data = [np.ascontiguousarray(plane).astype(order + "u2").tobytes() for plane in planes]
    entries = {256: (4, [width]), 257: (4, [height]), 258: (3, [16] * channels), 259: (3, [1]), 262: (3, [2])}
    entries |= {277: (3, [channels]), 278: (4, [height]), 284: (3, [2 if planar else 1])}
    if channels == 4:
        entries |= {338: (3, [2])}
    place = 4096
    entries |= {279: (4, [len(part) for part in data]), 273: (4, [place + i * len(data[0]) for i in range(len(data))])}
    directory, far = struct.pack(order + "H", len(entries)), b""
    start = 8 + 2 + 12 * len(entries) + 4
    for tag, (kind, values) in sorted(entries.items()):
        packed = struct.pack(order + {3: "H", 4: "I"}[kind] * len(values), *values)
        if len(packed) > 4:
            packed, far = struct.pack(order + "I", start + len(far)), far + packed
        directory += struct.pack(order + "HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    path.write_bytes((head + directory + bytes(4) + far).ljust(place, b"\0") + b"".join(data))
    return path


def same_again(source: Path, target: Path) -> photo_file.Photo:
    """Write the photo unchanged and read it back."""
    photo = photo_file.read(source)
    photo_file.write(target, photo, photo.pixels)
    return photo_file.read(target)


def profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exif_block(orientation: int = 1, **tags: object) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    exif[0x010F] = "Maker"
    exif.get_ifd(0x8769)[0x9003] = "2020:01:02 03:04:05"
    exif.get_ifd(0x8769)[0x927C] = b"maker note \x00\x01\x02"
    return exif.tobytes()


# --- what goes in comes out -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tiff", ".bmp"])
def test_rgb_survives_lossless_formats_bit_for_bit(tmp_path: Path, suffix: str) -> None:
    samples = noise(31, 23)
    options = {"lossless": True} if suffix == ".webp" else {}
    source = save(tmp_path / f"a{suffix}", samples, **options)
    photo = same_again(source, tmp_path / f"b{suffix}")
    assert np.array_equal(photo.pixels, samples)
    assert photo.alpha is None
    assert not photo.grey


def test_the_format_that_was_read_is_kept_whatever_the_name_says_if_it_is_asked_for(tmp_path: Path) -> None:
    samples = noise(31, 23, 4)
    save(tmp_path / "a.png", samples).rename(tmp_path / "a.jpg")
    photo = photo_file.read(tmp_path / "a.jpg")
    photo_file.write(tmp_path / "b.jpg", photo, photo.pixels, keep_format=True)
    with Image.open(tmp_path / "b.jpg") as kept:
        assert (kept.format, kept.mode) == ("PNG", "RGBA")
    photo_file.write(tmp_path / "c.jpg", photo, photo.pixels)
    with Image.open(tmp_path / "c.jpg") as renamed:
        assert (renamed.format, renamed.mode) == ("JPEG", "RGB")


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_rgba_keeps_alpha_and_the_colours_below_it(tmp_path: Path, suffix: str) -> None:
    samples = noise(31, 23, 4)
    samples[:10, :, 3] = 0
    source = save(tmp_path / "a.png", samples)
    photo = same_again(source, tmp_path / f"b{suffix}")
    assert np.array_equal(photo.pixels, samples[..., :3])
    assert photo.alpha is not None
    assert np.array_equal(photo.alpha, samples[..., 3])


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".bmp", ".jpg"])
def test_grey_comes_back_grey(tmp_path: Path, suffix: str) -> None:
    samples = smooth()[..., 0]
    source = save(tmp_path / "a.png", samples)
    photo = same_again(source, tmp_path / f"b{suffix}")
    assert photo.grey
    assert photo.pixels.shape == (64, 48, 3)
    assert np.abs(photo.pixels[..., 1].astype(int) - samples).max() <= (3 if suffix == ".jpg" else 0)
    with Image.open(tmp_path / f"b{suffix}") as written:
        assert written.mode == "L" or (suffix == ".bmp" and written.mode == "P")


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tiff"])
def test_grey_with_alpha_keeps_both(tmp_path: Path, suffix: str) -> None:
    samples = noise(9, 12, 2)
    photo = same_again(save(tmp_path / "a.png", samples), tmp_path / f"b{suffix}")
    assert np.array_equal(photo.pixels[..., 0], samples[..., 0])
    assert photo.alpha is not None
    assert np.array_equal(photo.alpha, samples[..., 1])


def test_jpeg_is_written_finely_and_without_chroma_subsampling(tmp_path: Path) -> None:
    samples = smooth()
    photo = same_again(save(tmp_path / "a.png", samples), tmp_path / "b.jpg")
    assert photo.format == "JPEG"
    assert not photo.lossless
    assert np.abs(photo.pixels.astype(int) - samples).mean() < 1.0
    with Image.open(tmp_path / "b.jpg") as written:
        assert {layer[1:3] for layer in written.layer} == {(1, 1)}  # type: ignore[attr-defined]


@pytest.mark.parametrize("lossless", [True, False])
def test_webp_stays_as_lossless_as_its_source(tmp_path: Path, lossless: bool) -> None:
    options = {"lossless": True} if lossless else {"quality": 80}
    exif = exif_block()  # puts the pixels behind an extended header
    source = save(tmp_path / "a.webp", noise(40, 40), exif=exif, **options)
    assert photo_file.read(source).lossless is lossless
    assert same_again(source, tmp_path / "b.webp").lossless is lossless


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1)])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff", ".bmp"])
def test_the_smallest_photos_work_in_every_format(tmp_path: Path, suffix: str, size: tuple[int, int]) -> None:
    source = save(tmp_path / f"a{suffix}", noise(*size))
    assert photo_file.probe(source) == (size[1], size[0])
    assert same_again(source, tmp_path / f"b{suffix}").pixels.shape == (*size, 3)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("interlaced", [False, True])
def test_16_bit_png_is_kept_bit_for_bit(tmp_path: Path, channels: int, interlaced: bool) -> None:
    samples = noise(37, 29, channels, np.uint16)
    source = png_16(tmp_path / "a.png", samples, interlaced=interlaced)
    written = same_again(source, tmp_path / "b.png")
    for photo in (photo_file.read(source), written):
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
    for photo in (photo_file.read(source), same_again(source, tmp_path / "b.tif")):
        assert np.array_equal(photo.pixels, samples[..., :3])
        assert photo.pixels.dtype == np.uint16
        assert (photo.alpha is not None) == (channels == 4)
        if photo.alpha is not None:
            assert np.array_equal(photo.alpha, samples[..., 3])


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
    photo = photo_file.read(png_16(tmp_path / "a.png", samples, key=samples[4, 5].astype(">u2").tobytes()))
    assert photo.alpha is not None
    assert photo.alpha[4, 5] == 0
    assert (photo.alpha == 0).sum() == 1


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".bmp"])
def test_16_bits_are_rounded_to_8_with_a_warning_where_the_format_ends_there(
    tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    samples = np.maximum(smooth().astype(int) * 257 - 100, 0).astype(
        np.uint16
    )  # rounding up, cutting would be off by 1
    photo = same_again(png_16(tmp_path / "a.png", samples), tmp_path / f"b{suffix}")
    assert "16 bit" in caplog.text
    assert photo.pixels.dtype == np.uint8
    assert np.abs(photo.pixels.astype(int) - smooth()).mean() < (1.0 if suffix == ".jpg" else 1e-9)


def test_alpha_is_flattened_on_white_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    samples = np.zeros((8, 8, 4), np.uint8)
    samples[:4, :, 3] = 255
    photo = same_again(save(tmp_path / "a.png", samples), tmp_path / "b.bmp")
    assert "transparency" in caplog.text
    assert (photo.pixels[:4] == 0).all()
    assert (photo.pixels[4:] == 255).all()


def test_an_opaque_alpha_is_dropped_in_silence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    samples = noise(8, 8, 4)
    samples[..., 3] = 255
    photo = same_again(save(tmp_path / "a.png", samples), tmp_path / "b.bmp")
    assert np.array_equal(photo.pixels, samples[..., :3])
    assert not caplog.records


def test_a_palette_comes_back_as_the_colours_it_stood_for(tmp_path: Path) -> None:
    palette = Image.fromarray(smooth()).quantize(16)
    photo = same_again(save(tmp_path / "a.png", palette), tmp_path / "b.png")
    assert np.array_equal(photo.pixels, np.asarray(palette.convert("RGB")))
    assert photo.alpha is None


def test_a_palette_with_transparency_comes_back_with_alpha(tmp_path: Path) -> None:
    palette = Image.fromarray(smooth()).quantize(16)
    photo = same_again(save(tmp_path / "a.png", palette, transparency=3), tmp_path / "b.png")
    assert photo.alpha is not None
    assert np.array_equal(photo.alpha == 0, np.asarray(palette) == 3)


@pytest.mark.parametrize(("channels", "key"), [(1, 9), (3, (1, 2, 3))])
def test_an_8_bit_colour_key_becomes_alpha(tmp_path: Path, channels: int, key: Any) -> None:
    samples = np.full((6, 6, 3), (5, 5, 5), np.uint8)
    samples[2, 2] = key
    image = Image.fromarray(samples[..., 0] if channels == 1 else samples)
    photo = photo_file.read(save(tmp_path / "a.png", image, transparency=key))
    assert photo.alpha is not None
    assert photo.alpha[2, 2] == 0
    assert (photo.alpha == 0).sum() == 1


def test_a_1_bit_scan_becomes_8_bit_grey(tmp_path: Path) -> None:
    bits = noise(9, 17, 1) > 127
    photo = same_again(save(tmp_path / "a.tif", Image.fromarray(bits), compression="group4"), tmp_path / "b.png")
    assert photo.grey
    assert np.array_equal(photo.pixels[..., 0], bits * np.uint8(255))


@pytest.mark.parametrize("name", ["a.jpg", "a.tif"])
def test_cmyk_becomes_rgb_of_the_same_colours(tmp_path: Path, name: str) -> None:
    colours = smooth()
    source = save(
        tmp_path / name, Image.fromarray(colours).convert("CMYK"), **({"quality": 95} if name == "a.jpg" else {})
    )
    photo = same_again(source, tmp_path / f"b{name}")
    assert np.abs(photo.pixels.astype(int) - colours).mean() < 2.0  # an inverted one would be off by about 128
    assert not photo.grey


def test_an_unusable_cmyk_profile_costs_a_warning_not_the_photo(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cmyk = Image.fromarray(smooth()).convert("CMYK")
    photo = photo_file.read(save(tmp_path / "a.jpg", cmyk, icc_profile=b"not a profile" * 20))
    assert photo.icc_profile is None
    assert "CMYK profile" in caplog.text


def test_a_grey_restored_in_colour_is_written_as_the_mean(tmp_path: Path) -> None:
    photo = photo_file.read(save(tmp_path / "a.png", noise(4, 4, 1)))
    restored = np.full((4, 4, 3), (10, 20, 33), np.uint8)
    photo_file.write(tmp_path / "b.png", photo, restored)
    assert (photo_file.read(tmp_path / "b.png").pixels == 21).all()


# --- metadata ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
def test_orientation_is_applied_once_and_reset(tmp_path: Path, name: str, orientation: int) -> None:
    stored = smooth(40, 24)
    options: dict[str, Any] = {"exif": exif_block(orientation)}
    extra: dict[str, dict[str, Any]] = {".jpg": {"quality": 95}, ".webp": {"lossless": True}}
    options |= extra.get(name[1:], {})
    source = save(tmp_path / name, stored, **options)
    turns = [(), (0,), (3,), (1,), (5,), (4,), (6,), (2,)][orientation - 1]  # Pillow's names for 2 to 8
    upright = Image.fromarray(stored)
    for turn in turns:
        upright = upright.transpose(Image.Transpose(turn))
    photo = photo_file.read(source)
    assert photo_file.probe(source) == upright.size
    assert photo.pixels.shape == np.asarray(upright).shape
    assert np.abs(photo.pixels.astype(int) - np.asarray(upright)).mean() < 2.0
    again = same_again(source, tmp_path / f"b{name}")
    assert again.pixels.shape == photo.pixels.shape
    assert np.abs(again.pixels.astype(int) - np.asarray(upright)).mean() < 2.0
    with Image.open(tmp_path / f"b{name}") as written:
        assert written.getexif().get(ORIENTATION, 1) == 1


def test_orientation_is_applied_to_alpha_and_16_bit_too(tmp_path: Path) -> None:
    samples = noise(6, 4, 4, np.uint16)
    upright = photo_file.Photo(samples[..., :3], samples[..., 3], False, "PNG", exif_block(6), None)
    photo_file.write(tmp_path / "a.png", upright, upright.pixels)
    photo = photo_file.read(tmp_path / "a.png")
    assert np.array_equal(photo.pixels, np.rot90(samples[..., :3], -1))
    assert photo.alpha is not None
    assert np.array_equal(photo.alpha, np.rot90(samples[..., 3], -1))


@pytest.mark.parametrize("source", ["a.jpg", "a.png", "a.webp", "a.tif"])
@pytest.mark.parametrize("target", ["b.jpg", "b.png", "b.webp", "b.tif"])
def test_exif_profile_and_resolution_are_kept_from_every_format_to_every_other(
    tmp_path: Path, source: str, target: str
) -> None:
    icc = profile()
    path = save(tmp_path / source, smooth(), exif=exif_block(), icc_profile=icc, dpi=(300, 300))
    photo = same_again(path, tmp_path / target)
    assert photo.icc_profile == icc
    with Image.open(tmp_path / target) as written:
        exif = written.getexif()
        assert exif[0x010F] == "Maker"
        assert exif.get_ifd(0x8769)[0x9003] == "2020:01:02 03:04:05"
        assert exif.get_ifd(0x8769)[0x927C] == b"maker note \x00\x01\x02"
    if "webp" not in source + target:
        assert photo.dpi == pytest.approx((300, 300), rel=1e-3)


@pytest.mark.parametrize("target", ["b.png", "b.tif"])
def test_metadata_is_kept_with_16_bits(tmp_path: Path, target: str) -> None:
    icc = profile()
    samples = noise(5, 5, 3, np.uint16)
    photo = photo_file.Photo(samples, None, False, "PNG", exif_block(), icc, dpi=(240.0, 240.0))
    photo_file.write(tmp_path / target, photo, samples)
    written = photo_file.read(tmp_path / target)
    assert written.icc_profile == icc
    assert written.dpi == pytest.approx((240, 240), rel=1e-3)
    exif = Image.Exif()
    exif.load(written.exif or b"")
    assert exif[0x010F] == "Maker"
    assert exif.get_ifd(0x8769)[0x9003] == "2020:01:02 03:04:05"


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".bmp"])
def test_a_resolution_that_no_file_named_is_not_made_up(tmp_path: Path, suffix: str) -> None:
    photo = photo_file.read(png_16(tmp_path / "a.png", noise(5, 5, 3, np.uint16)))
    assert photo.dpi is None
    photo_file.write(tmp_path / "b.tif", photo, photo.pixels)
    assert photo_file.read(tmp_path / "b.tif").dpi is None
    photo_file.write(tmp_path / f"c{suffix}", photo, photo.pixels)
    found = photo_file.read(tmp_path / f"c{suffix}").dpi
    assert found is None or (suffix == ".bmp" and found == pytest.approx((96, 96), rel=1e-2))  # BMP must name one


def test_an_upright_photos_exif_is_kept_byte_for_byte(tmp_path: Path) -> None:
    block = exif_block(1)
    assert photo_file.read(save(tmp_path / "a.jpg", smooth(), exif=block)).exif == block


@pytest.mark.parametrize(
    "block", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"]
)
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_broken_exif_is_dropped_with_a_warning_and_the_photo_kept(
    tmp_path: Path, name: str, block: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    source = save(tmp_path / name, smooth(), exif=block)
    photo = same_again(source, tmp_path / f"b{name}")
    assert photo.exif is None
    assert photo.pixels.shape == (64, 48, 3)
    assert "EXIF is broken" in caplog.text


def test_storage_tags_in_exif_do_not_reach_a_tiff(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[262], exif[256], exif[258] = 5, 9999, 4  # CMYK, another width, another depth: as Photoshop may leave them
    exif[0x010F] = "Maker"
    photo = same_again(save(tmp_path / "a.jpg", smooth(), exif=exif.tobytes()), tmp_path / "b.tif")
    assert np.array_equal(photo.pixels, photo_file.read(tmp_path / "a.jpg").pixels)


def test_exif_too_long_for_a_jpeg_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    block = exif_block() + bytes(70_000)
    photo = same_again(save(tmp_path / "a.png", smooth(), exif=block), tmp_path / "b.jpg")
    assert photo.exif is None
    assert "too long" in caplog.text


# --- what is refused --------------------------------------------------------------------------------------------------


def refused(path: Path, *words: str, **options: float) -> None:
    with pytest.raises(ImageError) as caught:
        photo_file.read(path, **options)
    text = str(caught.value)
    assert path.name in text
    assert "\n" not in text
    assert "expected" in text
    for word in words:
        assert word in text


def test_what_is_no_photo_is_refused_with_what_it_is(tmp_path: Path) -> None:
    refused(tmp_path / "missing.jpg", "no such file")
    refused(tmp_path, "folder")
    for name, content, found in [
        ("empty.jpg", b"", "empty"),
        ("text.jpg", b"hello, this is only some text in a file", "text"),
        ("page.png", b"%PDF-1.7 and so on", "PDF"),
        ("moving.jpg", b"GIF89a" + bytes(30), "GIF"),
        ("phone.jpg", b"\0\0\0\x18ftypheic" + bytes(30), "HEIC"),
        ("random.bmp", bytes(range(200, 250)), "no known image format"),
    ]:
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, found)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_refused_at_once_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    refused(tmp_path / "pipe.jpg", "pipe")


def test_an_unreadable_file_is_refused_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.png", smooth())

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)  # as root, permissions would not hold
    refused(path, "Permission denied")


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif", "c.tif", "a.bmp"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.95])
def test_a_truncated_file_is_refused(tmp_path: Path, name: str, part: float) -> None:
    options = {"compression": "tiff_lzw"} if name == "c.tif" else {}
    path = save(tmp_path / name, noise(64, 64), **options)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    refused(path, "damaged")


def test_a_truncated_16_bit_file_is_refused(tmp_path: Path) -> None:
    path = png_16(tmp_path / "a.png", noise(64, 64, 3, np.uint16))
    path.write_bytes(path.read_bytes()[:9000])
    refused(path, "damaged")


def test_every_prefix_of_a_header_is_refused_in_one_line(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png", "a.webp", "a.tif", "a.bmp"):
        data = save(tmp_path / name, noise(8, 8)).read_bytes()
        for length in range(1, 60, 3):
            (tmp_path / name).write_bytes(data[:length])
            refused(tmp_path / name)


def test_the_pixel_cap_is_checked_on_the_header_before_decoding(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 60000, 50000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    empty = struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    (tmp_path / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + empty)
    refused(tmp_path / "huge.png", "60000 x 50000", "3000.0 megapixels", "--max-megapixels")
    assert photo_file.probe(tmp_path / "huge.png") == (60000, 50000)


def test_the_cap_can_be_lowered_and_counts_whole_pixels(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", noise(100, 100))
    refused(path, "100 x 100", max_megapixels=0.0099)
    assert photo_file.read(path, max_megapixels=0.01).pixels.shape == (100, 100, 3)


@pytest.mark.parametrize(
    ("name", "factor"),  # Pillow warns above its limit and refuses above twice it, WebP in the decoder itself
    [(name, 0.4) for name in ("a.jpg", "a.png", "a.tif", "c.tif", "a.bmp")] + [("a.webp", 0.9), ("a.png", 0.9)],
)
def test_our_cap_rules_and_not_pillows(
    tmp_path: Path, name: str, factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"compression": "tiff_lzw"} if name == "c.tif" else {}
    path = save(tmp_path / name, np.zeros((1200, 1200, 3), np.uint8), **options)
    monkeypatch.setattr(pixels, "_STRIP_PIXELS", 1200)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(1200 * 1200 * factor))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        photo_file.read(path)


@pytest.mark.parametrize(("mode", "found"), [("F", "floating-point"), ("LAB", "Lab")])
def test_pixels_of_unknown_range_are_refused(tmp_path: Path, mode: str, found: str) -> None:
    refused(save(tmp_path / "a.tif", Image.new(mode, (4, 4))), found, "8 or 16 bit")


def test_32_bit_pixels_are_refused_unless_they_fit_into_16(tmp_path: Path) -> None:
    refused(save(tmp_path / "a.tif", Image.new("I", (4, 4), 70000)), "32-bit")
    assert (photo_file.read(save(tmp_path / "b.tif", Image.new("I", (4, 4), 60000))).pixels == 60000).all()


@pytest.mark.parametrize("name", ["a.png", "a.webp"])
def test_an_animation_is_refused(tmp_path: Path, name: str) -> None:
    frames = [Image.fromarray(smooth()), Image.fromarray(noise(64, 48))]
    refused(save(tmp_path / name, frames[0], save_all=True, append_images=frames[1:]), "animation")


def test_of_a_tiff_with_pages_the_first_is_read_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pages = [Image.fromarray(smooth()), Image.fromarray(noise(64, 48))]
    photo = photo_file.read(save(tmp_path / "a.tif", pages[0], save_all=True, append_images=pages[1:]))
    assert np.array_equal(photo.pixels, smooth())
    assert "several pages" in caplog.text


def test_a_phones_mpo_is_a_jpeg(tmp_path: Path) -> None:
    frames = [Image.fromarray(smooth()), Image.fromarray(smooth()[::2, ::2])]
    path = tmp_path / "a.jpg"
    frames[0].save(path, format="MPO", save_all=True, append_images=frames[1:])
    photo = same_again(path, tmp_path / "b.jpg")
    assert photo.format == "JPEG"
    assert photo.pixels.shape == (64, 48, 3)


def test_a_name_with_a_newline_still_gives_one_line(tmp_path: Path) -> None:
    with pytest.raises(ImageError) as caught:
        photo_file.read(tmp_path / "a\nb.jpg")
    assert "\n" not in str(caught.value)


# --- writing ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def photo(tmp_path: Path) -> photo_file.Photo:
    return photo_file.read(save(tmp_path / "source.png", smooth()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_an_existing_output_is_replaced_only_when_asked(folder: Path, photo: photo_file.Photo) -> None:
    (folder / "a.png").write_bytes(b"precious")
    with pytest.raises(ImageError, match="--overwrite"):
        photo_file.write(folder / "a.png", photo, photo.pixels)
    assert (folder / "a.png").read_bytes() == b"precious"
    photo_file.write(folder / "a.png", photo, photo.pixels, overwrite=True)
    assert np.array_equal(photo_file.read(folder / "a.png").pixels, photo.pixels)
    assert [path.name for path in folder.iterdir()] == ["a.png"]


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_appears_during_the_writing_is_not_replaced(
    folder: Path, photo: photo_file.Photo, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    monkeypatch.setattr(photo_file, "check_output", lambda *_, **__: None)  # as if the file came just after the check
    if not links:
        monkeypatch.setattr(os, "link", fail_with(errno.EPERM))
    (folder / "a.png").write_bytes(b"precious")
    with pytest.raises(ImageError, match="existing file"):
        photo_file.write(folder / "a.png", photo, photo.pixels)
    assert (folder / "a.png").read_bytes() == b"precious"
    assert [path.name for path in folder.iterdir()] == ["a.png"]


def test_writing_works_where_there_are_no_hard_links(
    folder: Path, photo: photo_file.Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", fail_with(errno.EPERM))
    photo_file.write(folder / "a.png", photo, photo.pixels)
    assert np.array_equal(photo_file.read(folder / "a.png").pixels, photo.pixels)
    assert [path.name for path in folder.iterdir()] == ["a.png"]


def fail_with(code: int) -> object:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize("where", ["fsync", "replace", "link"])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".bmp"])
def test_a_full_disk_leaves_nothing_behind_and_the_old_output_whole(
    folder: Path, photo: photo_file.Photo, monkeypatch: pytest.MonkeyPatch, suffix: str, where: str
) -> None:
    path = folder / f"a{suffix}"
    overwrite = where != "link"
    if overwrite:
        path.write_bytes(b"precious")
    monkeypatch.setattr(os, where, fail_with(errno.ENOSPC))
    if where == "link":
        monkeypatch.setattr(os, "replace", fail_with(errno.ENOSPC))
    with pytest.raises(ImageError, match="No space left") as caught:
        photo_file.write(path, photo, photo.pixels, overwrite=overwrite)
    assert "\n" not in str(caught.value)
    assert [found.name for found in folder.iterdir()] == ([path.name] if overwrite else [])
    if overwrite:
        assert path.read_bytes() == b"precious"


def test_a_file_size_limit_really_met_leaves_nothing_behind(tmp_path: Path) -> None:
    """The kernel itself cuts the writing short in the middle of the file."""
    resource = pytest.importorskip("resource")
    assert resource
    save(tmp_path / "a.png", noise(256, 256))
    (tmp_path / "out").mkdir()
    code = (
        "import resource, signal, sys; from pathlib import Path; from abair.images import photo_file\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (50000, 50000))\n"
        "photo = photo_file.read(Path(sys.argv[1]))\n"
        "try: photo_file.write(Path(sys.argv[2]), photo, photo.pixels)\n"
        "except photo_file.ImageError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "a.png", tmp_path / "out" / "b.png"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(photo_file.__file__).parents[2])},
    )
    assert "File too large" in done.stdout
    assert list((tmp_path / "out").iterdir()) == []


def test_an_interrupt_leaves_nothing_behind(
    folder: Path, photo: photo_file.Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        photo_file.write(folder / "a.png", photo, photo.pixels)
    assert list(folder.iterdir()) == []


def test_an_encoder_that_fails_is_one_line_and_leaves_nothing(
    folder: Path, photo: photo_file.Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("encoder\nerror")

    monkeypatch.setattr(Image.Image, "save", broken)
    with pytest.raises(ImageError, match="encoder error"):
        photo_file.write(folder / "a.webp", photo, photo.pixels)
    assert list(folder.iterdir()) == []


def test_outputs_that_cannot_work_are_refused_early(tmp_path: Path, photo: photo_file.Photo) -> None:
    (tmp_path / "dir.png").mkdir()
    for name, words in [
        ("a.gif", "suffix '.gif'"),
        ("a", "no suffix"),
        ("dir.png", "found a folder"),
        ("nowhere/a.png", "create it first"),
        ("source.png/a.png", "found a file"),
    ]:
        with pytest.raises(ImageError, match=words) as caught:
            photo_file.check_output(tmp_path / name, overwrite=True)
        assert "expected" in str(caught.value)
        with pytest.raises(ImageError):
            photo_file.write(tmp_path / name, photo, photo.pixels, overwrite=True)


@pytest.mark.parametrize("read_only", ["out", "a.png"])
def test_a_read_only_folder_or_file_is_refused(
    folder: Path, photo: photo_file.Photo, monkeypatch: pytest.MonkeyPatch, read_only: str
) -> None:
    (folder / "a.png").write_bytes(b"precious")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != read_only)  # root may write anywhere
    with pytest.raises(ImageError, match="read-only"):
        photo_file.write(folder / "a.png", photo, photo.pixels, overwrite=True)
    assert (folder / "a.png").read_bytes() == b"precious"


def test_the_output_has_the_usual_permissions_and_keeps_those_of_the_file_it_replaces(
    folder: Path, photo: photo_file.Photo
) -> None:
    (folder / "usual").touch()
    photo_file.write(folder / "a.png", photo, photo.pixels)
    assert (folder / "a.png").stat().st_mode == (folder / "usual").stat().st_mode
    (folder / "a.png").chmod(0o600)
    photo_file.write(folder / "a.png", photo, photo.pixels, overwrite=True)
    assert (folder / "a.png").stat().st_mode & 0o777 == 0o600


def test_pixels_of_another_size_or_type_are_refused(folder: Path, photo: photo_file.Photo) -> None:
    for other in (photo.pixels[1:], photo.pixels.astype(np.float32)):
        with pytest.raises(ImageError, match="expected"):
            photo_file.write(folder / "a.png", photo, other)
    assert list(folder.iterdir()) == []


def test_a_side_too_long_for_the_format_is_refused(folder: Path) -> None:
    pixels = np.zeros((1, 17000, 3), np.uint8)
    wide = photo_file.Photo(pixels, None, False, "PNG", None, None)
    with pytest.raises(ImageError, match="16383"):
        photo_file.write(folder / "a.webp", wide, pixels)
    photo_file.write(folder / "a.png", wide, pixels)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".bmp"])
def test_the_same_photo_gives_the_same_bytes(folder: Path, photo: photo_file.Photo, suffix: str) -> None:
    photo_file.write(folder / f"a{suffix}", photo, photo.pixels)
    photo_file.write(folder / f"b{suffix}", photo, photo.pixels)
    assert (folder / f"a{suffix}").read_bytes() == (folder / f"b{suffix}").read_bytes()


def test_reading_and_writing_say_nothing_on_ordinary_photos(
    tmp_path: Path, photo: photo_file.Photo, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for suffix in sorted(photo_file.SUFFIXES):
            photo_file.write(tmp_path / f"b{suffix}", photo, photo.pixels)
            photo_file.read(tmp_path / f"b{suffix}")
    assert not caplog.records


def test_a_large_jpeg_needs_little_memory_and_no_torch(tmp_path: Path) -> None:
    """24 megapixels in and out under 500 MB (the pixels are 72 MB), measured in a process of its own."""
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak of one process alone is known on Linux only: elsewhere a child inherits its parent's")
    tile = np.asarray(Image.fromarray(noise(50, 75)).resize((600, 400)))
    save(tmp_path / "a.jpg", np.tile(tile, (10, 10, 1)), quality=90)
    code = (
        "import sys; from pathlib import Path; from abair.images import photo_file\n"
        "photo = photo_file.read(Path(sys.argv[1])); photo_file.write(Path(sys.argv[2]), photo, photo.pixels.copy())\n"
        "assert 'torch' not in sys.modules\n"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "a.jpg", tmp_path / "b.jpg"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(photo_file.__file__).parents[2])},
    )
    assert int(done.stdout) / 1e3 < 500
    assert photo_file.probe(tmp_path / "b.jpg") == (6000, 4000)


def test_the_file_is_complete_before_it_has_its_name(
    folder: Path, photo: photo_file.Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, sizes = os.link, []

    def watching(source: Path, target: Path) -> None:
        with Image.open(io.BytesIO(Path(source).read_bytes())) as complete:
            complete.load()
        sizes.append(complete.size)
        link(source, target)

    monkeypatch.setattr(os, "link", watching)
    photo_file.write(folder / "a.png", photo, photo.pixels)
    assert sizes == [(48, 64)]


def test_broken_files_put_nothing_on_stderr(tmp_path: Path) -> None:
    """Neither Pillow's warnings nor the C libraries' own messages reach the user: the one line is ours."""
    for name, compression in (
        ("a.tif", "tiff_lzw"),
        ("b.tif", "tiff_adobe_deflate"),
        ("d.tif", None),
    ):
        data = save(tmp_path / name, noise(64, 64), compression=compression).read_bytes()
        (tmp_path / name).write_bytes(data[:2000] + bytes(100) + data[2100:-40])
    for name in ("e.jpg", "f.png", "g.webp"):
        data = save(tmp_path / name, noise(64, 64)).read_bytes()
        (tmp_path / name).write_bytes(data[:1000] + b"garbage" + data[1100:-40])
    save(tmp_path / "h.jpg", smooth(), exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    code = (
        "import sys, logging; from pathlib import Path; from abair.images import photo_file\n"
        "logging.disable()\n"
        "for path in sorted(Path(sys.argv[1]).iterdir()):\n"
        "    try: photo_file.read(path)\n"
        "    except photo_file.ImageError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(photo_file.__file__).parents[2])},
    )
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) >= 5
