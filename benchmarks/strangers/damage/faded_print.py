"""Synthesiser of a faded colour print: dyes that have lost density, each its own share."""

from __future__ import annotations

import torch
from torch import Tensor

from abair import ensure_changed, uniform

KEPT = (0.35, 0.8)
"""Severity: share of its density that a dye has kept."""
SPREAD = 0.25
"""How far the three dyes differ from each other."""
STAIN = ((0.0, 0.03), (0.0, 0.06), (0.04, 0.2))
"""Density that the paper has won, by channel: old paper is yellow."""


def degrade(clean: Tensor, generator: torch.Generator) -> Tensor:
    """Fade `clean` (3, H, W), float32 in [0, 1]; a new tensor of the same kind."""
    kept = uniform(generator, *KEPT)
    dyes = torch.tensor([min(1.0, kept * (1 + uniform(generator, -SPREAD, SPREAD))) for _ in range(3)])
    stain = torch.tensor([uniform(generator, *density) for density in STAIN])
    density = -torch.log10(clean.clamp_min(1 / 255))
    faded = 10 ** -(density * dyes.view(3, 1, 1) + stain.view(3, 1, 1))
    return ensure_changed((faded.clamp(0, 1) * 255).round() / 255, clean)
