"""Synthesiser of a photo under water: each metre absorbs light by colour and scatters some back."""

from __future__ import annotations

import torch
from torch import Tensor

from abair import ensure_changed, smooth_field, uniform

DEPTH = (3.0, 10.0)
"""Severity: metres of water that the light went through."""
ABSORBED = ((0.20, 0.35), (0.03, 0.09), (0.03, 0.10))
"""Of red, green and blue light, per metre."""
VEIL = ((0.02, 0.12), (0.35, 0.65), (0.35, 0.7))
"""Colour of water without anything in it."""
SCATTERED = (0.03, 0.09)
"""Share of the picture that each metre replaces by the veil."""


def degrade(clean: Tensor, generator: torch.Generator) -> Tensor:
    """Put `clean` (3, H, W), float32 in [0, 1], under water; a new tensor of the same kind."""
    metres = uniform(generator, *DEPTH) * (0.6 + 0.4 * smooth_field(generator, *clean.shape[1:], cells=3))
    absorbed = torch.tensor([uniform(generator, *share) for share in ABSORBED]).view(3, 1, 1)
    veil = torch.tensor([uniform(generator, *value) for value in VEIL]).view(3, 1, 1)
    kept = torch.exp(-uniform(generator, *SCATTERED) * metres)
    seen = clean * torch.exp(-absorbed * metres) * kept + veil * (1 - kept)
    return ensure_changed((seen.clamp(0, 1) * 255).round() / 255, clean)
