"""Decode TIFFs that Pillow cannot, by tifffile and imagecodecs of the extra `formats`."""

from __future__ import annotations

import io
import logging
import struct
from contextlib import nullcontext
from typing import TYPE_CHECKING, BinaryIO, Final

import numpy as np
from PIL import PngImagePlugin, TiffImagePlugin, WebPImagePlugin

from abair.errors import ImageError, MissingExtraError
from abair.images import further_formats, jpeg_stream
from abair.images.pixels import divide_by_alpha, to_whole_numbers, widen
from abair.images.stderr import without_messages
from abair.images.tiff_directory import describe

if TYPE_CHECKING:
    import tifffile

# Without a handler, Python prints what tifffile says of damaged files to stderr.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

_COLOURS: Final = {0: 1, 1: 1, 2: 3}
"""Channels of the colours by PhotometricInterpretation."""
_YCBCR, _RGB = 6, 2
"""Values of it: what is stored as JPEG in the one comes out as the other."""
_JPEG: Final = frozenset({7, 33007})
_WHOLE_PARTS: Final = (b"\xff\xd8", b"RIFF", b"II\xbc")
"""How JPEG, WebP and JPEG XR begin, which are read whole; of others the head tells the size."""
_HEAD: Final = 1 << 16
"""Bytes of a part that are read of those."""
_JPEG_XR: Final = frozenset({22610, 34934})
_JPEG_XR_SIZE: Final = (0xBC80, 0xBC81)
"""Tags of width and height in its directory: ITU-T T.832, annex A."""
_MOST_CHANNELS: Final = 8
_WHITE_IS_ZERO: Final = 0
_PREMULTIPLIED: Final = 1


def decode(name: str, file: BinaryIO, page: int, directory: TiffImagePlugin.ImageFileDirectory_v2) -> np.ndarray:
    """Return the samples of a page as they are stored, (H, W, C) uint8 or uint16, in full range.

    C = 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGBA); other channels are left out. Samples in
    floating point and of 9 to 15 bits become 16-bit ones, those of fewer bits 8-bit ones.

    Raises:
        ImageError: they are of no known range: not within [0, 1], or whole numbers of more than 16
            bits; colours are neither grey nor RGB; there are too many channels; or a part of the
            picture holds another number of pixels than the page says.
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
        if not _is_known(found):
            raise ImageError(
                f"{name}: found a TIFF of {describe(directory)}, expected grey or RGB of 8 or 16 bits; convert it to "
                "that first"
            )
        if found.samplesperpixel > _MOST_CHANNELS or found.imagedepth > 1:
            raise ImageError(
                f"{name}: found {found.samplesperpixel} channels and {found.imagedepth} layers, expected at most "
                f"{_MOST_CHANNELS} channels and one layer; save it again as RGB"
            )
        _check_parts(name, file, found)
        with without_messages() if found.compression in _JPEG_XR else nullcontext():
            samples = np.asarray(found.asarray())
    if found.planarconfig == 2 and samples.ndim == 3:
        samples = np.moveaxis(samples, 0, -1)
    samples = samples.reshape(*samples.shape[:2], -1)
    colours = _COLOURS.get(found.photometric, _COLOURS[_RGB])
    extra = directory.get(TiffImagePlugin.EXTRASAMPLES, ())
    kind = (extra if isinstance(extra, tuple) else (extra,))[:1]
    channels = colours + (kind in {(1,), (2,)})
    if samples.shape[2] < channels:
        raise ImageError(f"{name}: found {samples.shape[2]} channels, expected {channels}; save it again as RGB")
    samples = samples[..., :channels]
    if samples.dtype.kind != "f":
        samples = widen(samples.astype(np.uint8) if samples.dtype == bool else samples, found.bitspersample)
    samples = to_whole_numbers(name, samples)
    if found.photometric == _WHITE_IS_ZERO:
        samples[..., 0] = ~samples[..., 0]
    return divide_by_alpha(samples) if kind == (_PREMULTIPLIED,) else samples


def _is_known(page: tifffile.TiffPage) -> bool:
    """Return whether the range of the samples and the meaning of the colours are known."""
    kind = page.dtype.kind if page.dtype is not None else ""
    if kind != "f" and (kind not in {"u", "b"} or page.bitspersample not in range(1, 17)):  # or a tuple
        return False
    becomes_rgb = page.compression in _JPEG and page.planarconfig == 1 and not page.extrasamples
    return page.photometric in _COLOURS or (page.photometric == _YCBCR and becomes_rgb)


def _check_parts(name: str, file: BinaryIO, page: tifffile.TiffPage) -> None:
    """Check that strips and tiles which state a size of their own have no more than the page's.

    A small file could hold a huge picture in one of them, and decoding would take all memory.

    Raises:
        ImageError: one has.
        OSError: one is cut off.
    """
    height, width = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
    for place, count in zip(page.dataoffsets, page.databytecounts, strict=False):
        file.seek(place)
        data = file.read(min(count, _HEAD))
        if data.startswith(_WHOLE_PARTS):
            data += file.read(max(0, count - _HEAD))
            if len(data) < count:  # which the decoders of JPEG and JPEG XR pass over
                raise OSError("image file is truncated")
        size = _stated_size(data)
        if size is not None and (size[0] > width or (size[1] > min(height, page.imagelength) and not page.is_tiled)):
            raise ImageError(
                f"{name}: found a part of {size[0]} x {size[1]} pixels, expected at most {width} x {height}; the file "
                "is damaged: copy it again from its source"
            )


def _stated_size(data: bytes) -> tuple[int, int] | None:
    """Return the (width, height) that a strip or tile states, in a format that has a header."""
    if data.startswith(b"Lerc2 "):
        start = 14 if int.from_bytes(data[6:10], "little") >= 3 else 10  # behind a checksum
        rows, columns = struct.unpack_from("<II", data, start)
        return columns, rows
    if data.startswith(b"\x89PNG"):
        return PngImagePlugin.PngImageFile(io.BytesIO(data)).size
    if data.startswith(b"\xff\xd8"):
        return jpeg_stream.size(data)
    if data.startswith(b"RIFF"):
        return WebPImagePlugin.WebPImageFile(io.BytesIO(data)).size
    if data.startswith(b"II\xbc"):  # a directory as that of a TIFF, whose header Pillow knows
        header = TiffImagePlugin.ImageFileDirectory_v2(b"II*\0" + data[4:8])
        stream = io.BytesIO(data)
        stream.seek(header.next)
        header.load(stream)
        width, height = (header[tag] for tag in _JPEG_XR_SIZE)
        return width, height
    reader = further_formats.find_reader(data[:_HEAD])
    return reader(io.BytesIO(data)).size if reader is not None else None
