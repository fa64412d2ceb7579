"""A JPEG without its end marker is read if nothing else is missing; what cannot be decoded is named."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.support.image_files import noise, save, smooth

from abair import images
from abair.errors import ImageError
from abair.images import further_formats


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True, "restart_marker_blocks": 2}])
@pytest.mark.parametrize("tail", [b"", b"\xff", bytes(40)])
def test_a_missing_end_marker_costs_a_warning(tmp_path: Path, options: dict[str, object], tail: bytes) -> None:
    path = save(tmp_path / "a.jpg", noise(50, 70), quality=80, **options)
    whole = images.read(path).pixels
    path.write_bytes(path.read_bytes().removesuffix(b"\xff\xd9") + tail)
    photo = images.read(path)
    assert np.array_equal(photo.pixels, whole)
    assert all("end marker is missing" in warning for warning in photo.warnings)
    assert photo.warnings or len(tail) > 1  # Pillow often needs no marker in front of other bytes


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}])
def test_missing_pixels_are_damage_however_few(tmp_path: Path, options: dict[str, bool]) -> None:
    picture = Image.fromarray(noise(12, 12)).resize((96, 96), Image.Resampling.BICUBIC)
    path = save(tmp_path / "a.jpg", picture, quality=90, **options)
    data, whole = path.read_bytes(), images.read(path).pixels
    start = data.index(b"\xff\xda")
    for length in [*range(start, len(data) - 60, 23), *range(len(data) - 60, len(data) - 2)]:
        path.write_bytes(data[:length])
        if length < len(data) - 4:
            with pytest.raises(ImageError, match="damaged"):
                images.read(path)
        else:  # the last bits may hold nothing
            with contextlib.suppress(ImageError):
                assert np.array_equal(images.read(path).pixels, whole)


def test_a_progressive_jpeg_that_ends_between_two_scans_is_damage(tmp_path: Path) -> None:
    picture = Image.fromarray(noise(12, 12)).resize((96, 96), Image.Resampling.BICUBIC)
    path = save(tmp_path / "a.jpg", picture, quality=90, progressive=True)
    data = path.read_bytes()
    scans = [place for place in range(len(data)) if data[place : place + 2] == b"\xff\xda"]
    assert len(scans) > 5
    for place in scans[1:]:
        tables = data.rfind(b"\xff\xc4", 0, place)  # each scan has its tables before it
        for end in (place, tables):
            path.write_bytes(data[:end])
            with pytest.raises(ImageError, match="damaged"):
                images.read(path)


def test_a_12_bit_and_a_hierarchical_jpeg_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(further_formats, "has_imagecodecs", lambda: False)
    data = save(tmp_path / "a.jpg", smooth()).read_bytes()
    frame = data.index(b"\xff\xc0")
    (tmp_path / "b.jpg").write_bytes(data[: frame + 4] + b"\x0c" + data[frame + 5 :])
    with pytest.raises(ImageError, match="found a 12-bit JPEG") as caught:
        images.read(tmp_path / "b.jpg")
    assert "damaged" not in str(caught.value)
    (tmp_path / "c.jpg").write_bytes(data[:frame] + b"\xff\xc5" + data[frame + 2 :])
    with pytest.raises(ImageError, match="found a hierarchical JPEG"):
        images.read(tmp_path / "c.jpg")


MP4 = b"\0\0\0\x18ftypmp42\0\0\0\0isommp42" + bytes(2000)


@pytest.mark.parametrize(
    ("behind", "named"),
    [
        (MP4, "its video"),
        (bytes(4096) + MP4, "its video"),
        (b"\0\0\x30\x0a\x10\0\0\0MotionPhoto_Data" + MP4 + b"SEFH" + bytes(24) + b"SEFT", "its video"),
        (b"\xff\xd8\xff\xe0" + MP4[:4] + bytes(200), "its second image"),
        (b"PK\x03\x04" + bytes(range(1, 256)) * 40, "what lies behind it (10 kB)"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"progressive": True, "comment": b"\xff\xd9\xff\xd9"}])
def test_what_lies_behind_the_end_is_named(
    tmp_path: Path, behind: bytes, named: str, options: dict[str, object]
) -> None:
    path = save(tmp_path / "a.jpg", noise(50, 70), **options)
    path.write_bytes(path.read_bytes() + behind)
    assert images.read(path).warnings == (f"{named} is left out; it would not fit the restored photo",)


@pytest.mark.parametrize("behind", [bytes(9000), b"\n", b"SEFHv\0\0\0Image_UTC_Data1700000000000" + bytes(8)])
def test_padding_and_small_marks_of_phones_are_not_named(tmp_path: Path, behind: bytes) -> None:
    path = save(tmp_path / "a.jpg", noise(50, 70))
    path.write_bytes(path.read_bytes() + behind)
    assert images.read(path).warnings == ()


def test_a_video_behind_a_gain_map_is_named_too(tmp_path: Path) -> None:
    xmp = b'<rdf:Description xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0"/>'
    path = save(tmp_path / "a.jpg", noise(50, 70), xmp=xmp)
    path.write_bytes(2 * path.read_bytes() + MP4)
    assert [text.partition(" is left")[0] for text in images.read(path).warnings] == ["its HDR gain map", "its video"]
