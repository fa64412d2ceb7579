"""Synthesiser of impulse noise: values hit by chance, in single channels or in whole pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from abair import chance, ensure_changed, log_uniform, uniform

SHARE = (0.01, 0.30)
"""Severity: share of the values that are hit."""


def degrade(clean: Tensor, generator: torch.Generator) -> Tensor:
    """Hit some values of `clean` (3, H, W), float32 in [0, 1]; a new tensor of the same kind."""
    share = log_uniform(generator, *SHARE)
    channels = 3 if chance(generator, 0.5) else 1
    size = (channels, *clean.shape[1:])
    hit = torch.rand(size, generator=generator) < share
    value = torch.rand(size, generator=generator)
    if chance(generator, 0.8):  # salt and pepper; the others take any value
        value = (value < uniform(generator, 0.3, 0.7)).float()
    degraded = torch.where(hit, value, clean)
    return ensure_changed((degraded.clamp(0, 1) * 255).round() / 255, clean)
