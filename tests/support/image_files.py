"""Image files for tests: made with Pillow or by hand, never with the writer under test."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from abair import images

ORIENTATION = 0x0112


def noise(height: int, width: int, channels: int = 3, dtype: type = np.uint8) -> np.ndarray:
    top = int(np.iinfo(dtype).max) + 1
    samples = np.random.default_rng(7).integers(0, top, (height, width, channels), dtype=dtype)
    return samples[..., 0] if channels == 1 else samples


def smooth(height: int = 64, width: int = 48) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 3, columns * 4, rows + columns], axis=2).astype(np.uint8)


def save(path: Path, samples: np.ndarray | Image.Image, **options: Any) -> Path:
    image = samples if isinstance(samples, Image.Image) else Image.fromarray(samples)
    image.save(path, **options)
    return path


def png_16(path: Path, samples: np.ndarray, *, interlaced: bool = False, key: bytes = b"") -> Path:
    """A 16-bit PNG made by hand, so that the reader is not tested against the writer."""
    height, width = samples.shape[:2]
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = b""
    for top, left, down, right in passes:
        part = samples[top::down, left::right]
        if part.size:
            rows += b"".join(b"\0" + row.astype(">u2").tobytes() for row in part)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, int(interlaced))
    parts = [chunk(b"IHDR", header), chunk(b"tRNS", key) if key else b"", chunk(b"IDAT", zlib.compress(rows))]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b""))
    return path


def tiff_16(
    path: Path,
    samples: np.ndarray,
    *,
    order: str = "<",
    planar: bool = False,
    predictor: int = 0,
    tile: int = 0,
    orientation: int = 1,
) -> Path:
    """A 16-bit TIFF made by hand, interleaved or one plane a channel.

    With a predictor, 1 or 2, it is deflated; with `tile`, in tiles of that side.
    """
    height, width, channels = samples.shape
    planes = [samples[..., i : i + 1] for i in range(channels)] if planar else [samples]
    blocks = []
    for plane in planes:
        side = tile or max(height, width)
        for top, left in ((top, left) for top in range(0, height, side) for left in range(0, width, side)):
            block = plane[top : top + side, left : left + side]
            if tile:
                block = np.pad(block, ((0, tile - block.shape[0]), (0, tile - block.shape[1]), (0, 0)))
            if predictor == 2:
                block = np.concatenate([block[:, :1], block[:, 1:] - block[:, :-1]], axis=1)
            blocks.append(np.ascontiguousarray(block).astype(order + "u2").tobytes())
    data = [zlib.compress(block) for block in blocks] if predictor else blocks
    tags: Tags = {256: [width], 257: [height], 258: [16] * channels, 259: [8 if predictor else 1], 262: [2]}
    tags |= {277: [channels], 284: [2 if planar else 1]}
    tags |= {322: [tile], 323: [tile]} if tile else {278: [height]}
    tags |= {317: [predictor]} if predictor else {}
    tags |= {338: [2]} if channels == 4 else {}
    tags |= {ORIENTATION: [orientation]} if orientation != 1 else {}
    return tiff(path, (tags, data), order=order)


Tags = dict[int, list[int]]


def tiff(path: Path, *pages: tuple[Tags, list[bytes]], children: tuple[Tags, ...] = (), order: str = "<") -> Path:
    """A TIFF made by hand: pages of tags with strips or tiles, and directories below the first page."""
    out = bytearray((b"II*\0" if order == "<" else b"MM\0*") + bytes(4))

    def directory(tags: Tags) -> int:
        entries = b""
        for tag, values in sorted(tags.items()):
            packed = struct.pack(f"{order}{len(values)}I", *values)
            if len(packed) > 4:
                out.extend(packed)
                packed = struct.pack(order + "I", len(out) - len(packed))
            entries += struct.pack(order + "HHI", tag, 4, len(values)) + packed
        out.extend(struct.pack(order + "H", len(tags)) + entries + bytes(4))
        return len(out) - 4 - len(entries) - 2

    link = 4
    below = [directory(tags) for tags in children]
    for number, (tags, data) in enumerate(pages):
        places = []
        for block in data:
            places.append(len(out))
            out.extend(block)
        where, length = (324, 325) if 322 in tags else (273, 279)
        full = tags | {where: places, length: [len(block) for block in data]}
        start = directory(full | ({330: below} if below and number == 0 else {}))
        struct.pack_into(order + "I", out, link, start)
        link = len(out) - 4
    path.write_bytes(out)
    return path


def set_tag(path: Path, tag: int, value: int) -> None:
    """Set a number in the first directory of a little-endian TIFF."""
    data = bytearray(path.read_bytes())
    start = int.from_bytes(data[4:8], "little")
    for entry in range(start + 2, start + 2 + 12 * int.from_bytes(data[start : start + 2], "little"), 12):
        if int.from_bytes(data[entry : entry + 2], "little") == tag:
            size = {3: 2, 4: 4}[data[entry + 2]]
            data[entry + 8 : entry + 8 + size] = value.to_bytes(size, "little")
            path.write_bytes(data)
            return
    raise AssertionError(f"no tag {tag}")


def same_again(source: Path, target: Path) -> images.Photo:
    """Write the photo with its pixels and read it back, with the warnings of both."""
    photo = images.read(source)
    written = images.write(target, images.finish(photo, photo.pixels))
    again = images.read(target)
    return replace(again, warnings=(*written.warnings, *again.warnings))


def profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exif_block(orientation: int = 1, **tags: object) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    exif[0x010F] = "Maker"
    exif.get_ifd(0x8769)[0x9003] = "2020:01:02 03:04:05"
    exif.get_ifd(0x8769)[0x927C] = b"maker note \x00\x01\x02"
    return exif.tobytes()
