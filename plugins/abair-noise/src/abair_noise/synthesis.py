"""Synthesiser of noise: what a sensor, an amplifier and an 8-bit file add to every pixel.

Most samples are the field's standard, white Gaussian noise of one level in all three channels; the
others are what cameras give instead: noise that grows with the signal, that is common to the
channels, or that demosaicing has smeared. The result is clipped to [0, 1], as every file is.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from abair import chance, convolve, ensure_changed, uniform

SIGMA = (5 / 255, 55 / 255)
"""Standard deviation of white noise: the standard tests use 15, 25 and 50 of 255; 5 and 55 go a
little beyond."""
WHITE = 0.75
"""Share of plain white noise, independent in the channels; the rest is divided evenly among the
other kinds."""
READ_SHARE = (0.05, 0.6)
"""Signal-dependent noise: share of the read noise in the variance at mid-grey; photon noise makes
the rest."""
GRAIN = (0.4, 0.9)
"""Correlated noise: standard deviation in pixels of the Gaussian that smears it, about what a
demosaicing does."""
CHROMA = (0.0, 0.4)
"""Grey noise: standard deviation of what each channel has of its own, relative to the common
part."""


def degrade(clean: Tensor, generator: torch.Generator) -> Tensor:
    """Add noise of a random kind and level to `clean` (3, H, W) in [0, 1]; return a new tensor."""
    sigma = uniform(generator, *SIGMA)
    if chance(generator, WHITE):
        noise = sigma * torch.randn(clean.shape, generator=generator)
    else:
        kind = int(torch.randint(3, (), generator=generator))
        noise = (_signal_dependent, _grey, _correlated)[kind](clean, sigma, generator)
    return ensure_changed((clean + noise).clamp_(0.0, 1.0), clean)


def _signal_dependent(clean: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Draw Poisson-Gaussian noise as Gaussian of variance a x + b, which is sigma^2 at mid-grey."""
    share = uniform(generator, *READ_SHARE)
    variance = sigma**2 * (share + (1 - share) * 2 * clean)
    return variance.sqrt_() * torch.randn(clean.shape, generator=generator)


def _grey(clean: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Draw noise that the channels mostly share, as in scanned film or files of smoothed chroma."""
    own = uniform(generator, *CHROMA)
    common = torch.randn((1, *clean.shape[-2:]), generator=generator)
    noise = common + own * torch.randn(clean.shape, generator=generator)
    return noise * (sigma / math.hypot(1.0, own))


def _correlated(clean: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Draw noise that neighbouring pixels share, as after demosaicing, of the level asked for."""
    spread = uniform(generator, *GRAIN)
    offset = torch.arange(-2, 3, dtype=torch.float32)
    profile = torch.exp(-0.5 * (offset / spread) ** 2)
    kernel = torch.outer(profile, profile)
    # White noise filtered with a kernel of unit energy (not unit sum) keeps its standard deviation.
    kernel = kernel / kernel.norm()
    return sigma * convolve(torch.randn(clean.shape, generator=generator), kernel)
