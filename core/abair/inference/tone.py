"""The tone of a monochrome photo: black and white stored as colours, sepia and other toned prints.

In such a photo the colour of a pixel follows from its brightness alone. A network that restores
three channels invents colours there, so its changes are brought back to the photo's own tone.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from abair.inference.conversion import quantize
from abair.model.views import Pixels

LEVELS: Final = 64
"""Brightness levels at which the tone is kept; between them it is interpolated."""
FINE_LEVELS: Final = 1024
"""Levels at which the interpolated colours are looked up."""
BLOCK: Final = 8
"""Side in pixels of the blocks that are compared: files keep colours at half the resolution."""
ROUNDING: Final = 0.1
"""Root mean square of a monochrome photo's colours around its tone, in 8-bit levels, from rounding
alone."""
SPREAD: Final = 0.03
"""The same from a JPEG file, as a part of the brightness's standard deviation."""
FINE_BLOCK: Final = 2
"""Side in pixels of smaller blocks that are compared, too: strokes of ink are fine."""
SAMPLED: Final = 1 << 18
"""Pixels that are read one by one, and for such blocks."""
FINELY_COLOURED: Final = 40.0
"""Distance of a fine block from the tone, in levels, from which on it has a colour of its own: two
inks on a page. Noise and JPEG that leave the larger blocks a tone stay well below."""
FEWEST: Final = 50
"""Single pixels that a level takes at least."""
TONED: Final = 10.0
"""Mean range of a toned print's channels, at least, in 8-bit levels. Between that and black and
white lie the faint colours of dark and hazy photos, which restoring has to bring back."""
DARK: Final = 40.0
"""Mean brightness, in 8-bit levels, below which no photo counts as toned."""
COLOURED: Final = 10.0
"""Distance of a block from the tone, in 8-bit levels, from which on it has a colour of its own: one
red umbrella is enough."""
SAME_BRIGHTNESS: Final = 8.0
"""Mean change of the blocks' brightness, in 8-bit levels, up to which a toned print keeps its tone.
Where more changes, as in haze, the tone may be part of the damage."""
ROWS: Final = 256
"""Rows that are changed at a time, so that no second copy of the photo exists."""


class Tone:
    """The colours of a monochrome photo by their brightness, each (LEVELS, 3) in [0, 1].

    `blocks` (N, 3) are its mean colours; `neutral` says that it is black and white.
    """

    def __init__(self, colours: NDArray[np.float32], blocks: NDArray[np.float32], *, neutral: bool) -> None:
        self._blocks, self.neutral = blocks, neutral
        steps = np.linspace(0, 1, len(colours))
        fine = np.linspace(0, 1, FINE_LEVELS)
        offsets = [np.interp(fine, steps, colours[:, channel] - steps) for channel in range(3)]
        self._offsets = np.stack(offsets, axis=1).astype(np.float32)

    @classmethod
    def find(cls, pixels: Pixels) -> Tone | None:
        """Return the tone of pixels (H, W, 3) of any accepted dtype; None if they have colours."""
        blocks = _average_blocks(pixels)
        brightness = blocks.mean(axis=1)
        strength, most = 255 * float(np.ptp(blocks, axis=1).mean()), ROUNDING + SPREAD * 255 * float(brightness.std())
        neutral = strength <= most
        if not neutral and (strength < TONED or brightness.mean() * 255 < DARK):
            return None
        single = _average_blocks(pixels, 1, sampled=SAMPLED)
        tone = cls(_colours_by_brightness(blocks, single), blocks, neutral=neutral)
        away = 255 * np.abs(blocks - tone.colours(brightness))
        if float(np.sqrt(np.mean(away**2))) > most or float(away.max()) > COLOURED:
            return None
        fine = _average_blocks(pixels, FINE_BLOCK, sampled=SAMPLED)
        return tone if float(255 * np.abs(fine - tone.colours(fine.mean(axis=1))).max()) <= FINELY_COLOURED else None

    def colours(self, brightness: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the colours (..., 3) of a brightness (...) in [0, 1]."""
        level = (brightness * (FINE_LEVELS - 1) + 0.5).astype(np.int32)
        return brightness[..., None] + self._offsets[level]

    def apply(self, result: Pixels) -> None:
        """Give restored pixels (H, W, 3) the tone, in place; their brightness stays."""
        change = 255 * float(np.abs(_average_blocks(result).mean(axis=1) - self._blocks.mean(axis=1)).mean())
        if not self.neutral and change > SAME_BRIGHTNESS:
            return
        peak = 1.0 if result.dtype == np.float32 else float(np.iinfo(result.dtype).max)
        for top in range(0, len(result), ROWS):
            brightness = (result[top : top + ROWS].mean(axis=2, dtype=np.float32) / np.float32(peak)).clip(0, 1)
            coloured = np.repeat(brightness[..., None], 3, axis=2) if self.neutral else self.colours(brightness)
            result[top : top + ROWS] = quantize(coloured, result.dtype)


def _colours_by_brightness(blocks: NDArray[np.float32], single: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean colours (LEVELS, 3) at each level of brightness, of blocks (N, 3).

    Where no block is so dark or bright, as thin strokes of ink are, single pixels (M, 3) tell.
    """
    counts, offsets = _offsets_by_level(blocks)
    single_counts, single_offsets = _offsets_by_level(single)
    beyond = (counts == 0) & (single_counts >= FEWEST)
    offsets[beyond] = single_offsets[beyond]
    found = (counts > 0) | beyond
    steps = np.linspace(0, 1, LEVELS)
    filled = [np.interp(steps, steps[found], offsets[found, channel]) for channel in range(3)]
    return (np.stack(filled, axis=1) + steps[:, None]).astype(np.float32)


def _offsets_by_level(colours: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return how many colours (N, 3) have each brightness, and their mean distance from it."""
    brightness = colours.mean(axis=1)
    levels = np.rint(brightness * (LEVELS - 1)).clip(0, LEVELS - 1).astype(int)
    counts = np.bincount(levels, minlength=LEVELS)
    sums = np.stack([np.bincount(levels, colours[:, channel] - brightness, LEVELS) for channel in range(3)], axis=1)
    return counts, sums / np.maximum(counts, 1)[:, None]


def _average_blocks(pixels: Pixels, side: int = BLOCK, sampled: int | None = None) -> NDArray[np.float32]:
    """Return the mean colours (N, 3) of square blocks of pixels (H, W, 3), in [0, 1].

    Of the rows of blocks so many are left out that `sampled` pixels are read. Floats may lie
    beyond: noise that was added to a photo is not always clipped.
    """
    peak = 1.0 if pixels.dtype == np.float32 else float(np.iinfo(pixels.dtype).max)
    height, width = pixels.shape[:2]
    side = min(side, height, width)
    step = side * (max(1, height * width // sampled) if sampled else 1)
    rows = []
    for top in range(0, height - side + 1, step):
        strip = pixels[top : top + side, : width - width % side].astype(np.float32)
        rows.append(strip.reshape(side, -1, side, 3).mean(axis=(0, 2)))
    return (np.concatenate(rows) / peak).clip(0, 1).astype(np.float32)
