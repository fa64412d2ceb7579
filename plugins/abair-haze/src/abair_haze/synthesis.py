"""Haze on a clean photograph by the atmospheric scattering model.

I = J t + A (1 - t), t = exp(-beta d): scene radiance J, airlight A, scattering beta, depth d
(Koschmieder; McCartney, "Optics of the Atmosphere", 1976; RESIDE, Li et al., TIP 2019, is made with
it). Photographs come without depth, so a plausible scene is drawn: a room of walls, floor and
ceiling, a ground plane, or regions of constant depth with hard edges; smooth relief, nearer and
farther objects, and edges that follow those of the photograph (guided filter, He et al., TPAMI
2013). The airlight is grey or coloured, and sometimes brighter on one side.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from abair import chance, log_uniform, smooth_field, uniform

# Optical depth beta * d is beta * (near + (far - near) * s), s in [0, 1]. Indoor (RESIDE: beta 0.6
# to 1.8, depth normalised; measured transmissions 0.29 to 0.92): the nearest thing is already in
# the haze, walls end the depth.
INDOOR_BETA = (0.6, 2.2)
INDOOR_NEAR = (0.15, 0.45)
INDOOR_FAR = (0.5, 1.0)
# Outdoor (RESIDE: beta 0.04 to 0.2 per metre): the foreground is nearly clear, the distance nearly
# lost.
OUTDOOR_BETA = (0.2, 2.6)
OUTDOOR_NEAR = (0.02, 0.35)
OUTDOOR_FAR = (0.5, 1.3)
LARGEST_OPTICAL_DEPTH = 2.8  # 6 % of the light left: beyond it there is nothing to restore
# Airlight: grey. RESIDE 0.7 to 1.0, and its SOTS indoor images measure 1.0; evening haze is darker.
INDOOR_AIRLIGHT = (0.7, 1.0)
OUTDOOR_AIRLIGHT = (0.6, 1.0)
BRIGHT_AIRLIGHT = (0.96, 1.0)
BRIGHT = 0.6  # share of samples whose airlight is nearly white
TINT = 0.04  # largest deviation of a channel of the airlight from grey
COLOURED, COLOUR = 0.06, 0.15  # share of samples with airlight of dust, smoke or dusk, and its largest deviation
UNEVEN, UNEVENNESS = 0.12, 0.12  # share of samples lit from one side, and by how much the airlight varies there
UNIFORM = 0.08  # share of samples with the same depth everywhere (fog, flat scenes)
ROOMS, REGIONS = 0.2, 0.12  # shares of rooms and of regions of constant depth; the others are planes
# The scene's longer side in pixels: an image smaller than that shows a part of it, so depth varies
# little there.
SCENE = (140.0, 1000.0)
WORKING_SIDE = 512  # depth is drawn at most this large and enlarged after: the time for large photographs stays low


def degrade(clean: Tensor, generator: torch.Generator) -> Tensor:
    """Haze of random density, depth and airlight on `clean`.

    `clean` is (3, H, W), float32 in [0, 1], any size from 1x1; it is not modified. The result has
    the same shape and range and differs from it. All randomness comes from `generator` (CPU): the
    same seed gives the same haze.
    """
    if chance(generator, 0.5):
        beta = log_uniform(generator, *INDOOR_BETA)
        near, far = uniform(generator, *INDOOR_NEAR), uniform(generator, *INDOOR_FAR)
        grey = uniform(generator, *INDOOR_AIRLIGHT)
    else:
        beta = log_uniform(generator, *OUTDOOR_BETA)
        near, far = uniform(generator, *OUTDOOR_NEAR), uniform(generator, *OUTDOOR_FAR)
        grey = uniform(generator, *OUTDOOR_AIRLIGHT)
    if chance(generator, BRIGHT):
        grey = uniform(generator, *BRIGHT_AIRLIGHT)
    airlight = _airlight(grey, clean.shape[-2], clean.shape[-1], generator)
    relief = _relief(clean, generator)
    transmission = torch.exp(-(beta * (near + (far - near) * relief)).clamp_max(LARGEST_OPTICAL_DEPTH))
    return (airlight + (clean - airlight) * transmission).clamp(0.0, 1.0)


def _airlight(grey: float, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Draw the airlight (3, H, W) or (3, 1, 1), just below white at most."""
    kind = uniform(generator, 0.0, 1.0)
    tint = COLOUR if kind < COLOURED else 0.0 if kind < 0.5 else TINT
    airlight = grey + tint * (2.0 * torch.rand((3, 1, 1), generator=generator) - 1.0)
    if chance(generator, UNEVEN):
        airlight = airlight * (1.0 - UNEVENNESS * smooth_field(generator, height, width, 2))
    return airlight.clamp(0.0, 0.998)


def _relief(clean: Tensor, generator: torch.Generator) -> Tensor:
    """Relative depth (H, W) in [0, 1], 0 the nearest and 1 the farthest of the whole scene."""
    height, width = clean.shape[-2:]
    if chance(generator, UNIFORM):
        return torch.full((1, 1), uniform(generator, 0.0, 1.0))
    shrink = min(1.0, WORKING_SIDE / max(height, width))
    size = (max(1, round(height * shrink)), max(1, round(width * shrink)))
    # Coordinates in the scene: the image is a window of it, `part` of its longer side.
    part = min(1.0, max(height, width) / log_uniform(generator, *SCENE))
    row_part, column_part = part * height / max(height, width), part * width / max(height, width)
    y = uniform(generator, 0.0, 1.0 - row_part) + row_part * torch.linspace(0.0, 1.0, size[0])[:, None]
    x = uniform(generator, 0.0, 1.0 - column_part) + column_part * torch.linspace(0.0, 1.0, size[1])[None, :]
    kind = uniform(generator, 0.0, 1.0)
    depth = (_room if kind < ROOMS else _regions if kind < ROOMS + REGIONS else _plane)(x, y, generator)
    if chance(generator, 0.6 if kind >= ROOMS + REGIONS else 0.15):
        depth = _relax(depth, generator, part, size)
    if chance(generator, 0.5):
        for _ in range(1 + int(uniform(generator, 0, 7))):
            depth = _add_object(depth, x, y, generator)
    if chance(generator, 0.7 if kind >= ROOMS + REGIONS else 0.35):
        return _follow_edges(clean, depth, size, generator)
    return _resize(depth, height, width).clamp(0.0, 1.0)


def _plane(x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    """Return a plane seen at an angle, mostly the ground: near at the bottom, far at the top."""
    angle = uniform(generator, -0.4, 0.4) if chance(generator, 0.65) else uniform(generator, -math.pi, math.pi)
    slope = (x - 0.5) * math.sin(angle) + (0.5 - y) * math.cos(angle) + 0.5
    slope = slope.clamp(0.0, 1.0)
    # Perspective: depth along a plane grows like 1 / (distance to the horizon); `bend` says how
    # close that lies.
    bend = log_uniform(generator, 0.15, 10.0)
    return slope * bend / (1.0 + bend - slope)


def _room(x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    """Return a box seen from within: a wall at the back, and four planes that come nearer.

    In perspective a plane's depth is inverse to the distance from the vanishing point, so that the
    nearest of the five surfaces has the least depth at each pixel.
    """
    across, down = uniform(generator, 0.25, 0.75), uniform(generator, 0.25, 0.65)  # vanishing point
    left, right = (uniform(generator, 0.05, 0.5) for _ in range(2))  # from there to the back wall's sides
    top, bottom = (uniform(generator, 0.05, 0.5) for _ in range(2))
    dx, dy = x - across, y - down
    towards = torch.maximum(
        torch.maximum(dx / right, -dx / left).expand(y.shape[0], x.shape[1]), torch.maximum(dy / bottom, -dy / top)
    )
    depth = 1.0 / towards.clamp_min(1.0)
    nearest = uniform(generator, 0.0, 0.3)
    return nearest + (1.0 - nearest) * depth


def _regions(x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    """Return layers of constant depth, each in front of the last and cut by a broken line."""
    depth = torch.full((y.shape[0], x.shape[1]), uniform(generator, 0.6, 1.0))
    count = 1 + int(uniform(generator, 0, 5))
    upright = chance(generator, 0.75)
    along, across = (x[0], y) if upright else (y[:, 0], x)
    for layer in range(count):
        # a skyline: values at knots along the picture, joined by steps or by slopes
        knots = 2 + int(log_uniform(generator, 1.0, 12.0))
        level = (layer + uniform(generator, 0.0, 1.0)) / count
        heights = level + 0.25 * torch.randn(knots, generator=generator)
        position = along * (knots - 1)
        index = position.floor().long().clamp(0, knots - 2)
        part = torch.zeros_like(position) if chance(generator, 0.5) else position - index
        line = torch.lerp(heights[index], heights[index + 1], part)
        in_front = (across > line) if upright else (across > line[:, None])
        depth = torch.where(in_front, uniform(generator, 0.0, 1.0) * float(depth.amin()), depth)
    return depth


def _relax(depth: Tensor, generator: torch.Generator, part: float, size: tuple[int, int]) -> Tensor:
    """Mix in a smooth field; a small part of the scene sees little of its variation."""
    cells = max(2, round(uniform(generator, 2.0, 7.0) * part))
    contrast = min(1.0, 0.15 + part * uniform(generator, 0.5, 1.5))
    field = uniform(generator, 0.0, 1.0 - contrast) + contrast * smooth_field(generator, size[0], size[1], cells)
    share = uniform(generator, 0.2, 1.0)
    return depth + share * (field - depth)


def _add_object(depth: Tensor, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    """Put an ellipse or a rotated box in front of or behind what is there."""
    angle = uniform(generator, -0.5, 0.5)
    across, along = log_uniform(generator, 0.04, 0.5), log_uniform(generator, 0.04, 0.5)
    dx, dy = x - uniform(generator, 0.0, 1.0), y - uniform(generator, 0.0, 1.0)
    u = (dx * math.cos(angle) + dy * math.sin(angle)).abs() / across
    v = (dy * math.cos(angle) - dx * math.sin(angle)).abs() / along
    radius = torch.maximum(u, v) if chance(generator, 0.6) else torch.hypot(u, v)
    inside = ((1.0 - radius) * log_uniform(generator, 10.0, 200.0)).clamp(0.0, 1.0)
    there = uniform(generator, 0.0, 1.0)
    return depth + inside * (there + uniform(generator, 0.0, 0.4) * (depth - there) - depth)


def _follow_edges(clean: Tensor, depth: Tensor, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Give `depth` the photograph's edges: segments of its brightness get depths of their own."""
    height, width = clean.shape[-2:]
    luminance = clean.mean(0)
    guide = _resize(luminance, *size)
    # A few broad steps of the blurred luminance stand for segments; each gets a random shift in
    # depth.
    blurred = _box_mean(guide, 1 + int(uniform(generator, 1, 5)))
    levels = 2 + int(uniform(generator, 0, 4))
    position = blurred.clamp(0.0, 1.0) * (levels - 1)
    knots = uniform(generator, 0.1, 0.7) * (2.0 * torch.rand(levels + 1, generator=generator) - 1.0)
    step = position.floor().long().clamp(max=levels - 1)
    # Between two knots the depth jumps rather than slopes: the sharpened fraction keeps segments
    # flat.
    fraction = ((position - step - 0.5) * log_uniform(generator, 1.0, 12.0) + 0.5).clamp(0.0, 1.0)
    depth = (depth + knots[step] + fraction * (knots[step + 1] - knots[step])).clamp(0.0, 1.0)
    # Guided filter: locally depth = a * guide + b; a and b are smooth, so they may be enlarged
    # without blurring edges.
    radius = 2 + int(log_uniform(generator, 1.0, 12.0))
    epsilon = log_uniform(generator, 1e-4, 1e-2)
    means = _box_mean(torch.stack((guide, depth, guide * depth, guide * guide)), radius)
    variance = (means[3] - means[0].square()).clamp_min(0.0)
    a = (means[2] - means[0] * means[1]) / (variance + epsilon)
    a, b = _box_mean(torch.stack((a, means[1] - a * means[0])), radius)
    return (_resize(a, height, width) * luminance + _resize(b, height, width)).clamp(0.0, 1.0)


def _box_mean(images: Tensor, radius: int) -> Tensor:
    """Return the mean of images (..., h, w) over squares of side 2 radius + 1, cut at the borders.

    By running sums, so that the time does not depend on the radius.
    """
    for _ in range(2):  # one axis, then the other
        size = images.shape[-1]
        sums = images.cumsum(-1)
        before = sums.new_zeros((*sums.shape[:-1], radius + 1))
        after = sums[..., -1:].expand(*sums.shape[:-1], radius)
        sums = torch.cat((before, sums, after), -1)
        index = torch.arange(size)
        count = (index + radius + 1).clamp_max(size) - (index - radius).clamp_min(0)
        images = ((sums[..., 2 * radius + 1 :] - sums[..., :size]) / count).transpose(-1, -2)
    return images


def _resize(image: Tensor, height: int, width: int) -> Tensor:
    """Return the image (h, w) at another size, bilinear."""
    if image.shape == (height, width):
        return image
    shrinks = height < image.shape[0] or width < image.shape[1]
    return F.interpolate(image[None, None], size=(height, width), mode="bilinear", antialias=shrinks)[0, 0]
