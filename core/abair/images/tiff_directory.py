"""A directory of a TIFF: its numbers, what it says of the pixels, and who can decode them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from PIL import TiffImagePlugin

BIG_ENDIAN_BIG: Final = b"MM\0+"
"""First bytes of a BigTIFF whose numbers are big-endian."""
_FLOAT, _SIGNED = 3, 2
_KINDS: Final = {_SIGNED: "signed ", _FLOAT: "floating-point ", 5: "complex ", 6: "complex "}
"""Values of SampleFormat other than unsigned whole numbers. TIFF 6.0, section 19."""
_COLOURS: Final = {
    0: "grey",
    1: "grey",
    2: "RGB",
    3: "palette",
    4: "mask",
    5: "CMYK",
    6: "YCbCr",
    8: "CIE Lab",
    9: "ICC Lab",
    10: "ITU Lab",
    32844: "LogL",
    32845: "LogLuv",
}
_GREY: Final = frozenset({0, 1})
_COMPRESSIONS: Final = {
    1: "no",
    **dict.fromkeys((2, 3, 4, 32771), "fax"),
    5: "LZW",
    **dict.fromkeys((6, 7, 33007), "JPEG"),
    **dict.fromkeys((8, 32946, 50013), "deflate"),
    32766: "NeXT",
    32773: "PackBits",
    32809: "ThunderScan",
    **dict.fromkeys((33003, 33004, 33005, 34712), "JPEG 2000"),
    34661: "JBIG",
    **dict.fromkeys((34676, 34677), "SGI Log"),
    34713: "Nikon NEF",
    34715: "JBIG2",
    34887: "LERC",
    34892: "lossy JPEG",
    34925: "LZMA",
    34933: "PNG",
    **dict.fromkeys((22610, 34934), "JPEG XR"),
    **dict.fromkeys((34926, 50000), "Zstandard"),
    **dict.fromkeys((34927, 50001), "WebP"),
    **dict.fromkeys((50002, 52546), "JPEG XL"),
}
"""Registered compressions, by their numbers."""
_BY_TIFFFILE: Final = frozenset(
    {"deflate", "JPEG", "JPEG 2000", "JPEG XL", "JPEG XR", "LERC", "PNG", "WebP", "Zstandard"}
)
"""Those that `tiff_samples` can decode, under all their numbers."""
_WEBP: Final = 50001
"""Pillow knows its number; the libtiff of Pillow's wheels does not decode it."""
_SEPARATE: Final = 2
"""Value of PlanarConfiguration: one plane a channel."""


class Directory(TiffImagePlugin.ImageFileDirectory_v2):
    """Pillow's directory, also of a big-endian BigTIFF, whose header Pillow takes for a plain one.

    See findings/pillow_big_endian_bigtiff.sh.
    """

    def __init__(self, header: bytes) -> None:
        is_taken_for_plain = header.startswith(BIG_ENDIAN_BIG)
        super().__init__(header[:8] if is_taken_for_plain else header)
        if is_taken_for_plain:
            self._bigtiff = True
            (self.next,) = self._unpack("Q", header[8:16])


def describe(directory: TiffImagePlugin.ImageFileDirectory_v2) -> str:
    """Return what a page holds, such as "10-bit RGB samples with LZW compression"."""
    kind = _KINDS.get(number(directory, TiffImagePlugin.SAMPLEFORMAT, 1), "")
    bits = "/".join(map(str, dict.fromkeys(numbers(directory, TiffImagePlugin.BITSPERSAMPLE)))) or "1"
    photometric = number(directory, TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, 0)
    colours = _COLOURS.get(photometric, f"unknown ({photometric})")
    return f"{kind}{bits}-bit {colours} samples with {_compression(directory)} compression"


def is_readable(directory: TiffImagePlugin.ImageFileDirectory_v2) -> bool:
    """Return whether Pillow or `tiff_samples` can decode the samples of a page, as its tags say."""
    bits = number(directory, TiffImagePlugin.BITSPERSAMPLE, 1)
    for sample_format in numbers(directory, TiffImagePlugin.SAMPLEFORMAT):
        # 32 bits may hold what fits into 16, which the pixels tell
        if sample_format in _KINDS and sample_format != _FLOAT and (sample_format, bits) != (_SIGNED, 32):
            return False
    known = number(directory, TiffImagePlugin.COMPRESSION, 1) in TiffImagePlugin.COMPRESSION_INFO
    return known or _compression(directory) in _BY_TIFFFILE


def is_misread_by_pillow(directory: TiffImagePlugin.ImageFileDirectory_v2) -> bool:
    """Return whether Pillow opens a page that it decodes in a wrong way, or not at all."""
    if number(directory, TiffImagePlugin.COMPRESSION, 1) == _WEBP:
        return True
    if number(directory, TiffImagePlugin.SAMPLEFORMAT, 1) == _FLOAT:
        return True
    if number(directory, TiffImagePlugin.PLANAR_CONFIGURATION, 1) != _SEPARATE:
        return False
    if number(directory, TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, 0) in _GREY:
        return number(directory, TiffImagePlugin.SAMPLESPERPIXEL, 1) > 1
    is_plain = number(directory, TiffImagePlugin.COMPRESSION, 1) == 1
    bits = number(directory, TiffImagePlugin.BITSPERSAMPLE, 1)
    return 0 in numbers(directory, TiffImagePlugin.EXTRASAMPLES) and not (is_plain and bits == 16)


def left_out_channels(directory: TiffImagePlugin.ImageFileDirectory_v2, *, has_alpha: bool) -> int:
    """Return how many channels a TIFF has beside its colours and its transparency."""
    return max(0, len(list(numbers(directory, TiffImagePlugin.EXTRASAMPLES))) - has_alpha)


def number(directory: TiffImagePlugin.ImageFileDirectory_v2, tag: int, default: int) -> int:
    """Return a tag's first number, or the default if it has none, as in a damaged file."""
    return next(numbers(directory, tag), default)


def numbers(directory: TiffImagePlugin.ImageFileDirectory_v2, tag: int) -> Iterator[int]:
    """Yield a tag's whole numbers, which Pillow hands out alone or as a tuple."""
    value = directory.get(tag, ())
    for one in value if isinstance(value, tuple) else (value,):
        if isinstance(one, int):
            yield one


def _compression(directory: TiffImagePlugin.ImageFileDirectory_v2) -> str:
    kind = number(directory, TiffImagePlugin.COMPRESSION, 1)
    return _COMPRESSIONS.get(kind, f"unknown ({kind})")
