"""Geometric self-ensemble: the mean of a photo's restorations in several orientations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from abair.inference.tiling import Part
from abair.model.views import Pixels

ORIENTATIONS: Final = 4
"""The photo, upside down, and the mirror images of both. On its side, rain falls as the network
never saw it: with quarter turns Rain100L lost 4 dB."""


def average_orientations(pixels: Pixels, restore: Callable[[Pixels], Iterable[Part]]) -> NDArray[np.float32]:
    """Return the mean (H, W, 3) in [0, 1] of what `restore` makes of pixels in each orientation."""
    total = np.zeros(pixels.shape, np.float32)
    for turned, turned_total in zip(_orientations(pixels), _orientations(total), strict=True):
        for rows, columns, values in restore(turned):
            turned_total[rows, columns] += values
    total /= ORIENTATIONS
    return total


def _orientations(pixels: Pixels) -> Iterator[Pixels]:
    """Yield views of pixels (H, W, 3): as they are, mirrored, and both upside down.

    What is written to a view is written to `pixels`.
    """
    for turned in (pixels, pixels[::-1]):
        yield turned
        yield turned[:, ::-1]
