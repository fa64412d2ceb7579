"""Synthesiser of falling snow: a veil, and before it flakes in up to three depths.

The scene is composed from behind: I = J t + A (1 - t) for what falls so far away that it is a veil
(airlight A, t falling with the distance), then for each depth I' = I (1 - z) + C z with the opacity
z of its flakes, nearly white (DesnowNet and its Snow100K: Liu et al., TIP 2018; with the veil: Chen
et al., "All Snow Removed", ICCV 2021). Three rules of optics hold the depths together:

- Flakes are even in space, so the number of those that look larger than R falls with R^-3: many
  small, few large. - One exposure draws a flake over a path of as many of its own diameters whether
  it is near or far, and it covers each place on that path for a part of the time alone: fast snow
  makes longer and fainter streaks in the wind's direction. - A lens focused on the scene blurs a
  flake by a part of its size; below a pixel that does not show. So small far flakes are sharp and
  large near ones soft discs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from abair import chance, ensure_changed, log_uniform, smooth_field, uniform

RADII: Final = ((0.5, 1.3), (1.3, 3.6), (3.6, 13.0))
"""Radius in pixels of the flakes in each depth, the far ones first: Snow100K's small, medium and
large ones."""
COVERAGE: Final = ((0.018, 0.085), (0.012, 0.055), (0.01, 0.055))
"""Part of the area that a depth's flakes would cover if they stood still, log-uniform. With the
shares below, crops of photographs have 16 to 27 dB (5th to 95th percentile), half of them 19 to
23.5."""
LIGHT, MEDIUM = 0.25, 0.35
"""Shares of samples with far flakes alone, and with two depths; the others, heavy snow, have all
three."""
OPACITY: Final = (0.55, 0.97)
"""Of a flake that stands still and is in focus; wet ones let more through."""
WHITE: Final = (0.82, 1.0)
"""Brightness of the flakes: before a white sky they are darker than it."""
TINT: Final = 0.03
"""How much bluer than grey flakes and veil are at most: they are lit by the sky."""
USUAL_ANGLE: Final = 30.0
"""Degrees from the vertical that most snow falls at; it falls slowly, so wind takes it up to
`WINDY_ANGLE`."""
WINDY_ANGLE: Final = 75.0
TURBULENCE: Final = math.radians(12.0)
"""How far a single flake's direction departs from the wind's at most."""
UNEVEN: Final = 0.3
"""By what part the length of a single flake's path departs from the others' at most."""
PATH: Final = (0.1, 3.5)
"""Length of the path during the exposure in diameters, log-uniform: 1/1000 to 1/30 s at 1 m/s, for
flakes of 1 cm."""
BLUR: Final = (0.15, 0.8)
"""Half-width of a flake's rim from the lens, in radii: apertures of a phone to those of a camera,
some millimetres."""
SHARPEST: Final = 0.5
"""Half-width in pixels of the rim of what is in focus: a pixel's own width."""
RAGGED: Final = 0.35
"""How far the outline of a flake departs from a circle at most, in radii: flakes are clumps of
crystals."""
SMOOTH: Final = 1.3
"""Radius in pixels up to which that does not show."""
VEILED: Final = 0.65
"""Share of samples with a veil; Snow100K has none."""
VEIL: Final = (0.03, 0.25)
"""Optical depth of the veil where it is thickest, log-uniform."""
CHUNK: Final = 2**19
"""Pixels of flakes that are drawn at once: a large photograph has a hundred thousand flakes."""
SIMILAR: Final = 2.7
"""Flakes that are drawn at once differ in radius by this factor at most: their windows are the
largest one's."""


@dataclass(frozen=True)
class Fall:
    """What all flakes share: wind in radians from vertical, path in diameters, blur in radii."""

    angle: float
    path: float
    blur: float

    def reach(self, radius: float) -> tuple[int, int]:
        """How many pixels down and to the right of its middle a flake can be seen at most."""
        body = radius * (1.0 + RAGGED) + max(self.blur * radius, SHARPEST) + 1.0
        half = self.path * (1.0 + UNEVEN) * radius
        lean = abs(self.angle)
        down = half * math.cos(max(0.0, lean - TURBULENCE))
        right = half * math.sin(min(math.pi / 2, lean + TURBULENCE))
        return math.ceil(body + down), math.ceil(body + right)


def degrade(clean: Tensor, generator: torch.Generator) -> Tensor:
    """Add snow of random density, depth, wind and veil; return a new tensor of 8-bit values.

    `clean` is (3, H, W), float32 in [0, 1], any size from 1x1; it is not modified. The result has
    the same shape and range and always differs from it. All randomness comes from `generator`
    (CPU): the same seed gives the same snow.
    """
    height, width = clean.shape[-2:]
    kind = uniform(generator, 0.0, 1.0)
    depths = 1 if kind < LIGHT else 2 if kind < LIGHT + MEDIUM else 3
    limit = USUAL_ANGLE if chance(generator, 0.7) else WINDY_ANGLE
    fall = Fall(
        math.radians(uniform(generator, -limit, limit)), log_uniform(generator, *PATH), uniform(generator, *BLUR)
    )
    colour = uniform(generator, *WHITE) - uniform(generator, 0.0, TINT) * torch.tensor([1.0, 0.5, 0.0]).view(3, 1, 1)
    image = clean
    if chance(generator, VEILED):
        image = torch.lerp(image, colour * uniform(generator, 0.92, 1.0), _veil(height, width, generator))
    for radii, coverage in zip(RADII[:depths], COVERAGE[:depths], strict=True):
        through = _flakes(height, width, radii, log_uniform(generator, *coverage), fall, generator)
        image = torch.lerp(colour * uniform(generator, 0.94, 1.0), image, through)
    return ensure_changed((image.clamp(0.0, 1.0) * 255).round_() / 255, clean)


def _veil(height: int, width: int, generator: torch.Generator) -> Tensor:
    """Draw the opacity (H, W) of distant snow: thickest at the top, where the scene is furthest."""
    thickest = log_uniform(generator, *VEIL)
    nearest = uniform(generator, 0.2, 1.0)  # relative distance at the other end; 1 is a flat scene
    distance = torch.linspace(1.0, nearest, height)[:, None]
    drift = 0.7 + 0.3 * smooth_field(generator, height, width, 3)
    return 1.0 - torch.exp(-thickest * distance * drift)


def _flakes(
    height: int, width: int, radii: tuple[float, float], coverage: float, fall: Fall, generator: torch.Generator
) -> Tensor:
    """Return the part of the light (H, W), 0 to 1, that passes the flakes of one depth."""
    low, high = radii
    down, right = fall.reach(high)
    mean_square = 3.0 * (1.0 / low - 1.0 / high) / (low**-3 - high**-3)  # of radii whose density falls with R^-4
    area = (height + 2 * down) * (width + 2 * right)  # those that reach into the picture from outside are drawn, too
    expected = torch.tensor(coverage * area / (math.pi * mean_square))
    count = max(1, int(torch.poisson(expected, generator=generator)))
    radius = (low**-3 - torch.rand(count, generator=generator) * (low**-3 - high**-3)) ** (-1.0 / 3.0)
    radius = radius.clamp_(low, high).sort().values
    y = torch.rand(count, generator=generator) * (height + 2 * down) - down
    x = torch.rand(count, generator=generator) * (width + 2 * right) - right
    # Opacities of flakes that overlap multiply what is left, so their logarithms add up; the sheet
    # has room for all.
    sheet = torch.zeros((height + 4 * down) * (width + 4 * right))
    row, column = y.floor().long(), x.floor().long()
    middle = (row + 2 * down) * (width + 4 * right) + column + 2 * right
    for some in _batches(radius, y, x, height, width, fall):
        rows, columns = (torch.arange(-far, far + 1) for far in fall.reach(float(radius[some[-1]])))
        opacity = _draw_flakes(
            rows - (y - row)[some, None], columns - (x - column)[some, None], radius[some], fall, generator
        )
        window = rows[:, None] * (width + 4 * right) + columns
        sheet.index_add_(0, (middle[some, None] + window.flatten()).flatten(), torch.log1p(-opacity).flatten())
    whole = sheet.view(height + 4 * down, width + 4 * right)
    return whole[2 * down : 2 * down + height, 2 * right : 2 * right + width].exp()


def _batches(radius: Tensor, y: Tensor, x: Tensor, height: int, width: int, fall: Fall) -> Iterator[Tensor]:
    """Yield indices of flakes to draw together: similar sizes, at most `CHUNK` pixels.

    Those that end outside the picture are left out.
    """
    start, largest = 0, float(radius[-1])
    while start < len(radius):
        size = min(largest, SIMILAR * float(radius[start]))
        end = int(torch.searchsorted(radius, size, right=True)) if size < largest else len(radius)
        down, right = fall.reach(size)
        near = (y[start:end] > -down) & (y[start:end] < height + down)
        near &= (x[start:end] > -right) & (x[start:end] < width + right)
        kept = start + near.nonzero()[:, 0]
        if len(kept):
            yield from torch.split(kept, max(1, CHUNK // ((2 * down + 1) * (2 * right + 1))))
        start = end


def _draw_flakes(y: Tensor, x: Tensor, radius: Tensor, fall: Fall, generator: torch.Generator) -> Tensor:
    """Return the opacity (n, h, w) of flakes, from pixels `y` (n, h), `x` (n, w) about each."""
    size = radius[:, None, None]
    own = torch.rand((8, len(radius), 1, 1), generator=generator)  # what each flake has of its own
    angle = fall.angle + TURBULENCE * (2.0 * own[0] - 1.0)
    half = fall.path * (1.0 + UNEVEN * (2.0 * own[1] - 1.0)) * size  # half of its path
    opacity = (OPACITY[0] + (OPACITY[1] - OPACITY[0]) * own[2]) / (1.0 + half / size)
    y, x, sine, cosine = y[:, :, None], x[:, None, :], angle.sin(), angle.cos()
    along = y * cosine + x * sine
    across = x * cosine - y * sine
    along = along - torch.minimum(torch.maximum(along, -half), half)  # from the nearest point of the path
    if float(radius[-1]) > SMOOTH:
        # A wave along each axis bends the circle into a clump, another for every flake.
        bend, waves, phases = RAGGED * own[3] * size, (0.8 + 1.2 * own[4:6]) / size, 2.0 * math.pi * own[6:8]
        bent = along + bend * torch.sin(across * waves[0] + phases[0])
        across = across + bend * torch.sin(along * waves[1] + phases[1])
        along = bent
    rim = (fall.blur * size).clamp_min(SHARPEST)
    inside = ((size + rim - torch.hypot(along, across)) / (2.0 * rim)).clamp_(0.0, 1.0)
    return inside * inside * (3.0 - 2.0 * inside) * opacity
