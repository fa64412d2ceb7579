"""Phase III: with backbone and adapters frozen, train the estimator on single, mixed and clean samples.

The loss is the cross-entropy with what a sample is called, and the error in decibels of what the estimator's blend
restores (see `abair.model.blend_cost`): by labels alone, a mistake that ruins a photo would count no more than one that
nobody sees. What carries one kind of damage over another is called by the blend of the two that restores it best, which
is seldom half of each.

Making a sample and looking at it takes a thousand times longer than learning from it, so what the backbone sees in a
pool of samples is kept in a file beside the checkpoints and learnt from many times, each time from other crops.
"""

from __future__ import annotations

import hashlib
import json
import os
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from abair.data.degrade import Degrader, Recipe, SampleKind, to_8_bit
from abair.data.file_artifacts import apply_file_artifacts
from abair.data.photos import CleanPhotos
from abair.data.seeds import Stream, generator_for
from abair.files import atomic_write
from abair.model import views
from abair.model.backbone import Backbone, fingerprint
from abair.model.blend_cost import BlendCosts, log_blend_error
from abair.model.estimator import Estimator, extract_image_features, feature_count
from abair.training.loop import Batch
from abair.training.settings import Settings

RECIPE: Final = Recipe(cutmix=0.1, mixture=0.2, clean=0.24, file_artifacts=0.25, gamma=0.25)
"""More clean samples and chains than in phase I, and fewer regions: a label that is rare in training is rarely
recognised, a photo that needs nothing suffers more from an adapter than one that is mildly damaged suffers from none,
and chains are where blends matter. And a quarter that
was in an inexact file, as users' photos were, and a quarter paler or darker than our photos are: whoever never saw such
a one takes it for something else."""
POOL: Final = 8_000
"""Samples that are made; a file of 220 MB for `nano`."""
DECIBELS: Final = 0.3
"""Weight of the restoration's error, minus a tenth of its decibels, against the cross-entropy."""
SHARP: Final = 0.3
"""Temperature at which blends are made in training. Probabilities that are right on the mean are timid, as many samples
cannot be told apart, and timid blends do an adapter's work by halves. But what a chain is called is a blend, no
probability, and should come out about as it is. `abair.training.temperature` has the last word; 0.1 to 0.3 are
usual."""
SEEN: Final = 10
"""Crops of a sample that one step looks at, of sixteen; others each time."""
VALIDATION_SAMPLES: Final = 40
"""Held-out samples a label."""
VALIDATION_SIDE: Final = 512
"""Longest side of a held-out photo in pixels; it is looked at whole."""


class EstimateTask:
    """Phase III for the loop; `folder` keeps the pool. It goes on from the estimator `start`, if there is one.

    Without `costs` the labels' shares alone are learnt.
    """

    name = "estimator"

    def __init__(
        self,
        backbone: Backbone,
        degrader: Degrader,
        photos: CleanPhotos,
        held_out: CleanPhotos,
        settings: Settings,
        folder: Path,
        samples: int = POOL,
        costs: BlendCosts | None = None,
        start: Estimator | None = None,
        validation_samples: int = VALIDATION_SAMPLES,
    ) -> None:
        torch.manual_seed(settings.seed)
        self._costs, self._validation_samples = costs, validation_samples
        self.backbone = backbone
        self.module = Estimator(degrader.labels, feature_count(backbone.size))
        self._start = "" if start is None else fingerprint(start)
        if start is not None:
            self.module.load_state_dict(start.state_dict())
        self.degrader, self.photos, self.held_out, self.settings = degrader, photos, held_out, settings
        of = json.dumps([*self._samples_depend.values(), settings.seed, settings.crop]).encode()
        self._pool = Pool(
            folder / f"pool-{hashlib.sha256(of).hexdigest()[:16]}.dat",
            samples,
            self.module.features,
            len(degrader.labels),
        )

    @property
    def depends(self) -> dict[str, str]:
        """What the samples depend on, and the estimator that it begins from."""
        return self._samples_depend | {"start": self._start}

    @cached_property
    def _samples_depend(self) -> dict[str, str]:
        """The frozen network, labels, photos, damage and recipe; the adapters, where their errors count."""
        labels, recipe = ", ".join(self.degrader.labels), str(self.degrader.recipe)
        network = fingerprint(self.backbone)
        of = {"backbone": network, "labels": labels, "photos": self.photos.digest(), "recipe": recipe}
        of["damage"] = self.degrader.digest
        return of | ({"adapters": self._costs.digest} if self._costs else {})

    def batch(self, index: int) -> Batch:
        """(features (B, F), target (B, L), costs (B, L, L), which are chains (B,))."""
        rows, rest = [], []
        for item in range(index * self.settings.batch, (index + 1) * self.settings.batch):
            epoch, turn = divmod(item, len(self._pool))
            place = int(_order(self.settings.seed, epoch, len(self._pool))[turn])
            crops, *others = self._pool.get(place) or self._pool.put(place, *self._made(place))
            generator = generator_for(self.settings.seed, Stream.ESTIMATOR_CROPS, epoch, place)
            rows.append(crops[torch.randperm(len(crops), generator=generator)[:SEEN]].mean(0))
            rest.append(others)
        return torch.stack(rows), *(torch.stack(parts) for parts in zip(*rest, strict=True))

    def _made(self, place: int) -> Made:
        generator = generator_for(self.settings.seed, Stream.ESTIMATOR_SAMPLE, place)
        sample = self.degrader.sample(self.photos.scene(generator, self.settings.crop), generator)
        shares = sample.types.mean((1, 2))  # halves for two in a chain, shares of the area where regions differ
        called, costs = self._costs(sample) if self._costs else (shares, torch.zeros(len(shares), len(shares)))
        return (
            extract_image_features(self.backbone, sample.degraded),
            called,
            costs,
            torch.tensor(sample.kind is SampleKind.MIXTURE),
        )

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropy with what the samples are called, and the restoration's error."""
        features, target, costs, chains = batch
        logits = self.module(features).float()
        named = F.cross_entropy(torch.where(chains[:, None], logits / SHARP, logits), target)
        if self._costs is None:
            return named, {}
        restored = log_blend_error((logits / SHARP).softmax(1), costs).mean()
        return named + DECIBELS * restored, {"named": float(named.detach()), "restored": float(restored.detach())}

    @torch.no_grad()
    def take_mean(self, other: Estimator) -> None:
        """After the training: the mean of its weights and another's, as `AdaptTask.take_mean` takes it."""
        for mine, theirs in zip(self.module.parameters(), other.parameters(), strict=True):
            mine.lerp_(theirs.to(mine), 1 - self.settings.trained_part)

    @torch.inference_mode()
    def validate(self) -> dict[str, float]:
        """Top-1 accuracy and mean weight of the right label on held-out single degradations; recall a label.

        `clean_filed` is the share of undamaged photos that are named so when they come from an inexact file.
        """
        features, target = self._held_out
        device = next(self.module.parameters()).device
        weights = self.module(features.to(device)).softmax(1).cpu()
        right = weights.argmax(1) == target
        figures = {"accuracy": float(right.float().mean()), "weight": float(weights[range(len(target)), target].mean())}
        for position, label in enumerate(self.module.labels):
            figures[label] = float(right[target == position].float().mean())
        said = self.module(self._filed.to(device)).argmax(1).cpu()
        return figures | {"clean_filed": float((said == len(self.module.labels) - 1).float().mean())}

    @cached_property
    def _filed(self) -> Tensor:
        rows = []
        for item in range(self._validation_samples):
            generator = generator_for(0, Stream.FILE_ARTIFACT_VALIDATION, item)
            clean = self.held_out.scene(generator, VALIDATION_SIDE, smallest=1.0)
            rows.append(
                extract_image_features(self.backbone, to_8_bit(apply_file_artifacts(clean, generator))).float().mean(0)
            )
        return torch.stack(rows)

    @cached_property
    def _held_out(self) -> tuple[Tensor, Tensor]:
        rows, target = [], []
        for position, label in enumerate(self.module.labels):
            for item in range(self._validation_samples):
                generator = generator_for(0, Stream.ESTIMATOR_VALIDATION, position, item)
                clean = self.held_out.scene(generator, VALIDATION_SIDE, smallest=1.0)
                degraded = self.degrader.single(clean, label, generator).degraded
                rows.append(extract_image_features(self.backbone, degraded).float().mean(0))
                target.append(position)
        return torch.stack(rows), torch.tensor(target)


@lru_cache(maxsize=2)  # a batch may reach from one epoch into the next
def _order(seed: int, epoch: int, count: int) -> Tensor:
    return torch.randperm(count, generator=generator_for(seed, Stream.ESTIMATOR_ORDER, epoch))


Made = tuple[Tensor, Tensor, Tensor, Tensor]
"""Of one sample what was seen (16, F), what it is called (L,), what its labels cost (L, L), whether it is a chain."""


class Pool:
    """What samples are to the estimator, in a file that processes share; each is made by whoever needs it first."""

    def __init__(self, path: Path, size: int, features: int, labels: int) -> None:
        crops = views.CROPS**2
        kind = np.dtype(
            [
                ("rows", np.float16, (crops, features)),
                ("called", np.float32, (labels,)),
                ("costs", np.float32, (labels, labels)),
                ("chain", np.bool_),
                ("made", np.bool_),
            ]
        )
        if not path.is_file() or path.stat().st_size != size * kind.itemsize:
            with atomic_write(path) as aside:  # two processes may begin at once
                os.truncate(aside, size * kind.itemsize)  # takes space only where it is written to
        self._kept = np.memmap(path, kind, "r+", shape=(size,))

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, place: int) -> Made | None:
        """What was put there; None if nothing was yet."""
        kept = self._kept[place]
        if not kept["made"]:
            return None
        called, costs, chain = (torch.from_numpy(np.array(kept[name])) for name in ("called", "costs", "chain"))
        return torch.from_numpy(kept["rows"].astype(np.float32)), called, costs, chain

    def put(self, place: int, rows: Tensor, called: Tensor, costs: Tensor, chain: Tensor) -> Made:
        """Keep a sample, in 16 bits, and return it as `get` will."""
        kept = self._kept[place]
        for name, tensor in (("rows", rows), ("called", called), ("costs", costs), ("chain", chain)):
            kept[name] = tensor.numpy()
        kept["made"] = True
        found = self.get(place)
        assert found is not None
        return found
