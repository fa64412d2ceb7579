"""Phase III: with backbone and adapters frozen, train the estimator.

It learns from samples with one degradation, several, or none. The loss is the cross-entropy with
each sample's target blend, and the error in decibels of what the estimator's blend restores (see
`abair.model.blend_cost`). By cross-entropy alone, a mistake that ruins a photo would count no more
than one that nobody sees. The target of a mixture, one degradation over another, is the blend of
the two labels that restores it best, which is seldom half of each.

Samples and their features are kept in a file beside the checkpoints and used many times, each time
with other crops.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from abair.data.degrade import Degrader, Recipe, Sample, SampleKind, to_8_bit
from abair.data.file_artifacts import apply_file_artifacts
from abair.data.labelled_photos import LabelledPhotos
from abair.data.photos import CleanPhotos
from abair.data.seeds import Stream, generator_for
from abair.model import views
from abair.model.backbone import Backbone, fingerprint
from abair.model.blend_cost import BlendCosts, log_blend_error
from abair.model.estimator import KNOWN, Estimator, extract_image_features, feature_count
from abair.physics import chance, uniform
from abair.training.sample_pool import PooledSample, SamplePool
from abair.training.settings import EstimatorSettings
from abair.training.task import Batch
from abair.training.workers import compute_ahead

RECIPE: Final = Recipe(cutmix=0.05, mixture=0.25, clean=0.3, file_artifacts=0.4, gamma=0.25, hard_negatives=0.4)
"""More clean samples and mixtures than in phase I, and fewer regions. A label that is rare in
training is rarely recognised; a clean photo loses more by an adapter than a mildly degraded one by
none; and mixtures are where blends matter. Two in five have file artifacts, as users' photos have,
and a quarter another gamma: an estimator that never saw such photos takes them for degraded. So it
does with walls, pages and night skies, and two in five of the clean samples show those."""
POOL: Final = 9_000
"""Samples in the pool; a file of 260 MB for `nano-2`."""
RESTORATION_WEIGHT: Final = 0.3
"""Weight of the restoration's error, in tens of decibels, against the cross-entropy."""
BLEND_TEMPERATURE: Final = 0.3
"""Temperature of the softmax that makes blends in training. Many samples cannot be told apart, so
calibrated probabilities are low, and blends by them apply the right adapter by halves.
`abair.training.temperature` chooses the final temperature afterwards; 0.1 to 0.3 are usual."""
CROPS_PER_STEP: Final = 10
"""Crops of a sample, of sixteen, whose features one step averages; other ones each time."""
STANDARDIZING: Final = 512
"""Samples of the pool whose features the inputs of the head are standardised by."""
VALIDATION_SAMPLES: Final = 40
"""Held-out samples a label."""
SMALL_PARTS: Final = 0.15
"""Share of the samples that are small parts: thumbnails, and what gates compare."""
SMALL_SIDES: Final = (80, 224)
"""Range of a small part's sides in pixels."""
MIXTURES: Final = 5
"""For each held-out sample a label, so many in which most have two kinds of damage."""
TWO_KINDS: Final = 0.6
"""Share of them with two degradations; those of the others that were saved may have two, too."""
VALIDATION_SIDE: Final = 512
"""Longest side in pixels of a held-out photo; the estimator sees it whole."""


class EstimatorTask:
    """Phase III for the training loop; `folder` keeps the pool of `samples`.

    It begins from the estimator `start`, if there is one. Without `costs` it learns the labels'
    shares alone.
    """

    name = "estimator"

    def __init__(
        self,
        backbone: Backbone,
        degrader: Degrader,
        photos: CleanPhotos,
        held_out: CleanPhotos,
        settings: EstimatorSettings,
        folder: Path,
        samples: int = POOL,
        costs: BlendCosts | None = None,
        start: Estimator | None = None,
        validation_samples: int = VALIDATION_SAMPLES,
        labelled: tuple[LabelledPhotos, LabelledPhotos] | None = None,
    ) -> None:
        torch.manual_seed(settings.seed)
        self._costs = costs
        self.backbone = backbone
        self.module = Estimator(degrader.labels, feature_count(backbone.size))
        self._start_digest = "" if start is None else fingerprint(start)
        if start is not None:
            state = {name: tensor for name, tensor in start.state_dict().items() if not name.startswith(KNOWN)}
            self.module.load_state_dict(state)
        self.degrader, self.photos, self.held_out, self.settings = degrader, photos, held_out, settings
        self._validation_count = validation_samples
        self._labelled = labelled[0] if labelled else None
        self._labelled_held_out = labelled[1] if labelled else None
        key = json.dumps([*self._samples_depend.values(), settings.seed, settings.crop]).encode()
        path = folder / f"pool-{hashlib.sha256(key).hexdigest()[:16]}.dat"
        self._pool = SamplePool(path, samples, self.module.features, len(degrader.labels))

    @property
    def depends(self) -> dict[str, str]:
        """What the samples depend on, and the digest of the starting estimator."""
        return self._samples_depend | {"start": self._start_digest}

    @cached_property
    def _samples_depend(self) -> dict[str, str]:
        """Labels, recipe, and digests of backbone, photos, synthesisers and adapters."""
        depends = {
            "backbone": fingerprint(self.backbone),
            "labels": ", ".join(self.degrader.labels),
            "photos": self.photos.digest(),
            "recipe": f"{self.degrader.recipe}, {SMALL_PARTS} of {SMALL_SIDES[0]} to {SMALL_SIDES[1]} pixels",
            "damage": self.degrader.digest,
        }
        if self._labelled is not None:
            depends["labelled"] = f"{self.settings.labelled_probability} of {self._labelled.digest()}"
        return depends | ({"adapters": self._costs.digest} if self._costs else {})

    @torch.no_grad()
    def standardize_inputs(self) -> None:
        """Standardise what the head is given, by the first samples of the pool."""
        places = range(min(STANDARDIZING, len(self._pool)))
        rows = compute_ahead(lambda place: self._pool_sample(place).features.mean(0), places, self.settings.workers)
        self.module.standardize(torch.stack(list(rows)))

    def batch(self, index: int) -> Batch:
        """Make (features (B, F), masks (B, H), targets (B, L), costs (B, L, L), mixtures (B,)).

        Masks are for the hidden units (dropout; Srivastava et al., 2014), mixtures true or false.
        """
        rows, masks, rest = [], [], []
        for item in range(index * self.settings.batch, (index + 1) * self.settings.batch):
            epoch, turn = divmod(item, len(self._pool))
            place = int(_order(self.settings.seed, epoch, len(self._pool))[turn])
            features, *others = self._pool_sample(place)
            generator = generator_for(self.settings.seed, Stream.ESTIMATOR_CROPS, epoch, place)
            rows.append(features[torch.randperm(len(features), generator=generator)[:CROPS_PER_STEP]].mean(0))
            masks.append(self._mask(item))
            rest.append(others)
        return torch.stack(rows), torch.stack(masks), *(torch.stack(parts) for parts in zip(*rest, strict=True))

    def _mask(self, item: int) -> Tensor:
        generator, kept = generator_for(self.settings.seed, Stream.ESTIMATOR_DROPOUT, item), 1 - self.settings.dropout
        return (torch.rand(self.module.hidden, generator=generator) < kept) / kept

    def _pool_sample(self, place: int) -> PooledSample:
        return self._pool.get(place) or self._pool.put(place, self._make_sample(place))

    def _make_sample(self, place: int) -> PooledSample:
        if self._labelled is not None:
            generator = generator_for(self.settings.seed, Stream.LABELLED_SAMPLE, place)
            if chance(generator, self.settings.labelled_probability):
                return self._make_labelled(self._labelled, generator)
        generator = generator_for(self.settings.seed, Stream.ESTIMATOR_SAMPLE, place)
        sample = self.degrader.sample(self.photos.scene(generator, self.settings.crop), generator)
        part = generator_for(self.settings.seed, Stream.SMALL_PART, place)
        if chance(part, SMALL_PARTS):
            sample = _cut_small(sample, part)
        shares = sample.types.mean((1, 2))
        mixture = torch.tensor(sample.kind is SampleKind.MIXTURE)
        target, costs = self._costs(sample) if self._costs else (shares, torch.zeros(len(shares), len(shares)))
        return PooledSample(extract_image_features(self.backbone, sample.degraded), target, costs, mixture)

    def _make_labelled(self, labelled: LabelledPhotos, generator: torch.Generator) -> PooledSample:
        """Make a sample of a photo without a reference: what it should be called, and no costs."""
        label, photo = labelled.draw(generator, self.settings.crop)
        target = torch.tensor([float(name == label) for name in self.module.labels])
        features = extract_image_features(self.backbone, photo)
        return PooledSample(features, target, torch.zeros(len(target), len(target)), torch.tensor(False))

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Return the cross-entropy plus the weighted error of the restoration, and both terms."""
        features, masks, target, costs, mixtures = batch
        logits = self.module(features, masks).float()
        label_loss = F.cross_entropy(
            torch.where(mixtures[:, None], logits / BLEND_TEMPERATURE, logits),
            target,
            label_smoothing=self.settings.label_smoothing,
        )
        if self._costs is None:
            return label_loss, {}
        restoration = log_blend_error((logits / BLEND_TEMPERATURE).softmax(1), costs).mean()
        metrics = {"named": float(label_loss.detach()), "restored": float(restoration.detach())}
        return label_loss + RESTORATION_WEIGHT * restoration, metrics

    @torch.no_grad()
    def average_weights(self, other: Estimator) -> None:
        """Average the trained weights with another estimator's, by `settings.average_weight`."""
        for own, others in zip(self.module.parameters(), other.parameters(), strict=True):
            own.lerp_(others.to(own), 1 - self.settings.average_weight)

    @torch.inference_mode()
    def validate(self) -> dict[str, float]:
        """Return accuracy, mean weight of the right label, and each label's recall.

        The samples are held out; each sample carries one degradation or none. `clean_filed` is the
        share of clean photos that are recognised as such when they have file artifacts, `labelled`
        the share of held-out labelled photos that are called by their label.
        """
        features, target = self._held_out
        device = next(self.module.parameters()).device
        weights = self.module(features.to(device)).softmax(1).cpu()
        right = weights.argmax(1) == target
        metrics = {"accuracy": float(right.float().mean()), "weight": float(weights[range(len(target)), target].mean())}
        for position, label in enumerate(self.module.labels):
            metrics[label] = float(right[target == position].float().mean())
        labels = self.module(self._held_out_artifacts.to(device)).argmax(1).cpu()
        metrics["clean_filed"] = float((labels == len(self.module.labels) - 1).float().mean())
        if self._held_out_labelled is not None:
            features, target = self._held_out_labelled
            metrics["labelled"] = float((self.module(features.to(device)).argmax(1).cpu() == target).float().mean())
        return metrics

    def held_out_features(self) -> tuple[Tensor, Tensor]:
        """Return features (N, F) of held-out samples and photos, and 1 for true labels (N, L).

        They are one degradation or none each, labelled photos, and mixtures.
        """
        parts = [self._held_out, *([self._held_out_labelled] if self._held_out_labelled else [])]
        mixed, truth = self._held_out_mixtures
        features = [features for features, _ in parts]
        truths = [F.one_hot(target, len(self.module.labels)).float() for _, target in parts]
        return torch.cat([*features, mixed]), torch.cat([*truths, truth])

    @cached_property
    def _held_out_artifacts(self) -> Tensor:
        """Features (N, F) of clean held-out photos with file artifacts."""
        rows = []
        for item in range(self._validation_count):
            generator = generator_for(0, Stream.FILE_ARTIFACT_VALIDATION, item)
            clean = self.held_out.scene(generator, VALIDATION_SIDE, smallest=1.0)
            rows.append(self._mean_features(to_8_bit(apply_file_artifacts(clean, generator))))
        return torch.stack(rows)

    @cached_property
    def _held_out(self) -> tuple[Tensor, Tensor]:
        """Features (N, F) of held-out samples, and their labels' positions (N,)."""
        rows, target = [], []
        for position, label in enumerate(self.module.labels):
            for item in range(self._validation_count):
                generator = generator_for(0, Stream.ESTIMATOR_VALIDATION, position, item)
                clean = self.held_out.scene(generator, VALIDATION_SIDE, smallest=1.0)
                rows.append(self._mean_features(self.degrader.single(clean, label, generator).degraded))
                target.append(position)
        return torch.stack(rows), torch.tensor(target)

    @cached_property
    def _held_out_mixtures(self) -> tuple[Tensor, Tensor]:
        """Features (N, F) of held-out samples, most with two degradations, and their labels (N, L).

        An undamaged sample that was saved as what a degradation stands for is that alone.
        """
        recipe = replace(self.degrader.recipe, cutmix=0.0, clean=0.0, mixture=TWO_KINDS)
        degrader, labels = Degrader(self.degrader.synthesizers, recipe), self.module.labels
        rows, truth = [], []
        for item in range(MIXTURES * self._validation_count):
            generator = generator_for(0, Stream.MIXTURE_VALIDATION, item)
            clean = self.held_out.scene(generator, VALIDATION_SIDE, smallest=1.0)
            sample = degrader.sample(clean, generator)
            rows.append(self._mean_features(sample.degraded))
            truth.append([float(label in sample.labels) for label in labels])
        return torch.stack(rows), torch.tensor(truth)

    @cached_property
    def _held_out_labelled(self) -> tuple[Tensor, Tensor] | None:
        """Features (N, F) of held-out labelled photos, and their labels' positions (N,)."""
        if self._labelled_held_out is None:
            return None
        rows, target = [], []
        for label, photo in self._labelled_held_out.items():
            rows.append(self._mean_features(views.to_tensor(photo)[0]))
            target.append(self.module.labels.index(label))
        return torch.stack(rows), torch.tensor(target)

    def _mean_features(self, image: Tensor) -> Tensor:
        return extract_image_features(self.backbone, image).float().mean(0)


def _cut_small(sample: Sample, generator: torch.Generator) -> Sample:
    """Cut a small part out of a sample."""
    spans = []
    for length in sample.clean.shape[1:]:
        side = min(length, round(uniform(generator, *SMALL_SIDES)))
        start = int(torch.randint(length - side + 1, (), generator=generator))
        spans.append(slice(start, start + side))
    cut = {name: getattr(sample, name)[:, spans[0], spans[1]] for name in ("degraded", "clean", "types")}
    return replace(sample, **cut)


@lru_cache(maxsize=2)  # a batch may reach from one epoch into the next
def _order(seed: int, epoch: int, count: int) -> Tensor:
    return torch.randperm(count, generator=generator_for(seed, Stream.ESTIMATOR_ORDER, epoch))
