"""Conversions between the images that callers give and pixels (H, W, 3)."""

from __future__ import annotations

import os
from os import PathLike
from typing import IO, Any, Self, TypeVar, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from abair.errors import ImageError
from abair.images.exif import exif_of
from abair.images.kept import LONGEST
from abair.images.pixels import fill_hidden
from abair.model.views import Pixels

ImageLike = TypeVar("ImageLike", Image.Image, np.ndarray[Any, Any], Tensor)

_ROWS_AT_A_TIME = 256  # so that no second copy of the photo exists


def to_pixels(image: object) -> Pixels:
    """Convert an accepted image to pixels (H, W, 3) uint8, uint16 or float32.

    Raises:
        ImageError: the image is empty, of another kind or shape, or not finite.
    """
    array: np.ndarray[Any, Any]
    if isinstance(image, Image.Image):
        if image.mode in {"I", "F"}:
            raise ImageError(
                f"PIL image of mode {image.mode}, whose range is not known: expected another mode, or its array as "
                "uint16 or as floats in [0, 1]"
            )
        array = np.asarray(image).astype(np.uint16) if image.mode.startswith("I;16") else np.asarray(_to_rgb(image))
        array = fill_hidden(array, _alpha(image))
    elif isinstance(image, Tensor):
        if image.dim() != 3 or image.shape[0] != 3 or not image.is_floating_point():
            raise ImageError(
                f"tensor of shape {tuple(image.shape)}, {image.dtype}: expected (3, H, W) of floats in [0, 1]"
            )
        array = image.detach().to("cpu", torch.float32).permute(1, 2, 0).numpy()
    elif isinstance(image, np.ndarray):
        array = image
    else:
        raise ImageError(f"{type(image).__name__}: expected a PIL image, a NumPy array, a tensor, or a list of them")
    if array.ndim == 2:
        array = np.repeat(array[:, :, None], 3, axis=2)
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        advice = {1: "; pass image[..., 0]", 4: "; pass image[..., :3] and keep the alpha channel aside"}
        hint = advice.get(array.shape[2], "") if array.ndim == 3 else ""
        raise ImageError(f"array of shape {array.shape}: expected (H, W, 3) or (H, W), at least one pixel{hint}")
    if array.dtype in {np.dtype(np.uint8), np.dtype(np.uint16)}:
        return array
    if not np.issubdtype(array.dtype, np.floating):
        raise ImageError(f"array of {array.dtype}: expected uint8, uint16 or floats in [0, 1]")
    if not np.isfinite(array).all():
        raise ImageError("array with NaN or infinite values: expected finite numbers in [0, 1]")
    if array.min() < -1 or array.max() > 2:  # unclipped noise stays well inside
        raise ImageError(
            f"array of floats from {array.min():.3g} to {array.max():.3g}: expected about [0, 1]; divide by its peak"
        )
    return array.astype(np.float32, copy=False)


def is_bilevel(pixels: Pixels) -> bool:
    """Return whether all values are black or white, 0 or the peak."""
    peak = 1.0 if pixels.dtype == np.float32 else np.iinfo(pixels.dtype).max
    parts = (pixels[top : top + _ROWS_AT_A_TIME] for top in range(0, len(pixels), _ROWS_AT_A_TIME))
    return all(bool(((part == 0) | (part == peak)).all()) for part in parts)


def quantize(result: np.ndarray[Any, np.dtype[np.float32]], dtype: np.dtype[Any]) -> Pixels:
    """Clip float32 values to [0, 1], in place, and scale and round them to `dtype`.

    `dtype` is uint8, uint16 or float32; float32 is only clipped.
    """
    if dtype == np.float32:
        return np.clip(result, 0.0, 1.0, out=result)
    peak = float(np.iinfo(dtype).max)
    out = np.empty(result.shape, dtype)
    for top in range(0, result.shape[0], _ROWS_AT_A_TIME):
        rows = result[top : top + _ROWS_AT_A_TIME]
        np.clip(rows, 0.0, 1.0, out=rows)
        out[top : top + _ROWS_AT_A_TIME] = np.rint(rows * peak)
    return out


def from_pixels(pixels: Pixels, image: ImageLike) -> ImageLike:
    """Convert restored pixels (H, W, 3) to the kind of `image`, with its grey mode and alpha."""
    if isinstance(image, Tensor):
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous().to(image.device, image.dtype)
    if isinstance(image, np.ndarray):
        if image.ndim == 2:
            pixels = np.rint(pixels.mean(axis=2)) if pixels.dtype != np.float32 else pixels.mean(axis=2)
        return pixels.astype(image.dtype, copy=False)
    if image.mode.startswith("I;16"):
        restored = Image.fromarray(np.rint(pixels.mean(axis=2)).astype(np.uint16))
    else:
        alpha = _alpha(image)
        if alpha is not None:
            pixels = np.where(alpha[..., None] == 0, np.asarray(_to_rgb(image)), pixels)
        restored = Image.fromarray(cast("Any", pixels))
        if image.mode in {"1", "L", "LA", "La"}:
            restored = restored.convert("L")
        if alpha is not None:
            restored.putalpha(Image.fromarray(alpha))
    profile = image.info.get("icc_profile")
    if profile and image.mode not in {"CMYK", "LAB", "YCbCr", "HSV"}:  # it describes other channels
        restored.info["icc_profile"] = profile
    if exif := exif_of(image):
        restored.info["exif"] = exif
    return DescribedImage.of(restored)


def to_pil(image: Image.Image | np.ndarray[Any, Any] | Tensor) -> Image.Image:
    """Convert a restored image to a PIL image; floats are rounded to 8 bits.

    Raises:
        ImageError: the image is an array of 16-bit colours.
    """
    if isinstance(image, Image.Image):
        return image
    array = image.detach().cpu().permute(1, 2, 0).float().numpy() if isinstance(image, Tensor) else image
    if array.dtype == np.uint16 and array.ndim == 3:
        raise ImageError(f"array of shape {array.shape}, uint16: expected 8 bits or grey; write it with abair restore")
    if np.issubdtype(array.dtype, np.floating):
        array = np.rint(np.clip(array, 0, 1) * 255).astype(np.uint8)
    return Image.fromarray(array)


class DescribedImage(Image.Image):
    """A PIL image that writes its EXIF and colour profile, which Pillow forgets in some formats."""

    @classmethod
    def of(cls, image: Image.Image) -> Self:
        """Return an image with the pixels and the information of `image`."""
        described = cls()
        described.__dict__.update(image.__dict__)
        return described

    def save(
        self, fp: str | bytes | PathLike[str] | PathLike[bytes] | IO[bytes], format: str | None = None, **params: Any
    ) -> None:
        """Write the image; see `PIL.Image.Image.save`.

        EXIF that is too long for a JPEG is left out.
        """
        known = {key: self.info[key] for key in ("exif", "icc_profile") if self.info.get(key)}
        suffix = os.path.splitext(os.fsdecode(fp))[1].lower() if isinstance(fp, str | bytes | PathLike) else ""
        kind = format or Image.registered_extensions().get(suffix)
        if kind == "JPEG" and len(known.get("exif", b"")) > LONGEST["EXIF"]:
            del known["exif"]
        super().save(fp, format, **known | params)


def _alpha(image: Image.Image) -> np.ndarray[Any, Any] | None:
    """Return the transparency (H, W) uint8 of an image, or None."""
    if image.mode.startswith("I;16") or not image.has_transparency_data:
        return None
    straight = image.convert("LA") if image.mode == "La" else image
    return np.asarray(straight.convert("RGBA").getchannel("A"))


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB without alpha; colours under transparency are kept."""
    if image.mode == "La":  # premultiplied grey, which Pillow converts only to LA
        image = image.convert("LA")
    return image.convert("RGBA").convert("RGB") if image.has_transparency_data else image.convert("RGB")
