"""Find the one photo in a TIFF file by its directories, before any pixel is decoded.

A TIFF may hold pages, reduced copies and masks of them, and, in camera raw files, the readings of a
sensor. Pillow shows the first directory, which may be a thumbnail.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final

from PIL import TiffImagePlugin, TiffTags

from abair.errors import ImageError
from abair.images import exif
from abair.images.tiff_directory import Directory, describe, is_readable, number, numbers
from abair.text import one_line

_MOST_DIRECTORIES: Final = 1000
_NEW_SUBFILE_TYPE: Final = 254
_SUBFILE_TYPE: Final = 255
_OLD_REDUCED: Final = 2
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType. TIFF 6.0, section 8
_MAKE: Final = 271
_SUB_DIRECTORIES: Final = 330
_DNG_VERSION: Final = 50706
_SENSOR: Final = frozenset({32803, 34892})
"""Photometric interpretations: colour filter array, and linear raw. DNG 1.7, chapter 4."""
_CANON_RAW: Final = b"CR\x02"
"""Bytes 8 to 10 of Canon's CR2."""
_PLACES: Final = frozenset({273, 279, 324, 325})
"""Tags that say where strips and tiles lie, and how long they are."""

_MOST_EXPANSION: Final = {1: 1, 5: 3000, 8: 1100, 32773: 64, 32946: 1100}
"""By how many times a compression can shrink pixels at most, with a margin for LZW."""


def find_raw_maker(file: BinaryIO) -> str | None:
    """Return who made the camera of a raw file, "" if it does not say; None for other TIFFs.

    The position in the file is kept.
    """
    position = file.tell()
    try:
        file.seek(8)
        is_canon = file.read(len(_CANON_RAW)) == _CANON_RAW
        pages, nested = _read_all(file)
    except Exception:  # Pillow raises many kinds on broken directories
        return "" if is_canon else None
    finally:
        file.seek(position)
    directories = [*pages, *nested]
    photometric = {one.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) for one in directories}
    if is_canon or photometric & _SENSOR or any(_DNG_VERSION in one for one in directories):
        return next((one_line(str(one[_MAKE])) for one in directories if one.get(_MAKE)), "")
    return None


def find_page(name: str, file: BinaryIO, warn: Callable[[str], None]) -> int:
    """Return the number of the page that holds the photo; `warn` gets what else would be lost.

    The position in the file is kept. A file whose directories are broken counts as one page, and
    whoever decodes it says what is broken.

    Raises:
        ImageError: the file has several pages, or its pixels are of an unsupported kind.
    """
    position = file.tell()
    try:
        pages, nested = _read_all(file)
    except Exception:  # Pillow raises many kinds on broken directories
        return 0
    finally:
        file.seek(position)
    kinds = {number: _kind(page) for number, page in enumerate(pages) if _area(page)}  # others hold no pixels
    if not kinds:
        return 0
    full = [number for number, kind in kinds.items() if not kind & (_REDUCED | _MASK)]
    if len(full) > 1:
        raise ImageError(
            f"{name}: found a TIFF of {len(full)} pages, expected a single photo; save each page as a file of its own"
        )
    if not full and any(_area(child) > _area(pages[0]) for child in nested):
        raise ImageError(
            f"{name}: found a TIFF with its photo in a sub-directory behind a thumbnail, expected it among the pages; "
            "save it again as a plain TIFF"
        )
    if any(kind & _MASK for kind in kinds.values()):
        warn("its transparency mask is left out")
    chosen = full[0] if full else max(kinds, key=lambda number: _area(pages[number]))
    _refuse_unsupported(name, pages[chosen])
    _refuse_overstated(name, pages[chosen], file)
    return chosen


def copy_directory(file: BinaryIO, page: int) -> io.BytesIO:
    """Return what the directory of a page says as a plain TIFF without pixels."""
    pages, _ = _read_all(file)
    header = b"MM\0*\0\0\0\x08"
    copy = TiffImagePlugin.ImageFileDirectory_v2(header)
    for tag in set(pages[page]) - _PLACES:
        nested = tag in TiffTags.TAGS_V2_GROUPS
        copy.tagtype[tag] = TiffTags.LONG if nested else pages[page].tagtype[tag]
        offsets = numbers(pages[page], tag) if nested else ()
        below = [dict(child) for offset in offsets for child in _read_chain(file, offset, set())]
        copy[tag] = exif.exact(below[0] if below else pages[page][tag])
    return io.BytesIO(header + copy.tobytes(len(header)))


def _read_all(file: BinaryIO) -> tuple[list[Directory], list[Directory]]:
    """Return the directories of the pages, and those below them."""
    seen = set[int]()
    pages = list(_read_chain(file, Directory(_read_header(file)).next, seen))
    return pages, [child for page in pages for child in _read_children(file, page, seen)]


def _read_header(file: BinaryIO) -> bytes:
    file.seek(0)
    head = file.read(8)
    return head + file.read(8) if 43 in head[2:4] else head  # BigTIFF has a longer one


def _read_chain(file: BinaryIO, offset: int, seen: set[int]) -> Iterator[Directory]:
    """Yield the directory at `offset` and those that follow it, but none of `seen`."""
    header = _read_header(file)
    while offset and offset not in seen and len(seen) < _MOST_DIRECTORIES:
        seen.add(offset)
        file.seek(offset)
        directory = Directory(header)
        directory.load(file)
        yield directory
        offset = directory.next


def _read_children(file: BinaryIO, directory: Directory, seen: set[int]) -> Iterator[Directory]:
    for offset in numbers(directory, _SUB_DIRECTORIES):
        yield from _read_chain(file, offset, seen)


def _refuse_unsupported(name: str, directory: Directory) -> None:
    if not is_readable(directory):
        raise ImageError(
            f"{name}: found a TIFF of {describe(directory)}, expected unsigned samples of 8 or 16 bits with LZW, "
            "deflate, JPEG or no compression; convert it to that first"
        )


def _refuse_overstated(name: str, directory: Directory, file: BinaryIO) -> None:
    """Refuse a file that is too short for its pixels, which would take minutes to find out."""
    bits = number(directory, TiffImagePlugin.BITSPERSAMPLE, 1)
    size = _area(directory) * number(directory, TiffImagePlugin.SAMPLESPERPIXEL, 1) * bits // 8
    most = _MOST_EXPANSION.get(number(directory, TiffImagePlugin.COMPRESSION, 1))
    stored = os.fstat(file.fileno()).st_size
    if most is not None and size > most * stored:
        raise ImageError(
            f"{name}: found {_area(directory)} pixels in {stored} bytes, expected at least "
            f"{size // most} bytes for so many; the file is damaged: copy it again from its source"
        )


def _kind(page: Directory) -> int:
    """Return the bits of NewSubfileType; the old SubfileType may say that a page is reduced."""
    reduced = _REDUCED if number(page, _SUBFILE_TYPE, 1) == _OLD_REDUCED else 0
    return number(page, _NEW_SUBFILE_TYPE, 0) | reduced


def _area(directory: Directory) -> int:
    return number(directory, TiffImagePlugin.IMAGEWIDTH, 0) * number(directory, TiffImagePlugin.IMAGELENGTH, 0)
