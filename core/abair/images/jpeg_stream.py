"""What Pillow does not say of a JPEG: kinds it cannot decode, and a missing end. ITU-T T.81."""

from __future__ import annotations

import io
from typing import BinaryIO, Final

from PIL import Image, ImageChops, JpegImagePlugin

_END: Final = b"\xff\xd9"
_FILLER: Final = bytes(range(1, 250, 3)) * 4
"""Bytes without a marker that no decoder takes for nothing."""
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers that begin a frame: table B.1."""
_LOSSLESS: Final = frozenset({0xC3, 0xC7, 0xCB, 0xCF})
_HIERARCHICAL: Final = frozenset({0xC5, 0xC6, 0xCD, 0xCE})


def unsupported_kind(file: BinaryIO) -> str:
    """Return what an intact JPEG is that cannot be decoded, such as "a 12-bit JPEG", or nothing."""
    file.seek(0)
    if file.read(2) != b"\xff\xd8":
        return ""
    while len(head := file.read(4)) == 4 and head[0] == 0xFF:
        marker, length = head[1], int.from_bytes(head[2:], "big")
        if marker in _FRAMES:
            precision = file.read(1)
            if marker in _LOSSLESS:
                return "a lossless JPEG"
            if marker in _HIERARCHICAL:
                return "a hierarchical JPEG"
            return "a 12-bit JPEG" if precision == b"\x0c" else ""
        file.seek(length - 2, io.SEEK_CUR)
    return ""


def decode_without_end(file: BinaryIO) -> Image.Image | None:
    """Decode a JPEG that lacks only its end marker; return None if more is missing.

    If nothing else is missing, bytes before the marker are skipped, whatever they are; otherwise
    they become pixels.
    """
    file.seek(0)
    data = file.read()
    complete, filled = (_decode(data.removesuffix(b"\xff") + tail + _END) for tail in (b"", _FILLER))
    if complete is None or filled is None:
        return None
    return None if ImageChops.difference(complete, filled).getbbox(alpha_only=False) else complete


def _decode(data: bytes) -> Image.Image | None:
    try:
        image = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
        image.load()
    except Exception:  # decoders raise whatever a damaged file leads them to
        return None
    return image
