"""File artifacts: what lossy files do to photos, damaged or not, before a user opens them here.

Most photos carry JPEG compression of ordinary quality, or have lost a few bits. This is no
degradation of its own, and no reason to take a photo for hazy or dark. An estimator learns that
from samples with these artifacts. The ranges overlap a little with the damage of plugins for JPEG
and bit depth, so that values beyond them are not strange either. Where such a label is trained too,
a recipe can name it: then these samples are mixtures with that degradation.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import torch
from torch import Tensor

from abair.physics import chance, compress_jpeg

JPEG_SHARE: Final = 0.8
"""Share of the samples that were JPEG files; the others have fewer bits."""
QUALITY: Final = (30, 95)
"""Range of libjpeg's quality, uniform: from a messenger's thumbnail to a camera's file."""
BITS: Final = (5, 7)
"""Range of bits a channel, uniform: what is left of 8 after stretched tones or a palette."""
JPEG_LONGEST: Final = 65_500
"""Longest side in pixels that JPEG can hold."""


class FileKind(StrEnum):
    """How a file loses what it loses."""

    JPEG = "jpeg"
    BITS = "bits"


def apply_file_artifacts(image: Tensor, generator: torch.Generator) -> Tensor:
    """Return an image (3, H, W) in [0, 1] after a JPEG file or with fewer bits, in 8-bit values."""
    return draw_file_artifacts(image, generator)[0]


def draw_file_artifacts(image: Tensor, generator: torch.Generator) -> tuple[Tensor, FileKind]:
    """Do as `apply_file_artifacts`, and return what was done, too."""
    if max(image.shape[1:]) <= JPEG_LONGEST and chance(generator, JPEG_SHARE):
        quality = int(torch.randint(QUALITY[0], QUALITY[1] + 1, (), generator=generator))
        chroma = "4:2:0" if chance(generator, 0.5) else "4:4:4"
        return compress_jpeg(image, quality, chroma), FileKind.JPEG
    levels = 2 ** int(torch.randint(BITS[0], BITS[1] + 1, (), generator=generator)) - 1
    return image.mul(levels).round_().div_(levels).mul_(255).round_().div_(255), FileKind.BITS
