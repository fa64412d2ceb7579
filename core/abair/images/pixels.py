"""Conversions between Pillow's modes and samples (H, W, C): layout, depth, colour, alpha."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from PIL import Image, TiffImagePlugin

from abair.errors import ImageError
from abair.text import error_text

_OVERSHOOT: Final = 0.01
"""By how much floats may leave [0, 1], as sharpening makes them; they are clipped."""
_STRIP_PIXELS: Final = 1 << 20


_TO_UPRIGHT: Final[dict[int, Callable[[np.ndarray], np.ndarray]]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: a.swapaxes(0, 1)[::-1],
}
"""EXIF orientations other than 1, and what turns samples (H, W, C) stored that way upright."""


def strips(height: int, width: int) -> Iterator[slice]:
    """Yield some rows at a time, so that work on a photo needs no second copy of it."""
    rows = max(1, _STRIP_PIXELS // max(1, width))
    for top in range(0, height, rows):
        yield slice(top, min(height, top + rows))


def turn_upright(samples: np.ndarray, orientation: int) -> np.ndarray:
    """Return samples (H, W, C) upright that are stored in an orientation, 1 to 8 of EXIF."""
    turn = _TO_UPRIGHT.get(orientation)
    return samples if turn is None else np.ascontiguousarray(turn(samples))


def to_samples(name: str, image: Image.Image, warn: Callable[[str], None]) -> np.ndarray:
    """Return the samples of a loaded image, (H, W, C) uint8 or uint16.

    C = 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGBA).

    Raises:
        ImageError: the pixels are of a kind whose range is not known (floating point, CIE Lab, 32
            bit).
    """
    mode = image.mode
    if mode.startswith("I;16") or mode == "I":
        return add_colour_key(_grey_16_bit(name, image), image)
    transparent = image.has_transparency_data
    if mode == "CMYK":
        return to_numpy(_cmyk_to_srgb(image, warn))
    if mode in {"1", "L", "LA", "La"}:
        wanted = "LA" if transparent else "L"
    elif mode in {"P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr"}:
        wanted = "RGBA" if transparent else "RGB"
    else:
        kind = {"F": "floating-point", "LAB": "CIE Lab"}.get(mode, mode)
        raise ImageError(f"{name}: found {kind} pixels, expected 8 or 16 bit grey or RGB; convert it first")
    return to_numpy(image if mode == wanted else image.convert(wanted))


def _grey_16_bit(name: str, image: Image.Image) -> np.ndarray:
    """Return 16-bit grey (H, W, 1) in the full range.

    A TIFF may hold 12 bits, or store white as 0.
    """
    grey = np.asarray(image)[..., None]
    if grey.size and (grey.min() < 0 or grey.max() > 65535):
        raise ImageError(f"{name}: found 32-bit pixels, expected 8 or 16 bit; convert it to 16 bit")
    grey = grey.astype(np.uint16)
    tags = getattr(image, "tag_v2", {})
    if tags.get(TiffImagePlugin.BITSPERSAMPLE) == (12,):
        grey = widen(grey, 12)
    if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:
        grey = ~grey
    return grey


def add_colour_key(samples: np.ndarray, image: Image.Image) -> np.ndarray:
    """Add an alpha channel to 16-bit samples (H, W, C) if a PNG declares a colour transparent."""
    key = image.info.get("transparency")
    if key is None or samples.shape[2] not in {1, 3}:
        return samples
    hidden = (samples == np.asarray(key, np.uint16)).all(axis=2, keepdims=True)
    return np.concatenate([samples, np.where(hidden, 0, 65535).astype(np.uint16)], axis=2)


def _cmyk_to_srgb(image: Image.Image, warn: Callable[[str], None]) -> Image.Image:
    """Convert CMYK to sRGB, through the image's profile if it has one.

    Pillow has already undone Adobe's inversion.
    """
    profile = image.info.get("icc_profile")
    if profile:
        from PIL import ImageCms

        try:
            source, target = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
            if converted is not None:
                return converted
        except (ImageCms.PyCMSError, OSError, ValueError) as error:
            warn(f"its CMYK profile is not usable ({error_text(error)}); colours are approximate")
    return image.convert("RGB")


def to_whole_numbers(name: str, samples: np.ndarray) -> np.ndarray:
    """Return floats in [0, 1] as uint16; uint8 and uint16 as they are, copied.

    Raises:
        ImageError: they are of another type, or floats outside [0, 1].
    """
    if samples.dtype in {np.dtype(np.uint8), np.dtype(np.uint16)}:
        return samples.copy()
    if samples.dtype.kind != "f":
        raise ImageError(f"{name}: found {samples.dtype} samples, expected 8 or 16 bits; convert them first")
    low, high = float(samples.min()), float(samples.max())
    if not (low >= -_OVERSHOOT and high <= 1 + _OVERSHOOT):  # nor with NaN
        raise ImageError(
            f"{name}: found floating-point samples from {low:.4g} to {high:.4g}, expected 0 to 1; export the photo "
            "with 16 bits"
        )
    whole: np.ndarray = np.rint(np.clip(samples, 0, 1, dtype=np.float32) * 65535).astype(np.uint16)
    return whole


def widen(samples: np.ndarray, bits: int) -> np.ndarray:
    """Return whole numbers of so many bits in the full range of their dtype."""
    full = 8 * samples.dtype.itemsize
    wide = samples << (full - bits)
    while bits < full:
        wide |= wide >> bits
        bits *= 2
    return wide


def divide_by_alpha(samples: np.ndarray) -> np.ndarray:
    """Undo the multiplication of samples (H, W, C) by the alpha in their last channel."""
    full = np.iinfo(samples.dtype).max
    alpha = np.maximum(samples[..., -1:].astype(np.float64), 1.0)
    straight = np.minimum(samples[..., :-1] * (full / alpha), full)
    return np.concatenate([np.rint(straight).astype(samples.dtype), samples[..., -1:]], axis=2)


def to_numpy(image: Image.Image) -> np.ndarray:
    """Copy an 8-bit image to (H, W, C) uint8, strip by strip."""
    width, height = image.size
    out = np.empty((height, width, len(image.getbands())), np.uint8)
    for rows in strips(height, width):
        strip = image.crop((0, rows.start, width, rows.stop))
        out[rows] = np.asarray(strip).reshape(-1, width, out.shape[2])
    return out


def reduce_to_8_bit(samples: np.ndarray) -> np.ndarray:
    """Reduce uint16 samples to uint8, rounded to nearest: 65535 = 257 x 255.

    For floats see `metrics.to_8_bit`.
    """
    return ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)


def fill_hidden(pixels: np.ndarray, alpha: np.ndarray | None) -> np.ndarray:
    """Return pixels (H, W, 3) with the mean of the visible ones where alpha (H, W) hides them.

    Colours that nobody sees must decide nothing.
    """
    if alpha is None or alpha.all() or not alpha.any():
        return pixels
    hidden = alpha == 0
    filled = pixels.copy()
    filled[hidden] = pixels[~hidden].mean(axis=0).astype(pixels.dtype)
    return filled


def flatten_on_white(samples: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Lay samples (H, W, C) over white by their alpha (H, W) of the same dtype."""
    full = np.iinfo(alpha.dtype).max
    flat = np.empty_like(samples)
    for strip in strips(*samples.shape[:2]):
        weight = alpha[strip, :, None].astype(np.uint32)  # 65535^2 + 32767 still fits
        flat[strip] = (samples[strip] * weight + full * (full - weight) + full // 2) // full
    return flat
