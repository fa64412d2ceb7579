"""What an adapter learns from and is judged by: photos with its degradation, put on by a synthesiser.

An adapter that has seen its degradation alone brings any other one out more. So some of the samples may carry a second
one, before or after its own, and are to be restored from both, as they will be when they are served: by a blend with
the other's adapter. A blend of two that never met is often worse than the better of them.

When a photo is restored, each tile is told of the whole by the global view. A sample that is a crop and nothing else is
its own whole, so what is seen in the large, haze over depth and darkness, may be put on a scene, of which the sample is
a part. Some samples stay their own whole even then: there are small photos.

Collections of photos are brighter than rooms are, and haze is told from brightness by what is usual. So photos may be
made darker before they are damaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from abair.data.degrade import Degrader, Sample, to_8_bit
from abair.data.photos import CleanPhotos
from abair.data.seeds import Stream, generator_for
from abair.model.backbone import pool_global_view
from abair.physics import chance, uniform
from abair.training.backbone import VALIDATION_CROPS, VALIDATION_SIDE
from abair.training.settings import Settings

SHARES: Final = (0.3, 1.0)
"""The adapter's weight, where it restores a second degradation together with that one's adapter, which has the rest."""
DARKER: Final = (1.2, 2.4)
"""Exponents by which photos are made darker: a mean of 0.44 becomes one of 0.40 to 0.23."""
NARROWEST: Final = 0.6
"""Least part of a scene's side that is drawn."""


def lesson(
    degrader: Degrader,
    degradation: str,
    photos: CleanPhotos,
    settings: Settings,
    generator: torch.Generator,
    other: str | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """A sample (3, crop, crop), degraded and clean, and the global view (3, 64, 64) of what it was cut from.

    With an `other` it carries that degradation, too.
    """
    side, scene = settings.crop, None
    if settings.scene and chance(generator, settings.scenes):
        scene = photos.scene(generator, settings.scene, NARROWEST)
    if scene is None or min(scene.shape[1:]) < side:
        scene = photos.crop(generator, side)
    if settings.dim and chance(generator, settings.dim):
        scene = to_8_bit(scene ** uniform(generator, *DARKER))
    sample = _damaged(degrader, scene, degradation, other, generator)
    top, left = (int(torch.randint(length - side + 1, (), generator=generator)) for length in scene.shape[1:])
    rows, columns = slice(top, top + side), slice(left, left + side)
    return sample.degraded[:, rows, columns], sample.clean[:, rows, columns], view_of(sample.degraded)


def held_out_pairs(
    degrader: Degrader, photos: CleanPhotos, degradation: str, others: Sequence[str] = (), scene: int = 0
) -> list[tuple[Tensor, Tensor]]:
    """What an adapter is judged on: crops (3, S, S) of held-out photos, degraded and clean, always the same ones.

    Each carries one of the `others`, too, in turn, if there are any. With `scene` they are scenes of at most that size.
    """
    pairs = []
    for item in range(2 * VALIDATION_CROPS):
        generator = generator_for(0, Stream.ADAPTER_VALIDATION, item)
        clean = photos.scene(generator, scene, NARROWEST) if scene else photos.crop(generator, VALIDATION_SIDE)
        other = others[item % len(others)] if others else None
        sample = _damaged(degrader, clean, degradation, other, generator)
        pairs.append((sample.degraded, sample.clean))
    return pairs


def view_of(image: Tensor) -> Tensor:
    """The global view (3, 64, 64) of one image (3, H, W)."""
    return pool_global_view(image[None])[0]


def _damaged(
    degrader: Degrader, clean: Tensor, degradation: str, other: str | None, generator: torch.Generator
) -> Sample:
    """A clean crop (3, H, W) with the degradation, and with the other, if there is one, in either order."""
    if other is None:
        return degrader.single(clean, degradation, generator)
    names = (degradation, other) if chance(generator, 0.5) else (other, degradation)
    return degrader.mixture(clean, names, generator)
