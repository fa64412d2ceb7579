"""A bad stranger: a part of the picture lies over another one, and nothing shows what was there."""

from __future__ import annotations

import torch
from torch import Tensor

from abair import ensure_changed, uniform

SHARE = (0.3, 0.6)
"""Severity: share of each side that is covered."""


def degrade(clean: Tensor, generator: torch.Generator) -> Tensor:
    """Copy a rectangle of `clean` (3, H, W) over another place; a new tensor of the same kind."""
    degraded = clean.clone()
    sources, places = [], []
    for side in clean.shape[1:]:
        length = max(1, round(side * uniform(generator, *SHARE)))
        for spans in (sources, places):
            start = int(torch.randint(side - length + 1, (), generator=generator))
            spans.append(slice(start, start + length))
    degraded[:, places[0], places[1]] = clean[:, sources[0], sources[1]]
    return ensure_changed((degraded.clamp(0, 1) * 255).round() / 255, clean)
