"""Views of a photo for the estimator and the context: a fixed number of pixels for any size.

The functions take pixels as they lie in memory, (H, W, 3) uint8, uint16 or float32, so that no
photo is converted as a whole.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from abair.model.backbone import pool_global_view
from abair.physics import reflect_pad

CROPS: Final = 4
"""Crops along each side. They have native resolution: reducing removes noise, compression, rain."""
CROP_SIDE: Final = 64
"""Side of a crop in pixels."""
SAMPLED: Final = 512
"""A longer side is subsampled to about this many pixels before averaging: the cost stays fixed."""

Pixels = NDArray[Any]
"""(H, W, 3) of uint8 or uint16, or of float32 in [0, 1]."""


def to_tensor(pixels: Pixels) -> Tensor:
    """Convert pixels (H, W, 3) to (1, 3, H, W) float32; integers are scaled to [0, 1]."""
    if pixels.dtype == np.uint8:
        values = torch.from_numpy(pixels.astype(np.float32)).div_(255)
    elif pixels.dtype == np.uint16:
        values = torch.from_numpy(pixels.astype(np.float32)).div_(65535)
    else:
        values = torch.from_numpy(np.array(pixels, dtype=np.float32))
    return values.permute(2, 0, 1)[None]


def global_view(pixels: Pixels) -> Tensor:
    """Average the whole photo down to its global view (1, 3, 64, 64)."""
    down, across = (max(1, side // SAMPLED) for side in pixels.shape[:2])
    return pool_global_view(to_tensor(np.ascontiguousarray(pixels[::down, ::across])))


def crops(pixels: Pixels) -> Tensor:
    """Cut sixteen evenly spaced crops (16, 3, 64, 64) at native resolution.

    A smaller photo is padded by reflection.
    """
    height, width = pixels.shape[:2]
    tops, lefts = _crop_starts(height), _crop_starts(width)
    cut = []
    for top in tops:
        for left in lefts:
            crop = to_tensor(np.ascontiguousarray(pixels[top : top + CROP_SIDE, left : left + CROP_SIDE]))
            cut.append(reflect_pad(crop, 0, CROP_SIDE - crop.shape[-1], 0, CROP_SIDE - crop.shape[-2]))
    return torch.cat(cut)


def _crop_starts(length: int) -> list[int]:
    room = max(0, length - CROP_SIDE)
    return [round(room * index / (CROPS - 1)) for index in range(CROPS)]
