"""A bad stranger: the damage of the live label `noise`, by another name."""

from __future__ import annotations

import torch
from torch import Tensor

from abair_noise.synthesis import degrade as noise


def degrade(clean: Tensor, generator: torch.Generator) -> Tensor:
    """Add noise to `clean` (3, H, W), float32 in [0, 1]; a new tensor of the same kind."""
    return noise(clean, generator)
