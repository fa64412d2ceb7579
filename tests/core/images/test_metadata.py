"""EXIF, orientation, colour profile and resolution survive; broken ones cost a warning."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import IFD
from tests.support.image_files import ORIENTATION, exif_block, noise, png_16, profile, same_again, save, smooth

from abair import images

pytestmark = [pytest.mark.filterwarnings("ignore:Corrupt EXIF"), pytest.mark.filterwarnings("ignore:Truncated File")]


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
    photo = images.read(source)
    assert images.probe(source) == upright.size
    assert photo.pixels.shape == np.asarray(upright).shape
    assert np.abs(photo.pixels.astype(int) - np.asarray(upright)).mean() < 2.0
    again = same_again(source, tmp_path / f"b{name}")
    assert again.pixels.shape == photo.pixels.shape
    assert np.abs(again.pixels.astype(int) - np.asarray(upright)).mean() < 2.0
    with Image.open(tmp_path / f"b{name}") as written:
        assert written.getexif().get(ORIENTATION, 1) == 1


def test_orientation_is_applied_to_alpha_and_16_bit_too(tmp_path: Path) -> None:
    samples = noise(6, 4, 4, np.uint16)
    upright = images.Photo(samples[..., :3], samples[..., 3], False, "PNG", exif_block(6), None)
    images.write(tmp_path / "a.png", images.finish(upright, upright.pixels))
    photo = images.read(tmp_path / "a.png")
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
    photo = images.Photo(samples, None, False, "PNG", exif_block(), icc, dpi=(240.0, 240.0))
    images.write(tmp_path / target, images.finish(photo, samples))
    written = images.read(tmp_path / target)
    assert written.icc_profile == icc
    assert written.dpi == pytest.approx((240, 240), rel=1e-3)
    exif = Image.Exif()
    exif.load(written.exif or b"")
    assert exif[0x010F] == "Maker"
    assert exif.get_ifd(0x8769)[0x9003] == "2020:01:02 03:04:05"


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".bmp"])
def test_a_resolution_that_no_file_named_is_not_made_up(tmp_path: Path, suffix: str) -> None:
    photo = images.read(png_16(tmp_path / "a.png", noise(5, 5, 3, np.uint16)))
    assert photo.dpi is None
    images.write(tmp_path / "b.tif", images.finish(photo, photo.pixels))
    assert images.read(tmp_path / "b.tif").dpi is None
    images.write(tmp_path / f"c{suffix}", images.finish(photo, photo.pixels))
    found = images.read(tmp_path / f"c{suffix}").dpi
    assert found is None or (suffix == ".bmp" and found == pytest.approx((96, 96), rel=1e-2))  # BMP must name one


def test_an_aspect_ratio_is_no_resolution(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x011A], exif[0x011B], exif[0x0128] = 1.0, 1.0, 1
    photo = images.read(save(tmp_path / "a.jpg", smooth(), exif=exif.tobytes()))
    assert photo.dpi is None
    same_again(tmp_path / "a.jpg", tmp_path / "b.jpg")
    with Image.open(tmp_path / "b.jpg") as written:
        assert (written.info["jfif_unit"], written.info["jfif_density"]) == (0, (1, 1))
    exif[0x0128] = 2
    assert images.read(save(tmp_path / "c.jpg", smooth(), exif=exif.tobytes())).dpi == (1.0, 1.0)


def test_an_upright_photos_exif_is_kept_byte_for_byte(tmp_path: Path) -> None:
    block = exif_block(1)
    assert images.read(save(tmp_path / "a.jpg", smooth(), exif=block)).exif == block


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_exifs_own_size_is_that_of_the_upright_photo(tmp_path: Path, name: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    exif.get_ifd(0x8769)[0xA002], exif.get_ifd(0x8769)[0xA003] = 4000, 70000
    photo = same_again(save(tmp_path / name, smooth(40, 24), exif=exif.tobytes()), tmp_path / f"b{name}")
    written = Image.Exif()
    written.load(photo.exif or b"")
    size = (24, 40) if orientation == 1 else (40, 24)
    assert (written.get_ifd(0x8769)[0xA002], written.get_ifd(0x8769)[0xA003]) == size


@pytest.mark.parametrize("order", ["II*\0", "MM\0*"])
def test_exifs_thumbnail_of_the_damaged_photo_is_gone(tmp_path: Path, order: str) -> None:
    thumbnail = save(tmp_path / "thumbnail.jpg", smooth(8, 8)).read_bytes()
    mark = "<" if order[0] == "I" else ">"
    first = struct.pack(mark + "HHHIHHI", 1, ORIENTATION, 3, 1, 1, 0, 8 + 2 + 12 + 4)
    second = struct.pack(mark + "HHHIIHHIII", 2, 0x201, 4, 1, 56, 0x202, 4, 1, len(thumbnail), 0)
    block = b"Exif\0\0" + order.encode() + struct.pack(mark + "I", 8) + first + second + thumbnail
    source = save(tmp_path / "a.jpg", smooth(), exif=block)
    assert thumbnail in source.read_bytes()
    same_again(source, tmp_path / "b.jpg")
    assert b"\xff\xd8\xff" not in (tmp_path / "b.jpg").read_bytes()[2:]
    with Image.open(tmp_path / "b.jpg") as written:
        assert not written.getexif().get_ifd(IFD.IFD1)


def with_thumbnail(start: int, length: int) -> bytes:
    first = struct.pack("<HHHI4sHHII", 2, 271, 2, 4, b"ABC\0", ORIENTATION, 3, 1, 1) + struct.pack("<I", 38)
    second = struct.pack("<HHHIIHHIII", 2, 0x201, 4, 1, start, 0x202, 4, 1, length, 0)
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + first + second + bytes(40)


@pytest.mark.parametrize(
    ("start", "length"), [(0, 60_000), (0, 10), (8, 40), (40, 20), (68, 60_000), (10**9, 5), (68, 0)]
)
def test_a_thumbnail_that_cannot_be_one_harms_nothing(tmp_path: Path, start: int, length: int) -> None:
    block = with_thumbnail(start, length)
    photo = same_again(save(tmp_path / "a.jpg", smooth(), exif=block), tmp_path / "b.jpg")
    with Image.open(tmp_path / "b.jpg") as written:
        assert written.getexif()[271] == "ABC"
    assert photo.warnings == ()


def test_a_broken_link_costs_only_what_it_leads_to(tmp_path: Path) -> None:
    entries = struct.pack("<HHHI4sHHII", 2, 271, 2, 4, b"ABC\0", 0x8769, 4, 1, 10**6)
    block = b"Exif\0\0II*\0" + struct.pack("<I", 8) + entries + bytes(4)
    photo = images.read(save(tmp_path / "a.jpg", smooth(), exif=block))
    assert photo.exif == block


@pytest.mark.parametrize(
    "block", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"]
)
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_broken_exif_is_dropped_with_a_warning_and_the_photo_kept(tmp_path: Path, name: str, block: bytes) -> None:
    source = save(tmp_path / name, smooth(), exif=block)
    photo = same_again(source, tmp_path / f"b{name}")
    assert photo.exif is None
    assert photo.pixels.shape == (64, 48, 3)
    assert ["EXIF is broken" in warning for warning in photo.warnings] == [True]


def test_storage_tags_in_exif_do_not_reach_a_tiff(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[262], exif[256], exif[258] = 5, 9999, 4  # CMYK, another width, another depth: as Photoshop may leave them
    exif[0x010F] = "Maker"
    photo = same_again(save(tmp_path / "a.jpg", smooth(), exif=exif.tobytes()), tmp_path / "b.tif")
    assert np.array_equal(photo.pixels, images.read(tmp_path / "a.jpg").pixels)


def test_exif_too_long_for_a_jpeg_costs_a_warning(tmp_path: Path) -> None:
    block = exif_block() + bytes(70_000)
    photo = same_again(save(tmp_path / "a.png", smooth(), exif=block), tmp_path / "b.jpg")
    assert photo.exif is None
    assert ["too long" in warning for warning in photo.warnings] == [True]


@pytest.mark.parametrize(("suffix", "kept"), [(".png", True), (".tif", True), (".jpg", True), (".webp", False)])
def test_the_profile_of_a_grey_photo_is_kept_or_named(tmp_path: Path, suffix: str, kept: bool) -> None:
    icc = b"\0" * 36 + b"acsp" + b"grey" * 30  # nobody looks into it
    again = same_again(save(tmp_path / "a.png", smooth()[..., 0], icc_profile=icc), tmp_path / f"b{suffix}")
    assert (again.icc_profile == icc) == kept
    said = "left out: its colour profile, which is for grey; WEBP stores it as colours here"
    assert (said in again.warnings) != kept


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
@pytest.mark.parametrize("kind", ["a.tif", "a.jpg"])
def test_letters_beyond_ascii_stay_as_they_are(tmp_path: Path, encoding: str, kind: str) -> None:
    artist, owner = ("Gr\u00f6\u00dfe".encode(encoding), "L\u00f6we".encode(encoding))
    exif = Image.Exif()
    exif[315], exif.get_ifd(0x8769)[0xA430] = "x" * len(artist), "y" * len(owner)
    save(tmp_path / kind, smooth(), exif=exif.tobytes())
    data = (tmp_path / kind).read_bytes()
    (tmp_path / kind).write_bytes(data.replace(b"x" * len(artist), artist).replace(b"y" * len(owner), owner))
    for source, target in ((kind, "b.tif"), ("b.tif", "c.jpg"), ("c.jpg", "d.tif")):
        assert same_again(tmp_path / source, tmp_path / target).warnings == ()
        with Image.open(tmp_path / target) as written:
            found = written.getexif()
            assert found[315] == artist.decode("latin-1")  # as Pillow reads it
            assert found.get_ifd(0x8769)[0xA430] == owner.decode("latin-1")
