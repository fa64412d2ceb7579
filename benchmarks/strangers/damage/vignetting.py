"""Synthesiser of vignetting: a lens that leaves the corners dark."""

from __future__ import annotations

import torch
from torch import Tensor

from abair import ensure_changed, uniform

FALL = (0.4, 0.9)
"""Severity: share of the light that the corners lack."""
EXPONENT = (1.5, 4.0)
"""How late towards the corner the light falls."""
OFF_CENTRE = 0.15


def degrade(clean: Tensor, generator: torch.Generator) -> Tensor:
    """Darken the corners of `clean` (3, H, W), float32 in [0, 1]; a new tensor of the same kind."""
    height, width = clean.shape[1:]
    rows = torch.linspace(-1, 1, height)[:, None] - uniform(generator, -OFF_CENTRE, OFF_CENTRE)
    columns = torch.linspace(-1, 1, width)[None] - uniform(generator, -OFF_CENTRE, OFF_CENTRE)
    radius = ((rows**2 + columns**2) / 2).sqrt()
    light = 1 - uniform(generator, *FALL) * radius.clamp(0, 1) ** uniform(generator, *EXPONENT)
    seen = clean**2.2 * light
    return ensure_changed((seen.clamp(0, 1) ** (1 / 2.2) * 255).round() / 255, clean)
