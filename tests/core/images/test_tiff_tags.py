"""A TIFF's tags are kept, or named: Photoshop's image resources, page names, maps, layers."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, TiffImagePlugin
from tests.support.image_files import noise, same_again, save, smooth

from abair import images

IPTC = b"\x1c\x02\x19\x00\x05beach\x1c\x02\x78\x00\x0aAt the sea"
URL = b"https://example.org/x"
RIGHTS = ((0x040A, b"\1"), (0x040B, URL))


def resources(*pairs: tuple[int, bytes]) -> bytes:
    return b"".join(
        b"8BIM" + struct.pack(">HHI", number, 0, len(data)) + data + bytes(len(data) % 2) for number, data in pairs
    )


def tagged(path: Path, *tags: tuple[int, int, bytes]) -> Path:
    """A TIFF with further tags, each as number, kind and contents."""
    extra = [(tag, kind, len(data), data, True) for tag, kind, data in tags]
    tifffile.imwrite(path, smooth(), photometric="rgb", extratags=extra, metadata=None, software=False)
    return path


@pytest.mark.parametrize("kind", [1, 7])
@pytest.mark.parametrize("target", ["b.tif", "b.jpg", "b.png"])
def test_iptc_in_photoshops_resources_is_kept(tmp_path: Path, kind: int, target: str) -> None:
    content = resources((1005, bytes(16)), (0x0404, IPTC), (1036, bytes(101)))
    again = same_again(tagged(tmp_path / "a.tif", (34377, kind, content)), tmp_path / target)
    assert (again.annotations.iptc, again.warnings) == (IPTC, ())


def test_iptc_of_its_own_tag_comes_first(tmp_path: Path) -> None:
    path = tagged(tmp_path / "a.tif", (33723, 7, IPTC), (34377, 7, resources((0x0404, b"\x1c\x02\x19\x00\x01x"))))
    assert images.read(path).annotations.iptc == IPTC


def test_rights_go_from_tiff_to_tiff_and_jpeg_and_back(tmp_path: Path) -> None:
    path = tagged(tmp_path / "a.tif", (34377, 7, resources(*RIGHTS)))
    for source, target in (("a.tif", "b.tif"), ("b.tif", "c.jpg"), ("c.jpg", "d.tif")):
        again = same_again(tmp_path / source, tmp_path / target)
        assert (again.annotations.rights, again.warnings) == (RIGHTS, ())
    with Image.open(tmp_path / "d.tif") as written:
        assert isinstance(written, TiffImagePlugin.TiffImageFile)
        assert {number: block["data"] for number, block in written.get_photoshop_blocks().items()} == dict(RIGHTS)
    assert same_again(path, tmp_path / "b.png").warnings == ("left out, because PNG has no place for it: rights",)


def test_a_clipping_path_is_named(tmp_path: Path) -> None:
    path = tagged(tmp_path / "a.tif", (34377, 7, resources((2000, bytes(260)), (2999, b"\4Path"))))
    assert images.read(path).warnings == ("its clipping paths are left out",)


def test_rights_too_long_for_a_jpeg_are_named(tmp_path: Path) -> None:
    path = tagged(tmp_path / "a.tif", (34377, 7, resources((0x0404, IPTC), (0x040B, bytes(70_000)))))
    again = same_again(path, tmp_path / "b.jpg")
    assert again.warnings == ("left out, because JPEG has no place for it: rights, which is too long",)
    assert again.annotations.iptc == IPTC


@pytest.mark.parametrize("content", [b"8BIM", b"8BIM\4\4", resources((0x0404, IPTC))[:-9], b"nonsense"])
def test_broken_resources_do_no_harm(tmp_path: Path, content: bytes) -> None:
    assert images.read(tagged(tmp_path / "a.tif", (34377, 7, content))).pixels.shape == smooth().shape


@pytest.mark.parametrize(
    ("tags", "names"),
    [
        (((33550, 12, struct.pack("<3d", 1, 1, 0)), (34737, 2, b"WGS 84|\0")), "GeoTIFF"),
        (((42112, 2, b"<GDALMetadata/>\0"), (42113, 2, b"-9999\0")), "GDAL"),
        (((37724, 7, b"Adobe Photoshop Document Data Block\0" + bytes(8)),), "Photoshop's layers"),
        (
            ((50839, 1, bytes(20)), (65000, 2, b"mine\0"), (33434, 5, bytes(8))),
            "ExposureTime, ImageJMetaData, tag 65000",
        ),
    ],
)
def test_what_is_not_kept_is_named(tmp_path: Path, tags: tuple[tuple[int, int, bytes], ...], names: str) -> None:
    sizes = {12: 8, 5: 8}
    extra = [(tag, kind, len(data) // sizes.get(kind, 1), data, True) for tag, kind, data in tags]
    tifffile.imwrite(tmp_path / "a.tif", smooth(), photometric="rgb", extratags=extra, metadata=None)
    for target in ("b.tif", "b.jpg"):
        assert same_again(tmp_path / "a.tif", tmp_path / target).warnings == (f"left out of its tags: {names}",)


def test_of_many_tags_ten_are_named(tmp_path: Path) -> None:
    path = tagged(tmp_path / "a.tif", *((65000 + number, 1, b"x") for number in range(300)))
    (warning,) = images.read(path).warnings
    assert warning.endswith("tag 65009, 290 more")


def test_page_names_and_stated_primaries_are_kept(tmp_path: Path) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    primaries = (0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
    tags[285], tags[318], tags[319] = "Page one", (0.3127, 0.329), primaries
    path = save(tmp_path / "a.tif", Image.fromarray(smooth()), tiffinfo=tags)
    for target in ("b.tif", "b.jpg"):
        assert same_again(path, tmp_path / target).warnings == ()
        with Image.open(tmp_path / target) as written:
            found = written.getexif()
            assert found[285] == "Page one"
            assert np.allclose([float(value) for value in found[319]], primaries)


@pytest.mark.parametrize(
    ("mode", "compressions"),
    [
        ("1", ["group3", "group4", "tiff_lzw"]),
        ("P", ["raw", "tiff_lzw", "packbits"]),
        *((mode, ["raw", "jpeg", "tiff_lzw", "tiff_adobe_deflate"]) for mode in ("L", "RGB", "CMYK", "YCbCr")),
    ],
)
def test_tags_of_storage_are_not_named(tmp_path: Path, mode: str, compressions: list[str]) -> None:
    for compression in compressions:
        image = Image.fromarray(noise(40, 56)).convert(mode)
        path = save(tmp_path / "a.tif", image, compression=compression, dpi=(300, 300))
        assert images.read(path).warnings == ()


def test_tags_of_tiles_planes_and_pyramids_are_not_named(tmp_path: Path) -> None:
    samples = noise(80, 96, 3, np.uint16)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(samples, photometric="rgb", tile=(32, 32), compression="zlib", predictor=True, subifds=1)
        file.write(samples[::2, ::2], photometric="rgb", subfiletype=1)
    assert images.read(tmp_path / "a.tif").warnings == ()
