"""Rain on a clean photograph: layers of streaks, added to it, and sometimes a light mist.

A streak layer is white noise filtered with one long thin kernel (the path of a drop during the
exposure) and cut off below a threshold: what stays are streaks of varied length, width and
brightness that share a direction, as in Rain100L (Yang et al., "Deep Joint Rain Detection and
Removal from a Single Image", CVPR 2017). Some layers filter sparse impulses instead: well separated
drops of one shape. Streaks add light (Rain100L's difference to the clean image is grey, never
negative, and additive up to clipping) or, more rarely, cover what is behind them (screen).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from abair import chance, log_uniform, smooth_field, uniform

# Most rain falls within 35 degrees of the vertical (Rain100L: -35 to 35); wind takes it to 60, a
# tilted camera further.
USUAL_ANGLE = 38.0
WINDY_ANGLE = 62.0
# Length and width of the drop's path in pixels. Rain100L: connected streaks are 7 to 100 long (they
# merge) and 1.5 to 9 wide; larger photographs have longer ones.
LENGTH = (13.0, 90.0)
WIDTH = (0.5, 2.0)  # standard deviation across the path
SLENDER = 16.0  # a path is at least this many deviations long, or it would look like snow
# Part of the area that a dense layer covers. Rain100L: 9 to 24 % of the pixels are brighter by more
# than 0.02.
COVERAGE = (0.06, 0.30)
# Brightness per standard deviation of the filtered noise: together with the layers it spans
# Rain100L (18.6 to 33.5 dB).
GAIN = (0.065, 0.30)
HEAVY_GAIN = (0.3, 0.9)  # Rain100H: about 13 dB, several layers
# Impulses per pixel and their peak brightness in a sparse layer.
DENSITY = (0.0005, 0.006)
PEAK = (0.25, 0.9)
HEAVY = 0.12  # share of heavy samples: more layers, stronger, in diverging directions
SPARSE = 0.25  # share of layers made of separate drops
SCREEN = 0.2  # share of samples composited as 1 - (1 - clean)(1 - rain) instead of a sum
VEIL = 0.2  # share of samples with mist
MIST = (0.02, 0.2)  # opacity of the mist


def degrade(clean: Tensor, generator: torch.Generator) -> Tensor:
    """Rain of random strength, direction and shape on `clean`.

    `clean` is (3, H, W), float32 in [0, 1], any size from 1x1; it is not modified. The result has
    the same shape and range and always differs from it. All randomness comes from `generator`
    (CPU): the same seed gives the same rain.
    """
    height, width = clean.shape[-2:]
    heavy = chance(generator, HEAVY)
    angle = _angle(generator)
    length = log_uniform(generator, *LENGTH)
    breadth = log_uniform(generator, WIDTH[0], min(WIDTH[1], length / SLENDER))
    gain = log_uniform(generator, *(HEAVY_GAIN if heavy else GAIN))
    layers = 2 + int(uniform(generator, 0, 3)) if heavy else 1 + chance(generator, 0.4) + chance(generator, 0.12)
    spread = uniform(generator, 0.0, 25.0) if heavy and chance(generator, 0.6) else 2.5
    rain = torch.zeros(height, width)
    for index in range(layers):
        # Each further layer lies behind: its streaks are smaller and fainter.
        scale = uniform(generator, 0.55, 1.0) ** index
        kernel = _path(
            generator,
            angle + uniform(generator, -spread, spread),
            max(0.7 * LENGTH[0], length * scale * uniform(generator, 0.8, 1.25)),
            max(WIDTH[0], breadth * scale),
        )
        rain += _layer(generator, height, width, kernel, gain * scale / math.sqrt(layers))
    light = torch.ones(3, 1, 1)
    if chance(generator, 0.15):  # a bright sky or a lamp tints the drops a little
        light = 1.0 - 0.12 * torch.rand((3, 1, 1), generator=generator)
    rain = rain * light
    wet = 1.0 - (1.0 - clean) * (1.0 - rain.clamp(max=1.0)) if chance(generator, SCREEN) else clean + rain
    wet = wet.clamp(0.0, 1.0)
    # On a white picture streaks cannot show: there only the mist does.
    if chance(generator, VEIL) or torch.equal(wet, clean):
        wet = _mist(wet, generator)
    return wet


def _angle(generator: torch.Generator) -> float:
    """Degrees from the vertical."""
    if chance(generator, 0.04):
        return uniform(generator, -90.0, 90.0)
    limit = USUAL_ANGLE if chance(generator, 0.75) else WINDY_ANGLE
    return uniform(generator, -limit, limit)


def _path(generator: torch.Generator, angle: float, length: float, sigma: float) -> Tensor:
    """Draw one drop (h, w), odd sides, peak 1: a line of `length` pixels, Gaussian across."""
    sine, cosine = math.sin(math.radians(angle)), math.cos(math.radians(angle))
    half_height = math.ceil(abs(cosine) * length / 2 + 3 * sigma)
    half_width = math.ceil(abs(sine) * length / 2 + 3 * sigma)
    y = torch.arange(-half_height, half_height + 1, dtype=torch.float32)[:, None]
    x = torch.arange(-half_width, half_width + 1, dtype=torch.float32)[None, :]
    along, across = y * cosine + x * sine, x * cosine - y * sine
    ends = (length / 2 - along.abs() + 0.5).clamp(0.0, 1.0)  # one pixel of antialiasing
    if chance(generator, 0.75):  # faint towards one or both ends: out of focus, or lit unevenly
        ends = ends * (1.0 - uniform(generator, 0.3, 1.0) * (2.0 * along / length).clamp(-1.0, 1.0).square())
        ends = ends * (1.0 + uniform(generator, -0.6, 0.6) * (2.0 * along / length).clamp(-1.0, 1.0))
    kernel = ends.clamp_min(0.0) * torch.exp(-0.5 * (across / sigma).square())
    return kernel / kernel.amax()


def _layer(generator: torch.Generator, height: int, width: int, kernel: Tensor, gain: float) -> Tensor:
    """Light (H, W) >= 0 that one layer of streaks adds, somewhere positive."""
    if chance(generator, SPARSE):
        density = log_uniform(generator, *DENSITY)
        peak = min(PEAK[1], max(PEAK[0], 3.0 * gain))
        shape = _sides(height, width, kernel)
        brightness = torch.rand(shape, generator=generator).square() * 0.9 + 0.1
        drops = (torch.rand(shape, generator=generator) < density) * brightness * peak
        layer = _filter(drops, kernel, height, width).clamp_min(0.0)
        if float(layer.amax()) > 0.1:
            return layer
        # A small crop between the drops: fall through to the dense layer, which always shows.
    # White noise through a kernel of norm 1 has variance 1, so the threshold is the normal quantile
    # of the coverage.
    noise = torch.randn(_sides(height, width, kernel), generator=generator)
    field = _filter(noise, kernel / kernel.norm(), height, width)
    coverage = uniform(generator, *COVERAGE)
    threshold = math.sqrt(2.0) * float(torch.erfinv(torch.tensor(1.0 - 2.0 * coverage)))
    threshold = min(threshold, float(field.amax()) - 0.5)
    excess = (field - threshold).clamp_min(0.0)
    # Bent upwards, or the few bright streaks among many faint ones would be missing.
    layer = gain * excess * (1.0 + uniform(generator, 0.0, 0.7) * excess)
    if chance(generator, 0.15):  # bright streaks that saturate: flat inside, as in a part of Rain100L
        ceiling = uniform(generator, 1.2, 2.5) * gain
        layer = (1.5 * layer).clamp(max=ceiling)
    if chance(generator, 0.2):  # gusts
        layer = layer * (0.4 + 0.6 * smooth_field(generator, height, width, 4))
    return layer


def _sides(height: int, width: int, kernel: Tensor) -> tuple[int, int]:
    """Return the sides of the noise that filtering needs, rounded up for the FFT."""
    return -(-(height + kernel.shape[0]) // 32) * 32, -(-(width + kernel.shape[1]) // 32) * 32


def _filter(noise: Tensor, kernel: Tensor, height: int, width: int) -> Tensor:
    """Return the part (height, width) of filtered `noise` that does not wrap around."""
    top, left = kernel.shape[0] - 1, kernel.shape[1] - 1
    sides = (noise.shape[0], noise.shape[1])
    full: Tensor = torch.fft.irfft2(torch.fft.rfft2(noise) * torch.fft.rfft2(kernel, s=sides), s=sides)
    return full[top : top + height, left : left + width]


def _mist(image: Tensor, generator: torch.Generator) -> Tensor:
    """Distant drops: a bright grey veil, nearly even."""
    opacity = log_uniform(generator, *MIST)
    field = smooth_field(generator, image.shape[-2], image.shape[-1], 3)
    veil = opacity * (0.7 + 0.3 * field)
    return image * (1.0 - veil) + uniform(generator, 0.7, 0.95) * veil
