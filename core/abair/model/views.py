"""The views through which a whole photo is looked at: a fixed number of pixels, whatever the photo's size.

Works on pixels in memory as they are, (H, W, 3) uint8, uint16 or float32, so that no photo is converted as a whole.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from abair.model.backbone import global_view
from abair.physics import reflect_pad

CROPS: Final = 4
"""Native-resolution crops along each side: noise, compression and rain die when a photo is reduced."""
CROP_SIDE: Final = 64
SAMPLED: Final = 512
"""A longer side is thinned out to about this before it is averaged: the cost stays fixed."""

Pixels = NDArray[Any]
"""(H, W, 3) of uint8 or uint16, or of float32 in [0, 1]."""


def to_tensor(pixels: Pixels) -> Tensor:
    """(H, W, 3) of any of the three kinds to (1, 3, H, W) float32; integers are scaled to [0, 1]."""
    if pixels.dtype == np.uint8:
        values = torch.from_numpy(pixels.astype(np.float32)).div_(255)
    elif pixels.dtype == np.uint16:
        values = torch.from_numpy(pixels.astype(np.float32)).div_(65535)
    else:
        values = torch.from_numpy(np.array(pixels, dtype=np.float32))
    return values.permute(2, 0, 1)[None]


def whole(pixels: Pixels) -> Tensor:
    """The global view (1, 3, 64, 64): the whole photo, averaged down."""
    down, across = (max(1, side // SAMPLED) for side in pixels.shape[:2])
    return global_view(to_tensor(np.ascontiguousarray(pixels[::down, ::across])))


def crops(pixels: Pixels) -> Tensor:
    """Sixteen crops (16, 3, 64, 64) at native resolution, evenly spread; a smaller photo is reflected outwards."""
    height, width = pixels.shape[:2]
    tops, lefts = _spread(height), _spread(width)
    cut = []
    for top in tops:
        for left in lefts:
            crop = to_tensor(np.ascontiguousarray(pixels[top : top + CROP_SIDE, left : left + CROP_SIDE]))
            cut.append(reflect_pad(crop, 0, CROP_SIDE - crop.shape[-1], 0, CROP_SIDE - crop.shape[-2]))
    return torch.cat(cut)


def _spread(length: int) -> list[int]:
    room = max(0, length - CROP_SIDE)
    return [round(room * index / (CROPS - 1)) for index in range(CROPS)]
