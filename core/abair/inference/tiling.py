"""Division of a photo into overlapping tiles whose results join without seams.

A tile is a core with a halo around it. Neighbouring cores meet at multiples of the network's
stride, so that a tile is sampled as the whole photo would be. Neighbouring results cross-fade
linearly in the middle of their overlap.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

HALO: Final = 96
"""Pixels around a core that are computed with it; the influence of pixels further away is not
visible."""
SMALLEST_TILE: Final = 64
"""Side of a core in pixels; of smaller ones nearly all work would go into the overlap."""
FADE: Final = 16
"""Half the width in pixels of the cross-fade between two cores."""


@dataclass(frozen=True)
class Tile:
    """Rows and columns of a tile, and the weights (rows, columns) of its result.

    At each pixel the weights of all tiles sum to 1.
    """

    rows: slice
    columns: slice
    window: NDArray[np.float32]


def tiles(height: int, width: int, core: int, stride: int) -> Iterator[Tile]:
    """Yield the tiles of a photo, at least one.

    Cores begin at multiples of `stride` and have about `core` pixels a side, at least
    `SMALLEST_TILE`.
    """
    down, across = _spans(height, core, stride), _spans(width, core, stride)
    for rows, vertical in down:
        for columns, horizontal in across:
            yield Tile(rows, columns, vertical[:, None] * horizontal[None, :])


def _spans(length: int, core: int, stride: int) -> list[tuple[slice, NDArray[np.float32]]]:
    count = max(1, math.ceil(length / max(core, SMALLEST_TILE)))
    edges = [0, *(round(length * i / count / stride) * stride for i in range(1, count)), length]
    edges = sorted(set(edges))
    halo = -(-HALO // stride) * stride
    spans = []
    for first, last in itertools.pairwise(edges):
        start, stop = max(0, first - halo), min(length, last + halo)
        centres = np.arange(start, stop, dtype=np.float32) + 0.5
        rise = np.ones_like(centres) if first == 0 else np.clip((centres - first + FADE) / (2 * FADE), 0, 1)
        fall = np.ones_like(centres) if last == length else np.clip((last + FADE - centres) / (2 * FADE), 0, 1)
        spans.append((slice(start, stop), (rise * fall).astype(np.float32)))
    return spans
