"""What Pillow does not say of a JPEG: kinds it cannot decode, and a missing end. ITU-T T.81."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final, NamedTuple, TypeVar

import numpy as np
from PIL import Image, JpegImagePlugin

from abair.images.xmp import VIDEO

_START: Final = b"\xff\xd8"
_END: Final = b"\xff\xd9"
_FILLERS: Final = (bytes(300), b"\x55" * 300, b"\xaa" * 300, b"\xfe" * 300)
"""Bytes without a marker; where pixels are missing, each makes others of them."""
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers that begin a frame: table B.1."""
_SCAN: Final = 0xDA
_MARKER: Final = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
"""A marker; inside a scan a stuffed byte, a filling one or a restart may follow 0xFF."""
_LOSSLESS: Final = frozenset({0xC3, 0xC7, 0xCB, 0xCF})
TWELVE_BIT: Final = "a 12-bit JPEG"
_HIERARCHICAL: Final = frozenset({0xC5, 0xC6, 0xCD, 0xCE})
MISSING_END: Final = "its end marker is missing; its pixels are complete"
_VIDEO: Final = re.compile(rb"\0\0\0.ftyp", re.DOTALL)
"""How a file of ISO/IEC 14496-12 begins, wherever a phone puts it."""
_MUCH: Final = 4096
"""Bytes behind the end from which on they are named; phones put some hundred behind every photo."""
_Pixels = TypeVar("_Pixels", Image.Image, np.ndarray)


class _Segment(NamedTuple):
    """A marker, the place of what belongs to it, and that; the pixels of a scan do not."""

    marker: int
    place: int
    content: bytes


def unsupported_kind(file: BinaryIO) -> str:
    """Return what an intact JPEG is that cannot be decoded, such as "a 12-bit JPEG", or nothing."""
    file.seek(0)
    if file.read(2) != _START:
        return ""
    frame = _find_frame(_START + file.read())
    if frame is None:
        return ""
    if frame.marker in _LOSSLESS:
        return "a lossless JPEG"
    if frame.marker in _HIERARCHICAL:
        return "a hierarchical JPEG"
    return TWELVE_BIT if frame.content[:1] == b"\x0c" else ""


def size(data: bytes) -> tuple[int, int]:
    """Return the (width, height) of a JPEG.

    Raises:
        OSError: its frame or its end is missing; imagecodecs passes over that.
    """
    segments = list(_read_segments(data))
    frame = next((segment.content for segment in segments if segment.marker in _FRAMES), b"")
    if len(frame) < 5 or segments[-1].marker != _END[1]:
        raise OSError("image file is truncated")
    return int.from_bytes(frame[3:5], "big"), int.from_bytes(frame[1:3], "big")


def behind_the_end(file: BinaryIO) -> str:
    """Name what lies behind the end marker of a JPEG, or return nothing; padding is nothing."""
    file.seek(0)
    data = file.read()
    end = next((segment.place for segment in _read_segments(data) if segment.marker == _END[1]), len(data))
    if _VIDEO.search(data, end):
        return VIDEO
    rest = data[end:].strip(b"\0")
    if rest.startswith(_START):
        return "its second image"
    return f"what lies behind it ({len(rest) // 1000} kB)" if len(rest) > _MUCH else ""


def open_12_bit(file: BinaryIO) -> JpegImagePlugin.JpegImageFile:
    """Open a 12-bit JPEG for what its header says; its pixels cannot be loaded.

    The image's `info` has the `bit_depth`. Pillow takes 8 bits alone, so that is what it is told.
    """
    file.seek(0)
    data = bytearray(file.read())
    frame = _find_frame(bytes(data))
    if frame is not None:
        data[frame.place] = 8
    image = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
    image.info["bit_depth"] = 12
    return image


def decode_12_bit(data: bytes, warn: Callable[[str], None]) -> np.ndarray:
    """Decode a 12-bit JPEG by imagecodecs, which passes over missing pixels; `warn` gets one line.

    Raises:
        OSError: pixels are missing.
        Exception: whatever a damaged file leads imagecodecs to.
    """
    import imagecodecs

    if any(segment.marker == _END[1] for segment in _read_segments(data)):
        return imagecodecs.jpeg_decode(data)
    complete = decode_without_end(data, imagecodecs.jpeg_decode)
    if complete is None:
        raise OSError("image file is truncated")
    warn(MISSING_END)
    return complete


def load(data: bytes) -> Image.Image:
    """Decode a JPEG by Pillow."""
    image = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
    image.load()
    return image


def decode_without_end(data: bytes, decode: Callable[[bytes], _Pixels]) -> _Pixels | None:
    """Decode a JPEG that lacks only its end marker; return None if more is missing.

    If nothing else is missing, bytes before the marker are skipped, whatever they are; otherwise
    they become pixels.
    """
    data = data.removesuffix(b"\xff")
    if not _has_all_scans(data):
        return None
    try:
        complete = decode(data + _END)
        pixels = np.asarray(complete)
        same = all(np.array_equal(np.asarray(decode(data + filler + _END)), pixels) for filler in _FILLERS)
    except Exception:  # decoders raise whatever a damaged file leads them to
        return None
    return complete if same else None


def _has_all_scans(data: bytes) -> bool:
    """Return whether the scans bring all coefficients in full precision, as section G.1.1.1 has it.

    A progressive JPEG that ends between two scans is a coarser picture of the same size.
    """
    missing = set[tuple[int, int]]()
    for marker, _, content in _read_segments(data):
        if marker in _FRAMES:
            missing = {(content[6 + 3 * number], k) for number in range(content[5]) for k in range(64)}
        elif marker == _SCAN:
            first, last, precision = content[-3:]
            if precision & 15 == 0:
                components = content[1 : 1 + 2 * content[0] : 2]
                missing -= {(component, k) for component in components for k in range(first, last + 1)}
    return not missing


def _find_frame(data: bytes) -> _Segment | None:
    return next((segment for segment in _read_segments(data) if segment.marker in _FRAMES), None)


def _read_segments(data: bytes) -> Iterator[_Segment]:
    """Yield the segments of a JPEG, its end marker at last, if it has one."""
    place = len(_START)
    while found := _MARKER.search(data, place):
        marker, start = found[1][0], found.end() + 2
        if marker == _END[1]:
            yield _Segment(marker, found.end(), b"")
            return
        place = max(start, found.end() + int.from_bytes(data[found.end() : start], "big"))
        yield _Segment(marker, start, data[start:place])
