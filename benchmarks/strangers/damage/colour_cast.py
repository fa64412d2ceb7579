"""Synthesiser of a colour cast: a photo developed for another light than it was taken in."""

from __future__ import annotations

import torch
from torch import Tensor

from abair import chance, ensure_changed, uniform

WARM = ((1.15, 1.7), (0.9, 1.05), (0.35, 0.75))
"""Gains of red, green and blue where daylight was set for lamps; its inverse is the cold cast."""
GREEN = ((0.65, 0.9), (1.1, 1.35), (0.65, 0.95))
"""Gains under fluorescent tubes."""


def degrade(clean: Tensor, generator: torch.Generator) -> Tensor:
    """Tint `clean` (3, H, W), float32 in [0, 1]; a new tensor of the same kind."""
    tint = GREEN if chance(generator, 0.25) else WARM
    gains = torch.tensor([uniform(generator, *gain) for gain in tint])
    if tint is WARM and chance(generator, 0.5):
        gains = gains.flip(0)
    linear = clean**2.2 * gains.view(3, 1, 1)
    return ensure_changed((linear.clamp(0, 1) ** (1 / 2.2) * 255).round() / 255, clean)
