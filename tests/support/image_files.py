"""Image files for tests: made with Pillow or by hand, never with the writer under test."""

from __future__ import annotations

import struct
import zlib
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


def tiff_16(path: Path, samples: np.ndarray, *, order: str = "<", planar: bool = False) -> Path:
    """An uncompressed 16-bit TIFF made by hand, interleaved or one plane a channel."""
    height, width, channels = samples.shape
    planes = [samples[..., i] for i in range(channels)] if planar else [samples]
    data = [np.ascontiguousarray(plane).astype(order + "u2").tobytes() for plane in planes]
    entries = {256: (4, [width]), 257: (4, [height]), 258: (3, [16] * channels), 259: (3, [1]), 262: (3, [2])}
    entries |= {277: (3, [channels]), 278: (4, [height]), 284: (3, [2 if planar else 1])}
    if channels == 4:
        entries |= {338: (3, [2])}
    place = 4096
    entries |= {279: (4, [len(part) for part in data]), 273: (4, [place + i * len(data[0]) for i in range(len(data))])}
    directory, far = struct.pack(order + "H", len(entries)), b""
    start = 8 + 2 + 12 * len(entries) + 4
    for tag, (kind, values) in sorted(entries.items()):
        packed = struct.pack(order + {3: "H", 4: "I"}[kind] * len(values), *values)
        if len(packed) > 4:
            packed, far = struct.pack(order + "I", start + len(far)), far + packed
        directory += struct.pack(order + "HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    path.write_bytes((head + directory + bytes(4) + far).ljust(place, b"\0") + b"".join(data))
    return path


def same_again(source: Path, target: Path) -> images.Photo:
    """Write the photo unchanged and read it back."""
    photo = images.read(source)
    images.write(target, photo, photo.pixels)
    return images.read(target)


def profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exif_block(orientation: int = 1, **tags: object) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    exif[0x010F] = "Maker"
    exif.get_ifd(0x8769)[0x9003] = "2020:01:02 03:04:05"
    exif.get_ifd(0x8769)[0x927C] = b"maker note \x00\x01\x02"
    return exif.tobytes()
