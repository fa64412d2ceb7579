"""What Pillow lacks: exact 16-bit colour PNG and TIFF, and compressed TIFF with EXIF.

Pillow decodes 16-bit colours without their low byte. Reading therefore runs its decoder twice on
the same open file, once for the high and once for the low byte of each sample. Writing builds the
container here; zlib compresses.
"""

from __future__ import annotations

import io
import struct
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Final

import numpy as np
from PIL import ImageFile, TiffImagePlugin

from abair.images.pixels import divide_by_alpha, to_numpy, turn_upright

COMPRESSION_LEVEL: Final = 3
"""Of zlib, for photos: a third of the time of the usual 6 for 4 to 8 % more bytes."""

_ORIENTATION: Final = 274
_NATIVE: Final = "L" if sys.byteorder == "little" else "B"
_STRIP_SAMPLES: Final = 1 << 20  # samples filtered and compressed at a time, so that working memory stays small
_PNG_COLOUR_TYPE: Final = {1: 0, 2: 4, 3: 2, 4: 6}  # by the number of channels; W3C PNG, table 11.1


def is_reduced(image: ImageFile.ImageFile) -> bool:
    """Return whether Pillow keeps only the high byte of the samples; opened, not loaded."""
    if image.format not in {"PNG", "TIFF"} or not image.tile or image.mode.startswith("I"):
        return False
    return _rawmode(image.tile[0]).endswith((";16B", ";16L", ";16N")) or _is_planar(image)


def can_decode_16_bit(image: ImageFile.ImageFile) -> bool:
    """Return whether `decode_16_bit` can read an image that `is_reduced`.

    It cannot read CMYK; nor compressed planes of a BigTIFF or with premultiplied colours, which
    `tiff_samples` can.
    """
    if image.mode not in {"RGB", "RGBA"}:
        return False
    if not _has_compressed_planes(image):
        return True
    tags = image.tag_v2  # type: ignore[attr-defined]
    return not tags._bigtiff and 1 not in _as_tuple(tags.get(TiffImagePlugin.EXTRASAMPLES, ()))


def without_extra_planes(image: ImageFile.ImageFile) -> list[ImageFile._Tile]:
    """Return the tiles of a TIFF without those of planes that are no band of the image.

    Pillow lists them, and cannot decode them.
    """
    tags = getattr(image, "tag_v2", {})
    if tags.get(TiffImagePlugin.PLANAR_CONFIGURATION) != 2 or len(image.getbands()) == 1:
        return image.tile
    bands = image.getbands()
    return [tile for tile in image.tile if tile.codec_name == "libtiff" or _rawmode(tile).partition(";")[0] in bands]


def decode_16_bit(image: ImageFile.ImageFile, file: BinaryIO) -> np.ndarray:
    """Decode all 16 bits of `image`, which was opened on `file` and is not loaded yet.

    Returns (H, W, C) uint16: C = 2 (grey, alpha), 3 or 4 (alpha not premultiplied). `image` is
    loaded afterwards, with all its metadata. Pillow's errors pass through.
    """
    if _has_compressed_planes(image):
        return _decode_compressed_planes(image, file)
    rawmode = _rawmode(image.tile[0])
    if rawmode == "LA;16B":  # four bytes a pixel: as 8-bit RGBA Pillow passes them through
        image.tile = [tile._replace(args="RGBA") for tile in image.tile]
        image.load()
        return np.ascontiguousarray(to_numpy(image)).view(">u2").astype(np.uint16)
    samples = _decode_bytes(image, low=False).astype(np.uint16)
    samples <<= 8
    file.seek(0)
    with type(image)(file) as again:
        again.seek(image.tell())
        samples |= _decode_bytes(again, low=True)
    return divide_by_alpha(samples) if rawmode.startswith("RGBa") else samples


def _decode_bytes(image: ImageFile.ImageFile, *, low: bool) -> np.ndarray:
    """Load an image with the high (or low) byte of every sample, (H, W, C) uint8."""
    image.tile = [_with_rawmode(tile, _one_byte_rawmode(image, tile, low=low)) for tile in image.tile]
    image.load()
    return to_numpy(image)


def _decode_compressed_planes(image: ImageFile.ImageFile, file: BinaryIO) -> np.ndarray:
    """Decode a TIFF of one compressed plane a channel, (H, W, C) uint16.

    libtiff hands 16-bit planes to Pillow, which keeps their high bytes. So it is told that they are
    of 8 bits and twice as wide, and without a predictor, which is undone here.
    """
    tags = image.tag_v2  # type: ignore[attr-defined]
    order = "<" if tags.prefix == b"II" else ">"
    file.seek(0)
    data = bytearray(file.read())
    factors = {TiffImagePlugin.IMAGEWIDTH: 2, TiffImagePlugin.TILEWIDTH: 2, TiffImagePlugin.BITSPERSAMPLE: 0.5}
    changed = {
        tag: [int(factor * value) for value in _as_tuple(tags[tag])] for tag, factor in factors.items() if tag in tags
    }
    orientation = tags.get(_ORIENTATION, 1)  # Pillow turns what it has loaded, here pairs of bytes
    _change_directory(data, tags._offset, order, changed | {TiffImagePlugin.PREDICTOR: [1], _ORIENTATION: [1]})
    with type(image)(io.BytesIO(data)) as again:
        again.seek(image.tell())
        again.load()
        pairs = to_numpy(again)
    image.load()  # for its metadata
    samples = np.stack(
        [np.ascontiguousarray(pairs[..., channel]).view(order + "u2") for channel in range(pairs.shape[2])], axis=2
    ).astype(np.uint16)
    if tags.get(TiffImagePlugin.PREDICTOR, 1) == 2:  # each sample is the difference to the one before
        width = tags.get(TiffImagePlugin.TILEWIDTH, samples.shape[1])
        for left in range(0, samples.shape[1], width):
            block = samples[:, left : left + width]
            np.cumsum(block, axis=1, dtype=np.uint16, out=block)
    return turn_upright(samples, orientation)


def _change_directory(data: bytearray, start: int, order: str, values: Mapping[int, Sequence[int]]) -> None:
    """Change tags of the directory at `start` of a TIFF, each to as many numbers as it has."""
    (count,) = struct.unpack_from(order + "H", data, start)
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, number = struct.unpack_from(order + "HHI", data, entry)
        if tag not in values:
            continue
        form = {3: "H", 4: "I"}[kind]
        size = number * struct.calcsize(order + form)
        place = entry + 8 if size <= 4 else struct.unpack_from(order + "I", data, entry + 8)[0]
        struct.pack_into(f"{order}{number}{form}", data, place, *values[tag])


def encode_png_16_bit(
    samples: np.ndarray,
    *,
    icc_profile: bytes | None,
    exif: bytes | None,
    dpi: tuple[float, float] | None,
    annotations: Sequence[tuple[bytes, bytes, bool]] = (),
) -> bytes:
    """Encode samples (H, W, C) uint16 as a PNG file (W3C PNG).

    C = 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGBA). `dpi` is in pixels per inch.
    `annotations` are chunks, each as name, contents and whether it lies behind the pixels.
    """
    height, width, channels = samples.shape
    parts = [b"\x89PNG\r\n\x1a\n"]

    def chunk(name: bytes, data: bytes) -> None:
        parts.append(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)))

    chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, _PNG_COLOUR_TYPE[channels], 0, 0, 0))
    if icc_profile:
        chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc_profile))
    if dpi:
        chunk(b"pHYs", struct.pack(">IIB", round(dpi[0] / 0.0254), round(dpi[1] / 0.0254), 1))
    if exif:
        chunk(b"eXIf", exif.removeprefix(b"Exif\0\0"))
    for name, data, _ in annotations:
        chunk(name, data)
    packer = zlib.compressobj(COMPRESSION_LEVEL)
    for filtered in _filter_png_rows(samples):
        if data := packer.compress(filtered):
            chunk(b"IDAT", data)
    chunk(b"IDAT", packer.flush())
    chunk(b"IEND", b"")
    return b"".join(parts)


def encode_tiff(samples: np.ndarray, tags: dict[int, object], *, icc_profile: bytes | None) -> bytes:
    """Encode samples (H, W, C), uint8 or uint16, as a little-endian deflated TIFF. TIFF 6.0.

    C = 1 to 4 as in `encode_png_16_bit`. `tags` are descriptive ones (camera, dates, resolution);
    the values of the EXIF and GPS directories are dictionaries.
    """
    height, width, channels = samples.shape
    rows = max(1, _STRIP_SAMPLES // (width * channels))
    strips = []
    for top in range(0, height, rows):
        block = samples[top : top + rows].astype(samples.dtype.newbyteorder("<"))
        block[:, 1:] -= samples[top : top + rows, :-1]  # horizontal predictor; wraps around by design
        strips.append(zlib.compress(block.tobytes(), COMPRESSION_LEVEL))
    ends = np.cumsum([len(strip) for strip in strips])
    ifd = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
    for tag, value in tags.items():
        ifd[tag] = value
    ifd[TiffImagePlugin.IMAGEWIDTH] = width
    ifd[TiffImagePlugin.IMAGELENGTH] = height
    ifd[TiffImagePlugin.BITSPERSAMPLE] = (8 * samples.dtype.itemsize,) * channels
    ifd[TiffImagePlugin.COMPRESSION] = 8  # deflate, Adobe's supplement 2
    ifd[TiffImagePlugin.PREDICTOR] = 2
    ifd[TiffImagePlugin.PHOTOMETRIC_INTERPRETATION] = 1 if channels < 3 else 2
    ifd[TiffImagePlugin.SAMPLESPERPIXEL] = channels
    ifd[TiffImagePlugin.PLANAR_CONFIGURATION] = 1
    if channels in {2, 4}:
        ifd[TiffImagePlugin.EXTRASAMPLES] = 2  # alpha, not premultiplied
    ifd[TiffImagePlugin.ROWSPERSTRIP] = rows
    ifd.tagtype[TiffImagePlugin.STRIPOFFSETS] = ifd.tagtype[TiffImagePlugin.STRIPBYTECOUNTS] = 4  # LONG
    ifd[TiffImagePlugin.STRIPBYTECOUNTS] = tuple(len(strip) for strip in strips)
    # counted from the end of the directory; Pillow adds where that lies
    ifd[TiffImagePlugin.STRIPOFFSETS] = (0, *(int(end) for end in ends[:-1]))
    if icc_profile:
        ifd[TiffImagePlugin.ICCPROFILE] = icc_profile
    return b"".join([b"II\x2a\x00\x08\x00\x00\x00", ifd.tobytes(8), *strips])


def _filter_png_rows(samples: np.ndarray) -> Iterator[bytes]:
    """Filter rows of samples (H, W, C) uint16; yield the bytes of a strip of rows at a time.

    Each row takes the one of the filters Sub, Up and Average that has the smallest sum of
    differences.
    """
    height, width, channels = samples.shape
    step = 2 * channels
    above = np.zeros((1, width * step), np.uint8)
    rows = max(1, _STRIP_SAMPLES // (width * channels))
    for top in range(0, height, rows):
        raw = samples[top : top + rows].astype(">u2").view(np.uint8).reshape(-1, width * step)
        up = np.concatenate([above, raw[:-1]])
        left = np.zeros_like(raw)
        left[:, step:] = raw[:, :-step]
        middle = ((left.astype(np.uint16) + up) >> 1).astype(np.uint8)
        choices = np.stack([raw - left, raw - up, raw - middle])
        costs = np.abs(choices.view(np.int8).astype(np.int16)).sum(axis=2, dtype=np.int64)
        best = costs.argmin(axis=0)
        out = np.empty((len(raw), 1 + width * step), np.uint8)
        out[:, 0] = best + 1
        out[:, 1:] = choices[best, np.arange(len(raw))]
        above = raw[-1:].copy()
        yield out.tobytes()


def _rawmode(tile: ImageFile._Tile) -> str:
    args = tile.args
    return str(args[0] if isinstance(args, tuple) else args)


def _with_rawmode(tile: ImageFile._Tile, rawmode: str) -> ImageFile._Tile:
    args = tile.args
    return tile._replace(args=(rawmode, *args[1:]) if isinstance(args, tuple) else rawmode)


def _is_planar(image: ImageFile.ImageFile) -> bool:
    """Return whether this is a 16-bit TIFF with one plane per channel.

    Pillow reads uncompressed ones as 8-bit.
    """
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, (8,))
    return tags.get(TiffImagePlugin.PLANAR_CONFIGURATION) == 2 and set(bits) == {16}


def _has_compressed_planes(image: ImageFile.ImageFile) -> bool:
    return _is_planar(image) and image.tile[0].codec_name == "libtiff"


def _as_tuple(value: object) -> tuple[Any, ...]:
    """Return a tag's value, which Pillow hands out alone or as a tuple."""
    return value if isinstance(value, tuple) else (value,)


def _one_byte_rawmode(image: ImageFile.ImageFile, tile: ImageFile._Tile, *, low: bool) -> str:
    """Return the raw mode that unpacks the high (or low) byte of every sample of this tile."""
    bands, _, order = _rawmode(tile).partition(";16")
    if not order:  # a single plane
        order = "L" if image.tag_v2.prefix == b"II" else "B"  # type: ignore[attr-defined]
    if order == "N":
        order = _NATIVE
    if low:
        order = "B" if order == "L" else "L"
    return f"{bands.replace('RGBa', 'RGBA')};16{order}"
