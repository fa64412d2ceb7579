"""Make image files with known samples, and files with metadata: inputs of read_images.py.

Pillow and tifffile write what they can and the rest is written by hand, so that no reader meets
only its own writer's files.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tifffile
from PIL import Image, ImageCms, PngImagePlugin

ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
GAMMA = struct.pack(">I", 100000)
"""Of a gAMA chunk: 1.0, linear light."""
File = tuple[str, bytes, np.ndarray]
"""Name, content, and the right samples (H, W, C): C = 1 grey, 2 with alpha, 3 RGB, 4 RGBA."""


def noise(channels: int, depth: int = 8) -> np.ndarray:
    """Return random samples (70, 53, channels)."""
    dtype = np.uint8 if depth <= 8 else np.uint16
    return np.random.default_rng(channels).integers(0, 2**depth, (70, 53, channels), dtype=dtype)


def chunk(name: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(samples: np.ndarray, *, depth: int, extra: bytes = b"", interlaced: bool = False) -> bytes:
    """Return a PNG of samples (H, W, C) with `depth` bits each and the chunks `extra`."""
    height, width, channels = samples.shape
    rows = bytearray()
    for top, left, down, right in ADAM7 if interlaced else ((0, 0, 1, 1),):
        for row in samples[top::down, left::right]:
            if depth < 8:
                bits = row.reshape(-1, 1) >> np.arange(depth - 1, -1, -1) & 1
                rows += b"\0" + np.packbits(bits.astype(np.uint8)).tobytes()
            else:
                rows += b"\0" + row.astype(f">u{depth // 8}").tobytes()
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced)))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")


def huge_png() -> bytes:
    """Return a PNG whose header promises 3000 megapixels, and that holds none."""
    header = struct.pack(">IIBBBBB", 60000, 50000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def pillow(image: Image.Image | np.ndarray, kind: str, **options: Any) -> bytes:
    """Return a file as Pillow writes it."""
    file = io.BytesIO()
    (Image.fromarray(image.squeeze()) if isinstance(image, np.ndarray) else image).save(file, kind, **options)
    return file.getvalue()


def tiff(samples: np.ndarray, **options: Any) -> bytes:
    """Return a TIFF as tifffile writes it."""
    file = io.BytesIO()
    tifffile.imwrite(file, samples, **{"photometric": "rgb"} | options)
    return file.getvalue()


def png_files() -> Iterator[File]:
    """Yield PNG of all depths and colour types."""
    for depth in (1, 2, 4):
        yield f"PNG {depth} bit", png(noise(1, depth), depth=depth), noise(1, depth) * np.uint8(255 // (2**depth - 1))
    for depth in (8, 16):
        for channels in (1, 2, 3, 4):
            samples = noise(channels, depth)
            for interlaced in (False, True):
                name = f"PNG {depth} bit, {channels} channels{', interlaced' * interlaced}"
                yield name, png(samples, depth=depth, interlaced=interlaced), samples
        rgb = noise(3, depth)
        alpha = np.where((rgb == rgb[4, 5]).all(axis=2), 0, 2**depth - 1).astype(rgb.dtype)
        key = chunk(b"tRNS", rgb[4, 5].astype(">u2").tobytes())
        yield f"PNG {depth} bit, tRNS", png(rgb, depth=depth, extra=key), np.dstack([rgb, alpha])
    yield "PNG gAMA", png(noise(3), depth=8, extra=chunk(b"gAMA", GAMMA)), noise(3)
    palette = Image.fromarray(noise(3)).quantize(16)
    colours = np.asarray(palette.convert("RGB"))
    yield "PNG palette", pillow(palette, "PNG"), colours
    alpha = np.where(np.asarray(palette) == 3, 0, 255).astype(np.uint8)
    yield "PNG palette, tRNS", pillow(palette, "PNG", transparency=3), np.dstack([colours, alpha])


def tiff_files() -> Iterator[File]:
    """Yield TIFF of 8 and 16 bits in the layouts and compressions that photos and scans have."""
    page = noise(1, 1).astype(bool)
    yield "TIFF 1 bit, G4", pillow(page, "TIFF", compression="group4"), page * np.uint8(255)
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
        yield f"TIFF 8 bit, {compression}", pillow(noise(3), "TIFF", compression=compression), noise(3)
    layouts: dict[str, dict[str, Any]] = {
        "strips": {}, "big-endian": {"byteorder": ">"}, "BigTIFF": {"bigtiff": True}, "tiles": {"tile": (16, 16)},
        "deflate": {"compression": "zlib"}, "deflate, predictor": {"compression": "zlib", "predictor": True},
        "tiles, deflate": {"tile": (16, 16), "compression": "zlib"},
    }  # fmt: skip
    for depth in (8, 16):
        grey, rgb, rgba = noise(1, depth), noise(3, depth), noise(4, depth)
        for name, options in layouts.items():
            yield f"TIFF {depth} bit, {name}", tiff(rgb, **options), rgb
        for name in ("strips", "deflate", "tiles"):
            planes = tiff(np.moveaxis(rgb, 2, 0), planarconfig="separate", **layouts[name])
            yield f"TIFF {depth} bit, planes, {name}", planes, rgb
        yield f"TIFF {depth} bit, grey", tiff(grey[..., 0], photometric="minisblack"), grey
        yield f"TIFF {depth} bit, white is 0", tiff(grey[..., 0], photometric="miniswhite"), 2**depth - 1 - grey
        yield f"TIFF {depth} bit, alpha", tiff(rgba, extrasamples=["unassalpha"]), rgba


def other_files() -> Iterator[File]:
    """Yield JPEG, WebP and BMP files; the samples of a lossy file are as Pillow decodes them."""
    rows, columns = np.mgrid[0:70, 0:53]
    smooth = Image.fromarray(np.stack([rows * 3, columns * 4, rows + columns], axis=2).astype(np.uint8))
    yield "BMP", pillow(noise(3), "BMP"), noise(3)
    yield "WebP lossless", pillow(noise(3), "WEBP", lossless=True), noise(3)
    yield "WebP lossless, alpha", pillow(noise(4), "WEBP", lossless=True, exact=True), noise(4)
    lossy: tuple[tuple[str, str, Image.Image, dict[str, Any]], ...] = (
        ("JPEG", "JPEG", smooth, {}), ("JPEG grey", "JPEG", smooth.convert("L"), {}),
        ("JPEG progressive", "JPEG", smooth, {"progressive": True}), ("WebP", "WEBP", smooth, {"quality": 80}),
        ("TIFF 8 bit, JPEG", "TIFF", smooth, {"compression": "jpeg"}),
        ("JPEG CMYK", "JPEG", smooth.convert("CMYK"), {}), ("TIFF CMYK", "TIFF", smooth.convert("CMYK"), {}),
    )  # fmt: skip
    for name, kind, image, options in lossy:
        data = pillow(image, kind, **options)
        with Image.open(io.BytesIO(data)) as decoded:
            right = np.asarray(decoded.convert("L" if image.mode == "L" else "RGB"))
        yield name, data, right.reshape(70, 53, -1)
    for turn, method in ((3, Image.Transpose.ROTATE_180), (6, Image.Transpose.ROTATE_270)):
        exif = Image.Exif()
        exif[0x0112] = turn
        for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
            data = pillow(smooth, kind, exif=exif.tobytes(), **{"lossless": True} if kind == "WEBP" else {})
            with Image.open(io.BytesIO(data)) as decoded:
                stored = smooth if kind == "TIFF" else decoded.convert("RGB")  # Pillow turns a TIFF by itself
                yield f"{kind} orientation {turn}", data, np.asarray(stored.transpose(method))


def metadata_files() -> Iterator[tuple[str, bytes]]:
    """Yield a file of each format with all metadata that Pillow writes, and a PNG's gAMA."""
    exif, text = Image.Exif(), PngImagePlugin.PngInfo()
    exif[0x010F] = "Maker"
    exif.get_ifd(0x8769)[0x9003] = "2020:01:02 03:04:05"
    text.add_itxt("XML:com.adobe.xmp", "<x/>")
    caption = b"\x1c\x02\x78\0\x04text"  # IPTC: record 2, data set 120
    block = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + struct.pack(">I", len(caption)) + caption + b"\0"
    app13 = b"\xff\xed" + struct.pack(">H", 2 + len(block)) + block
    image, common = Image.new("RGB", (16, 16)), {"exif": exif.tobytes(), "dpi": (300, 300)}
    common["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    yield "JPEG", pillow(image, "JPEG", xmp=b"<x/>", comment="remark", extra=app13, **common)
    data = pillow(image, "PNG", pnginfo=text, **common)
    yield "PNG", data[:33] + chunk(b"gAMA", GAMMA) + data[33:]  # behind the header
    yield "WebP", pillow(image, "WEBP", xmp=b"<x/>", **common)
    exif[700], exif[33723] = b"<x/>", caption
    yield "TIFF", pillow(image, "TIFF", **common | {"exif": exif.tobytes()})
