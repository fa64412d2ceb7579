"""A file that is no photo, damaged or too large is refused in one line."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.support.image_files import noise, png_16, save, smooth, tiff_16

from abair import images
from abair.errors import ImageError

pytestmark = [pytest.mark.filterwarnings("ignore:Corrupt EXIF"), pytest.mark.filterwarnings("ignore:Truncated File")]


def refused(path: Path, *words: str, **options: float) -> None:
    with pytest.raises(ImageError) as caught:
        images.read(path, **options)
    text = str(caught.value)
    assert path.name in text
    assert "\n" not in text
    assert "expected" in text
    for word in words:
        assert word in text


def test_what_is_no_photo_is_refused_with_what_it_is(tmp_path: Path) -> None:
    refused(tmp_path / "missing.jpg", "found no such file,")
    refused(tmp_path / "holiday", "found no such file or folder,")
    refused(tmp_path, "folder")
    for name, content, found in [
        ("empty.jpg", b"", "empty"),
        ("text.jpg", b"hello, this is only some text in a file", "text"),
        ("page.png", b"%PDF-1.7 and so on", "PDF"),
        ("moving.jpg", b"GIF89a" + bytes(30), "GIF"),
        ("phone.jpg", b"\0\0\0\x18ftypheic" + bytes(30), "damaged"),
        ("clip.jpg", b"\0\0\0\x18ftypisom" + bytes(30), "video"),
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
    assert images.probe(tmp_path / "huge.png") == (60000, 50000)


def test_the_cap_can_be_lowered_and_counts_whole_pixels(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", noise(100, 100))
    refused(path, "100 x 100", max_megapixels=0.0099)
    assert images.read(path, max_megapixels=0.01).pixels.shape == (100, 100, 3)


@pytest.mark.parametrize(
    ("name", "factor"),  # Pillow warns above its limit and refuses above twice it, WebP in the decoder itself
    [(name, 0.4) for name in ("a.jpg", "a.png", "a.tif", "c.tif", "a.bmp")] + [("a.webp", 0.9), ("a.png", 0.9)],
)
def test_our_cap_rules_and_not_pillows(
    tmp_path: Path, name: str, factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"compression": "tiff_lzw"} if name == "c.tif" else {}
    path = save(tmp_path / name, np.zeros((2400, 2400, 3), np.uint8), **options)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(2400 * 2400 * factor))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images.read(path)


def test_pixels_of_unknown_range_are_refused(tmp_path: Path) -> None:
    refused(save(tmp_path / "a.tif", Image.new("LAB", (4, 4))), "Lab", "8 or 16 bit")
    refused(save(tmp_path / "a.tif", Image.new("F", (4, 4), 3.5)), "floating-point samples from 3.5 to 3.5", "0 to 1")


def test_32_bit_pixels_are_refused_unless_they_fit_into_16(tmp_path: Path) -> None:
    refused(save(tmp_path / "a.tif", Image.new("I", (4, 4), 70000)), "32-bit")
    assert (images.read(save(tmp_path / "b.tif", Image.new("I", (4, 4), 60000))).pixels == 60000).all()


@pytest.mark.parametrize("name", ["a.png", "a.webp"])
def test_an_animation_is_refused(tmp_path: Path, name: str) -> None:
    frames = [Image.fromarray(smooth()), Image.fromarray(noise(64, 48))]
    refused(save(tmp_path / name, frames[0], save_all=True, append_images=frames[1:]), "animation")


def test_a_name_with_a_newline_still_gives_one_line(tmp_path: Path) -> None:
    with pytest.raises(ImageError) as caught:
        images.read(tmp_path / "a\nb.jpg")
    assert "\n" not in str(caught.value)


def test_broken_files_put_nothing_on_stderr(tmp_path: Path) -> None:
    """Neither Pillow's warnings nor the C libraries' own messages reach the user: the one line is ours."""
    for name, compression in (
        ("a.tif", "tiff_lzw"),
        ("b.tif", "tiff_adobe_deflate"),
        ("d.tif", None),
    ):
        data = save(tmp_path / name, noise(64, 64), compression=compression).read_bytes()
        (tmp_path / name).write_bytes(data[:2000] + bytes(100) + data[2100:-40])
    for number, planar in enumerate((False, True)):
        data = tiff_16(
            tmp_path / f"w{number}.tif", noise(64, 64, 3, np.uint16), planar=planar, predictor=2
        ).read_bytes()
        (tmp_path / f"w{number}.tif").write_bytes(data[:3000] + b"garbage" + data[3007:])
    data = save(tmp_path / "x.tif", Image.fromarray(noise(64, 64)).convert("1"), compression="group4").read_bytes()
    (tmp_path / "x.tif").write_bytes(data[:60] + b"garbage" + data[67:])
    for name in ("e.jpg", "f.png", "g.webp"):
        data = save(tmp_path / name, noise(64, 64)).read_bytes()
        (tmp_path / name).write_bytes(data[:1000] + b"garbage" + data[1100:-40])
    save(tmp_path / "h.jpg", smooth(), exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    code = (
        "import sys, logging; from pathlib import Path; from abair import images; from abair.errors import ImageError\n"
        "logging.disable()\n"
        "for path in sorted(Path(sys.argv[1]).iterdir()):\n"
        "    try: images.read(path)\n"
        "    except ImageError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(images.__file__).parents[2])},
    )
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) >= 5
