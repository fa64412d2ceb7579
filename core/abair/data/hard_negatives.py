"""Undamaged scenes that are easily taken for damaged ones: drawn, or made from a photo.

An even wall looks hazy, a night sky dark or noisy, a fence like rain, a page blurred. Collections
of good photos hold few of them, so an estimator that was trained on those alone sees damage in
them. Each scene is named after what it stands for; shapes, colours and light are drawn at random.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from abair.physics import chance, convolve, log_uniform, smooth_field, uniform

GRAIN: Final = (0.0, 1.2 / 255)
"""Standard deviation of the noise that every sensor leaves, added to drawn scenes."""
GREY: Final = (0.299, 0.587, 0.114)
"""Weights of the channels in the brightness (ITU-R BT.601)."""

Scene = Callable[[Tensor, torch.Generator], Tensor]
"""Makes a scene (3, H, W) of a photo of that shape, of which many scenes need the shape alone."""


def hard_negative(photo: Tensor, generator: torch.Generator) -> Tensor:
    """Return an undamaged scene (3, H, W) in [0, 1] of the shape of a photo, which may be in it."""
    scene = SCENES[int(torch.randint(len(SCENES), (), generator=generator))](photo, generator)
    if chance(generator, 0.5):
        scene = scene + uniform(generator, *GRAIN) * torch.randn(scene.shape, generator=generator)
    return scene.clamp(0.0, 1.0)


def _wall(photo: Tensor, generator: torch.Generator) -> Tensor:
    """Draw plaster, cloth or a grey card: one colour, uneven light, and a faint texture."""
    height, width = photo.shape[1:]
    light = 1 - uniform(generator, 0.0, 0.5) * smooth_field(generator, height, width, 2)
    texture = convolve(
        torch.randn((1, height, width), generator=generator), _gaussian(uniform(generator, 0.4, 3.0))
    ) * log_uniform(generator, 0.002, 0.05)
    return _colour(generator, 0.05, 0.95, 0.12) * light + texture


def _bricks(photo: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a wall of bricks or tiles in courses, each of its own shade, under uneven light."""
    height, width = photo.shape[1:]
    across = uniform(generator, 20, 120)
    down, joint = across * uniform(generator, 0.3, 1.0), uniform(generator, 1.5, 6.0)
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None]
    course = (rows / down).floor()
    shifted = columns + course * across / 2
    number = (course * 7919 + (shifted / across).floor() * 104729).long() % 4096
    shade = 1 + uniform(generator, 0.05, 0.35) * (torch.rand(4096, generator=generator)[number] - 0.5)
    gap = ((rows % down < joint) | (shifted % across < joint)).float()
    brick, mortar = _colour(generator, 0.2, 0.7, 0.3), _colour(generator, 0.3, 0.9, 0.05)
    light = 1 - uniform(generator, 0.0, 0.4) * smooth_field(generator, height, width, 3)
    grain = 0.04 * torch.randn((1, height, width), generator=generator)
    return (torch.lerp(brick * shade, mortar.expand(3, height, width), gap) + grain) * light


def _page(photo: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a page, receipt or drawing: dark strokes in lines on paper, lit unevenly."""
    height, width = photo.shape[1:]
    page = torch.ones(height, width)
    size = int(uniform(generator, 6, 22))
    margin = int(uniform(generator, 0, 0.15) * min(height, width))
    pen = max(1, size // 8)
    for top in range(margin, height - size - margin, int(size * uniform(generator, 1.4, 2.2))):
        left = margin
        end = width - margin if chance(generator, 0.85) else int(uniform(generator, margin, width))
        while left < end - size:
            for _ in range(2):  # a letter: an upright stroke or bow, and a bar
                x = left + int(uniform(generator, 0, size * 0.5))
                y = top + int(uniform(generator, 0, size * 0.7))
                page[top : top + size, x : x + pen] = 0
                page[y : y + pen, left : left + max(1, size // 2)] = 0
            left += int(size * (uniform(generator, 0.6, 0.8) if chance(generator, 0.83) else 1.3))
    page = convolve(page[None], _gaussian(uniform(generator, 0.3, 0.8)))
    paper, ink = _colour(generator, 0.7, 1.0, 0.06), _colour(generator, 0.0, 0.35, 0.1)
    light = 1 - uniform(generator, 0.0, 0.35) * smooth_field(generator, height, width, 2)
    return torch.lerp(ink.expand(3, height, width), paper.expand(3, height, width), page) * light


def _screenshot(photo: Tensor, generator: torch.Generator) -> Tensor:
    """Draw windows, bars and buttons of even colours, and perhaps a photo in one of them."""
    height, width = photo.shape[1:]
    scene = _colour(generator, 0.0, 1.0, 0.1).expand(3, height, width).clone()
    for _ in range(int(uniform(generator, 4, 24))):
        rows, columns = _rectangle(height, width, 0.03, 0.6, generator)
        scene[:, rows, columns] = _colour(generator, 0.0, 1.0, 0.3 if chance(generator, 0.3) else 0.04)
    if chance(generator, 0.4):
        rows, columns = _rectangle(height, width, 0.2, 0.5, generator)
        scene[:, rows, columns] = photo[:, rows, columns]
    return scene


def _stars(photo: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a night sky: faint and bright points, a glow, and perhaps a black horizon."""
    height, width = photo.shape[1:]
    points = torch.zeros(1, height, width)
    count = int(log_uniform(generator, 0.0002, 0.006) * height * width)
    rows = torch.randint(height, (count,), generator=generator)
    columns = torch.randint(width, (count,), generator=generator)
    points[0, rows, columns] = log_uniform(generator, 1.0, 4.0) * torch.rand(count, generator=generator) ** 4
    stars = convolve(points, _gaussian(uniform(generator, 0.4, 0.9)))
    sky = _colour(generator, 0.0, 0.12, 0.06) + uniform(generator, 0, 0.15) * smooth_field(
        generator, height, width, 3
    ) * _colour(generator, 0.3, 1.0, 0.4)
    scene = sky + stars * _colour(generator, 1.5, 3.0, 0.2)
    if chance(generator, 0.4):
        scene = scene * (torch.arange(height)[:, None] < _skyline(generator, width, 0.5, 1.0) * height)
    return scene


def _moon(photo: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a bright disc with dark seas and a shadow on one side, in a black sky."""
    height, width = photo.shape[1:]
    radius = uniform(generator, 0.08, 0.7) * min(height, width) / 2 + 2
    y, x = _grid(height, width, generator)
    distance = (y**2 + x**2).sqrt()
    disc = ((radius - distance) / uniform(generator, 0.8, 2.5)).clamp(0, 1)
    surface = 1 - 0.5 * smooth_field(generator, height, width, 6) * smooth_field(generator, height, width, 24)
    phase = uniform(generator, -1.2, 1.2)
    lit = ((x / radius - phase) * uniform(generator, 2, 8)).clamp(0, 1) if abs(phase) < 0.9 else torch.ones(1)
    return _colour(generator, 0.5, 1.1, 0.08) * disc * surface * lit + _colour(generator, 0.0, 0.03, 0.02)


def _stage(photo: Tensor, generator: torch.Generator) -> Tensor:
    """Draw lamps of strong colours and their glow before black, perhaps above a dark stage."""
    height, width = photo.shape[1:]
    scene = torch.zeros(3, height, width)
    longest = max(height, width)
    for _ in range(int(uniform(generator, 2, 9))):
        y, x = _grid(height, width, generator)
        distance = (y**2 + x**2).sqrt() / longest
        glow = (-distance / log_uniform(generator, 0.02, 0.5)).exp()
        scene += _colour(generator, 0.2, 1.3, 0.9) * glow
    if chance(generator, 0.5):
        scene *= torch.arange(height)[:, None] < _skyline(generator, width, 0.3, 1.1) * height
    return scene + (photo**2 * uniform(generator, 0.0, 0.3) if chance(generator, 0.5) else 0.0)


def _city_night(photo: Tensor, generator: torch.Generator) -> Tensor:
    """Draw black houses with lit windows beneath a dark sky."""
    height, width = photo.shape[1:]
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None]
    sky = _colour(generator, 0.0, 0.12, 0.08) * (1 - 0.7 * (rows / height))
    across, down = uniform(generator, 6, 30), uniform(generator, 8, 36)
    number = ((rows / down).floor() * 7919 + (columns / across).floor() * 104729).long() % 4096
    lit = (torch.rand(4096, generator=generator) < uniform(generator, 0.1, 0.5)).float()[number]
    pane = ((rows % down) > 0.35 * down) & ((columns % across) > 0.3 * across)
    houses_wide = max(1, round(width * uniform(generator, 0.05, 0.2)))
    tops = uniform(generator, 0.1, 0.9) + 0.3 * torch.rand(width // houses_wide + 1, generator=generator)
    block = rows > (tops * height).repeat_interleave(houses_wide)[:width]
    shine = lit * pane * torch.rand(4096, generator=generator)[number]
    houses = _colour(generator, 0.0, 0.06, 0.03) + shine * _colour(generator, 0.5, 1.2, 0.25)
    return torch.where(block, houses, sky.expand(3, height, width))


def _fog(photo: Tensor, generator: torch.Generator) -> Tensor:
    """Draw mist as the subject: silhouettes of hills, each farther one paler, to an even sky."""
    height, width = photo.shape[1:]
    sky = _colour(generator, 0.5, 0.98, 0.08)
    near = _colour(generator, 0.0, 0.4, 0.1)
    scene = sky * (1 - 0.15 * torch.linspace(0, 1, height)[:, None]).expand(3, height, width)
    layers = int(uniform(generator, 1, 6))
    rows = torch.arange(height)[:, None]
    for layer in range(layers):
        share = ((layer + 1) / layers) ** uniform(generator, 0.8, 2.0) * uniform(generator, 0.15, 1.0)
        top = (_skyline(generator, width, 0.2, 0.6) + 0.5 * layer / layers) * height
        edge = ((rows - top) / uniform(generator, 0.8, 6.0)).clamp(0, 1)
        scene = torch.lerp(scene, torch.lerp(sky, near, share).expand_as(scene), edge)
    return scene


def _snowfield(photo: Tensor, generator: torch.Generator) -> Tensor:
    """Draw snow, sand or an overcast sea: bright, soft relief to a pale sky."""
    height, width = photo.shape[1:]
    relief = smooth_field(generator, height, width, int(uniform(generator, 3, 20)))
    slope = relief - relief.roll(1, 0)
    ground = _colour(generator, 0.6, 0.98, 0.08) * (
        1 + slope / slope.std().clamp_min(1e-6) * uniform(generator, 0, 0.1)
    )
    texture = 0.02 * uniform(generator, 0, 1) * torch.randn((1, height, width), generator=generator)
    sky = _colour(generator, 0.6, 1.0, 0.12).expand(3, height, width)
    above = torch.arange(height)[:, None] < _skyline(generator, width, 0.0, 0.7) * height
    return torch.where(above, sky, ground + texture)


def _product(photo: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a thing before an even ground: a part of a photo in a soft shape, with a shadow."""
    height, width = photo.shape[1:]
    y, x = _grid(height, width, generator)
    a, b = uniform(generator, 0.15, 0.45) * height, uniform(generator, 0.15, 0.45) * width
    power = uniform(generator, 1.5, 8.0)
    inside = ((1 - (y / a).abs() ** power - (x / b).abs() ** power) * 20).clamp(0, 1)
    shadow = 1 - uniform(generator, 0.0, 0.4) * convolve(inside[None], _gaussian(uniform(generator, 3.0, 12.0)))
    ground = _colour(generator, 0.85, 1.0, 0.04) if chance(generator, 0.7) else _colour(generator, 0.0, 0.2, 0.04)
    return torch.lerp(ground * shadow, photo, inside)


def _lines(photo: Tensor, generator: torch.Generator) -> Tensor:
    """Draw thin lines that are no rain: a fence, reeds, hair or wires before a blurred photo."""
    height, width = photo.shape[1:]
    ground = convolve(photo, _gaussian(uniform(generator, 2.0, 8.0))).clamp(0, 1)
    columns = torch.arange(width)[None].float()
    rows = torch.arange(height)[:, None].float()
    colour = _colour(generator, 0.05, 0.9, 0.2)
    regular, spacing = chance(generator, 0.4), uniform(generator, 8, 60)
    lean = uniform(generator, -0.3, 0.3)
    for index in range(int(min(60, width / spacing)) + 1):
        centre = index * spacing if regular else uniform(generator, 0, width)
        own = lean if regular else lean + uniform(generator, -0.15, 0.15)
        bow = 0.0 if regular else uniform(generator, -0.1, 0.1) * width
        path = centre + own * (rows - height / 2) + bow * (rows / height - 0.5) ** 2
        thickness = uniform(generator, 0.6, 0.25 * spacing)
        line = (thickness / 2 - (columns - path).abs() + 0.5).clamp(0, 1)
        shade = colour * uniform(generator, 0.6, 1.3)
        ground = torch.lerp(ground, shade.expand_as(ground), line)
    return ground


def _halftone(photo: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a printed photo: dots on a turned grid, larger where the photo is darker."""
    height, width = photo.shape[1:]
    period, angle = uniform(generator, 3.0, 9.0), uniform(generator, 0, math.pi)
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None]
    u = (columns * math.cos(angle) + rows * math.sin(angle)) * 2 * math.pi / period
    v = (rows * math.cos(angle) - columns * math.sin(angle)) * 2 * math.pi / period
    screen = (2 + u.cos() + v.cos()) / 4
    values = photo if chance(generator, 0.5) else _grey(photo).expand_as(photo)
    return ((values - screen) * uniform(generator, 2, 8) + 0.5).clamp(0, 1)


def _framed(photo: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a photo in a border of one colour, on all sides or on two."""
    height, width = photo.shape[1:]
    frame = _colour(generator, 0.0, 1.0, 0.1).expand(3, height, width).clone()
    if chance(generator, 0.5):
        frame = frame.round()  # black, white or a pure colour
    upright, level = (int(uniform(generator, 0.02, 0.35) * side) for side in (height, width))
    kind = int(torch.randint(3, (), generator=generator))
    rows = slice(upright, height - upright) if kind != 1 else slice(None)
    columns = slice(level, width - level) if kind != 2 else slice(None)
    frame[:, rows, columns] = photo[:, rows, columns]
    return frame


def _toned(photo: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a photo in black and white, low key, high key, or in one warm light."""
    kind = int(torch.randint(4, (), generator=generator))
    if kind == 0:
        return _grey(photo).expand_as(photo) * _colour(generator, 0.9, 1.0, 0.06 if chance(generator, 0.4) else 0.0)
    if kind == 1:
        height, width = photo.shape[1:]
        y, x = _grid(height, width, generator)
        light = (-(y**2 + x**2) / (uniform(generator, 0.1, 0.5) * max(height, width)) ** 2).exp()
        return photo ** uniform(generator, 1.0, 1.8) * light
    if kind == 2:
        return 1 - (1 - photo) ** uniform(generator, 1.8, 4.0)
    return photo * _colour(generator, 0.6, 1.0, 0.5)


SCENES: Final[tuple[Scene, ...]] = (
    _wall,
    _bricks,
    _page,
    _screenshot,
    _stars,
    _moon,
    _stage,
    _city_night,
    _fog,
    _snowfield,
    _product,
    _lines,
    _halftone,
    _framed,
    _toned,
)


def _colour(generator: torch.Generator, low: float, high: float, spread: float) -> Tensor:
    """Draw a colour (3, 1, 1) of a brightness in the range; channels differ by up to `spread`."""
    return uniform(generator, low, high) + spread * (torch.rand((3, 1, 1), generator=generator) - 0.5)


def _grey(photo: Tensor) -> Tensor:
    return (photo * torch.tensor(GREY)[:, None, None]).sum(0, keepdim=True)


def _gaussian(sigma: float) -> Tensor:
    """Return a Gaussian kernel (K, K) that sums to 1."""
    radius = math.ceil(3 * sigma)
    line = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    kernel = line[:, None] * line
    return kernel / kernel.sum()


def _grid(height: int, width: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the distances of rows (H, 1) and columns (1, W) to a point drawn inside."""
    y, x = uniform(generator, 0.2, 0.8) * height, uniform(generator, 0.2, 0.8) * width
    return torch.arange(height)[:, None] - y, torch.arange(width)[None] - x


def _rectangle(
    height: int, width: int, smallest: float, largest: float, generator: torch.Generator
) -> tuple[slice, slice]:
    """Draw rows and columns of a rectangle, each a share of the side in the range."""
    sides = [max(1, round(side * uniform(generator, smallest, largest))) for side in (height, width)]
    tops = [int(uniform(generator, 0, whole - side + 1)) for whole, side in zip((height, width), sides, strict=True)]
    return slice(tops[0], tops[0] + sides[0]), slice(tops[1], tops[1] + sides[1])


def _skyline(generator: torch.Generator, width: int, low: float, high: float) -> Tensor:
    """Draw a smooth line (W,) of heights in the range, as parts of the picture from its top."""
    field = smooth_field(generator, 2, width, int(uniform(generator, 2, 14)))[0]
    base, swing = uniform(generator, low, high), uniform(generator, 0.0, 0.3)
    return base + swing * (field - 0.5)
