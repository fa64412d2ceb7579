"""What a new label does to what others damaged before it: samples that teach the estimator how to blend the two.

A haze that was saved as JPEG has to be blended, or left to one of the two, and which is not seen in what either does
alone. So these samples are made, restored by blends of the two labels' adapters, and called by the best blend.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import torch

from abair.continual.replay import LONGEST, Chains, Features, seen_in
from abair.data.degrade import CleanPhotos, Degrader, toned
from abair.data.seeds import Stream, generator_for
from abair.labels import CLEAN
from abair.model.backbone import Backbone, fingerprint
from abair.model.blend_cost import BlendCosts, log_blend_error
from abair.model.lora import Adapter, Blender
from abair.physics import chance

if TYPE_CHECKING:
    from abair.data.synthesizers import Synthesizer

TONED: Final = 0.5
"""Share of the chains whose scenes are made paler or darker first."""


def chains_of(
    backbone: Backbone,
    synthesizers: Mapping[str, Synthesizer],
    adapters: Mapping[str, Adapter],
    new: str,
    photos: CleanPhotos,
    count: int,
    seed: int,
    *,
    tell: Callable[[], object] = lambda: None,
) -> Chains:
    """`count` samples with the damage of one known label and then of the `new` one, spread evenly over the known ones.

    `synthesizers` and `adapters` are by label, the new one among them. The same scenes are drawn for each known label.
    `tell` is called after each sample.
    """
    known = [name for name in synthesizers if name != new]
    values, targets, stakes = [], [], []
    for place, name in enumerate(known):
        degrader = Degrader({name: synthesizers[name], new: synthesizers[new]})
        costs = BlendCosts(Blender(backbone, [adapters[name], adapters[new]]))
        for index in range(place, count, len(known)):
            scene = photos.scene(generator_for(seed, Stream.MIXTURE_SCENE, index // len(known)), LONGEST)
            generator = generator_for(seed, Stream.MIXTURE_DAMAGE, index)
            if chance(generator, TONED):
                scene = toned(scene, generator)
            sample = degrader.chain(scene, (name, new), generator)
            best, products = costs(sample)
            ways = torch.stack([torch.tensor([0.0, 1.0, 0.0]), best])
            alone, blended = log_blend_error(ways, products.expand(2, -1, -1))
            values.append(seen_in(backbone, sample.degraded).float().mean(0))
            called = torch.zeros(len(known) + 2)
            called[[place, -2, -1]] = best
            targets.append(called)
            stakes.append(10 * (alone - blended).clamp_min(0))
            tell()
    seen = Features(fingerprint(backbone), (*known, new, CLEAN), torch.stack(values), torch.stack(targets))
    return Chains(seen, torch.stack(stakes))
