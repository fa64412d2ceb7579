"""Puts a new label's damage on the undamaged photos that are kept, in features.

The new label is shown on the photos of whoever adds it, and they look like each other: a head that
is fitted to them alone learns the photos, too, and misses the damage elsewhere. What the damage
changed in the features of one photo is therefore added to those of others, so that "damaged" stands
to "undamaged" there as it does here (Hariharan and Girshick, "Low-shot Visual Recognition by
Shrinking and Hallucinating Features", ICCV 2017, where a network learns the analogies).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from abair.continual.replay import WHOLE, Features
from abair.data.seeds import Stream, generator_for
from abair.labels import CLEAN


def transfer_damage(new: Features, known: Sequence[Features], count: int) -> Features | None:
    """Return `new` with at most `count` samples more; None if there is nothing to make them of.

    Each adds the difference of one of the `pairs` of `new` to a `known` undamaged sample, each of
    which is used once, and has the targets of the damaged one. The same arguments give the same.
    """
    undamaged = torch.cat([_undamaged(part) for part in known]) if known else torch.empty(0)
    if not len(new.pairs) or not len(undamaged):
        return None
    generator = generator_for(0, Stream.TRANSFERRED)
    taken = undamaged[torch.randperm(len(undamaged), generator=generator)[:count]]
    damaged, whole = new.pairs[torch.arange(len(taken)) % len(new.pairs)].unbind(1)
    moved = taken.float() + new.values[damaged].float() - new.values[whole].float()
    return Features(
        new.backbone, new.labels,
        torch.cat([new.values.float(), moved]), torch.cat([new.targets, new.targets[damaged]]), new.pairs,
    )  # fmt: skip


def _undamaged(part: Features) -> torch.Tensor:
    """Return the values (N, F) of the undamaged samples."""
    if CLEAN not in part.labels:
        return part.values[:0]
    return part.values[part.targets[:, part.labels.index(CLEAN)] > WHOLE]
