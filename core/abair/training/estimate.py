"""Phase III: with backbone and adapters frozen, train the estimator on single, mixed and clean samples.

The target of a sample is the mean of its pixels' types: one label for a single degradation, halves for two in a chain,
shares of the area where regions differ. The loss is the cross-entropy with that distribution.
"""

from __future__ import annotations

from functools import cached_property
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from abair import views
from abair.estimator import Estimator
from abair.physics import uniform
from abair.synthesis import CleanPhotos, Degrader, Recipe, generator_for
from abair.training.loop import Batch
from abair.training.settings import Settings

RECIPE: Final = Recipe(cutmix=0.15, double=0.15, clean=0.18)
"""More clean and single samples than in phase I: a label that is rare in training is rarely recognised."""
VALIDATION_SAMPLES: Final = 20
"""Held-out samples a label."""


class EstimateTask:
    """Phase III for the loop."""

    name = "estimator"

    def __init__(self, degrader: Degrader, photos: CleanPhotos, held_out: CleanPhotos, settings: Settings) -> None:
        torch.manual_seed(settings.seed)
        self.module = Estimator(degrader.labels)
        self.degrader, self.photos, self.held_out, self.settings = degrader, photos, held_out, settings
        self._validation: tuple[Tensor, Tensor, Tensor] | None = None

    @cached_property
    def depends(self) -> dict[str, str]:
        """Labels, photos and recipe."""
        labels, recipe = ", ".join(self.degrader.labels), str(self.degrader.recipe)
        return {"labels": labels, "photos": self.photos.digest(), "recipe": recipe}

    def batch(self, index: int) -> Batch:
        """(crops (B, 16, 3, 64, 64), view (B, 3, 64, 64), target (B, L))."""
        looks = []
        for item in range(self.settings.batch):
            generator = generator_for(self.settings.seed, 3, index, item)
            side = round(self.settings.crop * uniform(generator, 0.4, 1.0))
            sample = self.degrader.sample(self.photos.crop(generator, side), generator)
            looks.append((*look(sample.degraded), sample.types.mean((1, 2))))
        crops, view, target = zip(*looks, strict=True)
        return torch.stack(crops), torch.cat(view), torch.stack(target)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropy with the samples' distributions over the labels."""
        crops, view, target = batch
        return F.cross_entropy(self.module(crops, view).float(), target), {}

    @torch.inference_mode()
    def validate(self) -> dict[str, float]:
        """Top-1 accuracy and mean weight of the right label on held-out single degradations; recall a label."""
        if self._validation is None:
            self._validation = self._held_out_looks()
        crops, view, target = self._validation
        device = next(self.module.parameters()).device
        parts = zip(torch.split(crops, 20), torch.split(view, 20), strict=True)
        weights = torch.cat([self.module(c.to(device), v.to(device)).softmax(1).cpu() for c, v in parts])
        right = weights.argmax(1) == target
        figures = {"accuracy": float(right.float().mean()), "weight": float(weights[range(len(target)), target].mean())}
        for position, label in enumerate(self.module.labels):
            figures[label] = float(right[target == position].float().mean())
        return figures

    def _held_out_looks(self) -> tuple[Tensor, Tensor, Tensor]:
        looks = []
        for position, label in enumerate(self.module.labels):
            for item in range(VALIDATION_SAMPLES):
                generator = generator_for(0, 6, position, item)
                clean = self.held_out.crop(generator, self.settings.crop)
                looks.append((*look(self.degrader.single(clean, label, generator).degraded), position))
        crops, view, target = zip(*looks, strict=True)
        return torch.stack(crops), torch.cat(view), torch.tensor(target)


def look(image: Tensor) -> tuple[Tensor, Tensor]:
    """The estimator's views of an image (3, H, W): crops (16, 3, 64, 64) and global view (1, 3, 64, 64)."""
    pixels = image.permute(1, 2, 0).numpy()
    return views.crops(pixels), views.whole(pixels)
