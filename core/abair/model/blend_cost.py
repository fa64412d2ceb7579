"""What a blend of the labels costs a sample, in the error of what it restores, for every blend at once.

Gradients through the network would take much longer than all the rest of phase III. But what a blend restores is nearly
the mean, by the blend's weights, of what each label restores alone. So each label's error e_i is made once, and
their products are kept, G_ij = <e_i, e_j>: the mean squared error of the blend w is about w' G w, the estimator is
trained through the restoration, and nothing is restored again.

Nearly, for small adapters. Where two kinds of damage lie one over the other, blends matter most, so there some between
the two labels are restored, too: the best of them is what the sample is called, and G_ij is fitted to their errors.
"""

from __future__ import annotations

import hashlib
import math
from functools import cached_property
from typing import Final

import torch
from torch import Tensor

from abair.data.degrade import Sample, SampleKind
from abair.model import views
from abair.model.backbone import Backbone
from abair.model.lora import Blender

RESTORED: Final = 128
"""Largest side in pixels of the part of a sample that is restored; the estimator sees all of it."""
LABELS: Final = 6
"""Up to so many labels restore as much; more labels share as many pixels, so that a sample never takes longer."""
BLENDS: Final = 4
"""Steps from one label of a chain to the other in which its blends are restored."""
STEP: Final = 16
"""What the side is a multiple of: no pixel is restored to be cut off again."""
GOOD_ENOUGH: Final = 1e-4
"""Mean squared error (40 dB) from which on a sample counts as restored: clean ones may not outweigh all others."""


class Costs:
    """What a sample is best called, and what each blend of `blender`'s adapters and of leaving it alone costs it."""

    def __init__(self, blender: Blender) -> None:
        self._blender = blender

    @cached_property
    def mark(self) -> str:
        """SHA-256 over the adapters, and how they are blended: which costs these are."""
        digests = [adapter.digest for adapter in self._blender.adapters]
        return hashlib.sha256(" ".join([f"chains in {BLENDS} steps", *digests]).encode()).hexdigest()

    @property
    def side(self) -> int:
        """Side in pixels of what each label restores, a multiple of `STEP`."""
        labels = max(LABELS, len(self._blender.adapters) + 1)
        return int(RESTORED * math.sqrt(LABELS / labels)) // STEP * STEP

    @cached_property
    def _networks(self) -> list[Backbone]:
        return [self._blender.blend(alone) for alone in torch.eye(len(self._blender.adapters)).tolist()]

    @torch.no_grad()
    def __call__(self, sample: Sample) -> tuple[Tensor, Tensor]:
        """What the sample is best called (L,), and its products (L, L), symmetric.

        On their diagonal are the mean squared errors of each label alone. A sample is called by its labels' shares; a
        mixture of two by the one of its restored blends that has the least error.
        """
        degraded, clean, view = part(sample, self.side)

        def error(network: Backbone) -> Tensor:
            restored: Tensor = network(degraded[None], view)[0].clamp(0, 1)
            return (restored - clean).flatten()

        errors = torch.stack([*map(error, self._networks), (degraded - clean).flatten()])
        products = errors @ errors.T / errors.shape[1]
        called = sample.types.mean((1, 2))
        if sample.kind is not SampleKind.MIXTURE or len(sample.labels) != 2:
            return called, products
        one, other = called.topk(2).indices.tolist()
        blends = torch.zeros(BLENDS + 1, len(called))
        blends[:, one], blends[:, other] = torch.linspace(1, 0, BLENDS + 1), torch.linspace(0, 1, BLENDS + 1)
        between = [error(self._blender.blend(blend[:-1].tolist())).square().mean() for blend in blends[1:-1]]
        measured = torch.stack([products[one, one], *between, products[other, other]])
        products[one, other] = products[other, one] = _fitted(blends[:, one], measured)
        return blends[measured.argmin()], products


def _fitted(weights: Tensor, errors: Tensor) -> Tensor:
    """The product G_ij with which w' G w is nearest to the errors of blends of the two (B,), none below the least.

    `weights` (B,) are those of the first label, from 1 to 0; the other has the rest.
    """
    first, last, least = errors[0], errors[-1], errors.min()
    both = 2 * weights * (1 - weights)
    left = errors - weights.square() * first - (1 - weights).square() * last
    # with this product the parabola's lowest point is at the least error
    lowest = least - ((first - least) * (last - least)).sqrt()
    return torch.maximum((both * left).sum() / both.square().sum(), lowest)


def logarithm_of_error(weights: Tensor, costs: Tensor) -> Tensor:
    """Blends (B, L) and their samples' products (B, L, L) to log10 of the mean squared errors (B,), minus PSNR / 10."""
    error = torch.einsum("bi,bij,bj->b", weights, costs, weights)
    return error.clamp_min(0).add(GOOD_ENOUGH).log10()


def part(sample: Sample, longest: int = RESTORED) -> tuple[Tensor, Tensor, Tensor]:
    """The middle of a sample, at most `longest` a side, degraded and clean, and the global view of all of it."""
    view = views.whole(sample.degraded.permute(1, 2, 0).numpy())
    rows, columns = (slice((side - min(side, longest)) // 2, None) for side in sample.clean.shape[1:])
    degraded, clean = (whole[:, rows, columns][:, :longest, :longest] for whole in (sample.degraded, sample.clean))
    return degraded, clean, view
