"""Synthesiser of moiré: a screen that was photographed, whose grid beats with the sensor's."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from abair import ensure_changed, log_uniform, smooth_field, uniform

STRENGTH = (0.04, 0.2)
"""Severity: how much the bands darken and brighten."""
PERIOD = (4.0, 40.0)
"""Width of a band in pixels."""
BENT = (0.0, 3.0)
"""How far the bands bend over the picture, in periods."""


def degrade(clean: Tensor, generator: torch.Generator) -> Tensor:
    """Lay bands over `clean` (3, H, W), float32 in [0, 1]; a new tensor of the same kind."""
    height, width = clean.shape[1:]
    rows, columns = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
    bands = torch.zeros_like(clean)
    for _ in range(2):
        angle, period = uniform(generator, 0, math.pi), log_uniform(generator, *PERIOD)
        phase = (rows * math.sin(angle) + columns * math.cos(angle)) / period
        phase = phase + uniform(generator, *BENT) * smooth_field(generator, height, width, cells=3)
        for channel in range(3):
            bands[channel] += torch.sin(2 * math.pi * (phase + uniform(generator, -0.25, 0.25)))
    seen = clean * (1 + log_uniform(generator, *STRENGTH) * bands)
    return ensure_changed((seen.clamp(0, 1) * 255).round() / 255, clean)
