"""Phase II: with the backbone frozen, train one degradation's adapter."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import cycle
from pathlib import Path
from typing import Final

import torch
from torch import Tensor
from torch.func import functional_call

from abair.data.degrade import Degrader
from abair.data.file_artifacts import apply_file_artifacts
from abair.data.photos import CleanPhotos
from abair.data.seeds import Stream, generator_for
from abair.errors import TrainingError
from abair.model.backbone import Backbone, freeze
from abair.model.lora import Adapter
from abair.physics import chance, uniform
from abair.training.adapter_data import SHARES, held_out_pairs, make_training_sample, view_of
from abair.training.backbone import decibel_loss, psnr
from abair.training.real_pairs import RealDamage, Sample
from abair.training.settings import AdapterSettings
from abair.training.task import Batch
from abair.training.trainable_lora import TrainableLora, blended_weights

REAL_VALIDATION_CROPS: Final = 24
"""Held-out crops of real damage."""
TOLERANCE: Final = 1e-6
"""Rounding error of a count that is added up from fractions."""

Changes = Mapping[str, Tensor]
"""What an adapter adds to each layer's weight, by the layer's name."""


class AdapterTask:
    """Phase II for the training loop.

    Args:
        backbone: the frozen network; it gets the adapter's layers.
        degradation: what the adapter is for.
        degrader: has the synthesisers of the degradation and of those in `settings.mix_with`.
        photos: clean photos to train on.
        held_out: clean photos for validation.
        settings: those of phase II.
        real: sets of real damage to train on, and their held-out parts.
        start: the adapter to begin from; it may be another degradation's.
        partners: adapters of degradations in `settings.mix_with`. A sample that carries such a
            degradation, too, is restored by a blend with its adapter, which stays as it is; without
            a partner, by the adapter in training alone.
        average_with: the adapter that `average_weights` averages the trained weights with.

    Raises:
        TrainingError: `start` or `average_with` is of another rank, or leaves layers out;
            `mix_with` names a degradation twice, its own, or one that `degrader` does not know.
        MissingExtraError: PEFT is not installed.
    """

    def __init__(
        self,
        backbone: Backbone,
        degradation: str,
        degrader: Degrader,
        photos: CleanPhotos,
        held_out: CleanPhotos,
        settings: AdapterSettings,
        real: tuple[Sequence[RealDamage], Sequence[RealDamage]] = ((), ()),
        start: Adapter | None = None,
        partners: Sequence[Adapter] = (),
        average_with: Adapter | None = None,
    ) -> None:
        self.name = f"adapter-{degradation}"
        self.degradation, self.degrader, self.settings = degradation, degrader, settings
        self.photos, self.held_out, self.real = photos, held_out, real
        _check_mix(degradation, settings.mix_with, degrader)
        self.size = backbone.size
        self._bare = copy.deepcopy(backbone)
        freeze(self._bare)
        torch.manual_seed(settings.seed)  # PEFT initialises A at random
        self._lora = TrainableLora(backbone, settings.rank)
        self.module, self.fingerprint = self._lora.module, self._lora.fingerprint
        self._partners = {one.name: {layer: one.weight_delta(layer) for layer in one.layers} for one in partners}
        self._partner_digests = ", ".join(f"{one.name} {one.digest[:16]}" for one in partners)
        self._start_digest = "" if start is None else start.digest
        if start is not None:
            self._lora.check_fit(start, "to start from")
            self._lora.begin_from(start, settings.start_scale)
        self._average_with = average_with
        if average_with is not None:
            self._lora.check_fit(average_with, "to average with")

    @cached_property
    def depends(self) -> dict[str, str]:
        """Digests of backbone, photos, synthesisers, real damage, starting adapter and partners."""
        return {
            "backbone": self.fingerprint,
            "photos": self.photos.digest(),
            "damage": self.degrader.digest,
            "pairs": ", ".join(one.digest() for one in self.real[0]),
            "start": self._start_digest,
            "blended_with": self._partner_digests,
        }

    def batch(self, index: int) -> Batch:
        """Make (degraded, clean, global views, blend).

        The first samples are of real damage, if there is any, and the last ones are mixed.
        Mixed samples carry a second degradation, the same one in all of a batch. `blend` (3,) holds
        their number, that degradation's place in `settings.mix_with`, and the weight of the adapter
        in training in the blend.
        """
        settings = self.settings
        mixed, place, share = self._mixed_count(index), 0, 1.0
        if mixed:
            generator = generator_for(settings.seed, Stream.ADAPTER_MIXTURE, index)
            place = int(torch.randint(len(settings.mix_with), (), generator=generator))
            share = uniform(generator, *SHARES)
        samples = []
        for item in range(settings.batch):
            generator = generator_for(settings.seed, Stream.ADAPTER_SAMPLE, index, item)
            if item < self._real_count:
                sample = self._crop_real(self.real[0], generator)
            else:
                second = settings.mix_with[place] if item >= settings.batch - mixed else None
                sample = make_training_sample(self.degrader, self.degradation, self.photos, settings, generator, second)
            if settings.file_artifacts and chance(generator, settings.file_artifacts):
                sample = (apply_file_artifacts(sample[0], generator), *sample[1:])
            samples.append(sample)
        degraded, clean, views = (torch.stack(parts) for parts in zip(*samples, strict=True))
        return degraded, clean, views, torch.tensor([mixed, place, share])

    @property
    def _real_count(self) -> int:
        """How many samples of a batch carry real damage."""
        return math.ceil(self.settings.real_probability * self.settings.batch) if self.real[0] else 0

    def _mixed_count(self, index: int) -> int:
        """Return how many samples of this batch are mixed; on average the share is as set."""
        if not self.settings.mix_with:
            return 0
        per_batch = self.settings.mix_probability * (self.settings.batch - self._real_count)
        return math.floor((index + 1) * per_batch + TOLERANCE) - math.floor(index * per_batch + TOLERANCE)

    def _crop_real(self, sets: Sequence[RealDamage], generator: torch.Generator) -> Sample:
        """Cut a sample of real damage; each pair and each layer of all sets is equally likely."""
        index = int(torch.randint(sum(map(len, sets)), (), generator=generator))
        for one in sets:
            if index < len(one):
                break
            index -= len(one)
        return one.crop(generator, self.settings.crop, whole=bool(self.settings.scene_size))

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Return the error in decibels, as in phase I."""
        degraded, clean, views, blend = batch
        mixed, place, share = blend.tolist()
        single = len(degraded) - int(mixed)
        changes, restored = self._lora.weight_changes(), []
        if single:
            restored.append(self._restore(changes, degraded[:single], views[:single]))
        if mixed:
            partner = self._partners.get(self.settings.mix_with[int(place)])
            restored.append(self._restore(changes, degraded[single:], views[single:], partner, share))
        return decibel_loss(torch.cat(restored).float(), clean, self.settings.psnr_ceiling), {}

    def _restore(
        self, changes: Changes, degraded: Tensor, views: Tensor, partner: Changes | None = None, share: float = 1.0
    ) -> Tensor:
        """Restore images (B, 3, H, W) by the adapter, or by `share` of it and a partner."""
        network = self._bare.to(degraded.device)
        images = degraded.contiguous(memory_format=torch.channels_last)
        restored: Tensor = functional_call(network, blended_weights(network, changes, partner, share), (images, views))
        return restored

    @torch.inference_mode()
    def validate(self) -> dict[str, float]:
        """Return mean PSNRs in dB on held-out samples: of adapter, bare backbone, and input.

        Where mixed samples, scenes or real damage are trained on, theirs, too, under a prefix. Of
        mixed samples whose second degradation has a partner, `blend_halves` is what equal parts of
        both adapters restore, and `blend_alone` what the better of the two restores alone.
        """
        changes, metrics = self._lora.weight_changes(), dict[str, float]()
        for prefix, samples in self._validation_samples.items():
            metrics[f"{prefix}psnr"] = self._mean_psnr(samples, changes)
            metrics |= {f"{prefix}{name}": value for name, value in self._baselines[prefix].items()}
        mixed = zip(self._validation_samples.get("mixed_", ()), cycle(self.settings.mix_with), strict=False)
        blended = [(sample, self._partners[second]) for sample, second in mixed if second in self._partners]
        if blended:
            own, halves, partners = (
                _mean([self._psnr(sample, changes, partner, share) for sample, partner in blended])
                for share in (1.0, 0.5, 0.0)
            )
            metrics |= {"blend_halves": halves, "blend_alone": max(own, partners)}
        return metrics

    @cached_property
    def _validation_samples(self) -> dict[str, list[Sample]]:
        """Held-out samples by the prefix of their metrics."""
        mix_with, scene_size = self.settings.mix_with, self.settings.scene_size
        sets = {"": held_out_pairs(self.degrader, self.held_out, self.degradation)}
        if mix_with:
            sets["mixed_"] = held_out_pairs(self.degrader, self.held_out, self.degradation, mix_with)
        if scene_size:
            sets["scene_"] = held_out_pairs(self.degrader, self.held_out, self.degradation, scene_size=scene_size)
        samples = {
            prefix: [(degraded, clean, view_of(degraded)) for degraded, clean in pairs]
            for prefix, pairs in sets.items()
        }
        if self.real[1]:
            generator = generator_for(0, Stream.ADAPTER_VALIDATION_REAL)
            samples["real_"] = [self._crop_real(self.real[1], generator) for _ in range(REAL_VALIDATION_CROPS)]
        return samples

    @cached_property
    def _baselines(self) -> dict[str, dict[str, float]]:
        """Mean PSNRs of bare backbone and input, by the prefix of their metrics."""
        return {
            prefix: {
                "bare": self._mean_psnr(samples, {}),
                "input": _mean([psnr(degraded, clean) for degraded, clean, _ in samples]),
            }
            for prefix, samples in self._validation_samples.items()
        }

    def _mean_psnr(self, samples: Sequence[Sample], changes: Changes) -> float:
        return _mean([self._psnr(sample, changes) for sample in samples])

    def _psnr(self, sample: Sample, changes: Changes, partner: Changes | None = None, share: float = 1.0) -> float:
        degraded, clean, view = sample
        device = next(self.module.parameters()).device
        restored = self._restore(changes, degraded[None].to(device), view[None].to(device), partner, share)
        return psnr(restored[0].clamp(0, 1).cpu(), clean)

    def average_weights(self) -> None:
        """Average the trained weights with those of `average_with`, if there is one.

        Training on synthetic samples may lose on images that are unlike them. Between the weights
        before and after there are often better ones for both (weight-space ensembles; Wortsman et
        al., "Robust fine-tuning of zero-shot models", CVPR 2022).
        """
        if self._average_with is not None:
            self._lora.interpolate(self._average_with, 1 - self.settings.average_weight)

    def export(self, folder: Path) -> Path:
        """Write the adapter in PEFT's format, in 16 bits, and return `folder/<backbone>`.

        Raises:
            TrainingError: the backbone was changed by the training, which must never happen.
        """
        return self._lora.export(folder)


def _check_mix(degradation: str, mix_with: Sequence[str], degrader: Degrader) -> None:
    unknown = {degradation, *mix_with} - set(degrader.synthesizers)
    if unknown or degradation in mix_with or len(set(mix_with)) < len(mix_with):
        raise TrainingError(
            f"mix_with: found {', '.join(mix_with)}, expected other degradations than {degradation}, each once, of "
            f"{', '.join(degrader.synthesizers)}"
        )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
