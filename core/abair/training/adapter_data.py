"""Training and validation samples of an adapter: photos degraded by a synthesiser.

An adapter that has seen its degradation alone amplifies any other one. So some samples may carry a
second degradation, before or after their own. They are restored from both, as images are when the
adapter serves: by a blend with the other degradation's adapter. A blend of two adapters that were
never trained together is often worse than the better of them.

When a photo is restored, the network sees each tile together with a global view of the photo. The
global view of a sample that is a mere crop is that of the crop. Haze over depth and darkness are
visible only at large scale, so they may be put on a scene, from which the sample is then cut. Some
samples remain mere crops even then: there are small photos.

Photo collections are brighter than interiors, and the network tells haze from brightness by what is
usual. So photos may be darkened before they are degraded.
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
from abair.training.settings import AdapterSettings

SHARES: Final = (0.3, 1.0)
"""Range of the adapter's weight where it restores a second degradation, too; that one's adapter has
the rest."""
DARKENING: Final = (1.2, 2.4)
"""Range of the gamma by which photos are darkened: a mean of 0.44 becomes one of 0.40 to 0.23."""
SMALLEST_SCENE: Final = 0.6
"""Least part of a scene's longest side that is drawn."""


def make_training_sample(
    degrader: Degrader,
    degradation: str,
    photos: CleanPhotos,
    settings: AdapterSettings,
    generator: torch.Generator,
    second: str | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a sample (3, crop, crop), degraded and clean, and its global view (3, 64, 64).

    The view is that of the image that the sample was cut from. With a `second` degradation it
    carries that one, too.
    """
    side, scene = settings.crop, None
    if settings.scene_size and chance(generator, settings.scene_probability):
        scene = photos.scene(generator, settings.scene_size, SMALLEST_SCENE)
    if scene is None or min(scene.shape[1:]) < side:
        scene = photos.crop(generator, side)
    if settings.darken_probability and chance(generator, settings.darken_probability):
        scene = to_8_bit(scene ** uniform(generator, *DARKENING))
    sample = _degrade(degrader, scene, degradation, second, generator)
    top, left = (int(torch.randint(length - side + 1, (), generator=generator)) for length in scene.shape[1:])
    rows, columns = slice(top, top + side), slice(left, left + side)
    return sample.degraded[:, rows, columns], sample.clean[:, rows, columns], view_of(sample.degraded)


def held_out_pairs(
    degrader: Degrader, photos: CleanPhotos, degradation: str, seconds: Sequence[str] = (), scene_size: int = 0
) -> list[tuple[Tensor, Tensor]]:
    """Return validation samples, degraded and clean: crops (3, S, S) of held-out photos.

    They are the same at each call. Each carries one of the `seconds`, too, in turn, if there are
    any. With `scene_size` they are scenes (3, H, W) of at most that size.
    """
    pairs = []
    for item in range(2 * VALIDATION_CROPS):
        generator = generator_for(0, Stream.ADAPTER_VALIDATION, item)
        if scene_size:
            clean = photos.scene(generator, scene_size, SMALLEST_SCENE)
        else:
            clean = photos.crop(generator, VALIDATION_SIDE)
        second = seconds[item % len(seconds)] if seconds else None
        sample = _degrade(degrader, clean, degradation, second, generator)
        pairs.append((sample.degraded, sample.clean))
    return pairs


def view_of(image: Tensor) -> Tensor:
    """Return the global view (3, 64, 64) of one image (3, H, W)."""
    return pool_global_view(image[None])[0]


def _degrade(
    degrader: Degrader, clean: Tensor, degradation: str, second: str | None, generator: torch.Generator
) -> Sample:
    """Degrade a clean image (3, H, W); a second degradation comes before or after the first."""
    if second is None:
        return degrader.single(clean, degradation, generator)
    names = (degradation, second) if chance(generator, 0.5) else (second, degradation)
    return degrader.mixture(clean, names, generator)
