"""How a file stores a photo: its resolution on paper, and whether compression lost anything."""

from __future__ import annotations

import math
import os
from typing import BinaryIO

from PIL import Image, TiffImagePlugin


def resolution(image: Image.Image) -> tuple[float, float] | None:
    """Return (horizontal, vertical) pixels per inch; None if the file states nothing sensible."""
    if image.format == "TIFF" and TiffImagePlugin.X_RESOLUTION not in getattr(image, "tag_v2", {}):
        return None  # Pillow then says 1
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
        return image.format != "JPEG"
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
