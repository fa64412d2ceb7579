"""Synthesiser of low light: the scene with a far shorter exposure, as a camera's file shows it.

Between two exposures of one scene, encoded values follow dark = gain * bright ** gamma closely,
because the camera's tone curve bends the two differently. Gain, gamma, their spread between
channels, and the noise are those measured on pairs of the LOL kind (104 crops; per pair a line
through log values, noise in flat regions), widened to milder ones.

The noise is drawn in encoded values. Photon noise grows with the root of linear light, the encoding
takes about that same root, so after it the noise hardly depends on the level; the pairs show just
that (1.2 to 2.4 of 255 at every level from 0.01 to 0.25). A variance in proportion to the level is
added for mild exposures with other tone curves.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from abair import chance, convolve, ensure_changed, log_uniform, smooth_field, uniform

STRONG = 0.72
"""Share of samples drawn like the measured pairs; the others are milder (dusk, a failed flash)."""
LOG_GAIN, GAMMA = (-1.75, 0.65), (1.75, 0.38)
"""Mean and standard deviation of the logarithm of the gain, and of gamma: medians and spreads of
the pairs."""
GAIN_RANGE, GAMMA_RANGE = (0.03, 0.9), (0.9, 3.0)
"""Beyond these a normal draw is cut off: darker holds no picture, lighter is no darkening."""
MILD_GAIN, MILD_GAMMA = (0.25, 0.95), (0.85, 2.0)
"""Milder samples: gain log-uniform, gamma uniform."""
CAST_GAIN, CAST_GAMMA = 0.11, 0.13
"""Standard deviation of a channel's log gain at mid-grey and of its gamma: white balance drifts in
the dark."""
GREEN_SHADOWS = (0.2, 0.0, 0.2)
"""What red and blue have more of gamma than green in the median pair: shadows turn green."""
SHOULDER = (0.0, 0.5)
"""How much the bright photograph's tone curve squeezes its highlights, which the dark one does
not."""
DARKEST = (0.004, 0.02)
"""Least mean of a sample where the gain can reach it: the pairs' means begin there, below is no
picture to restore."""
BLACK = (0.0, 0.6 / 255)
"""What black-level subtraction takes off: the pairs hold 5 % of values at exactly zero."""
NOISE = (0.6 / 255, 3.2 / 255)
"""Standard deviation of the noise, log-uniform about the measured 1.5 of 255."""
CHANNELS = (1.4, 0.8, 1.05)
"""Noise of red, green and blue relative to that: white balance amplifies red and blue, green has
twice the sites."""
COMMON = (0.3, 0.8)
"""Weight of the noise that all channels share, from the camera's colour matrix: correlation 0.4 in
the pairs."""
UNEVEN = 0.3
"""Share lit unevenly: a lamp in one corner, or a vignette."""
SATURATION = (0.75, 1.1)
"""Chroma of the dark photograph relative to the bright one before the tone curve strengthens it."""


def degrade(clean: Tensor, generator: torch.Generator) -> Tensor:
    """Darken `clean` (3, H, W) in [0, 1] and add noise; return a new tensor of 8-bit values."""
    strong = chance(generator, STRONG)
    gain, gamma = _exposure(generator, strong)
    grey = clean.mean(dim=0, keepdim=True)
    scene = torch.lerp(grey, clean, uniform(generator, *SATURATION)).clamp_(0.002, 1.0)
    bend = torch.tensor(GREEN_SHADOWS).view(3, 1, 1) + CAST_GAMMA * torch.randn((3, 1, 1), generator=generator)
    # The bend turns the curves about mid-grey, so that it tints shadows and highlights in opposite
    # ways.
    gains = gain * torch.exp(CAST_GAIN * torch.randn((3, 1, 1), generator=generator) + bend * math.log(2.0))
    shoulder = uniform(generator, *SHOULDER)
    curve = scene ** (gamma + bend).clamp_min(0.8) * ((1 + shoulder * scene**3) / (1 + shoulder))
    gains = gains * _lift(float((gains * curve).mean()), gain, generator)
    dark = gains * curve
    if chance(generator, UNEVEN):
        dark = dark * _lamp(generator, clean.shape[-2], clean.shape[-1])
    if strong:
        dark = dark - uniform(generator, *BLACK)
    dark = dark + _noise(dark, generator)
    return ensure_changed((dark.clamp_(0.0, 1.0) * 255).round_() / 255, clean)


def _exposure(generator: torch.Generator, strong: bool) -> tuple[float, float]:
    """Gain and gamma: like the measured pairs, or milder."""
    if not strong:
        return log_uniform(generator, *MILD_GAIN), uniform(generator, *MILD_GAMMA)
    first, second = torch.randn(2, generator=generator).tolist()
    gain = math.exp(LOG_GAIN[0] + LOG_GAIN[1] * first)
    gamma = GAMMA[0] + GAMMA[1] * second
    return min(max(gain, GAIN_RANGE[0]), GAIN_RANGE[1]), min(max(gamma, GAMMA_RANGE[0]), GAMMA_RANGE[1])


def _lift(mean: float, gain: float, generator: torch.Generator) -> float:
    """Return the factor on the gain of a dark scene, which is exposed longer than a bright one."""
    wanted = log_uniform(generator, *DARKEST)
    return max(1.0, min(wanted / max(mean, 1e-6), GAIN_RANGE[1] / gain))


def _lamp(generator: torch.Generator, height: int, width: int) -> Tensor:
    """Draw relative brightness over the frame, (H, W) in (0, 1]: a smooth field or a vignette."""
    depth = uniform(generator, 0.2, 0.7)
    if chance(generator, 0.7):
        return 1 - depth * smooth_field(generator, height, width, 2)
    rows, columns = torch.linspace(-1, 1, height)[:, None], torch.linspace(-1, 1, width)[None, :]
    return 1 - depth * (rows**2 + columns**2) / 2


def _noise(dark: Tensor, generator: torch.Generator) -> Tensor:
    """Draw noise (3, H, W) of a dark frame: strongest in red, partly shared by channels, smooth."""
    level = log_uniform(generator, *NOISE)
    spread = torch.tensor(CHANNELS).view(3, 1, 1) * torch.exp(0.12 * torch.randn((3, 1, 1), generator=generator))
    common = uniform(generator, *COMMON)
    noise = torch.randn(dark.shape, generator=generator)
    noise = noise + common * torch.randn((1, *dark.shape[-2:]), generator=generator)
    if chance(generator, 0.7):
        spill = uniform(generator, 0.03, 0.15)
        profile = torch.tensor([spill, 1.0, spill])
        kernel = torch.outer(profile, profile)
        # A kernel of unit energy keeps the standard deviation of white noise.
        noise = convolve(noise, kernel / kernel.norm())
    photon = uniform(generator, 0.0, 2.0)
    return noise * (level / math.hypot(1.0, common)) * spread * (1 + photon * dark.clamp(0.0, 1.0)).sqrt_()
