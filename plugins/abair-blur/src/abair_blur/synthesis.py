"""Synthesiser of blur: camera shake or rotation, a moving subject, a lens out of focus.

Each kernel is centred on its centroid, so the blurred image never sits beside the sharp one. Most
samples blend two or three kernels by soft masks: nearer things move further in the frame, and a
moving subject stands before a still wall.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from abair import chance, convolve, ensure_changed, log_uniform, smooth_field, uniform

LENGTH = (3.5, 38.0)
"""Extent of a motion in pixels, log-uniform: just visible up to the hardest frames of a 720p action
camera."""
RADIUS = (1.2, 7.0)
"""Radius of the disc of confusion in pixels, log-uniform; wider ones leave nothing to restore."""
SPREAD = (0.8, 4.0)
"""Standard deviation in pixels of Gaussian defocus, log-uniform."""
SHAKE, LINEAR = 0.65, 0.2
"""Shares of hand shake and of straight motion among the kernels; the rest is defocus."""
VARYING = 0.6
"""Share of images whose blur differs from place to place, as it does in all but the simplest
scenes."""
LINEAR_LIGHT = 0.6
"""Share averaged in linear light, as a sensor does it; the rest is averaged as encoded, as many
test sets are made."""
GAMMA = 2.2
"""Display gamma that takes encoded values to linear light."""
CLIPPED, BRIGHTER = 0.12, (1.5, 4.0)
"""Share whose clipped highlights stay white when smeared, and how much brighter than white those
really were; few, because test sets average frames that are clipped already."""
NOISE = (0.2 / 255, 2.0 / 255)
"""Standard deviation of the noise after the blur: frames that are averages are nearly free of
it."""
STEPS = 160
"""Points on a path: several a pixel for the longest one."""


def degrade(clean: Tensor, generator: torch.Generator) -> Tensor:
    """Blur `clean` (3, H, W) in [0, 1]; return a new tensor of 8-bit values."""
    linear = chance(generator, LINEAR_LIGHT)
    light = clean.clamp_min(1e-6) ** GAMMA if linear else clean
    if chance(generator, CLIPPED):
        gain = uniform(generator, *BRIGHTER) - 1
        light = light * (1 + gain * ((clean.amin(dim=0) - 0.94) / 0.06).clamp(0.0, 1.0))
    blurred = _blur(light, generator).clamp_(0.0, 1.0)
    if linear:
        blurred = blurred.clamp_min_(1e-6) ** (1 / GAMMA)
    blurred = blurred + uniform(generator, *NOISE) * torch.randn(clean.shape, generator=generator)
    return ensure_changed((blurred.clamp_(0.0, 1.0) * 255).round_() / 255, clean)


def _blur(light: Tensor, generator: torch.Generator) -> Tensor:
    """Light after one kernel, or after several that a soft mask blends."""
    kind = uniform(generator, 0.0, 1.0)
    if kind >= SHAKE + LINEAR:
        kernels: list[Tensor | None] = [_defocus(generator)]
        if chance(generator, VARYING):
            kernels.append(_defocus(generator) if chance(generator, 0.5) else None)
    else:
        length = log_uniform(generator, *LENGTH)
        path = _path(generator) if kind < SHAKE else _line(generator)
        weights = _exposure(generator)
        kernels = [_splat(path * length, weights)]
        if chance(generator, VARYING):
            kernels.append(_relative(path * length, weights, generator))
            if chance(generator, 0.3):
                kernels.append(_relative(path * length, weights, generator))
    blurred = _apply(light, kernels[0])  # never None, so a new tensor
    for kernel in kernels[1:]:
        mask = _mask(generator, light.shape[-2], light.shape[-1])
        blurred = torch.lerp(blurred, _apply(light, kernel), mask)
    return blurred


def _apply(light: Tensor, kernel: Tensor | None) -> Tensor:
    """Light (3, H, W) after one kernel; None stands for what neither moves nor is out of focus."""
    return light if kernel is None else convolve(light, kernel)


def _mask(generator: torch.Generator, height: int, width: int) -> Tensor:
    """Draw where the other kernel acts, (H, W) in [0, 1]: a smooth field or a region."""
    field = smooth_field(generator, height, width, 2 + int(torch.randint(3, (), generator=generator)))
    if chance(generator, 0.4):
        return field
    edge = log_uniform(generator, 8.0, 60.0)
    return torch.sigmoid(edge * (field - uniform(generator, 0.35, 0.65)))


def _relative(path: Tensor, weights: Tensor, generator: torch.Generator) -> Tensor | None:
    """Draw the kernel elsewhere: the shake scaled or rotated, other motion, or none."""
    kind = uniform(generator, 0.0, 1.0)
    if kind < 0.15:
        return None
    if kind < 0.75:
        angle, scale = uniform(generator, -0.7, 0.7), log_uniform(generator, 0.35, 1.6)
        cosine, sine = scale * math.cos(angle), scale * math.sin(angle)
        turned = path @ torch.tensor([[cosine, sine], [-sine, cosine]])
        extent = float((turned.amax(dim=0) - turned.amin(dim=0)).amax())
        return _splat(turned * min(1.0, LENGTH[1] / max(extent, 1e-6)), weights)
    return _splat(_line(generator) * log_uniform(generator, *LENGTH), weights)


def _path(generator: torch.Generator) -> Tensor:
    """Draw a shaken camera's path, (STEPS, 2), of extent 1: drift plus forces integrated twice."""
    forces = torch.randn((STEPS, 2), generator=generator)
    roughness = log_uniform(generator, 0.02, 0.6)
    wander = forces.cumsum(dim=0)
    angle = uniform(generator, 0.0, 2 * math.pi)
    drift = torch.tensor([math.cos(angle), math.sin(angle)])
    velocity = drift + roughness * (wander - wander.mean(dim=0))
    path = velocity.cumsum(dim=0)
    return path / (path.amax(dim=0) - path.amin(dim=0)).amax().clamp_min(1e-6)


def _line(generator: torch.Generator) -> Tensor:
    """Return a straight path of length 1 in any direction, (STEPS, 2)."""
    angle = uniform(generator, 0.0, math.pi)
    return torch.linspace(-0.5, 0.5, STEPS)[:, None] * torch.tensor([math.sin(angle), math.cos(angle)])


def _exposure(generator: torch.Generator) -> Tensor:
    """Draw how much light each point of a path gets, (STEPS,).

    The shutter is open throughout, or opens for several frames.

    Blurred test images are often averages of 7 to 13 video frames, each exposed for a part of its
    time.
    """
    if chance(generator, 0.6):
        return torch.ones(STEPS)
    frames = 7 + 2 * int(torch.randint(4, (), generator=generator))
    phase = (torch.arange(STEPS) + 0.5) * frames / STEPS
    return (phase.remainder(1.0) < uniform(generator, 0.5, 1.0)).float()


def _splat(path: Tensor, weights: Tensor) -> Tensor:
    """Return the kernel of a path (n, 2) in pixels: odd sides, sum 1, centroid in the centre."""
    weights = weights / weights.sum()
    centred = path - weights @ path
    reach = int(centred.abs().amax().ceil()) + 1
    side = 2 * reach + 1
    position = centred + reach
    corner = position.floor()
    part = position - corner
    row, column = corner.long().unbind(dim=1)
    kernel = torch.zeros(side * side)
    for down in (0, 1):
        for right in (0, 1):
            share = (part[:, 0] if down else 1 - part[:, 0]) * (part[:, 1] if right else 1 - part[:, 1])
            kernel.index_add_(0, (row + down) * side + column + right, weights * share)
    return kernel.view(side, side)


def _defocus(generator: torch.Generator) -> Tensor:
    """Draw a disc with a soft rim, or a Gaussian: odd sides, sum 1, centred."""
    disc = chance(generator, 0.6)
    size = log_uniform(generator, *(RADIUS if disc else SPREAD))
    reach = math.ceil(size + 1) if disc else math.ceil(3 * size)
    offset = torch.arange(-reach, reach + 1, dtype=torch.float32)
    distance = torch.hypot(offset[:, None], offset[None, :])
    kernel = (size + 0.5 - distance).clamp(0.0, 1.0) if disc else torch.exp(-0.5 * (distance / size) ** 2)
    return kernel / kernel.sum()
