"""A bad stranger: pieces of the picture are gone, and no adapter of this size can invent them."""

from __future__ import annotations

import torch
from torch import Tensor

from abair import ensure_changed, uniform

SHARE = (0.3, 0.6)
"""Severity: share of each side that is covered."""


def degrade(clean: Tensor, generator: torch.Generator) -> Tensor:
    """Replace a rectangle of `clean` (3, H, W) by other values; a new tensor of the same kind."""
    degraded = clean.clone()
    spans = []
    for side in clean.shape[1:]:
        length = max(1, round(side * uniform(generator, *SHARE)))
        start = int(torch.randint(side - length + 1, (), generator=generator))
        spans.append(slice(start, start + length))
    degraded[:, spans[0], spans[1]] = torch.rand((3, 1, 1), generator=generator)
    return ensure_changed((degraded.clamp(0, 1) * 255).round() / 255, clean)
