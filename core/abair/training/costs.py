"""What a blend of the labels costs a sample, in the error of what it restores, for every blend at once.

Gradients through the network would take much longer than all the rest of phase III. But what a blend restores is nearly
the mean, by the blend's weights, of what each label restores alone. So each label's error e_i is made once, and
their products are kept, G_ij = <e_i, e_j>: the mean squared error of the blend w is about w' G w, the estimator is
trained through the restoration, and nothing is restored again.
"""

from __future__ import annotations

import hashlib
import math
from functools import cached_property
from typing import Final

import torch
from torch import Tensor

from abair import views
from abair.backbone import Backbone
from abair.lora import Blender
from abair.synthesis import Sample

RESTORED: Final = 128
"""Largest side in pixels of the part of a sample that is restored; the estimator sees all of it."""
LABELS: Final = 6
"""Up to so many labels restore as much; more labels share as many pixels, so that a sample never takes longer."""
BLENDS: Final = 10
"""Steps from one label to the other in which the best blend is looked for."""
STEP: Final = 16
"""What the side is a multiple of: no pixel is restored to be cut off again."""
GOOD_ENOUGH: Final = 1e-4
"""Mean squared error (40 dB) from which on a sample counts as restored: clean ones may not outweigh all others."""


class Costs:
    """The products of the errors of `blender`'s adapters, in their order, and of leaving a sample alone, the last."""

    def __init__(self, blender: Blender) -> None:
        self._blender = blender

    @cached_property
    def mark(self) -> str:
        """SHA-256 over the adapters: which ones these are."""
        return hashlib.sha256(" ".join(adapter.digest for adapter in self._blender.adapters).encode()).hexdigest()

    @property
    def side(self) -> int:
        """Side in pixels of what each label restores, a multiple of `STEP`."""
        labels = max(LABELS, len(self._blender.adapters) + 1)
        return int(RESTORED * math.sqrt(LABELS / labels)) // STEP * STEP

    @cached_property
    def _networks(self) -> list[Backbone]:
        count = len(self._blender.adapters)
        return [self._blender.blend([float(place == i) for i in range(count)]) for place in range(count)]

    @torch.no_grad()
    def __call__(self, sample: Sample) -> Tensor:
        """(L, L), symmetric; on its diagonal the mean squared error of each label alone."""
        degraded, clean, view = part(sample, self.side)
        restored = [network(degraded[None], view)[0].clamp(0, 1) for network in self._networks]
        errors = torch.stack([(image - clean).flatten() for image in (*restored, degraded)])
        return errors @ errors.T / errors.shape[1]


def logarithm_of_error(weights: Tensor, costs: Tensor) -> Tensor:
    """Blends (B, L) and their samples' products (B, L, L) to log10 of the mean squared errors (B,), minus PSNR / 10."""
    error = torch.einsum("bi,bij,bj->b", weights, costs, weights)
    return error.clamp_min(0).add(GOOD_ENOUGH).log10()


def best_of_two(shares: Tensor, costs: Tensor) -> Tensor:
    """Shares of labels (B, L) to what samples are better called: a chain of two by the blend that restores it best.

    Of blends in steps of `1 / BLENDS`. A chain is what has two labels in equal shares: both are everywhere. What has
    one label keeps it, and so does what shows its labels in different regions, of which costs know a part only.
    """
    largest = shares.topk(2, dim=1)
    places = torch.linspace(0, 1, BLENDS + 1)
    pair = torch.nn.functional.one_hot(largest.indices, shares.shape[1]).float()  # (B, 2, L)
    blends = places[:, None] * pair[:, None, 0] + (1 - places[:, None]) * pair[:, None, 1]  # (B, BLENDS + 1, L)
    errors = torch.einsum("bki,bij,bkj->bk", blends, costs, blends)
    best = blends[torch.arange(len(blends)), errors.argmin(1)]
    return torch.where((largest.values == 0.5).all(1, keepdim=True), best, shares)


def part(sample: Sample, longest: int = RESTORED) -> tuple[Tensor, Tensor, Tensor]:
    """The middle of a sample, at most `longest` a side, degraded and clean, and the global view of all of it."""
    view = views.whole(sample.degraded.permute(1, 2, 0).numpy())
    rows, columns = (slice((side - min(side, longest)) // 2, None) for side in sample.clean.shape[1:])
    degraded, clean = (whole[:, rows, columns][:, :longest, :longest] for whole in (sample.degraded, sample.clean))
    return degraded, clean, view
