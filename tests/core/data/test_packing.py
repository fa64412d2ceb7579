"""Photos packed as one file: the same photos, the same ones held out."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from abair.data.packing import LONGEST, QUALITIES, pack_photos
from abair.data.photos import load_clean_photos
from abair.errors import TrainingError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Forty small photos in two folders, and a large one."""
    generator = np.random.default_rng(0)
    for index in range(40):
        path = tmp_path / "photos" / str(index % 2) / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(generator.integers(0, 256, (4, 5, 3), dtype=np.uint8))
        coarse.resize((50, 40), Image.Resampling.BICUBIC).save(path)
    Image.new("RGB", (LONGEST + 32, 60), (10, 200, 30)).save(tmp_path / "photos" / "large.jpg")
    return tmp_path / "photos"


def test_a_packed_folder_gives_the_photos_of_the_folder(folder: Path, tmp_path: Path) -> None:
    packed = pack_photos(folder, tmp_path / "photos.zip", 1 << 20)
    assert packed.photos == 41
    assert packed.quality == QUALITIES[0]
    assert packed.size == (tmp_path / "photos.zip").stat().st_size < 1 << 20
    for of_folder, of_file in zip(load_clean_photos(folder), load_clean_photos(tmp_path / "photos.zip"), strict=True):
        assert len(of_folder) == len(of_file) > 0
        for one, other in zip(of_folder.photos, of_file.photos, strict=True):
            if max(one.shape) > LONGEST:
                assert max(other.shape) == LONGEST
            else:
                assert one.shape == other.shape
                assert np.abs(one.astype(int) - other).mean() < 6


def test_the_quality_falls_until_the_photos_fit(folder: Path, tmp_path: Path) -> None:
    whole = pack_photos(folder, tmp_path / "whole.zip", 1 << 20)
    small = pack_photos(folder, tmp_path / "small.zip", round(0.93 * whole.size))
    assert small.size < 0.93 * whole.size
    assert small.quality < whole.quality


def test_the_same_folder_gives_the_same_file(folder: Path, tmp_path: Path) -> None:
    files = [tmp_path / "one.zip", tmp_path / "two.zip"]
    for file in files:
        pack_photos(folder, file, 1 << 20)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_photos_that_do_not_fit_are_refused_and_the_file_before_stays(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "photos.zip"
    out.write_bytes(b"before")
    with pytest.raises(
        TrainingError, match=r"41 photos take 0\.0 MiB at the lowest quality, expected at most 0\.0; raise"
    ):
        pack_photos(folder, out, 100)
    assert out.read_bytes() == b"before"
    assert set(tmp_path.iterdir()) == {folder, out}


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos.zip").write_bytes(b"no archive")
    with pytest.raises(TrainingError, match="cannot be unpacked"):
        load_clean_photos(tmp_path / "photos.zip")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    with pytest.raises(TrainingError, match="no photos"):
        load_clean_photos(tmp_path / "empty.zip")


def test_a_folder_is_no_file_to_write(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"found a folder, expected a file to write, such as .*photos\.zip"):
        pack_photos(folder, tmp_path, 1 << 20)
