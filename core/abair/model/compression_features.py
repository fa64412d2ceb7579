"""What the numbers of a picture tell of the files it has been through: levels that are missing, blocks that were coded.

Rounding to few levels and coding in blocks leave marks in the lattice of values and places, not in what a picture looks
like. The mean of a network's features over a crop does not keep them; counted directly they are plain:

- *levels*: of the 8-bit levels between a crop's darkest and brightest value, the share that occurs; of neighbouring
  values, the share that is exactly equal (contours with nothing between them).
- *blocks*: JPEG rounds most of the 64 cosine coefficients of each 8x8 block to zero. On the grid on which a picture was
  coded, and on no other, more of them are near zero (after Fan and de Queiroz, "Identification of Bitmap Compression
  History", TIP 2003, who look at the differences across the grid's lines, the last statistic here).
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
"""Sizes, in steps of 8 bits, below which a coefficient counts as zero; rounding the pixels moves one by about 0.3."""
FREQUENCIES: Final = (3, 4, 5, 6)
"""Sums of a coefficient's two frequencies: lower ones are seldom rounded to zero, higher ones seldom anything else."""
STATISTICS: Final = 2 + 2 * len(NEAR_ZERO) + 1
"""How many numbers `statistics` gives a crop."""


def statistics(crops: Tensor) -> Tensor:
    """The marks in crops (N, 3, H, W) in [0, 1], sides of at least 16: (N, STATISTICS), each 0 to about 10."""
    steps = crops.mul(255).round()
    return torch.stack([*_levels(steps), *_blocks(crops.mean(1, keepdim=True) * 255)], dim=1)


def _levels(steps: Tensor) -> list[Tensor]:
    """Share of levels that occur, share of equal neighbours; the channels' means."""
    values = steps.flatten(2).clamp(0, 255).long()  # (N, 3, H W)
    counted = torch.zeros((*values.shape[:2], 256), device=steps.device).scatter_(2, values, 1.0).sum(2)
    between = (values.amax(2) - values.amin(2) + 1).float()
    # a flat crop has no levels between: it tells nothing, which is what all levels tell
    used = torch.where(between > BLOCK, counted / between, torch.ones_like(between))
    equal = (steps[..., 1:] == steps[..., :-1]).float().mean((1, 2, 3))
    return [used.mean(1), equal]


def _blocks(grey: Tensor) -> list[Tensor]:
    """For each size the share of zeros on the likeliest grid and what it is above others; how the lines stand out."""
    coefficients = F.conv2d(grey, _cosines().to(grey)).abs_()  # (N, C, H - 7, W - 7)
    found = []
    for size in NEAR_ZERO:
        zeros = _by_grid((coefficients < size).float().mean(1))  # (N, 64)
        found += [zeros.amax(1), SCALE * (zeros.amax(1) - zeros.median(1).values)]
    across = [_by_grid(_jumps(turned)) for turned in (grey, grey.transpose(2, 3))]
    strength = [lines.amax(1) / lines.mean(1).clamp_min(0.01) - 1 for lines in across]
    return [*found, (strength[0] + strength[1]) / 2]


def _jumps(grey: Tensor) -> Tensor:
    """(N, 1, H, W) to (N, H, W - 3): by how much a step between columns differs from what those beside it are like."""
    return (grey[..., 3:] - 3 * grey[..., 2:-1] + 3 * grey[..., 1:-2] - grey[..., :-3]).abs()[:, 0].clamp_max(30)


def _by_grid(values: Tensor) -> Tensor:
    """(N, H, W) to means over all places of each of the 64 grids, (N, 64)."""
    count, *sides = values.shape
    rows, columns = (side // BLOCK for side in sides)
    cut = values[:, : rows * BLOCK, : columns * BLOCK].reshape(count, rows, BLOCK, columns, BLOCK)
    return cut.mean((1, 3)).flatten(1)


@lru_cache(maxsize=1)
def _cosines() -> Tensor:
    """Orthonormal cosine functions of 8x8, those of `FREQUENCIES`, (C, 1, 8, 8)."""
    place = torch.arange(BLOCK)
    lines = torch.cos(math.pi / BLOCK * (place + 0.5)[None] * place[:, None]) * math.sqrt(2 / BLOCK)
    lines[0] = math.sqrt(1 / BLOCK)
    functions = torch.einsum("ux,vy->uvxy", lines, lines)
    chosen = (place[:, None] + place[None]).unsqueeze(2).eq(torch.tensor(FREQUENCIES)).any(2)
    return functions[chosen][:, None]
