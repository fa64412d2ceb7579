"""XMP packets, changed in place rather than parsed and rebuilt, so that unknown properties survive.

Adobe XMP specification, part 1, and ISO 16684-1.
"""

from __future__ import annotations

import re
from typing import Final

_UPRIGHT: Final = ("tiff:Orientation",)
_WIDTHS: Final = ("tiff:ImageWidth", "exif:PixelXDimension")
_HEIGHTS: Final = ("tiff:ImageLength", "exif:PixelYDimension")
_DROPPED: Final = (
    "hdrgm",  # HDR gain map: Adobe, "Gain Map Specification"
    "Container",  # list of the images behind the first one: Ultra HDR, dynamic depth
    "GContainer",
    "GCamera",  # motion photo
    "GDepth",
    "GImage",
    "xmpNote",  # link to a second packet, which is not read
)
"""Prefixes of properties that describe images or a video behind the photo."""
VIDEO: Final = "its video"
_THUMBNAILS: Final = "xmp:Thumbnails"


def adapt_xmp(packet: bytes, width: int, height: int) -> bytes:
    """Return the packet for a restored, upright photo of this size without further images."""
    values = dict.fromkeys(_UPRIGHT, 1) | dict.fromkeys(_WIDTHS, width) | dict.fromkeys(_HEIGHTS, height)
    for name, value in values.items():
        quoted, number = re.escape(name).encode(), str(value).encode()
        packet = re.sub(rb"(\b%s\s*=\s*[\"'])\d+(?=[\"'])" % quoted, rb"\g<1>" + number, packet)
        packet = re.sub(rb"(<%s>)\s*\d+\s*(?=</)" % quoted, rb"\g<1>" + number, packet)
    for prefix in _DROPPED:
        packet = _drop(packet, prefix.encode() + rb":[\w.-]+")
    return _drop(packet, _THUMBNAILS.encode())


def behind_the_photo(packet: bytes, found: str) -> list[str]:
    """Name what lies behind the photo in its file: what the packet says, and what was `found`.

    What was found is named only if the packet does not tell more of it.
    """
    names = ["its HDR gain map"] if b"hdrgm:" in packet else []
    if found == VIDEO or re.search(rb"(MotionPhoto|MicroVideo)\s*(=\s*[\"']|>)\s*[1-9]", packet):
        names.append(VIDEO)
    if found and not names:
        names.append(found)
    return [*names, "its second XMP packet"] if b"HasExtendedXMP" in packet else names


def _drop(packet: bytes, name: bytes) -> bytes:
    """Drop properties, by a pattern of their names, that are attributes or elements.

    The time is proportional to the packet's length, whatever it holds.
    """
    name = rb"(?>%s)(?![\w.-])" % name
    packet = re.sub(rb"\s%s\s*=\s*(\"[^\"]*\"|'[^']*')" % name, b"", packet)
    kept, place = [], 0
    for start in re.finditer(rb"<(%s)[^<>]*+>" % name, packet):
        if start.start() < place:
            continue  # inside an element that was dropped
        kept.append(packet[place : start.start()])
        if start[0].endswith(b"/>"):
            place = start.end()
            continue
        end = re.compile(rb"</%s\s*>" % re.escape(start[1])).search(packet, start.end())
        if end is None:  # no well-formed packet
            return packet
        place = end.end()
    return b"".join(kept) + packet[place:]
