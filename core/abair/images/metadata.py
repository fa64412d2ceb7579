"""The metadata of image files: EXIF, orientation, resolution, kind of compression.

EXIF blocks are changed in place rather than parsed and rebuilt, so that maker notes and unknown
tags survive.
"""

from __future__ import annotations

import logging
import math
import os
import struct
from typing import BinaryIO, Final

from PIL import Image, ImageFile, TiffImagePlugin, TiffTags

log = logging.getLogger("abair")

_ORIENTATION: Final = 0x0112
# Tags of a TIFF directory that describe the photo, not its storage. The last two are the EXIF and
# GPS directories.
_DESCRIPTIVE: Final = frozenset({270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 18246, 18249, 33432, 34665, 34853})


def orientation(image: ImageFile.ImageFile) -> int:
    """Return the orientation, 1 to 8 as EXIF counts.

    It is 1 for a TIFF, whose orientation Pillow applies itself, and for broken EXIF.
    """
    exif = raw_exif(image) if image.format != "TIFF" else None
    try:
        return _find_orientation(exif)[1] if exif else 1
    except (struct.error, ValueError):
        return 1


def raw_exif(image: Image.Image) -> bytes | None:
    """Return the EXIF block as the file holds it, unchecked, or None."""
    exif = image.info.get("exif")
    if (
        exif is None and "Raw profile type exif" in image.info
    ):  # ImageMagick stores it in PNG text: three lines, then hex
        try:
            exif = bytes.fromhex("".join(str(image.info["Raw profile type exif"]).split("\n")[3:]))
        except ValueError:
            exif = b"broken"
    return exif or None


def _find_orientation(exif: bytes) -> tuple[int, int, str, int]:
    """Find the orientation in an EXIF block. EXIF 2.3, section 4.6.

    Returns:
        Offset of the value or 0, the value or 1, `struct`'s byte order, offset of the thumbnail's
            link.

    Raises:
        ValueError: the block has no TIFF header.
        struct.error: the block is cut off.
    """
    start = 6 if exif.startswith(b"Exif\0\0") else 0
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[start : start + 4])
    if order is None:
        raise ValueError("no TIFF header")
    (directory,) = struct.unpack_from(order + "I", exif, start + 4)
    (count,) = struct.unpack_from(order + "H", exif, start + directory)
    place, value = 0, 1
    link = start + directory + 2 + 12 * count
    struct.unpack_from(order + "I", exif, link)  # the directory must fit
    for entry in range(start + directory + 2, link, 12):
        tag, kind = struct.unpack_from(order + "HH", exif, entry)
        if tag == _ORIENTATION and kind == 3:
            place = entry + 8
            (value,) = struct.unpack_from(order + "H", exif, place)
    return place, value if 1 <= value <= 8 else 1, order, link


def upright_exif(name: str, exif: bytes | None, *, turned: bool) -> bytes | None:
    """Return the EXIF block with orientation 1, or None with a warning if it is broken.

    It is changed in place: nothing moves, so maker notes stay valid. The thumbnail of a turned
    photo would lie on its side, so it is unlinked.
    """
    if exif is None:
        return None
    try:
        place, _, order, link = _find_orientation(exif)
    except (struct.error, ValueError) as error:
        log.warning("%s: its EXIF is broken (%s) and is left out", name, error)
        return None
    block = bytearray(exif)
    if place:
        struct.pack_into(order + "H", block, place, 1)
    if turned:
        struct.pack_into(order + "I", block, link, 0)
    return bytes(block) if exif.startswith(b"Exif\0\0") else b"Exif\0\0" + bytes(block)


def exif_from_tiff(name: str, image: ImageFile.ImageFile) -> bytes | None:
    """Return the descriptive tags of a TIFF's directory as an EXIF block, or None.

    The image must not be loaded yet.
    """
    try:
        found, kept = image.getexif(), Image.Exif()
        for tag in _DESCRIPTIVE & set(found):
            kept[tag] = found.get_ifd(tag) if tag in TiffTags.TAGS_V2_GROUPS else found[tag]
        return kept.tobytes() if len(kept) else None
    except Exception as error:  # Pillow raises many kinds on broken tags; the photo matters more
        log.warning("%s: its EXIF is broken (%s) and is left out", name, error)
        return None


def tiff_tags(name: str, exif: bytes | None, dpi: tuple[float, float] | None) -> dict[int, object]:
    """Return the descriptive tags of an EXIF block for a TIFF's directory, with the resolution.

    Tags of storage are left out: they would contradict the pixels.
    """
    tags: dict[int, object] = {}
    if exif:
        try:
            block = Image.Exif()
            block.load(exif)
            for tag in sorted(_DESCRIPTIVE & set(block)):
                tags[tag] = block.get_ifd(tag) if tag in TiffTags.TAGS_V2_GROUPS else block[tag]
            _check_tags(tags)
        except Exception as error:  # as above
            log.warning("%s: its EXIF cannot be stored in a TIFF (%s) and is left out", name, error)
            tags = {}
    if dpi:
        tags |= {TiffImagePlugin.RESOLUTION_UNIT: 2}
        tags |= {TiffImagePlugin.X_RESOLUTION: dpi[0], TiffImagePlugin.Y_RESOLUTION: dpi[1]}
    return tags


def _check_tags(tags: dict[int, object]) -> None:
    """Encode tags once, so that those which Pillow cannot encode raise here."""
    trial = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
    for tag, value in tags.items():
        trial[tag] = value
    trial.tobytes(8)


def resolution(image: Image.Image) -> tuple[float, float] | None:
    """Return (horizontal, vertical) pixels per inch; None if the file states nothing sensible."""
    if image.format == "TIFF" and TiffImagePlugin.X_RESOLUTION not in getattr(image, "tag_v2", {}):
        return None  # Pillow then says 1
    try:
        horizontal, vertical = (float(value) for value in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    fits = all(math.isfinite(value) and 1 <= value <= 65535 for value in (horizontal, vertical))
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
