"""Reading a photo opens its file once, whatever its depth."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from tests.support.image_files import noise, png_16, save, tiff_16

from abair import images

_watched: dict[str, int] = {}


def _count_open(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _watched:
        path = arguments[0]
        name = os.fsdecode(path) if isinstance(path, str | bytes) else ""
        if name in _watched:
            _watched[name] += 1


sys.addaudithook(_count_open)  # cannot be removed; it does nothing while no path is watched


@contextmanager
def counted_opens(path: Path) -> Iterator[Callable[[], int]]:
    """Count how often this process opens a path, through Python or through Pillow."""
    _watched[str(path)] = 0
    try:
        yield lambda: _watched[str(path)]
    finally:
        del _watched[str(path)]


def png_8_bit(path: Path) -> Path:
    return save(path / "a.png", noise(9, 7))


def png_16_bit(path: Path) -> Path:
    return png_16(path / "a.png", noise(9, 7, 4, np.uint16))


def png_16_bit_grey_alpha(path: Path) -> Path:
    return png_16(path / "a.png", noise(9, 7, 2, np.uint16))


def tiff_8_bit(path: Path) -> Path:
    return save(path / "a.tif", noise(9, 7), compression="tiff_lzw")


def tiff_16_bit(path: Path) -> Path:
    return tiff_16(path / "a.tif", noise(9, 7, 3, np.uint16))


def tiff_16_bit_planes(path: Path) -> Path:
    return tiff_16(path / "a.tif", noise(9, 7, 3, np.uint16), planar=True)


def tiff_16_bit_grey(path: Path) -> Path:
    return save(path / "a.tif", noise(9, 7, 1, np.uint16))


def bmp(path: Path) -> Path:
    return save(path / "a.bmp", noise(9, 7, 1))


def webp(path: Path) -> Path:
    return save(path / "a.webp", noise(9, 7), lossless=True)


def jpeg(path: Path) -> Path:
    return save(path / "a.jpg", noise(9, 7))


KINDS = [
    png_8_bit, png_16_bit, png_16_bit_grey_alpha, tiff_8_bit, tiff_16_bit, tiff_16_bit_planes, tiff_16_bit_grey,
    bmp, webp, jpeg,
]  # fmt: skip


@pytest.mark.parametrize("make", KINDS)
def test_a_photo_is_opened_once(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = make(tmp_path)
    with counted_opens(path) as opens:
        images.read(path)
        assert opens() == 1
        images.probe(path)
        assert opens() == 2
