"""Decode TIFFs that Pillow cannot, by tifffile and imagecodecs of the extra `formats`."""

from __future__ import annotations

import io
import logging
import struct
from typing import TYPE_CHECKING, BinaryIO, Final

import numpy as np
from PIL import PngImagePlugin, TiffImagePlugin

from abair.errors import ImageError, MissingExtraError
from abair.images import further_formats
from abair.images.pixels import divide_by_alpha, to_whole_numbers

if TYPE_CHECKING:
    import tifffile

# Without a handler, Python prints what tifffile says of damaged files to stderr.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

_COLOURS: Final = {0: 1, 1: 1, 2: 3}
"""Channels of the colours by PhotometricInterpretation."""
_OTHER_COLOURS: Final = {3: "palette", 4: "mask", 5: "CMYK", 6: "YCbCr", 8: "CIE Lab"}
_MOST_CHANNELS: Final = 8
_HEAD: Final = 1 << 16
"""Bytes of a part in which its size is stated."""
_WHITE_IS_ZERO: Final = 0
_PREMULTIPLIED: Final = 1


def decode(name: str, file: BinaryIO, page: int, directory: TiffImagePlugin.ImageFileDirectory_v2) -> np.ndarray:
    """Return the samples of a page as they are stored, (H, W, C) uint8 or uint16.

    C = 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGBA); other channels are left out. Samples in
    floating point become 16-bit ones.

    Raises:
        ImageError: they are of no known range: not within [0, 1], or whole numbers of other than 8
            and 16 bits; colours are neither grey nor RGB; there are too many channels; or a part of
            the picture holds another number of pixels than the page says.
        MissingExtraError: tifffile or imagecodecs is not installed.
        Exception: whatever a damaged file leads them to.
    """
    try:
        import imagecodecs  # noqa: F401 (tifffile decodes by it)
        import tifffile
    except ImportError as error:
        raise MissingExtraError(
            "tifffile and imagecodecs are missing; install them with: pip install 'abair[formats]'"
        ) from error
    file.seek(0)
    with tifffile.TiffFile(file) as container:
        found = container.pages[page].aspage()
        if found.photometric not in _COLOURS:
            other = _OTHER_COLOURS.get(int(found.photometric), f"unknown ({int(found.photometric)})")
            raise ImageError(f"{name}: found a TIFF with {other} colours, expected grey or RGB; convert it first")
        if found.samplesperpixel > _MOST_CHANNELS or found.imagedepth > 1:
            raise ImageError(
                f"{name}: found {found.samplesperpixel} channels and {found.imagedepth} layers, expected at most "
                f"{_MOST_CHANNELS} channels and one layer; save it again as RGB"
            )
        _check_parts(name, file, found)
        samples = np.asarray(found.asarray())
    if found.planarconfig == 2 and samples.ndim == 3:
        samples = np.moveaxis(samples, 0, -1)
    samples = samples.reshape(*samples.shape[:2], -1)
    colours = _COLOURS[found.photometric]
    extra = directory.get(TiffImagePlugin.EXTRASAMPLES, ())
    kind = (extra if isinstance(extra, tuple) else (extra,))[:1]
    channels = colours + (kind in {(1,), (2,)})
    if samples.shape[2] < channels:
        raise ImageError(f"{name}: found {samples.shape[2]} channels, expected {channels}; save it again as RGB")
    samples = to_whole_numbers(name, samples[..., :channels])
    if found.photometric == _WHITE_IS_ZERO:
        samples[..., 0] = ~samples[..., 0]
    return divide_by_alpha(samples) if kind == (_PREMULTIPLIED,) else samples


def _check_parts(name: str, file: BinaryIO, page: tifffile.TiffPage) -> None:
    """Check that strips and tiles which state a size of their own have no more than the page's.

    A small file could hold a huge picture in one of them, and decoding would take all memory.

    Raises:
        ImageError: one has.
    """
    height, width = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
    for place in page.dataoffsets:
        file.seek(place)
        size = _stated_size(file.read(_HEAD))
        if size is not None and (size[0] > width or (size[1] > min(height, page.imagelength) and not page.is_tiled)):
            raise ImageError(
                f"{name}: found a part of {size[0]} x {size[1]} pixels, expected at most {width} x {height}; the file "
                "is damaged: copy it again from its source"
            )


def _stated_size(head: bytes) -> tuple[int, int] | None:
    """Return the (width, height) that a PNG, JPEG 2000, JPEG XL or LERC stream states."""
    if head.startswith(b"Lerc2 "):
        start = 14 if int.from_bytes(head[6:10], "little") >= 3 else 10  # behind a checksum
        rows, columns = struct.unpack_from("<II", head, start)
        return columns, rows
    if head.startswith(b"\x89PNG"):
        return PngImagePlugin.PngImageFile(io.BytesIO(head)).size
    reader = further_formats.find_reader(head)
    return reader(io.BytesIO(head)).size if reader is not None else None
