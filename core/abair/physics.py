"""Building blocks for synthesisers: seeded random numbers, smooth fields, fast convolution, JPEG.

Everything takes its randomness from a `torch.Generator`, so one seed gives one result, and works on
images of shape (3, H, W), float32 in [0, 1]. Public through `abair`: plugins may import these
names.
"""

from __future__ import annotations

import io
import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F


def uniform(generator: torch.Generator, low: float, high: float) -> float:
    """Draw one number from U(low, high)."""
    return low + (high - low) * float(torch.rand((), generator=generator))


def log_uniform(generator: torch.Generator, low: float, high: float) -> float:
    """Draw one number whose logarithm is uniform between those of `low` and `high` (both > 0)."""
    return math.exp(uniform(generator, math.log(low), math.log(high)))


def chance(generator: torch.Generator, probability: float) -> bool:
    """Return True with the given probability."""
    return float(torch.rand((), generator=generator)) < probability


def smooth_field(generator: torch.Generator, height: int, width: int, cells: int) -> Tensor:
    """Draw a smooth random field (H, W) in [0, 1]: `cells` values along the longer side, bicubic.

    `cells` >= 2 sets how fast the field varies; the values reach about 0 and 1 somewhere.
    """
    longer = max(height, width)
    rows = max(2, round(cells * height / longer))
    columns = max(2, round(cells * width / longer))
    knots = torch.rand((1, 1, rows, columns), generator=generator)
    field = F.interpolate(knots, size=(height, width), mode="bicubic", align_corners=True)[0, 0]
    low, high = field.amin(), field.amax()
    return (field - low) / (high - low).clamp_min(1e-6)


def convolve(image: Tensor, kernel: Tensor) -> Tensor:
    """Filter an image (C, H, W) with a kernel (h, w), or one per channel (C, h, w), by FFT.

    Borders are reflected. The result has the image's shape and the kernel's centre stays in place
    (odd kernel sides). The cost hardly depends on the kernel's size, where a direct 41x41
    convolution would cost 50 times more.
    """
    height, width = image.shape[-2:]
    kernel_height, kernel_width = kernel.shape[-2:]
    top, left = kernel_height // 2, kernel_width // 2
    padded = reflect_pad(image, left, left, top, top)
    shape = (_fast_length(padded.shape[-2]), _fast_length(padded.shape[-1]))
    spectrum = torch.fft.rfft2(padded, s=shape) * torch.fft.rfft2(kernel, s=shape)
    full = torch.fft.irfft2(spectrum, s=shape)
    filtered: Tensor = full[..., 2 * top : 2 * top + height, 2 * left : 2 * left + width]
    return filtered


def reflect_pad(image: Tensor, left: int, right: int, top: int, bottom: int) -> Tensor:
    """Pad (..., H, W) by reflection; wider pads than the image reflect repeatedly."""
    if top or bottom:
        image = image[..., _reflected_indices(image.shape[-2], top, bottom), :]
    if left or right:
        image = image[..., _reflected_indices(image.shape[-1], left, right)]
    return image


def _fast_length(length: int) -> int:
    """Return the next length without a prime factor above 5; other FFTs take far longer."""
    while True:
        rest = length
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += 1


def compress_jpeg(image: Tensor, quality: int, chroma: str = "4:2:0") -> Tensor:
    """Encode an image (3, H, W) in [0, 1] as JPEG by libjpeg, and return the decoded file.

    `quality` is libjpeg's, 1 to 100; `chroma` is the sampling, `4:2:0`, `4:2:2` or `4:4:4`.

    Raises:
        OSError: a side is longer than 65,500 pixels, the format's limit.
    """
    file = io.BytesIO()
    pixels = image.clamp(0, 1).mul(255).round_().to(torch.uint8).permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(file, format="JPEG", quality=quality, subsampling=chroma)
    with Image.open(file, formats=("JPEG",)) as decoded:
        return torch.from_numpy(np.array(decoded)).permute(2, 0, 1).float().div_(255).contiguous()


def ensure_changed(degraded: Tensor, clean: Tensor) -> Tensor:
    """Return `degraded`, or `clean` one 8-bit step nearer to mid-grey if the two are equal.

    A synthesiser is never the identity, but clipping can undo noise on a black pixel, and a flat
    image has no structure to lose.
    """
    if not torch.equal(degraded, clean):
        return degraded
    return torch.where(clean < 0.5, clean + 1 / 255, clean - 1 / 255)


def _reflected_indices(size: int, before: int, after: int) -> Tensor:
    """Return the indices of a reflected axis: ..., 2, 1, 0, 1, 2, ..., size - 1, size - 2, ..."""
    if size == 1:
        return torch.zeros(before + 1 + after, dtype=torch.long)
    period = 2 * (size - 1)
    index = torch.arange(-before, size + after).remainder(period)
    return torch.where(index < size, index, period - index)
