"""How far a photo lies from all that the labels left behind: whether its damage is known at all.

The distance is Mahalanobis's, in the features that the estimator sees, to the samples of all labels
and undamaged photos (Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution
Samples and Adversarial Attacks", NeurIPS 2018). What it says is calibrated by held-out samples.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SHRINKAGE: Final = 0.03
"""Part of each correlation that is left out: a few thousand samples do not tell a small one."""
LEAST_DEVIATION: Final = 1e-3
"""Least standard deviation of a feature; one below it hardly varies."""


class Familiarity(nn.Module):
    """What is known: the samples' mean (F,), a factor (F, F), and the distances (N,) of others.

    The factor makes the samples' features uncorrelated with variance 1. The distances are those of
    held-out samples, in rising order.
    """

    mean: Tensor
    factor: Tensor
    distances: Tensor

    def __init__(self, features: int, count: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("factor", torch.zeros(features, features))
        self.register_buffer("distances", torch.zeros(count))

    @classmethod
    def fit(cls, samples: Tensor, held_out: Tensor) -> Familiarity:
        """Fit it to features of samples (N, F), and calibrate it by held-out ones (M, F)."""
        known = cls(samples.shape[1], len(held_out))
        values = _normalize(samples).double()
        centred = values - values.mean(0)
        deviation = centred.square().mean(0).sqrt().clamp_min(LEAST_DEVIATION)
        scaled = centred / deviation
        correlation = (1 - SHRINKAGE) * (scaled.T @ scaled) / len(scaled) + SHRINKAGE * torch.eye(scaled.shape[1])
        whitening = torch.linalg.inv(torch.linalg.cholesky(correlation)).T / deviation[:, None]
        known.mean.copy_(values.mean(0))
        known.factor.copy_(whitening.half())  # as files hold it
        known.distances.copy_(known(held_out).sort().values)
        return known

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, F) to their distances (B,) from what is known."""
        return ((_normalize(features) - self.mean) @ self.factor).square().sum(1).sqrt()

    def unknown(self, features: Tensor) -> Tensor:
        """Map features (B, F) to the part of known held-out samples that lie nearer, (B,).

        So one known photo in twenty is above 0.95. With fewer than nineteen samples nothing is.
        """
        return torch.searchsorted(self.distances, self(features)) / (len(self.distances) + 1)


def _normalize(features: Tensor) -> Tensor:
    return F.layer_norm(features.float(), features.shape[1:])
