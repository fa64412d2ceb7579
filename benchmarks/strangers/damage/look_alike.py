"""A bad stranger: white Gaussian noise by another name, which is live already."""

from __future__ import annotations

import torch
from torch import Tensor

from abair import ensure_changed, log_uniform

DEVIATION = (5 / 255, 50 / 255)
"""Severity: standard deviation of the noise."""


def degrade(clean: Tensor, generator: torch.Generator) -> Tensor:
    """Add noise to `clean` (3, H, W), float32 in [0, 1]; a new tensor of the same kind."""
    noise = torch.randn(clean.shape, generator=generator) * log_uniform(generator, *DEVIATION)
    return ensure_changed(((clean + noise).clamp(0, 1) * 255).round() / 255, clean)
