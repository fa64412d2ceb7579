"""Synthesiser of film grain: clumps of silver, strongest in the mid-tones."""

from __future__ import annotations

import torch
from torch import Tensor

from abair import chance, convolve, ensure_changed, log_uniform, uniform

STRENGTH = (0.04, 0.16)
"""Severity: standard deviation of the grain in the mid-tones."""
CLUMP = (0.7, 2.2)
"""Size of the clumps, the deviation of a Gaussian in pixels: film that was scanned finely."""
RADIUS = 6


def degrade(clean: Tensor, generator: torch.Generator) -> Tensor:
    """Put grain on `clean` (3, H, W), float32 in [0, 1]; a new tensor of the same kind."""
    strength, size = log_uniform(generator, *STRENGTH), log_uniform(generator, *CLUMP)
    places = torch.arange(-RADIUS, RADIUS + 1).float()
    profile = torch.exp(-0.5 * (places / size) ** 2)
    kernel = torch.outer(profile, profile)
    channels = 1 if chance(generator, 0.6) else 3  # black-and-white film, or three layers of dye
    grain = convolve(torch.randn((channels, *clean.shape[1:]), generator=generator), kernel / kernel.sum())
    grain = grain / grain.square().mean().sqrt().clamp_min(1e-6)
    shown = (4 * clean * (1 - clean)).clamp_min(uniform(generator, 0.1, 0.3))
    return ensure_changed(((clean + strength * shown * grain).clamp(0, 1) * 255).round() / 255, clean)
