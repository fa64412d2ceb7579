"""Phase III: with backbone and adapters frozen, train the estimator on single, mixed and clean samples.

The target of a sample is the mean of its pixels' types: one label for a single degradation, halves for two in a chain,
shares of the area where regions differ. The loss is the cross-entropy with that distribution.

Making a sample takes many times longer than learning from it, so a pool of samples is made once and seen several times,
each time mirrored and through other crops.
"""

from __future__ import annotations

import mmap
from functools import cached_property, lru_cache
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from abair import views
from abair.backbone import GLOBAL_VIEW
from abair.estimator import Estimator
from abair.physics import chance
from abair.synthesis import CleanPhotos, Degrader, Recipe, generator_for
from abair.training.loop import Batch
from abair.training.settings import Settings

RECIPE: Final = Recipe(cutmix=0.15, double=0.15, clean=0.18)
"""More clean and single samples than in phase I: a label that is rare in training is rarely recognised."""
POOL: Final = 10_000
"""Samples that are made, of 220 kB each, in memory that the workers share."""
SEEN: Final = 10
"""Crops of a sample that one step looks at, of sixteen: others each time, at two thirds of the cost."""
VALIDATION_SAMPLES: Final = 20
"""Held-out samples a label."""


class EstimateTask:
    """Phase III for the loop."""

    name = "estimator"

    def __init__(self, degrader: Degrader, photos: CleanPhotos, held_out: CleanPhotos, settings: Settings) -> None:
        torch.manual_seed(settings.seed)
        self.module = Estimator(degrader.labels)
        self.degrader, self.photos, self.held_out, self.settings = degrader, photos, held_out, settings
        self._pool = Pool(POOL, len(degrader.labels))
        self._validation: tuple[Tensor, Tensor, Tensor] | None = None

    @cached_property
    def depends(self) -> dict[str, str]:
        """Labels, photos and recipe."""
        labels, recipe = ", ".join(self.degrader.labels), str(self.degrader.recipe)
        return {"labels": labels, "photos": self.photos.digest(), "recipe": recipe}

    def batch(self, index: int) -> Batch:
        """(crops (B, 10, 3, 64, 64), view (B, 3, 64, 64), target (B, L))."""
        looks = []
        for item in range(index * self.settings.batch, (index + 1) * self.settings.batch):
            epoch, turn = divmod(item, len(self._pool))
            place = int(_order(self.settings.seed, epoch, len(self._pool))[turn])
            crops, view, target = self._pool.get(place) or self._pool.put(place, *self._made(place))
            generator = generator_for(self.settings.seed, 4, epoch, place)
            crops = crops[torch.randperm(len(crops), generator=generator)[:SEEN]]
            looks.append((crops.flip(-1), view.flip(-1), target) if chance(generator, 0.5) else (crops, view, target))
        crops, view, target = (torch.stack(part) for part in zip(*looks, strict=True))
        return crops.float() / 255, view.float() / 255, target

    def _made(self, place: int) -> tuple[Tensor, Tensor, Tensor]:
        generator = generator_for(self.settings.seed, 3, place)
        sample = self.degrader.sample(self.photos.scene(generator, self.settings.crop), generator)
        crops, view = look(sample.degraded)
        return crops, view[0], sample.types.mean((1, 2))

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
                clean = self.held_out.scene(generator, self.settings.crop)
                looks.append((*look(self.degrader.single(clean, label, generator).degraded), position))
        crops, view, target = zip(*looks, strict=True)
        return torch.stack(crops), torch.cat(view), torch.tensor(target)


@lru_cache(maxsize=2)  # a batch may reach from one epoch into the next
def _order(seed: int, epoch: int, count: int) -> Tensor:
    return torch.randperm(count, generator=generator_for(seed, 5, epoch))


class Pool:
    """Views of samples, kept as bytes in memory that forked processes share; each is made by whoever needs it first."""

    def __init__(self, size: int, labels: int) -> None:
        side, count = views.CROP_SIDE, views.CROPS**2
        shapes = {"crops": (count, 3, side, side), "view": (3, GLOBAL_VIEW, GLOBAL_VIEW)}
        fields = [(name, np.uint8, shape) for name, shape in shapes.items()]
        kind = np.dtype([*fields, ("target", np.float32, (labels,)), ("made", np.bool_)])
        # an anonymous mapping takes memory only where it was written to, and none of a container's small /dev/shm
        self._kept = np.frombuffer(mmap.mmap(-1, size * kind.itemsize), kind)

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, place: int) -> tuple[Tensor, Tensor, Tensor] | None:
        """Crops and view as bytes, and target; None if they were not put there yet."""
        kept = self._kept[place]
        if not kept["made"]:
            return None
        crops, view, target = (torch.from_numpy(kept[name].copy()) for name in ("crops", "view", "target"))
        return crops, view, target

    def put(self, place: int, crops: Tensor, view: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Keep a sample, views in [0, 1], and return it as `get` will."""
        kept = self._kept[place]
        for name, part in (("crops", crops), ("view", view)):
            kept[name] = part.mul(255).round().byte().numpy()
        kept["target"] = target.numpy()
        kept["made"] = True
        found = self.get(place)
        assert found is not None
        return found


def look(image: Tensor) -> tuple[Tensor, Tensor]:
    """The estimator's views of an image (3, H, W): crops (16, 3, 64, 64) and global view (1, 3, 64, 64)."""
    pixels = image.permute(1, 2, 0).numpy()
    return views.crops(pixels), views.whole(pixels)
