"""What Pillow does not say of a JPEG: kinds it cannot decode, and a missing end. ITU-T T.81."""

from __future__ import annotations

import io
from typing import BinaryIO, Final

from PIL import Image, ImageChops, JpegImagePlugin

_END: Final = b"\xff\xd9"
_FILLERS: Final = (bytes(300), b"\x55" * 300, b"\xaa" * 300, b"\xfe" * 300)
"""Bytes without a marker; where pixels are missing, each makes others of them."""
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers that begin a frame: table B.1."""
_SCAN: Final = 0xDA
_STUFFING: Final = frozenset({0x00, 0xFF, *range(0xD0, 0xD8)})
"""What follows 0xFF inside a scan: a stuffed byte, a filling one, or a restart."""
_LOSSLESS: Final = frozenset({0xC3, 0xC7, 0xCB, 0xCF})
TWELVE_BIT: Final = "a 12-bit JPEG"
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
            return TWELVE_BIT if precision == b"\x0c" else ""
        file.seek(length - 2, io.SEEK_CUR)
    return ""


def open_12_bit(file: BinaryIO) -> JpegImagePlugin.JpegImageFile:
    """Open a 12-bit JPEG for what its header says; its pixels cannot be loaded.

    The image's `info` has the `bit_depth`. Pillow takes 8 bits alone, so that is what it is told.

    Raises:
        OSError: the file is truncated, which imagecodecs would pass over.
    """
    file.seek(2)
    while (head := file.read(4))[1] not in _FRAMES:
        file.seek(int.from_bytes(head[2:], "big") - 2, io.SEEK_CUR)
    place = file.tell()
    file.seek(0)
    data = bytearray(file.read())
    if data.rfind(_END) < data.rfind(bytes((0xFF, _SCAN))):
        raise OSError("image file is truncated")
    data[place] = 8
    image = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
    image.info["bit_depth"] = 12
    return image


def decode_without_end(file: BinaryIO) -> Image.Image | None:
    """Decode a JPEG that lacks only its end marker; return None if more is missing.

    If nothing else is missing, bytes before the marker are skipped, whatever they are; otherwise
    they become pixels.
    """
    file.seek(0)
    data = file.read()
    data = data.removesuffix(b"\xff")
    if not _has_all_scans(data):
        return None
    complete = _decode(data + _END)
    if complete is None:
        return None
    for filler in _FILLERS:
        filled = _decode(data + filler + _END)
        if filled is None or ImageChops.difference(complete, filled).getbbox(alpha_only=False):
            return None
    return complete


def _has_all_scans(data: bytes) -> bool:
    """Return whether the scans bring all coefficients in full precision, as section G.1.1.1 has it.

    A progressive JPEG that ends between two scans is a coarser picture of the same size.
    """
    place, missing = 2, set[tuple[int, int]]()
    while place + 4 <= len(data):
        if data[place] != 0xFF or data[place + 1] in _STUFFING:  # within the pixels of a scan
            place = data.find(b"\xff", place + 1)
            if place < 0:
                break
            continue
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        content = data[place + 4 : place + 2 + length]
        if marker in _FRAMES:
            missing = {(content[6 + 3 * number], k) for number in range(content[5]) for k in range(64)}
        elif marker == _SCAN:
            first, last, precision = content[-3:]
            if precision & 15 == 0:
                components = content[1 : 1 + 2 * content[0] : 2]
                missing -= {(component, k) for component in components for k in range(first, last + 1)}
        place += 2 + length
    return not missing


def _decode(data: bytes) -> Image.Image | None:
    try:
        image = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
        image.load()
    except Exception:  # decoders raise whatever a damaged file leads them to
        return None
    return image
