"""What happens to photos, damaged or not, on their way to us: they are kept in files that are not exact.

JPEG at ordinary qualities and a few bits less are in most photos that people have. They are no degradation of their
own here, and no reason to take a photo for hazy or dark; an estimator learns that from samples that went the same way.
The ranges reach a little into what plugins for JPEG and for bit depth call damage, so that what lies beyond is not
strange either; where such a label is taught, too, its own samples are several times as many there.
"""

from __future__ import annotations

import io
from typing import Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from abair.physics import chance

CODED: Final = 0.8
"""Share of the samples that were JPEG files; the others have fewer bits."""
QUALITY: Final = (30, 95)
"""libjpeg's quality, evenly drawn: from a messenger's thumbnail to a camera's file."""
BITS: Final = (5, 7)
"""Bits a channel, evenly drawn: what is left of 8 where tones were stretched, or a palette was used."""
SIDE: Final = 65_500
"""The longest side in pixels that JPEG can hold."""


def filed(image: Tensor, generator: torch.Generator) -> Tensor:
    """An image (3, H, W) in [0, 1] as it comes out of a file, or with fewer bits; a new one, 8-bit-valued."""
    if max(image.shape[1:]) <= SIDE and chance(generator, CODED):
        quality = int(torch.randint(QUALITY[0], QUALITY[1] + 1, (), generator=generator))
        chroma = "4:2:0" if chance(generator, 0.5) else "4:4:4"
        return _coded(image, quality, chroma)
    levels = 2 ** int(torch.randint(BITS[0], BITS[1] + 1, (), generator=generator)) - 1
    return image.mul(levels).round_().div_(levels).mul_(255).round_().div_(255)


def _coded(image: Tensor, quality: int, chroma: str) -> Tensor:
    file = io.BytesIO()
    pixels = image.clamp(0, 1).mul(255).round_().to(torch.uint8).permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(file, format="JPEG", quality=quality, subsampling=chroma)
    with Image.open(file, formats=("JPEG",)) as decoded:
        return torch.from_numpy(np.array(decoded)).permute(2, 0, 1).float().div_(255).contiguous()
