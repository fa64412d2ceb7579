"""What the estimator shall say of a sample: the shares of its labels, or of mixed damage the blend that restores best.

Half of each is seldom what undoes two kinds of damage: sharpening a photo that is noisy as well brings out the noise,
and rain before haze wants a little of its adapter alone. So the blends between two labels are tried, and the target is
their mean, weighted by how well each restores (the restoration's error, searched instead of followed by gradients: two
labels make a line, on which six points tell enough).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Final

import torch
from torch import Tensor

from abair import views
from abair.lora import Blender
from abair.synthesis import Sample
from abair.training.pretrain import psnr

RESTORED: Final = 192
"""Side in pixels of the part of a sample that is restored; the estimator sees all of it."""
POINTS: Final = 6
"""Blends that are tried, from one label alone to the other alone."""
SOFTNESS: Final = 0.25
"""Decibels by which a blend must be worse to count a third (1 / e) as much."""

Target = Callable[[Sample], Tensor]
"""From a sample to weights (L,) over its labels, which sum to 1."""


def shares(sample: Sample) -> Tensor:
    """The mean of the pixels' types: halves for two in a chain, shares of the area where regions differ."""
    return sample.types.mean((1, 2))


class BestBlend:
    """Shares where there is one label; between two, the blend of `blender`'s adapters, in the labels' order."""

    def __init__(self, blender: Blender) -> None:
        self._blender = blender

    @cached_property
    def mark(self) -> str:
        """SHA-256 over the adapters: which ones these are."""
        digest = hashlib.sha256()
        for adapter in self._blender.adapters:
            for name, (down, up) in sorted(adapter.layers.items()):
                digest.update(f"{adapter.name} {name} {adapter.scaling}\n".encode())
                digest.update(down.numpy().tobytes() + up.numpy().tobytes())
        return digest.hexdigest()

    @torch.inference_mode()
    def __call__(self, sample: Sample) -> Tensor:
        """Weights (L,)."""
        whole = shares(sample)
        mixed = whole.nonzero()[:, 0].tolist()
        if len(mixed) != 2:
            return whole
        blends = torch.zeros(POINTS, len(whole))
        blends[:, mixed[0]] = torch.linspace(0, 1, POINTS)
        blends[:, mixed[1]] = 1 - blends[:, mixed[0]]
        degraded, clean, view = part(sample)
        scores = [psnr(self._restored(degraded, view, blend), clean) for blend in blends.tolist()]
        return (torch.tensor(scores) / SOFTNESS).softmax(0) @ blends

    def _restored(self, degraded: Tensor, view: Tensor, blend: Sequence[float]) -> Tensor:
        restored: Tensor = self._blender.blend(blend[:-1], keep=blend[-1])(degraded[None], view)[0]
        return restored.clamp(0, 1)


def part(sample: Sample) -> tuple[Tensor, Tensor, Tensor]:
    """The middle of a sample, at most `RESTORED` a side, degraded and clean, and the global view of all of it."""
    view = views.whole(sample.degraded.permute(1, 2, 0).numpy())
    rows, columns = (slice((side - min(side, RESTORED)) // 2, None) for side in sample.clean.shape[1:])
    degraded, clean = (whole[:, rows, columns][:, :RESTORED, :RESTORED] for whole in (sample.degraded, sample.clean))
    return degraded, clean, view
