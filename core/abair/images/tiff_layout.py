"""Find the one photo in a TIFF file by its directories, before any pixel is decoded.

A TIFF may hold pages, reduced copies and masks of them, and, in camera raw files, the readings of a
sensor. Pillow shows the first directory, which may be a thumbnail.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final

from PIL import TiffImagePlugin

from abair.errors import ImageError
from abair.text import one_line

Directory = TiffImagePlugin.ImageFileDirectory_v2

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

_SAMPLE_FORMATS: Final = {2: "signed {}-bit", 5: "complex", 6: "complex"}
"""Values of SampleFormat whose range is not known; Pillow's modes tell floating point."""
_COMPRESSIONS: Final = {
    32766: "NeXT",
    33003: "JPEG 2000",
    33005: "JPEG 2000",
    34661: "JBIG",
    34712: "JPEG 2000",
    34713: "Nikon NEF",
    34715: "JBIG2",
    34887: "LERC",
    34892: "lossy JPEG",
    34933: "PNG",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
"""Registered compressions, by their numbers; only those that Pillow cannot decode are looked up."""
_BY_TIFFFILE: Final = frozenset({"JPEG 2000", "JPEG XL", "LERC", "PNG"})
"""Those that `tiff_samples` can decode."""
_FLOAT: Final = 3
"""Value of SampleFormat."""
_SEPARATE: Final = 2
"""Value of PlanarConfiguration: one plane a channel."""

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


def beyond_pillow(directory: Directory) -> str:
    """Return what Pillow cannot decode of this page and `tiff_samples` can, or nothing."""
    compression = _number(directory, TiffImagePlugin.COMPRESSION, 1)
    if (kind := _COMPRESSIONS.get(compression)) in _BY_TIFFFILE:
        return f"{kind} compression"
    if _number(directory, TiffImagePlugin.SAMPLEFORMAT, 1) == _FLOAT:
        return "floating-point samples"
    is_separate = _number(directory, TiffImagePlugin.PLANAR_CONFIGURATION, 1) == _SEPARATE
    is_unspecified = 0 in _numbers(directory, TiffImagePlugin.EXTRASAMPLES)
    bits = _number(directory, TiffImagePlugin.BITSPERSAMPLE, 1)
    return "planes beside its colours" if is_separate and is_unspecified and bits == 8 else ""


def left_out_channels(directory: Directory, *, has_alpha: bool) -> int:
    """Return how many channels a TIFF has beside its colours and its transparency."""
    return max(0, len(list(_numbers(directory, TiffImagePlugin.EXTRASAMPLES))) - has_alpha)


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
    for offset in _numbers(directory, _SUB_DIRECTORIES):
        yield from _read_chain(file, offset, seen)


def _refuse_unsupported(name: str, directory: Directory) -> None:
    bits = _number(directory, TiffImagePlugin.BITSPERSAMPLE, 1)
    for sample_format in _numbers(directory, TiffImagePlugin.SAMPLEFORMAT):
        kind = _SAMPLE_FORMATS.get(sample_format)
        if kind and bits < 32:  # as 32 bits they may hold what fits into 16, which the pixels tell
            raise ImageError(
                f"{name}: found {kind.format(bits)} samples, expected unsigned ones of 8 or 16 bits; convert them first"
            )
    compression = _number(directory, TiffImagePlugin.COMPRESSION, 1)
    if compression not in TiffImagePlugin.COMPRESSION_INFO and not beyond_pillow(directory):
        kind = _COMPRESSIONS.get(compression, f"unknown ({compression})")
        raise ImageError(
            f"{name}: found a TIFF with {kind} compression, which is not supported; expected LZW, deflate, JPEG or no "
            "compression; save it again so"
        )


def _refuse_overstated(name: str, directory: Directory, file: BinaryIO) -> None:
    """Refuse a file that is too short for its pixels, which would take minutes to find out."""
    bits = _number(directory, TiffImagePlugin.BITSPERSAMPLE, 1)
    size = _area(directory) * _number(directory, TiffImagePlugin.SAMPLESPERPIXEL, 1) * bits // 8
    most = _MOST_EXPANSION.get(_number(directory, TiffImagePlugin.COMPRESSION, 1))
    stored = os.fstat(file.fileno()).st_size
    if most is not None and size > most * stored:
        raise ImageError(
            f"{name}: found {_area(directory)} pixels in {stored} bytes, expected at least "
            f"{size // most} bytes for so many; the file is damaged: copy it again from its source"
        )


def _kind(page: Directory) -> int:
    """Return the bits of NewSubfileType; the old SubfileType may say that a page is reduced."""
    reduced = _REDUCED if _number(page, _SUBFILE_TYPE, 1) == _OLD_REDUCED else 0
    return _number(page, _NEW_SUBFILE_TYPE, 0) | reduced


def _area(directory: Directory) -> int:
    return _number(directory, TiffImagePlugin.IMAGEWIDTH, 0) * _number(directory, TiffImagePlugin.IMAGELENGTH, 0)


def _number(directory: Directory, tag: int, default: int) -> int:
    """Return a tag's first number, or the default if it has none, as in a damaged file."""
    return next(_numbers(directory, tag), default)


def _numbers(directory: Directory, tag: int) -> Iterator[int]:
    """Yield a tag's whole numbers, which Pillow hands out alone or as a tuple."""
    value = directory.get(tag, ())
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, int):
            yield number
