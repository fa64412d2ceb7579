"""What the estimator looks at: a photo in its standard orientation, without borders, by content.

A photo, its mirror images and its quarter turns give the same crops and view, because each is
turned to one standard orientation first: its light lies to the right and, less so, to the bottom.
Borders are left out. Crops show different things: a wall, a sky or a clipped area is looked at
once.

Estimators of the backbone `nano`, the first release's, were trained on evenly spaced crops of the
photo as it lies. For that backbone alone photos are still looked at so.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from abair.model import views
from abair.model.backbone import Backbone, BackboneSize
from abair.model.borders import without_borders
from abair.model.views import CROP_SIDE, Pixels
from abair.physics import reflect_pad

CROPS: Final = views.CROPS**2
"""Crops that are looked at."""
CANDIDATES: Final = 7
"""Places along each side that crops are chosen from; every second one is of the even grid."""
PLAIN: Final = 3 / 255
"""Standard deviation of the brightness below which a crop shows one even area."""
ALIKE: Final = 16 / 255
"""Difference of the mean colours, in the channel that differs most, below which even areas are
alike."""
AS_IT_LIES: Final = frozenset({"nano"})
"""Backbones whose estimators look at photos as the first release did."""

Grey = NDArray[np.float64]


class Look(NamedTuple):
    """Crops (16, 3, 64, 64) at native resolution and the global view (1, 3, 64, 64)."""

    crops: Tensor
    view: Tensor


def look_at(pixels: Pixels, size: BackboneSize) -> Look:
    """Return what an estimator for a backbone of this size sees of pixels (H, W, 3)."""
    if size.name in AS_IT_LIES:
        return Look(views.crops(pixels), views.global_view(pixels))
    content = to_standard_orientation(without_borders(pixels))
    return Look(_crop_by_content(content), views.global_view(content))


def context_view(pixels: Pixels, size: BackboneSize) -> Tensor:
    """Return the global view (1, 3, 64, 64) that restoring pixels (H, W, 3) needs, as they lie."""
    return views.global_view(pixels if size.name in AS_IT_LIES else without_borders(pixels))


def context_view_of(image: Tensor, backbone: Backbone) -> Tensor:
    """Return the global view (1, 3, 64, 64) that restoring an image (3, H, W) needs."""
    return context_view(image.permute(1, 2, 0).numpy(), backbone.size)


def to_standard_orientation(pixels: Pixels) -> Pixels:
    """Return a view of pixels (H, W, 3), turned and mirrored so that the light lies to the right.

    The first moments of the brightness decide: that along the width is the larger one, and both are
    positive.
    """
    across, down = _moments(pixels)
    if abs(down) > abs(across):
        pixels, across, down = pixels.swapaxes(0, 1), down, across
    return pixels[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1]


def _moments(pixels: Pixels) -> tuple[float, float]:
    """Return the brightness's first moments along width and height, each side from -1 to 1."""
    grey = _grey(pixels[:: _step(pixels.shape[0]), :: _step(pixels.shape[1])])
    places = [np.linspace(-1, 1, side) if side > 1 else np.zeros(1) for side in grey.shape]
    return float(grey.mean(0) @ places[1]) / grey.shape[1], float(grey.mean(1) @ places[0]) / grey.shape[0]


def _crop_by_content(pixels: Pixels) -> Tensor:
    """Cut sixteen crops (16, 3, 64, 64) that show different things.

    Those of the even grid come first. Of even areas alike one is taken. Where there are fewer than
    sixteen, crops with something in them are repeated.
    """
    height, width = pixels.shape[:2]
    taken: list[Tensor] = []
    plain: list[Tensor] = []
    places = dict.fromkeys((_start(row, height), _start(column, width)) for row, column in _places())
    for top, left in places:
        crop = _cut(pixels, top, left)
        if _is_plain(crop):
            colour = crop.mean((0, 2, 3))
            if all(float((colour - other.mean((0, 2, 3))).abs().max()) >= ALIKE for other in plain):
                plain.append(crop)
                taken.append(crop)
        else:
            taken.append(crop)
        if len(taken) == CROPS:
            break
    shown = [crop for crop in taken if not _is_plain(crop)] or taken
    missing = CROPS - len(taken)
    return torch.cat([*taken, *(shown * math.ceil(missing / len(shown)))[:missing]])


def _places() -> list[tuple[int, int]]:
    """Return the candidates' rows and columns: those of the even grid, then those between."""
    every = [(row, column) for row in range(CANDIDATES) for column in range(CANDIDATES)]
    return sorted(every, key=lambda place: place[0] % 2 + place[1] % 2)


def _start(index: int, length: int) -> int:
    return round(max(0, length - CROP_SIDE) * index / (CANDIDATES - 1))


def _cut(pixels: Pixels, top: int, left: int) -> Tensor:
    crop = views.to_tensor(np.ascontiguousarray(pixels[top : top + CROP_SIDE, left : left + CROP_SIDE]))
    return reflect_pad(crop, 0, CROP_SIDE - crop.shape[-1], 0, CROP_SIDE - crop.shape[-2])


def _is_plain(crop: Tensor) -> bool:
    return float(crop.mean(1).std()) < PLAIN


def _grey(pixels: Pixels) -> Grey:
    grey: Grey = pixels.sum(axis=2, dtype=np.float64)
    return grey


def _step(side: int) -> int:
    return max(1, side // views.SAMPLED)
