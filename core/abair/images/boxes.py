"""Read the boxes of JPEG 2000, AVIF and HEIF files: what their readers in Pillow do not hand out.

A box is a length, a type and contents, which may be boxes: ISO/IEC 15444-1, annex I; ISO/IEC
14496-12, section 4.2.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import BinaryIO, Final, NamedTuple

from PIL import ImageFile

from abair.images.annotations import srgb_by_numbers

_LARGEST: Final = 16 << 20
"""Longest contents that are read, in bytes."""
_FOLDERS: Final = {b"jp2h": 0, b"meta": 4, b"iprp": 0, b"ipco": 0}
"""Boxes that hold boxes, and how many bytes come before these."""
_XMP: Final = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_EXIF: Final = b"JpgTiffExif->JP2"
"""Identifiers of JPEG 2000's boxes for XMP (XMP specification, part 3) and EXIF (ExifTool)."""


class Box(NamedTuple):
    """A box that holds no others."""

    kind: bytes
    contents: bytes


def add_info(image: ImageFile.ImageFile, file: BinaryIO) -> None:
    """Add to the `info` of an image that was opened on `file` what its boxes say.

    For JPEG 2000 that is the colour profile, EXIF and XMP; for all, `bits` a channel, and `cicp`,
    the bytes of a PNG's chunk of that name, if colours are declared by numbers and are not sRGB.
    """
    info = image.info
    for box in read_boxes(file):
        if box.kind == b"colr" and box.contents[:4] == b"nclx" and len(box.contents) >= 10:
            numbers = (box.contents[5], box.contents[7])  # primaries and transfer; each has two bytes
            if not srgb_by_numbers(*numbers):
                info["cicp"] = bytes((*numbers, 0, 1))
        elif box.kind == b"colr" and image.format == "JPEG2000" and box.contents[:1] == b"\2":
            info.setdefault("icc_profile", box.contents[3:])
        elif box.kind == b"uuid" and box.contents.startswith(_XMP):
            info.setdefault("xmp", box.contents[len(_XMP) :])
        elif box.kind == b"uuid" and box.contents.startswith(_EXIF):
            info.setdefault("exif", box.contents[len(_EXIF) :])
        elif box.kind == b"pixi" and len(box.contents) > 5:  # version, channels, bits of each
            info["bits"] = max(info.get("bits", 0), *box.contents[5:])
        elif box.kind == b"ihdr" and len(box.contents) > 10 and box.contents[10] != 255:  # or see bpcc
            info["bits"] = (box.contents[10] & 0x7F) + 1
        elif box.kind == b"bpcc" and box.contents:
            info["bits"] = max((bits & 0x7F) + 1 for bits in box.contents)


def read_boxes(file: BinaryIO) -> Iterator[Box]:
    """Yield the boxes of a file that hold no others; nothing if it has another form."""
    file.seek(0, io.SEEK_END)
    yield from _read(file, 0, file.tell())


def _read(file: BinaryIO, place: int, end: int) -> Iterator[Box]:
    while place + 8 <= end:
        file.seek(place)
        head = file.read(8)
        length, kind, start = int.from_bytes(head[:4], "big"), head[4:], place + 8
        if length == 1:
            length, start = int.from_bytes(file.read(8), "big"), place + 16
        following = end if length == 0 else place + length
        if not start <= following <= end:
            return
        if kind in _FOLDERS:
            yield from _read(file, start + _FOLDERS[kind], following)
        elif following - start <= _LARGEST and kind not in {b"mdat", b"jp2c"}:
            file.seek(start)
            yield Box(kind, file.read(following - start))
        place = following
