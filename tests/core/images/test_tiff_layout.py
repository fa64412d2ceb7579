"""A TIFF is one photo, or it is refused with what it is: nothing is lost without a word."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin
from tests.support.image_files import Tags, noise, save, smooth, tiff

from abair import images
from abair.errors import ImageError

LZW = {"compression": "tiff_lzw"}


def grey_page(height: int, width: int, **tags: int) -> tuple[Tags, list[bytes]]:
    named = {"kind": 254, "compression": 259, "photometric": 262, "sample_format": 339, "bits": 258}
    entries: Tags = {256: [width], 257: [height], 258: [8], 259: [1], 262: [1], 277: [1], 278: [height]}
    entries |= {named[name]: [value] for name, value in tags.items()}
    return entries, [noise(height, width, 1).tobytes() * (entries[258][0] // 8)]


def refusal(path: Path) -> str:
    with pytest.raises(ImageError) as caught:
        images.read(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", [0, 2])
def test_several_pages_are_refused_not_reduced_to_one(tmp_path: Path, kind: int) -> None:
    path = tiff(tmp_path / "scan.tif", *(grey_page(20, 30, kind=kind) for _ in range(3)))
    assert "a TIFF of 3 pages" in refusal(path)


def test_a_thumbnail_before_the_photo_is_not_taken_for_it(tmp_path: Path) -> None:
    thumbnail, photo = grey_page(10, 12, kind=1), grey_page(40, 48)
    read = images.read(tiff(tmp_path / "a.tif", thumbnail, photo))
    assert np.array_equal(read.pixels[..., 0], noise(40, 48, 1))


def test_a_16_bit_photo_behind_a_thumbnail_keeps_its_bits(tmp_path: Path) -> None:
    samples = noise(40, 48, 3, np.uint16)
    small: Tags = {256: [8], 257: [8], 258: [16] * 3, 259: [1], 262: [2], 277: [3], 278: [8], 254: [1]}
    large = small | {256: [48], 257: [40], 278: [40], 254: [0]}
    path = tiff(tmp_path / "a.tif", (small, [bytes(384)]), (large, [samples.astype("<u2").tobytes()]))
    assert np.array_equal(images.read(path).pixels, samples)


def test_reduced_copies_behind_the_photo_are_no_pages(tmp_path: Path) -> None:
    path = tiff(tmp_path / "pyramid.tif", grey_page(40, 48), grey_page(20, 24, kind=1), grey_page(10, 12, kind=1))
    photo = images.read(path)
    assert (photo.pixels.shape, photo.warnings) == ((40, 48, 3), ())


def test_a_mask_is_left_out_with_a_warning(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", grey_page(40, 48), grey_page(40, 48, kind=4))
    photo = images.read(path)
    assert (photo.pixels.shape, photo.warnings) == ((40, 48, 3), ("its transparency mask is left out",))


@pytest.mark.parametrize("photometric", [32803, 34892])
def test_a_camera_raw_file_is_refused_not_shown_by_its_thumbnail(tmp_path: Path, photometric: int) -> None:
    sensor, _ = grey_page(400, 480, photometric=photometric)
    path = tiff(tmp_path / "a.nef", grey_page(10, 12, kind=1), children=(sensor,))
    assert "a camera raw file" in refusal(path)
    assert "a camera raw file" in refusal(tiff(tmp_path / "b.pef", grey_page(40, 48, photometric=photometric)))


def test_the_maker_of_a_camera_raw_file_is_named(tmp_path: Path) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[271], tags[50706] = "Maker Corp.", b"\1\4\0\0"
    path = save(tmp_path / "a.dng", Image.fromarray(smooth()), tiffinfo=tags, format="TIFF")
    assert "a camera raw file (Maker Corp.)" in refusal(path)


def test_a_canon_raw_file_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    path = save(tmp_path / "a.cr2", Image.fromarray(smooth()), format="TIFF")
    data = bytearray(path.read_bytes())
    # its directory is moved to the end, because the eight bytes that follow the header are Canon's
    start = int.from_bytes(data[4:8], "little")
    length = 2 + 12 * int.from_bytes(data[start : start + 2], "little") + 4
    data[4:8] = len(data).to_bytes(4, "little")
    data += data[start : start + length]
    data[8:11] = b"CR\2"
    path.write_bytes(data)
    assert "a camera raw file" in refusal(path)


def test_a_photo_below_its_thumbnail_is_refused(tmp_path: Path) -> None:
    photo, _ = grey_page(400, 480)
    assert "sub-directory" in refusal(tiff(tmp_path / "a.tif", grey_page(10, 12, kind=1), children=(photo,)))


@pytest.mark.parametrize(
    ("compression", "named"), [(34661, "JBIG"), (34713, "Nikon NEF"), (32766, "NeXT"), (4711, "unknown (4711)")]
)
def test_an_unsupported_compression_is_named_and_not_called_damage(
    tmp_path: Path, compression: int, named: str
) -> None:
    text = refusal(tiff(tmp_path / "a.tif", grey_page(20, 30, compression=compression)))
    assert f"{named} compression" in text
    assert "damaged" not in text


def test_signed_samples_are_named(tmp_path: Path) -> None:
    text = refusal(tiff(tmp_path / "a.tif", grey_page(20, 30, sample_format=2, bits=16)))
    assert "a TIFF of signed 16-bit grey samples with no compression" in text


def test_a_short_file_that_declares_many_pixels_is_refused_at_once(tmp_path: Path) -> None:
    tags, _ = grey_page(9000, 9000, compression=8)
    assert "81000000 pixels in" in refusal(tiff(tmp_path / "a.tif", (tags, [b"x\x9c" + bytes(2000)])))


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_flat_pictures_compress_well_and_are_read(tmp_path: Path, compression: str) -> None:
    path = save(tmp_path / "a.tif", Image.new("RGB", (3000, 2000), (255, 255, 255)), compression=compression)
    assert images.read(path).pixels.min() == 255


@pytest.mark.parametrize(("dtype", "planar"), [(np.uint8, 1), (np.uint16, 1), (np.uint16, 2)])
def test_a_channel_that_is_no_transparency_is_left_out_with_a_warning(tmp_path: Path, dtype: type, planar: int) -> None:
    samples = noise(20, 30, 4, dtype)
    tags: Tags = {256: [30], 257: [20], 258: [8 * samples.itemsize] * 4, 259: [1], 262: [2], 277: [4], 278: [20]}
    data = [samples.tobytes()] if planar == 1 else [samples[..., channel].tobytes() for channel in range(4)]
    read = images.read(tiff(tmp_path / "a.tif", (tags | {284: [planar], 338: [0]}, data)))
    assert np.array_equal(read.pixels, samples[..., :3])
    assert read.alpha is None
    assert read.warnings == ("left out: a channel beside colours and transparency",)


def test_directories_in_a_circle_end(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", grey_page(20, 30), grey_page(20, 30, kind=1))
    data = bytearray(path.read_bytes())
    data[-4:] = data[4:8]
    path.write_bytes(data)
    assert images.read(path).pixels.shape == (20, 30, 3)


@pytest.mark.parametrize("tag", [254, 255, 256, 257, 258, 259, 262, 277, 338, 339])
@pytest.mark.parametrize("kind", [1, 2, 7, 12])
def test_a_tag_of_a_wrong_kind_is_damage_at_most(tmp_path: Path, tag: int, kind: int) -> None:
    tags, data = grey_page(20, 30)
    path = tiff(tmp_path / "a.tif", (tags | {tag: tags.get(tag, [0])}, data))
    content = bytearray(path.read_bytes())
    start = int.from_bytes(content[4:8], "little")
    for entry in range(start + 2, start + 2 + 12 * content[start], 12):
        if content[entry : entry + 2] == tag.to_bytes(2, "little"):
            content[entry + 2] = kind
    path.write_bytes(content)
    with contextlib.suppress(ImageError):
        images.read(path)


def test_a_directory_without_pixels_is_no_page(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", grey_page(20, 30))
    data = bytearray(path.read_bytes())
    data[-4:] = len(data).to_bytes(4, "little")  # the link to the next directory, of zeros
    path.write_bytes(data + bytes(64))
    assert images.read(path).pixels.shape == (20, 30, 3)


def test_an_old_mark_of_a_reduced_copy_counts(tmp_path: Path) -> None:
    tags, data = grey_page(10, 12)
    path = tiff(tmp_path / "a.tif", grey_page(40, 48), (tags | {255: [2]}, data))
    assert images.read(path).pixels.shape == (40, 48, 3)
    path = tiff(tmp_path / "b.tif", (tags | {255: [2]}, data), grey_page(40, 48))
    assert images.read(path).pixels.shape == (40, 48, 3)
    path = tiff(tmp_path / "c.tif", (tags | {255: [3]}, data), (tags | {255: [3]}, data))
    assert "2 pages" in refusal(path)


def test_directories_that_many_links_share_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    load = TiffImagePlugin.ImageFileDirectory_v2.load
    monkeypatch.setattr(
        TiffImagePlugin.ImageFileDirectory_v2, "load", lambda self, file: (read.append(1), load(self, file))[1]
    )
    children = tuple(grey_page(2, 3, kind=1)[0] for _ in range(5))
    path = tiff(tmp_path / "a.tif", grey_page(20, 30), children=children)
    data = path.read_bytes()
    images.read(path)
    once = len(read)
    read.clear()
    tags, pixels = grey_page(20, 30)
    many = tiff(tmp_path / "b.tif", (tags | {330: [8 + 0] * 400}, pixels))
    images.read(many)
    assert len(data) > 0
    assert len(read) <= once + 2
