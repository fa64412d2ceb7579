"""HEIF, AVIF, JPEG XL, JPEG 2000 and camera raw files are read, with what they say of the photo."""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
import tifffile
from PIL import Image
from tests.support.image_files import exif_block, noise, profile, save, set_tag, smooth

from abair import images
from abair.errors import ImageError
from abair.images.exif import turn_upright

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF></rdf:RDF></x:xmpmeta>'
TURNED = 6


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((one.astype(float) / 255 - other.astype(float) / 255) ** 2) + 1e-12))


def heic(path: Path, samples: np.ndarray, **options: Any) -> Path:
    """A HEIC file of 8 bits, or of 10 for uint16."""
    mode = {3: "RGB", 4: "RGBA"}[samples.shape[2]] + (";16" if samples.dtype == np.uint16 else "")
    opened = pillow_heif.from_bytes(mode=mode, size=samples.shape[1::-1], data=np.ascontiguousarray(samples).tobytes())
    opened.save(path, quality=95, chroma=444, **options)
    return path


def jpeg_xl(path: Path, samples: np.ndarray, **options: Any) -> Path:
    pylibjxl = pytest.importorskip("pylibjxl", reason="its wheels are not for every platform")
    path.write_bytes(pylibjxl.encode(samples, lossless=True, distance=0.0, **options))
    return path


def dng(path: Path, readings: np.ndarray, orientation: int = 1, further: Sequence[tuple[Any, ...]] = ()) -> Path:
    """A camera raw file: readings (H, W) uint16 of 14 bits behind red, green, green and blue filters."""

    def rationals(*values: float) -> list[int]:
        return [number for value in values for number in (round(value * 10_000), 10_000)]

    xyz_to_camera = (3.2405, -1.5371, -0.4985, -0.9693, 1.8760, 0.0416, 0.0556, -0.2040, 1.0572)  # that of sRGB
    tags = [
        (271, "s", 0, "Maker Corp.", True),
        (274, "H", 1, orientation, True),
        (33421, "H", 2, (2, 2), True),
        (33422, "B", 4, (0, 1, 1, 2), True),
        (50706, "B", 4, (1, 4, 0, 0), True),
        (50708, "s", 0, "Maker Model 1", True),
        (50717, "H", 1, 16383, True),
        (50721, 10, 9, rationals(*xyz_to_camera), True),
        (50728, 5, 3, rationals(1, 1, 1), True),
        (50778, "H", 1, 21, True),
        *further,
    ]
    tifffile.imwrite(path, readings, photometric=32803, extratags=tags, metadata=None, software=False)
    return path


def sensor() -> np.ndarray:
    """Readings of a scene that is blue at the left and orange at the right, (120, 160) uint16."""
    scene = np.zeros((120, 160, 3))
    scene[:, :80], scene[:, 80:] = (0.2, 0.5, 0.8), (0.8, 0.4, 0.2)
    readings = scene[..., 1].copy()
    readings[::2, ::2], readings[1::2, 1::2] = scene[::2, ::2, 0], scene[1::2, 1::2, 2]
    return (readings * 16000).astype(np.uint16)


def test_a_heic_file_is_read_with_what_it_says(tmp_path: Path) -> None:
    exif = exif_block()
    photo = images.read(heic(tmp_path / "a.heic", smooth(), exif=exif, xmp=XMP, icc_profile=profile()))
    assert psnr(photo.pixels, smooth()) > 40
    assert (photo.format, photo.lossless, photo.warnings) == ("HEIF", False, ())
    assert photo.exif is not None
    assert b"Maker" in photo.exif
    assert photo.annotations.xmp is not None


def test_a_heic_file_of_10_bits_keeps_them(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 64 * 96, dtype=np.uint16).reshape(64, 96, 1).repeat(3, axis=2)
    photo = images.read(heic(tmp_path / "a.heic", ramp))
    assert photo.pixels.dtype == np.uint16
    assert photo.pixels.max() > 65000
    assert len(np.unique(photo.pixels[..., 1])) > 512
    assert psnr(photo.pixels / 257, ramp / 257) > 45


def test_a_heic_file_with_alpha_keeps_it(tmp_path: Path) -> None:
    alpha = np.where(np.arange(48) < 24, 255, 0).astype(np.uint8)
    samples = np.dstack([smooth(), np.broadcast_to(alpha, (64, 48))])
    photo = images.read(heic(tmp_path / "a.heif", samples))
    assert photo.alpha is not None
    assert photo.alpha[0, 0] > 250
    assert photo.alpha[0, -1] < 5


def test_a_turned_photo_is_turned_once(tmp_path: Path) -> None:
    upright = smooth(64, 48)
    stored = np.ascontiguousarray(np.rot90(upright))  # which orientation 6 turns back
    image, exif = Image.fromarray(stored), exif_block(TURNED)
    pillow_heif.register_heif_opener()
    paths = [save(tmp_path / "a.avif", image, exif=exif, quality=95, subsampling="4:4:4")]
    paths.append(save(tmp_path / "a.heic", image, exif=exif, quality=95, chroma=444))
    for path in paths:
        photo = images.read(path)
        assert images.probe(path) == (48, 64), path
        assert photo.pixels.shape == (64, 48, 3), path
        assert psnr(photo.pixels, upright) > 35, path
    # libjxl turns by the codestream's own orientation, and that of EXIF does not count
    path = jpeg_xl(tmp_path / "a.jxl", upright, exif=exif[6:])
    assert images.read(path).pixels.shape == (64, 48, 3)
    pylibjxl = pytest.importorskip("pylibjxl.pillow_plugin", reason="its wheels are not for every platform")
    with path.open("rb") as file, pylibjxl.JxlImageFile(file) as opened:
        opened.load()
        assert turn_upright(opened).size == (48, 64)  # as a caller of Restorer hands it over


def test_an_avif_file_is_read_with_what_it_says(tmp_path: Path) -> None:
    exif, icc = exif_block(), profile()  # which holds the time
    path = save(tmp_path / "a.avif", smooth(), quality=95, exif=exif, xmp=XMP, icc_profile=icc)
    photo = images.read(path)
    assert psnr(photo.pixels, smooth()) > 35
    assert (photo.format, photo.lossless, photo.icc_profile) == ("AVIF", False, icc)
    assert photo.exif is not None
    assert photo.annotations.xmp == XMP


def test_an_animated_avif_file_is_refused(tmp_path: Path) -> None:
    frames = [Image.fromarray(smooth()), Image.fromarray(noise(64, 48))]
    path = save(tmp_path / "a.avif", frames[0], save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match=r"a\.avif: found an animation or several images, expected a still photo"):
        images.read(path)


def test_a_heic_file_of_several_photos_is_refused(tmp_path: Path) -> None:
    several = pillow_heif.from_pillow(Image.fromarray(smooth()))
    several.add_from_pillow(Image.fromarray(noise(64, 48)))
    several.save(tmp_path / "a.heic")
    with pytest.raises(ImageError, match=r"found an animation or several images, expected a still photo"):
        images.read(tmp_path / "a.heic")


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_jpeg_xl_file_is_read_exactly(tmp_path: Path, channels: int) -> None:
    samples = noise(40, 56, channels)
    path = jpeg_xl(tmp_path / "a.jxl", samples, exif=exif_block()[6:], icc=profile() if channels > 1 else None)
    photo = images.read(path)
    expected = samples if channels > 1 else samples[..., None].repeat(3, axis=2)
    assert np.array_equal(photo.pixels, expected[..., :3])
    assert (photo.alpha is not None, photo.grey) == (channels == 4, channels == 1)
    assert photo.exif is not None
    assert b"Maker" in photo.exif


@pytest.mark.parametrize("suffix", [".jp2", ".j2k"])
def test_a_jpeg_2000_file_is_read_exactly(tmp_path: Path, suffix: str) -> None:
    photo = images.read(save(tmp_path / f"a{suffix}", noise(40, 56)))
    assert np.array_equal(photo.pixels, noise(40, 56))
    assert (photo.format, photo.warnings) == ("JPEG2000", ())


def test_a_grey_jpeg_2000_file_keeps_16_bits(tmp_path: Path) -> None:
    samples = noise(40, 56, 1, np.uint16)
    photo = images.read(save(tmp_path / "a.jp2", samples))
    assert np.array_equal(photo.pixels[..., 0], samples)
    assert photo.warnings == ()


@pytest.mark.parametrize(("orientation", "size"), [(1, (160, 120)), (TURNED, (120, 160))])
def test_a_camera_raw_file_is_developed_in_16_bits(tmp_path: Path, orientation: int, size: tuple[int, int]) -> None:
    path = dng(tmp_path / "a.dng", sensor(), orientation)
    assert images.probe(path) == size
    photo = images.read(path)
    assert (photo.format, photo.pixels.dtype, photo.pixels.shape[1::-1]) == ("RAW", np.uint16, size)
    blue, orange = photo.pixels[20, 20].astype(int), photo.pixels[-20, -20].astype(int)
    blue, orange = (blue, orange) if orientation == 1 else (photo.pixels[20, 20], photo.pixels[-20, 20])
    assert blue[2] > blue[1] > blue[0]
    assert orange[0] > orange[1] > orange[2]
    assert photo.exif is not None
    assert b"Maker Corp." in photo.exif


def test_a_larger_photo_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    paths = [dng(tmp_path / "a.dng", sensor()), jpeg_xl(tmp_path / "a.jxl", noise(120, 160))]
    for path in [*paths, heic(tmp_path / "a.heic", noise(120, 160)), save(tmp_path / "a.avif", noise(120, 160))]:
        with pytest.raises(ImageError, match=r"found 160 x 120 pixels .*expected at most 0\.01 megapixels"):
            images.read(path, max_megapixels=0.01)


@pytest.mark.parametrize("part", [0.02, 0.3, 0.6, 0.9])
def test_a_truncated_file_is_refused_in_one_line(tmp_path: Path, part: float) -> None:
    paths = [dng(tmp_path / "a.dng", sensor()), jpeg_xl(tmp_path / "a.jxl", noise(120, 160))]
    paths += [heic(tmp_path / "a.heic", noise(120, 160)), save(tmp_path / "a.avif", noise(120, 160))]
    for path in paths:
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * part)])
        with pytest.raises(ImageError) as caught:
            images.read(path)
        assert str(caught.value).startswith(str(path)), path
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "package", "found"),
    [
        ("a.heic", "pi_heif", "a HEIC file, which needs pi-heif"),
        ("a.jxl", "pylibjxl.pillow_plugin", "a JPEG XL file, which needs pylibjxl"),
        ("a.dng", "rawpy", r"a camera raw file \(Maker Corp\.\), which needs rawpy"),
    ],
)
def test_what_has_to_be_installed_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str, found: str
) -> None:
    make = {"a.heic": heic, "a.jxl": jpeg_xl, "a.dng": dng}[name]
    path = make(tmp_path / name, sensor() if name == "a.dng" else smooth())
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImageError, match=rf"{name}: found {found}; install it with: pip install 'abair\[formats\]'"):
        images.read(path)


def box(kind: bytes, contents: bytes) -> bytes:
    return (len(contents) + 8).to_bytes(4, "big") + kind + contents


def test_what_the_boxes_of_jpeg_2000_say_is_kept(tmp_path: Path) -> None:
    path, icc = save(tmp_path / "a.jp2", smooth()), profile()
    data = path.read_bytes()
    place = data.index(b"jp2h") - 4
    header = data[place + 8 : place + int.from_bytes(data[place : place + 4], "big")]
    rest = data[place + 8 + len(header) :]
    colour = header.index(b"colr") - 4
    length = int.from_bytes(header[colour : colour + 4], "big")
    header = header[:colour] + box(b"colr", b"\2\0\0" + icc) + header[colour + length :]
    said = box(b"uuid", bytes.fromhex("be7acfcb97a942e89c71999491e3afac") + XMP)
    said += box(b"uuid", b"JpgTiffExif->JP2" + exif_block(TURNED)[6:])
    path.write_bytes(data[:place] + box(b"jp2h", header) + said + rest)
    photo = images.read(path)
    assert np.array_equal(photo.pixels, np.rot90(smooth(), -1))
    assert (photo.icc_profile, photo.annotations.xmp, photo.warnings) == (icc, XMP, ())
    assert photo.exif is not None
    assert b"Maker" in photo.exif


@pytest.mark.parametrize(("primaries", "transfer", "kept"), [(1, 13, False), (12, 13, True), (9, 16, True)])
def test_colours_that_are_declared_by_numbers_are_kept_or_named(
    tmp_path: Path, primaries: int, transfer: int, kept: bool
) -> None:
    opened = pillow_heif.from_pillow(Image.fromarray(smooth()))
    opened.save(
        tmp_path / "a.heic", color_primaries=primaries, transfer_characteristics=transfer, save_nclx_profile=True
    )
    photo = images.read(tmp_path / "a.heic")
    assert photo.annotations.colour == (((b"cICP", bytes((primaries, transfer, 0, 1))),) if kept else ())
    images.write(tmp_path / "b.png", images.finish(photo, photo.pixels))
    assert images.read(tmp_path / "b.png").annotations.colour == photo.annotations.colour
    warnings = images.write(tmp_path / "b.jpg", images.finish(photo, photo.pixels)).warnings
    assert any("colour chunks" in text for text in warnings) == kept


def test_a_monochrome_raw_file_is_grey(tmp_path: Path) -> None:
    tags = [(50706, "B", 4, (1, 4, 0, 0), True), (50708, "s", 0, "Maker Mono", True), (50717, "H", 1, 16383, True)]
    ramp = np.tile(np.linspace(0, 16000, 64).astype(np.uint16), (48, 1))
    tifffile.imwrite(tmp_path / "a.dng", ramp, photometric="minisblack", extratags=tags, metadata=None, software=False)
    set_tag(tmp_path / "a.dng", 262, 34892)  # linear raw
    photo = images.read(tmp_path / "a.dng")
    assert (photo.pixels.shape, photo.grey) == ((48, 64, 3), True)


def test_a_raw_file_keeps_its_xmp(tmp_path: Path) -> None:
    path = dng(tmp_path / "a.dng", sensor(), further=[(700, "B", len(XMP), XMP, True)])
    assert images.read(path).annotations.xmp == XMP


def test_libraw_says_nothing_itself(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = dng(tmp_path / "a.dng", sensor())
    data = path.read_bytes()
    for part in (0.05, 0.4, 0.8):
        path.write_bytes(data[: int(len(data) * part)])
        with pytest.raises(ImageError) as caught:
            images.read(path)
        assert "b'" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_what_others_write_while_raw_files_are_read_arrives(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole, cut = (dng(tmp_path / name, sensor()) for name in ("a.dng", "b.dng"))
    cut.write_bytes(cut.read_bytes()[:20_000])
    ended = threading.Event()

    def read(path: Path) -> None:
        for _ in range(20):
            with suppress(ImageError):
                images.read(path)

    def write() -> int:
        for line in itertools.count():
            if ended.is_set():
                return line
            os.write(2, b"line %d\n" % line)
            time.sleep(0.0005)
        raise AssertionError

    with ThreadPoolExecutor(5) as threads:
        written = threads.submit(write)
        for reader in [threads.submit(read, path) for path in (whole, cut, whole, cut)]:
            reader.result()
        ended.set()
        lines = written.result()
    os.write(2, b"the end\n")
    found = capfd.readouterr().err.splitlines()
    assert sorted(found) == sorted(["the end", *(f"line {line}" for line in range(lines))])


def test_a_broken_installation_is_not_called_a_damaged_photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "rawpy":
                raise OSError("libraw.so: cannot open shared object file")

    monkeypatch.delitem(sys.modules, "rawpy", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(ImageError, match="which needs rawpy"):
        images.read(dng(tmp_path / "a.dng", sensor()))
