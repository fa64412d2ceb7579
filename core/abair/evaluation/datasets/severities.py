"""Damage of one severity, exactly as the papers name it: part of the protocol, so no plugin has a say in it."""

from __future__ import annotations

import io
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

JPEG_QUALITY: Final = 20
SAVED_QUALITY: Final = 30
"""Of photos that were damaged before they were saved; ours, no paper's."""
BITS: Final = 4


def jpeg(clean: Tensor, generator: torch.Generator) -> Tensor:
    """(3, H, W) in [0, 1] through a JPEG file of quality 20 with 4:2:0 colours, by Pillow; nothing is random."""
    return _through_jpeg(clean, JPEG_QUALITY)


def saved(damaged: Tensor, generator: torch.Generator) -> Tensor:
    """(3, H, W) in [0, 1] through a JPEG file of quality 30, as `jpeg`."""
    return _through_jpeg(damaged, SAVED_QUALITY)


def four_bits(clean: Tensor, generator: torch.Generator) -> Tensor:
    """(3, H, W) in [0, 1] with the four highest of 8 bits kept and the others 0; nothing is random."""
    return _tensor(_bytes(clean) & np.uint8(0xFF << (8 - BITS) & 0xFF))


EXACT: Final = {"jpeg": jpeg, "bitdepth": four_bits}
"""By label; where a chain names one of these, the plugin's synthesiser is not asked."""


def _through_jpeg(image: Tensor, quality: int) -> Tensor:
    with io.BytesIO() as file:
        Image.fromarray(_bytes(image)).save(file, "JPEG", quality=quality, subsampling="4:2:0")
        with Image.open(file, formats=("JPEG",)) as again:
            return _tensor(np.array(again))


def _bytes(image: Tensor) -> NDArray[np.uint8]:
    return image.clamp(0, 1).mul(255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def _tensor(pixels: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1).float().div(255)
