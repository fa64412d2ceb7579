"""A photo to write, and an empty folder to write it to."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.image_files import save, smooth

from abair import images


@pytest.fixture
def photo(tmp_path: Path) -> images.Photo:
    return images.read(save(tmp_path / "source.png", smooth()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"
