"""Synthesiser of scratches and dust on a scanned negative or print: thin lines and specks."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from abair import chance, convolve, ensure_changed, log_uniform, uniform

LINES = (2, 25)
"""Severity: scratches on a picture of 256 by 256 pixels."""
SPECKS = (5, 120)
"""Specks of dust on a picture of that size."""
HARDLY_BENT = 0.02


def degrade(clean: Tensor, generator: torch.Generator) -> Tensor:
    """Scratch `clean` (3, H, W), float32 in [0, 1]; a new tensor of the same kind."""
    height, width = clean.shape[1:]
    area = height * width / 256**2
    mask = torch.zeros(height, width)
    steep = chance(generator, 0.6)  # film is scratched along its length
    for _ in range(max(1, round(area**0.5 * log_uniform(generator, *LINES)))):
        _draw_line(mask, generator, steep)
    count = max(1, round(area * log_uniform(generator, *SPECKS)))
    rows = torch.randint(height, (count,), generator=generator)
    columns = torch.randint(width, (count,), generator=generator)
    mask[rows, columns] = 1.0
    specks = convolve(mask[None], torch.tensor([[0.2, 0.5, 0.2], [0.5, 1.0, 0.5], [0.2, 0.5, 0.2]]))[0]
    mask = torch.maximum(mask, specks.clamp(0, 1)) * uniform(generator, 0.6, 1.0)
    ink = torch.tensor([uniform(generator, 0.8, 1.0) if chance(generator, 0.75) else uniform(generator, 0.0, 0.1)])
    return ensure_changed(((clean + mask * (ink.view(1, 1, 1) - clean)).clamp(0, 1) * 255).round() / 255, clean)


def _draw_line(mask: Tensor, generator: torch.Generator, steep: bool) -> None:
    height, width = mask.shape
    angle = uniform(generator, -0.1, 0.1) + (math.pi / 2 if steep else uniform(generator, 0.0, math.pi))
    length = uniform(generator, 0.1, 1.0) * max(height, width)
    along = torch.arange(0, length, 0.5)
    bent = HARDLY_BENT * uniform(generator, -1, 1) * along**2 / max(height, width)
    rows = uniform(generator, 0, height) + along * math.sin(angle) + bent * math.cos(angle)
    columns = uniform(generator, 0, width) + along * math.cos(angle) - bent * math.sin(angle)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    mask[rows[inside].long(), columns[inside].long()] = uniform(generator, 0.4, 1.0)
