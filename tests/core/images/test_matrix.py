"""Every format, depth, mode and kind of metadata into every format: kept, or named in a warning.

What is written is read by Exiv2, a second library, and by ExifTool where it is installed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin, TiffImagePlugin
from tests.support.image_files import exif_block, noise, png_16, profile, save, smooth, tiff_16

from abair import images
from abair.images.kept import KEPT

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="5"/></rdf:RDF></x:xmpmeta>'
)
IPTC = b"\x1c\x02\x19\x00\x05beach"
ICC = profile()
TARGETS = {"b.jpg": "JPEG", "b.png": "PNG", "b.webp": "WEBP", "b.tif": "TIFF", "b.bmp": "BMP"}
MODES = {
    "JPEG": ("L", "RGB", "CMYK"),
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "L16", "RGB16", "RGBA16"),
    "WEBP": ("RGB", "RGBA"),
    "TIFF": ("1", "L", "P", "RGB", "RGBA", "CMYK", "L16", "RGB16", "RGBA16"),
    "BMP": ("1", "L", "P", "RGB"),
}
SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "TIFF": ".tif", "BMP": ".bmp"}


def make(folder: Path, kind: str, mode: str) -> Path:
    """A file of this format and mode, with EXIF, profile, resolution and XMP where Pillow writes them."""
    path = folder / f"a{SUFFIXES[kind]}"
    channels = {"L16": 1, "RGB16": 3, "RGBA16": 4}.get(mode)
    if channels is not None:
        samples = noise(24, 32, channels, np.uint16)
        if kind == "PNG":
            return png_16(path, samples)
        return tiff_16(path, samples) if channels > 1 else save(path, samples)
    picture = Image.fromarray(smooth(24, 32))
    if mode in {"LA", "RGBA"}:
        picture.putalpha(Image.fromarray(noise(24, 32, 1)))
    picture = picture.convert(mode)
    options: dict[str, Any] = {"dpi": (240, 240)} if kind != "WEBP" else {"lossless": True, "exact": True}
    if kind != "BMP":
        options["exif"] = exif_block()
        options |= {"icc_profile": ICC} if "RGB" in mode else {}
    if kind in {"JPEG", "WEBP"}:
        options["xmp"] = XMP
    elif kind == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP.decode())
    elif kind == "TIFF":
        options["tiffinfo"] = TiffImagePlugin.ImageFileDirectory_v2()
        tags = {271: "Maker", 34665: {0x9003: "2020:01:02 03:04:05"}, 700: XMP, 33723: IPTC}
        for tag, value in tags.items():
            options["tiffinfo"][tag] = value
    return save(path, picture, **options)


CASES = [(kind, mode, target) for kind, modes in MODES.items() for mode, target in product(modes, TARGETS)]


@pytest.mark.parametrize(("kind", "mode", "target"), CASES, ids=["-".join(case) for case in CASES])
def test_pixels_and_metadata_are_kept_or_named(tmp_path: Path, kind: str, mode: str, target: str) -> None:
    source = images.read(make(tmp_path, kind, mode))
    written = images.write(tmp_path / target, images.finish(source, source.pixels))
    again, to, said = images.read(tmp_path / target), TARGETS[target], " ".join(written.warnings)

    pixels, alpha = source.pixels, source.alpha
    if pixels.dtype == np.uint16 and to not in {"PNG", "TIFF"}:
        assert "16 bits are reduced to 8" in said
        pixels = np.rint(pixels / 257).astype(np.uint8)
        alpha = None if alpha is None else np.rint(alpha / 257).astype(np.uint8)
    assert again.pixels.dtype == pixels.dtype
    if to in {"JPEG", "BMP"} and alpha is not None:
        assert "flattened on white" in said
        assert again.alpha is None
    else:
        if to != "JPEG" and (to != "WEBP" or source.lossless):
            assert np.array_equal(again.pixels, pixels)
        assert (again.alpha is None) == (alpha is None)
        assert alpha is None or np.array_equal(again.alpha, alpha)  # type: ignore[arg-type]
    assert again.grey == source.grey or to in {"WEBP"} or (to == "TIFF" and mode == "LA")

    held = {"EXIF": source.exif, "colour profile": source.icc_profile, "XMP": source.annotations.xmp,
            "IPTC": source.annotations.iptc, "resolution": source.dpi}  # fmt: skip
    kept = {"EXIF": again.exif, "colour profile": again.icc_profile, "XMP": again.annotations.xmp,
            "IPTC": again.annotations.iptc, "resolution": again.dpi}  # fmt: skip
    for name, value in held.items():
        if value and name in KEPT[to]:
            assert kept[name], name
        elif value and name != "resolution":
            assert name in said, name
    if held["EXIF"] and kept["EXIF"]:
        assert b"Maker" in kept["EXIF"]
        assert b"2020:01:02 03:04:05" in kept["EXIF"]
    if kept["resolution"] and held["resolution"]:
        assert kept["resolution"] == pytest.approx(held["resolution"], rel=0.01)
    assert kept["colour profile"] in {None, source.icc_profile}
    assert kept["XMP"] in {None, XMP}
    assert kept["IPTC"] in {None, IPTC}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("target", ["b.jpg", "b.png", "b.tif", "b.webp"])
def test_another_library_finds_what_is_written(tmp_path: Path, kind: str, target: str) -> None:
    pyexiv2 = pytest.importorskip("pyexiv2", reason="its wheels are not for every platform")
    source = images.read(make(tmp_path, kind, "RGB"))
    images.write(tmp_path / target, images.finish(source, source.pixels))
    found = pyexiv2.Image(str(tmp_path / target))
    try:
        assert found.read_exif()["Exif.Image.Make"] == "Maker"
        assert found.read_exif()["Exif.Photo.DateTimeOriginal"] == "2020:01:02 03:04:05"
        assert found.read_exif().get("Exif.Image.Orientation", "1") == "1"
        assert found.read_xmp()["Xmp.xmp.Rating"] == "5"
        assert found.read_icc() == ICC
        if source.annotations.iptc and target != "b.webp":
            assert found.read_iptc()["Iptc.Application2.Keywords"] == ["beach"]
    finally:
        found.close()


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="needs ExifTool: apt install libimage-exiftool-perl")
@pytest.mark.parametrize("target", ["b.jpg", "b.png", "b.tif", "b.webp"])
def test_exiftool_finds_what_is_written_and_no_fault(tmp_path: Path, target: str) -> None:
    source = images.read(make(tmp_path, "TIFF", "RGB"))
    images.write(tmp_path / target, images.finish(source, source.pixels))
    done = subprocess.run(["exiftool", "-json", "-validate", "-warning", str(tmp_path / target)], capture_output=True)
    assert done.returncode == 0
    found = json.loads(subprocess.run(["exiftool", "-json", str(tmp_path / target)], capture_output=True).stdout)[0]
    assert (found["Make"], found["Rating"], "Error" in found) == ("Maker", 5, False)
