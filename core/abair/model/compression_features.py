"""Statistics of quantisation and JPEG coding in the pixels of an image.

Coarse quantisation and block coding change the distribution of pixel values more than the look of
an image. The mean of a network's features over a crop loses these changes; they are measured here:

- *levels*: the share of the 8-bit levels between a crop's minimum and maximum that occur, and the
  share of neighbouring values that are exactly equal (flat areas with contours between them).
- *blocks*: JPEG rounds most of the 64 DCT coefficients of each 8x8 block to zero. On the grid on
  which an image was coded, and on no other, more of them are near zero. The last statistic is the
  difference across the grid's lines (Fan and de Queiroz, "Identification of Bitmap Compression
  History: JPEG Detection and Quantizer Estimation", IEEE TIP 2003).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK: Final = 8
"""Side of JPEG's blocks in pixels."""
SCALE: Final = 10
"""Brings a difference of shares to the size of the other statistics."""
NEAR_ZERO: Final = (0.75, 1.5)
"""Sizes in 8-bit steps below which a coefficient counts as 0; rounding moves one by about 0.3."""
FREQUENCIES: Final = (3, 4, 5, 6)
"""Sums of a coefficient's two frequencies that are used: lower ones are seldom 0, higher ones
nearly always."""
STATISTICS: Final = 2 + 2 * len(NEAR_ZERO) + 1
"""How many numbers `statistics` returns per crop."""


def statistics(crops: Tensor) -> Tensor:
    """Return the statistics (N, STATISTICS) of crops (N, 3, H, W) in [0, 1], each 0 to about 10.

    The sides are at least 16 pixels.
    """
    steps = crops.mul(255).round()
    return torch.stack([*_level_statistics(steps), *_block_statistics(crops.mean(1, keepdim=True) * 255)], dim=1)


def _level_statistics(steps: Tensor) -> list[Tensor]:
    """Return the share of levels that occur and that of equal neighbours, (N,) each."""
    values = steps.flatten(2).clamp(0, 255).long()  # (N, 3, H W)
    counted = torch.zeros((*values.shape[:2], 256), device=steps.device).scatter_(2, values, 1.0).sum(2)
    between = (values.amax(2) - values.amin(2) + 1).float()
    # a flat crop has few levels to miss: count it as complete
    used = torch.where(between > BLOCK, counted / between, torch.ones_like(between))
    equal = (steps[..., 1:] == steps[..., :-1]).float().mean((1, 2, 3))
    return [used.mean(1), equal]


def _block_statistics(grey: Tensor) -> list[Tensor]:
    """Return for each size the share of zeros on the likeliest grid and its lead over the median.

    The strength of the grid's lines follows; (N,) each.
    """
    coefficients = F.conv2d(grey, _dct_functions().to(grey)).abs_()  # (N, C, H - 7, W - 7)
    near_zero = torch.empty_like(coefficients)  # one buffer for all sizes: a new one each costs more than the rest
    shares = []
    for size in NEAR_ZERO:
        zeros = _mean_by_grid(torch.lt(coefficients, size, out=near_zero).mean(1))  # (N, 64)
        shares += [zeros.amax(1), SCALE * (zeros.amax(1) - zeros.median(1).values)]
    across = [_mean_by_grid(_steps_across_columns(turned)) for turned in (grey, grey.transpose(2, 3))]
    strength = [lines.amax(1) / lines.mean(1).clamp_min(0.01) - 1 for lines in across]
    return [*shares, (strength[0] + strength[1]) / 2]


def _steps_across_columns(grey: Tensor) -> Tensor:
    """Return by how much each step between columns differs from its neighbours, (N, H, W - 3)."""
    return (grey[..., 3:] - 3 * grey[..., 2:-1] + 3 * grey[..., 1:-2] - grey[..., :-3]).abs()[:, 0].clamp_max(30)


def _mean_by_grid(values: Tensor) -> Tensor:
    """Average (N, H, W) over the blocks for each of the 64 grid offsets, (N, 64)."""
    count, *sides = values.shape
    rows, columns = (side // BLOCK for side in sides)
    cut = values[:, : rows * BLOCK, : columns * BLOCK].reshape(count, rows, BLOCK, columns, BLOCK)
    return cut.mean((1, 3)).flatten(1)


@lru_cache(maxsize=1)
def _dct_functions() -> Tensor:
    """Return the orthonormal 8x8 DCT functions of `FREQUENCIES`, (C, 1, 8, 8)."""
    place = torch.arange(BLOCK)
    lines = torch.cos(math.pi / BLOCK * (place + 0.5)[None] * place[:, None]) * math.sqrt(2 / BLOCK)
    lines[0] = math.sqrt(1 / BLOCK)
    functions = torch.einsum("ux,vy->uvxy", lines, lines)
    chosen = (place[:, None] + place[None]).unsqueeze(2).eq(torch.tensor(FREQUENCIES)).any(2)
    return functions[chosen][:, None]
