"""Borders of one colour around a photo: frames of prints, mats of scans, bars beside a film.

A border is no part of the photo. The estimator does not look at it, and where it ends visibly the
network does not see it either: it would take a white frame for light, and change the photo up to
its halo from the edge.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from abair.model import views
from abair.model.views import Pixels

SMALL: Final = 6.0
"""Difference from one colour that no value of a row or column of a border exceeds, in 8-bit levels,
but for grain."""
GRAIN: Final = 2.5
"""Standard deviation up to which scanned paper has grain, in levels."""
SHIFT: Final = 1.5
"""Largest difference of the mean of grain, in levels."""
LARGEST: Final = 5.0
"""Largest difference of grain, in its standard deviations."""
LEAST: Final = 0.1
"""Least part of a side that borders leave; else what looks like one is the picture."""
NESTED: Final = 3
"""Borders within each other at most: a line around a print, its mat, and the scan around both."""
EDGE: Final = 2.0
"""How many times farther than a border's own values, rounded, the mean of one of the next rows lies
from its colour, where it ends visibly. The black sky at the top of a night photo does not end so:
it becomes the photo little by little."""
EDGE_ROWS: Final = 3
"""Rows that are compared: reducing and JPEG soften an edge."""


class Content(NamedTuple):
    """The rows and columns of a photo (H, W, 3) within its borders, an index of its pixels."""

    rows: slice
    columns: slice


def find_content(pixels: Pixels, *, visible: bool = False) -> Content:
    """Find the part of pixels (H, W, 3) within borders of one colour, one within another.

    A border lies on two opposite sides. Even areas on one side alone, such as a sky, stay.

    Args:
        pixels: the photo.
        visible: whether both sides of a border have to end visibly; if not, they are content.
    """
    height, width = pixels.shape[:2]
    rows, columns = slice(0, height), slice(0, width)
    for _ in range(NESTED):
        inside = pixels[rows, columns]
        top, bottom = _border_widths(inside, LEAST * height, visible=visible)
        left, right = _border_widths(inside.swapaxes(0, 1), LEAST * width, visible=visible)
        rows = slice(rows.start + top, rows.stop - bottom)
        columns = slice(columns.start + left, columns.stop - right)
    return Content(rows, columns)


def without_borders(pixels: Pixels) -> Pixels:
    """Return a view of the part (h, w, 3) of pixels (H, W, 3) within borders of one colour."""
    return pixels[find_content(pixels)]


def _border_widths(pixels: Pixels, least: float, *, visible: bool) -> tuple[int, int]:
    """Return the rows of one colour at the top and the bottom; none if one side has none.

    They leave at least one row, and `least` of them.
    """
    height = pixels.shape[0]
    lines = pixels[:, :: max(1, pixels.shape[1] // views.SAMPLED)]
    level = _full_scale(pixels) / 255
    first, last = lines[0].astype(np.float64).mean(0), lines[-1].astype(np.float64).mean(0)
    if abs(first - last).max() > SMALL * level:
        return 0, 0
    top = _count_even(lines, first, level)
    bottom = _count_even(lines[::-1], last, level) if top else 0
    if not bottom or height - top - bottom < max(least, 1):
        return 0, 0
    if visible and not (_ends(lines, first, top, level) and _ends(lines[::-1], last, bottom, level)):
        return 0, 0
    return top, bottom


def _count_even(lines: Pixels, colour: NDArray[np.float64], level: float) -> int:
    """Count the rows from the first one on that are of the colour, but for grain."""
    for count, line in enumerate(lines):
        difference = line - colour
        if abs(difference).max() > SMALL * level and not _is_grain(difference / level):
            return count
    return len(lines)


def _is_grain(difference: NDArray[np.float64]) -> bool:
    """Tell whether values (W, 3) around a colour, in levels, are scattered as grain is."""
    mean, deviation = difference.mean(0), difference.std()
    return bool(abs(mean).max() <= SHIFT and deviation <= GRAIN and abs(difference - mean).max() <= LARGEST * deviation)


def _ends(lines: Pixels, colour: NDArray[np.float64], count: int, level: float) -> bool:
    """Tell whether the even rows, `count` of them, end visibly; `level` is an 8-bit level."""
    deviation = abs(lines[:count] - colour).max()
    change = abs(lines[count : count + EDGE_ROWS] - colour).mean(axis=(1, 2)).max()
    return bool(change >= EDGE * (deviation + level))


def _full_scale(pixels: Pixels) -> float:
    return float(np.iinfo(pixels.dtype).max) if np.issubdtype(pixels.dtype, np.integer) else 1.0
