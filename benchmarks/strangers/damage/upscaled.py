"""Synthesiser of a small picture that was enlarged: steps of pixels, or soft interpolation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from abair import chance, ensure_changed, uniform

FACTOR = (2.0, 4.0)
"""Severity: how many times the picture was enlarged."""


def degrade(clean: Tensor, generator: torch.Generator) -> Tensor:
    """Reduce and enlarge `clean` (3, H, W), float32 in [0, 1]; a new tensor of the same kind."""
    factor = uniform(generator, *FACTOR)
    small = [max(2, round(side / factor)) for side in clean.shape[1:]]
    reduced = F.interpolate(clean[None], small, mode="bilinear", antialias=True)
    reduced = (reduced.clamp(0, 1) * 255).round() / 255
    if chance(generator, 0.5):
        enlarged = F.interpolate(reduced, clean.shape[1:], mode="nearest")
    else:
        enlarged = F.interpolate(reduced, clean.shape[1:], mode="bicubic", align_corners=False)
    return ensure_changed((enlarged[0].clamp(0, 1) * 255).round() / 255, clean)
