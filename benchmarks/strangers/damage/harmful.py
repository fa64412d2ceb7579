"""A bad stranger: calls ordinary exposure damage, so undamaged photos would be changed."""

from __future__ import annotations

import torch
from torch import Tensor

from abair import chance, ensure_changed, uniform

EXPONENT = (1.1, 1.35)
"""Exponent of the tone curve, or its inverse: what cameras and editing do anyway."""


def degrade(clean: Tensor, generator: torch.Generator) -> Tensor:
    """Brighten or darken `clean` (3, H, W) a little; a new tensor of the same kind."""
    exponent = uniform(generator, *EXPONENT)
    exponent = exponent if chance(generator, 0.5) else 1 / exponent
    return ensure_changed((clean**exponent * 255).round() / 255, clean)
