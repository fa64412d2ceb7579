"""How a file stores a photo: resolution on paper, and how much its compression loses."""

from __future__ import annotations

import io
import math
import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, BinaryIO, Final

from PIL import Image, JpegImagePlugin, TiffImagePlugin

_RESOLUTION_UNIT: Final = 296
"""EXIF's tag; its value `_NO_UNIT` makes of the resolution an aspect ratio."""
_NO_UNIT: Final = 1
FINEST: Final = 95
"""libjpeg's quality of a JPEG whose source was none; its colours are not subsampled."""
_LOSSY: Final = frozenset({"JPEG", "AVIF", "HEIF", "JPEG2000", "JXL"})
"""Formats that are lossy, or may be without saying so."""
COARSEST: Final = 90
"""That of a restored JPEG, at least: coarser steps would undo a part of the restoration."""


@dataclass(frozen=True)
class JpegCompression:
    """How a JPEG is compressed: the steps of its quantisation, and the sampling of its colours."""

    tables: tuple[tuple[int, ...], ...]
    sampling: int
    """Pillow's number: 0 for 4:4:4, 1 for 4:2:2, 2 for 4:2:0."""

    def options(self) -> dict[str, Any]:
        """Return Pillow's options that compress alike, with steps of quality `COARSEST` at most."""
        finest = _quantization(COARSEST)
        bounds = [finest[0], *[finest[1]] * (len(self.tables) - 1)]
        tables = [list(map(min, own, bound)) for own, bound in zip(self.tables, bounds, strict=True)]
        return {"qtables": tables, "subsampling": self.sampling}


def compress_like(source: JpegCompression | None, quality: int | None) -> dict[str, Any]:
    """Return Pillow's options for a JPEG whose source was compressed so, if it was a JPEG.

    A `quality` of libjpeg, 1 to 100, replaces the source's steps, not the sampling of its colours.
    """
    if quality is not None:
        return {"quality": quality, "subsampling": source.sampling if source else 0}
    return source.options() if source else {"quality": FINEST, "subsampling": 0}


def read_compression(image: Image.Image) -> JpegCompression | None:
    """Return how a JPEG is compressed; None for other files and other colours than RGB and grey."""
    if not isinstance(image, JpegImagePlugin.JpegImageFile) or image.mode not in {"L", "RGB"}:
        return None
    sampling = JpegImagePlugin.get_sampling(image)
    tables = tuple(tuple(image.quantization[number]) for number in sorted(image.quantization))
    if len(tables) not in {1, 2} or (sampling < 0 and image.mode == "RGB"):
        return None
    return JpegCompression(tables, max(0, sampling))


@lru_cache
def _quantization(quality: int) -> list[list[int]]:
    """Return libjpeg's tables for brightness and colours."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", quality=quality)
    with Image.open(file, formats=["JPEG"]) as image:
        return [image.quantization[number] for number in (0, 1)]  # type: ignore[attr-defined]


def resolution(image: Image.Image) -> tuple[float, float] | None:
    """Return (horizontal, vertical) pixels per inch; None if the file states nothing sensible."""
    if image.format == "TIFF" and TiffImagePlugin.X_RESOLUTION not in getattr(image, "tag_v2", {}):
        return None  # Pillow then says 1
    if "jfif_unit" in image.info and not image.info["jfif_unit"] and image.getexif().get(_RESOLUTION_UNIT) == _NO_UNIT:
        return None  # Pillow takes the numbers of EXIF for dots per inch, whatever its unit is
    try:
        horizontal, vertical = (float(value) for value in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    fits = all(math.isfinite(value) and 0.5 <= value <= 65535 for value in (horizontal, vertical))
    return (horizontal, vertical) if fits else None


def is_lossless(image: Image.Image, file: BinaryIO) -> bool:
    """Return whether the compression of `image`, opened on `file`, loses nothing.

    The position in the file is kept.
    """
    if image.format == "TIFF":
        return image.info.get("compression") not in {"jpeg", "tiff_jpeg", "webp"}
    if image.format != "WEBP":
        return image.format not in _LOSSY
    position = file.tell()
    try:
        file.seek(12)  # RIFF: a 12-byte header, then chunks of name, length and data, padded to even
        while len(head := file.read(8)) == 8:
            if head[:4] in {b"VP8L", b"VP8 "}:
                return head[:4] == b"VP8L"
            length = int.from_bytes(head[4:], "little")
            file.seek(length + length % 2, os.SEEK_CUR)
    finally:
        file.seek(position)
    return False
