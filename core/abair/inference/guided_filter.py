"""Haze and darkness are taken away as they came: the change follows the photo's own edges.

Haze scales light and adds to it, by amounts that change with depth alone; darkness scales it. So
within a small window the restored photo is the damaged one, scaled and shifted. A network makes
more of it: bars and clouds in an even sky, blotches on a wall. The guided filter fits scale and
shift in each window (He et al., "Guided Image Filtering", TPAMI 2013), here to the change, with the
photo as its guide, at a quarter of the size (He and Sun, "Fast Guided Filter", arXiv 1505.00996).
Finer detail stays the network's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from abair.inference.conversion import quantize
from abair.labels import CLEAN
from abair.model.views import Pixels, to_tensor

SMOOTH: Final = {"haze": 2.0, "low-light": 1.0}
"""The labels whose damage is smooth, and how many times their weights count. Of noise, which dark
photos have, and of rain and snow the filter would bring something back."""
STEP: Final = 4
"""Side in pixels of the blocks that are averaged before filtering."""
RADIUS: Final = 24
"""Radius of the filter's windows, in blocks: 96 pixels, as far as most of the network reaches."""
NOISE: Final = 1e-5
"""Variance of a window, in the range [0, 1], that counts as no edge."""
FLAT_RADIUS: Final = 4
"""Radius of the windows in which the photo is called flat or not, in blocks."""
FLAT: Final = 3e-4
"""Variance at which half of the filter's result counts. At the edge of a near object over a far one
the depth changes, and scale and shift with it."""
ROWS: Final = 16
"""Rows of blocks that are read or changed at a time: their pixels stay in the processor's cache."""
FILTERED_ROWS: Final = 256
"""Rows of blocks that are filtered at a time, which bounds the memory."""
_WIDER: Final = {"uint8": (255, np.uint16), "uint16": (65535, np.uint32), "float32": (1, np.float32)}
"""The peak of each dtype of pixels, and a dtype for sums of blocks."""
_HALO: Final = 2 * RADIUS
"""Rows of blocks beyond them that they depend on, through two means."""


def part_to_filter(weights: Mapping[str, float]) -> float:
    """Return the part of smooth damage in all damage, in [0, 1]."""
    damage = 1 - weights[CLEAN]
    smooth = sum(times * weights.get(label, 0.0) for label, times in SMOOTH.items())
    return min(1.0, smooth / damage) if damage > 0 else 0.0


def filter_change(result: Pixels, pixels: Pixels, part: float) -> None:
    """Filter what was changed in a photo, in place.

    Args:
        result: the restored pixels (H, W, 3), of the same dtype as `pixels`.
        pixels: the photo as it was.
        part: of the filter's result that counts, in [0, 1].
    """
    if part == 0:
        return
    guide, change = _guide_and_change(result, pixels)
    height = guide.shape[2]
    removed = torch.empty_like(change)
    for rows in _bands(height, FILTERED_ROWS):
        around, inner = _widen(rows, _HALO, height)
        removed[:, :, rows] = _misfit(change[:, :, around], guide[:, :, around])[:, :, inner]
    removed *= part
    for rows in _bands(height, ROWS):
        around, inner = _widen(rows, 1, height)  # the interpolation reaches one row further
        full = F.interpolate(removed[:, :, around], scale_factor=STEP, mode="bilinear", align_corners=False)
        full = full[0, :, inner.start * STEP : inner.stop * STEP].permute(1, 2, 0)
        of_photo = slice(rows.start * STEP, rows.stop * STEP)
        restored = to_tensor(result[of_photo])[0].permute(1, 2, 0)
        restored -= full[: restored.shape[0], : restored.shape[1]]
        result[of_photo] = quantize(restored.numpy(), result.dtype)


def _guide_and_change(result: Pixels, pixels: Pixels) -> tuple[Tensor, Tensor]:
    """Return the photo and its change, both (1, 3, h, w) in [0, 1], averaged over blocks."""
    photos, changes = [], []
    for rows in _bands(len(pixels), ROWS * STEP):
        before, after = (_average_blocks(part[rows]) for part in (pixels, result))
        photos.append(before)
        changes.append(after - before)
    return torch.cat(photos, dim=2), torch.cat(changes, dim=2)


def _average_blocks(pixels: Pixels) -> Tensor:
    """Average blocks of pixels (H, W, 3) to (1, 3, h, w) in [0, 1]; the edges are repeated.

    Sums of integers take a tenth of the time of torch's pooling of three channels.
    """
    height, width = pixels.shape[:2]
    if height % STEP or width % STEP:
        pixels = np.pad(pixels, ((0, -height % STEP), (0, -width % STEP), (0, 0)), mode="edge")
    peak, wide = _WIDER[pixels.dtype.name]
    rows = pixels.reshape(-1, STEP, pixels.shape[1] * 3)
    sums = rows.sum(axis=1, dtype=wide).reshape(len(rows), -1, STEP, 3)
    total = sums[:, :, 0] + sums[:, :, 1] + sums[:, :, 2] + sums[:, :, 3]
    values = torch.from_numpy(total.astype(np.float32)).div_(STEP * STEP * peak)
    return values.permute(2, 0, 1)[None].contiguous()


def _misfit(change: Tensor, guide: Tensor) -> Tensor:
    """Return what in a change is no scale and shift of the guide, where that is flat.

    Both are (1, 3, h, w), and so is the result.
    """
    mean, mean_change = _box(guide, RADIUS), _box(change, RADIUS)
    scale = (_box(guide * change, RADIUS) - mean * mean_change) / (_box(guide * guide, RADIUS) - mean * mean + NOISE)
    shift = mean_change - scale * mean
    fitted = _box(scale, RADIUS) * guide + _box(shift, RADIUS)
    variance = (_box(guide * guide, FLAT_RADIUS) - _box(guide, FLAT_RADIUS) ** 2).clamp(min=0)
    flat = FLAT / (FLAT + variance.amax(dim=1, keepdim=True))
    return _box(flat, FLAT_RADIUS) * (change - fitted)


def _box(values: Tensor, radius: int) -> Tensor:
    """Return the mean in a square window around each value of (1, C, h, w), within the image."""
    for dim, more in ((2, (0, 0, radius + 1, radius)), (3, (radius + 1, radius))):
        length = values.shape[dim]
        sums = F.pad(values, more).cumsum(dim, dtype=torch.float64)
        sums = sums.narrow(dim, 2 * radius + 1, length) - sums.narrow(dim, 0, length)
        place = torch.arange(length)
        counts = (place + radius + 1).clamp(max=length) - (place - radius).clamp(min=0)
        values = (sums / (counts.view(-1, 1) if dim == 2 else counts)).float()
    return values


def _widen(rows: slice, by: int, length: int) -> tuple[slice, slice]:
    """Return rows with some more on both sides, and where they themselves lie in those."""
    start, stop = max(0, rows.start - by), min(length, rows.stop + by)
    return slice(start, stop), slice(rows.start - start, rows.stop - start)


def _bands(length: int, at_a_time: int) -> Iterator[slice]:
    for start in range(0, length, at_a_time):
        yield slice(start, min(length, start + at_a_time))
