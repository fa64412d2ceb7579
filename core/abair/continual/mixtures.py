"""Mixtures of a new label with known ones: samples that teach how to blend two adapters.

A hazy photo that was saved as JPEG needs a blend of two adapters, or one of them alone. Which is
best does not show in samples of either damage alone. So mixtures are made, restored by several
blends of the two labels' adapters, and labelled with the best blend.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import torch

from abair.continual.collect import LONGEST, OnProgress, ignore_progress
from abair.continual.replay import Features, Mixtures
from abair.data.degrade import Degrader, apply_gamma
from abair.data.photos import CleanPhotos
from abair.data.seeds import Stream, generator_for
from abair.labels import CLEAN
from abair.model.backbone import Backbone, fingerprint
from abair.model.blend_cost import BlendCosts, log_blend_error
from abair.model.estimator import extract_image_features
from abair.model.lora import Adapter, Blender
from abair.physics import chance

if TYPE_CHECKING:
    from abair.data.synthesizers import Synthesizer

GAMMA: Final = 0.5
"""Share of the mixtures whose scenes are made brighter or darker first."""
RESTORED_SIDE: Final = 80
"""Side in pixels of the crop that the blends restore: that takes most of the time."""


def build_mixtures(
    backbone: Backbone,
    synthesizers: Mapping[str, Synthesizer],
    adapters: Mapping[str, Adapter],
    new: str,
    photos: CleanPhotos,
    count: int,
    seed: int,
    *,
    on_progress: OnProgress = ignore_progress,
) -> Mixtures:
    """Make `count` samples with a known label's damage, then the `new` one's.

    `synthesizers` and `adapters` are by label, the new one included. The scenes are the same for
    each known label.
    """
    known = [name for name in synthesizers if name != new]
    values, targets, stakes = [], [], []
    for place, name in enumerate(known):
        degrader = Degrader({name: synthesizers[name], new: synthesizers[new]})
        costs = BlendCosts(Blender(backbone, [adapters[name], adapters[new]]), RESTORED_SIDE)
        for index in range(place, count, len(known)):
            scene = photos.scene(generator_for(seed, Stream.MIXTURE_SCENE, index // len(known)), LONGEST)
            generator = generator_for(seed, Stream.MIXTURE_DAMAGE, index)
            if chance(generator, GAMMA):
                scene = apply_gamma(scene, generator)
            sample = degrader.mixture(scene, (name, new), generator)
            best, products = costs(sample)
            blends = torch.stack([torch.tensor([0.0, 1.0, 0.0]), best])
            alone, blended = log_blend_error(blends, products.expand(2, -1, -1))
            values.append(extract_image_features(backbone, sample.degraded).float().mean(0))
            target = torch.zeros(len(known) + 2)
            target[[place, -2, -1]] = best
            targets.append(target)
            stakes.append(10 * (alone - blended).clamp_min(0))
            on_progress()
    features = Features(fingerprint(backbone), (*known, new, CLEAN), torch.stack(values), torch.stack(targets))
    return Mixtures(features, torch.stack(stakes))
