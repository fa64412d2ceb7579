"""File artifacts: what lossy files do to photos, damaged or not, before a user opens them here.

Most photos carry JPEG compression of ordinary quality, or have lost a few bits. This is no
degradation of its own, and no reason to take a photo for hazy or dark. An estimator learns that
from samples with these artifacts. The ranges overlap a little with the damage of plugins for JPEG
and bit depth, so that values beyond them are not strange either. Where such a label is trained too,
its own samples are several times as many in that range.
"""

from __future__ import annotations

import io
from typing import Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from abair.physics import chance

JPEG_SHARE: Final = 0.8
"""Share of the samples that were JPEG files; the others have fewer bits."""
QUALITY: Final = (30, 95)
"""Range of libjpeg's quality, uniform: from a messenger's thumbnail to a camera's file."""
BITS: Final = (5, 7)
"""Range of bits a channel, uniform: what is left of 8 after stretched tones or a palette."""
JPEG_LONGEST: Final = 65_500
"""Longest side in pixels that JPEG can hold."""


def apply_file_artifacts(image: Tensor, generator: torch.Generator) -> Tensor:
    """Return an image (3, H, W) in [0, 1] after a JPEG file or with fewer bits, in 8-bit values."""
    if max(image.shape[1:]) <= JPEG_LONGEST and chance(generator, JPEG_SHARE):
        quality = int(torch.randint(QUALITY[0], QUALITY[1] + 1, (), generator=generator))
        chroma = "4:2:0" if chance(generator, 0.5) else "4:4:4"
        return _compress(image, quality, chroma)
    levels = 2 ** int(torch.randint(BITS[0], BITS[1] + 1, (), generator=generator)) - 1
    return image.mul(levels).round_().div_(levels).mul_(255).round_().div_(255)


def _compress(image: Tensor, quality: int, chroma: str) -> Tensor:
    """Encode an image (3, H, W) in [0, 1] as JPEG and decode it again."""
    file = io.BytesIO()
    pixels = image.clamp(0, 1).mul(255).round_().to(torch.uint8).permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(file, format="JPEG", quality=quality, subsampling=chroma)
    with Image.open(file, formats=("JPEG",)) as decoded:
        return torch.from_numpy(np.array(decoded)).permute(2, 0, 1).float().div_(255).contiguous()
