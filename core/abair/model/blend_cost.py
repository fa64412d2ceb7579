"""The mean squared error that any blend of the adapters would leave in a training sample.

Phase III trains the estimator through the restoration. Gradients through the network would take
longer than the rest of the phase together. But the output of a blend is nearly the weighted mean of
the outputs of each label alone. So the error e_i of each label is computed once per sample, and the
products G_ij = <e_i, e_j> are kept: the mean squared error of the blend w is about w' G w.

The approximation holds for small adapters. It matters most in mixtures, where two degradations lie
one over the other. There some blends of the two labels are restored as well: the best of them is
the target of the sample, and G_ij is fitted to their errors.
"""

from __future__ import annotations

import hashlib
import math
from functools import cached_property, lru_cache
from typing import Final

import torch
from torch import Tensor

from abair.data.degrade import Sample, SampleKind
from abair.model.backbone import Backbone
from abair.model.look import context_view_of
from abair.model.lora import Blender

LARGEST_CROP: Final = 128
"""Largest side in pixels of the crop that is restored; the estimator sees the whole sample."""
FULL_CROP_LABELS: Final = 6
"""Up to this many labels restore a full crop; more share its pixels, so no sample takes longer."""
BLEND_STEPS: Final = 4
"""Steps between the two labels of a mixture at which blends are restored."""
CROP_MULTIPLE: Final = 16
"""The crop's side is a multiple of this, so that no padded pixel is computed."""
ERROR_FLOOR: Final = 1e-4
"""Mean squared error (40 dB) below which samples count alike: clean ones must not dominate."""


class BlendCosts:
    """Computes a sample's target weights, and the error products of its labels.

    The labels are the adapters of `blender` and, last, `clean`: the sample as it is.
    """

    def __init__(self, blender: Blender, largest: int = LARGEST_CROP) -> None:
        """Prepare the blends of `blender`, to restore crops of at most `largest` pixels a side."""
        self._blender, self._largest = blender, largest
        # a mixture's blends are the same for each sample of it
        self._between = lru_cache(maxsize=BLEND_STEPS)(lambda weights: blender.blend(weights[:-1], keep=weights[-1]))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the adapters and of how they are blended; costs with the same digest agree."""
        digests = [adapter.digest for adapter in self._blender.adapters]
        return hashlib.sha256(" ".join([f"chains in {BLEND_STEPS} steps", *digests]).encode()).hexdigest()

    @property
    def side(self) -> int:
        """Side in pixels of the crop that each label restores, a multiple of `CROP_MULTIPLE`."""
        labels = max(FULL_CROP_LABELS, len(self._blender.adapters) + 1)
        return int(self._largest * math.sqrt(FULL_CROP_LABELS / labels)) // CROP_MULTIPLE * CROP_MULTIPLE

    @cached_property
    def _networks(self) -> list[Backbone]:
        return [self._blender.blend(alone) for alone in torch.eye(len(self._blender.adapters)).tolist()]

    @torch.no_grad()
    def __call__(self, sample: Sample) -> tuple[Tensor, Tensor]:
        """Return the sample's target weights (L,) and its error products (L, L), symmetric.

        The diagonal holds the mean squared errors of each label alone. The target is the share of
        each label in the area; for a mixture of two, the restored blend with the least error.
        """
        degraded, clean, view = centre_crop(sample, self._blender.backbone, self.side)

        def error(network: Backbone) -> Tensor:
            restored: Tensor = network(degraded[None], view)[0].clamp(0, 1)
            return (restored - clean).flatten()

        errors = torch.stack([*map(error, self._networks), (degraded - clean).flatten()])
        products = errors @ errors.T / errors.shape[1]
        target = sample.types.mean((1, 2))
        if sample.kind is not SampleKind.MIXTURE or len(sample.labels) != 2:
            return target, products
        one, other = target.topk(2).indices.tolist()
        blends = torch.zeros(BLEND_STEPS + 1, len(target))
        blends[:, one], blends[:, other] = torch.linspace(1, 0, BLEND_STEPS + 1), torch.linspace(0, 1, BLEND_STEPS + 1)
        between = [error(self._between(tuple(blend.tolist()))).square().mean() for blend in blends[1:-1]]
        measured = torch.stack([products[one, one], *between, products[other, other]])
        products[one, other] = products[other, one] = _fit_product(blends[:, one], measured)
        return blends[measured.argmin()], products


def _fit_product(weights: Tensor, errors: Tensor) -> Tensor:
    """Fit the product G_ij for which w' G w is nearest to the errors (B,) of blends of two labels.

    `weights` (B,) are those of the first label, from 1 to 0; the second has the rest. No blend is
    given a lower error than the least of `errors`.
    """
    first, last, least = errors[0], errors[-1], errors.min()
    both = 2 * weights * (1 - weights)
    left = errors - weights.square() * first - (1 - weights).square() * last
    # with this product the parabola's lowest point is at the least error
    lowest = least - ((first - least) * (last - least)).sqrt()
    return torch.maximum((both * left).sum() / both.square().sum(), lowest)


def log_blend_error(weights: Tensor, costs: Tensor) -> Tensor:
    """Return log10 of the mean squared errors (B,) of blends (B, L).

    `costs` (B, L, L) are the samples' products. This is -PSNR / 10, above `ERROR_FLOOR`.
    """
    error = torch.einsum("bi,bij,bj->b", weights, costs, weights)
    return error.clamp_min(0).add(ERROR_FLOOR).log10()


def centre_crop(sample: Sample, backbone: Backbone, longest: int = LARGEST_CROP) -> tuple[Tensor, Tensor, Tensor]:
    """Cut the centre out of a sample, at most `longest` pixels a side.

    Returns the crop degraded and clean, (3, H, W) each, and the global view (1, 3, 64, 64) of the
    whole degraded sample for this backbone.
    """
    view = context_view_of(sample.degraded, backbone)
    rows, columns = (slice((side - min(side, longest)) // 2, None) for side in sample.clean.shape[1:])
    degraded, clean = (whole[:, rows, columns][:, :longest, :longest] for whole in (sample.degraded, sample.clean))
    return degraded, clean, view
