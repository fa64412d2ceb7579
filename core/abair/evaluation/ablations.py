"""Ablations: what each part of the method contributes, from variants trained for the same time.

As in section 4.4 of the paper (Serrano-Lozano et al.): phase I without Degradation CutMix and
without the segmentation head, adapters of other ranks, one network trained jointly instead of
adapters, an estimator with fewer features. All variants start from the same seed and are evaluated
on held-out photos. Runs are short, so the differences show a direction, not a size. An interrupted
run continues from its checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from abair.continual.collect import ReplayCounts, build_replay
from abair.continual.refit import refit
from abair.continual.replay import Features, HeldOut
from abair.data.degrade import Degrader, Recipe
from abair.data.photos import CleanPhotos
from abair.data.seeds import Stream, generator_for
from abair.evaluation.training_cost import COST_COLUMNS, TrainingCost, training_cost
from abair.model import compression_features
from abair.model.backbone import SIZES, Backbone, freeze, load_backbone
from abair.model.estimator import Estimator
from abair.text import markdown_table
from abair.training.adapter import AdapterTask
from abair.training.adapter_data import held_out_pairs
from abair.training.backbone import TYPE_WEIGHT, VALIDATION_SIDE, BackboneTask, psnr
from abair.training.loop import train
from abair.training.settings import ADAPTING, PRETRAINING, AdapterSettings, AnySettings, BackboneSettings, Settings
from abair.training.task import State, Task

if TYPE_CHECKING:
    from abair.data.synthesizers import Synthesizer

ALL_FEATURES: Final = "all features"
NO_FILE_FEATURES: Final = "without the files' marks"
CROPS_ALONE: Final = "crops alone"
GLOBAL_VIEW_ALONE: Final = "global view alone"
FEATURE_SELECTIONS: Final = (ALL_FEATURES, NO_FILE_FEATURES, CROPS_ALONE, GLOBAL_VIEW_ALONE)
NO_STEP_LIMIT: Final = 1_000_000
"""More steps than any run makes: time ends it."""


@dataclass(frozen=True)
class AblationConfig:
    """The size of the experiment.

    `mixture_count`: held-out samples of each kind of mixture. `replay`: the samples that an
    estimator is fitted to and evaluated on.
    """

    ranks: tuple[int, ...] = (2, 4, 8, 16)
    mixture_count: int = 24
    replay: ReplayCounts = field(default_factory=lambda: ReplayCounts(80, 8, 8))
    pretraining: BackboneSettings = PRETRAINING
    adapting: AdapterSettings = ADAPTING


class Variant(TrainingCost):
    """A variant of a part of the method: its training cost, and `figures`, its held-out metrics."""

    part: str
    name: str
    figures: dict[str, float]


class Ablations(BaseModel):
    """All variants, in the order of the tables."""

    model_config = ConfigDict(frozen=True)

    size: str
    minutes: float
    labels: tuple[str, ...]
    photos: str
    variants: tuple[Variant, ...]

    def markdown(self) -> str:
        """Return a page with one table for each part of the method."""
        lines = ["# Ablations", "", f"Backbone `{self.size}`, {self.minutes:g} minutes per run, on held-out photos."]
        for part in dict.fromkeys(variant.part for variant in self.variants):
            variants = [variant for variant in self.variants if variant.part == part]
            metrics = list(dict.fromkeys(name for variant in variants for name in variant.figures))
            rows = [
                [one.name, *one.cells, *(f"{one.figures[m]:.2f}" if m in one.figures else "-" for m in metrics)]
                for one in variants
            ]
            lines += ["", f"## {part}", "", markdown_table(["variant", *COST_COLUMNS, *metrics], rows)]
        return "\n".join(lines) + "\n"


def ablate(
    synthesizers: Mapping[str, Synthesizer],
    photos: CleanPhotos,
    held_out: CleanPhotos,
    backbone: Path,
    out: Path,
    *,
    minutes: float,
    adapters: Sequence[str],
    config: AblationConfig | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> Ablations:
    """Train every variant for `minutes` and evaluate it.

    The variants of phase II start from the file `backbone` and train adapters for the labels in
    `adapters`. Checkpoints go to `out`.

    Raises:
        TrainingError: a run cannot be trained, or a checkpoint in `out` belongs to another run.
    """
    degrader = Degrader(synthesizers)
    network = load_backbone(backbone)
    experiment = _Experiment(degrader, photos, held_out, out, minutes, config or AblationConfig(), log)
    variants = [
        *experiment.phase_one(network.size.name),
        *experiment.phase_two(backbone, adapters),
        *experiment.phase_three(network),
    ]
    return Ablations(
        size=network.size.name,
        minutes=minutes,
        labels=degrader.labels,
        photos=photos.digest(),
        variants=tuple(variants),
    )


@dataclass(frozen=True)
class _Experiment:
    """The data and settings that all variants share."""

    degrader: Degrader
    photos: CleanPhotos
    held_out: CleanPhotos
    out: Path
    minutes: float
    config: AblationConfig
    log: Callable[[str], None]

    def phase_one(self, size: str) -> list[Variant]:
        """Train the backbone from scratch, with all parts and without one of them."""
        whole = self.degrader.recipe
        variants = []
        for name, recipe, type_weight in (
            ("whole", whole, TYPE_WEIGHT),
            ("without CutMix", replace(whole, cutmix=0.0), TYPE_WEIGHT),
            ("without segmentation head", whole, 0.0),
        ):
            settings = self._settings(self.config.pretraining)
            torch.manual_seed(settings.seed)
            degrader = Degrader(self.degrader.synthesizers, recipe)
            network = Backbone(SIZES[size])
            task = BackboneTask(network, degrader, self.photos, self.held_out, settings, type_weight)
            state = self._train(task, settings, f"phase-one-{name.replace(' ', '-')}")
            cost = training_cost(task, state)
            freeze(network)
            metrics = {"single": task.validate()["psnr"]} | self._mixture_psnr(network)
            metrics["top-1 in %"] = 100 * self._top1(network, [ALL_FEATURES])[ALL_FEATURES]
            variants.append(Variant(part="Phase I", name=name, figures=metrics, **cost.model_dump()))
        return variants

    def phase_two(self, backbone: Path, labels: Sequence[str]) -> list[Variant]:
        """Train adapters of several ranks, and the whole network for the time of all adapters."""
        variants = [_untrained("Phase II", "the frozen backbone", self._adapter_psnr(load_backbone(backbone), labels))]
        for rank in self.config.ranks:
            metrics, costs = {}, []
            for label in labels:
                settings = self._settings(self.config.adapting).model_copy(update={"rank": rank})
                degrader = Degrader({label: self.degrader.synthesizers[label]})
                task = AdapterTask(load_backbone(backbone), label, degrader, self.photos, self.held_out, settings)
                state = self._train(task, settings, f"phase-two-rank-{rank}-{label}")
                metrics[label] = task.validate()["psnr"]
                costs.append(training_cost(task, state))
            metrics["mean"] = sum(metrics.values()) / len(metrics)
            total = _sum(costs).model_dump()
            variants.append(Variant(part="Phase II", name=f"adapters of rank {rank}", figures=metrics, **total))
        return [*variants, self._joint_network(backbone, labels)]

    def phase_three(self, network: Backbone) -> list[Variant]:
        """Fit estimators to all features, to the crops' alone, to the global view's alone."""
        self.log("phase three")
        freeze(network)
        return [
            _untrained("Phase III", name, {"top-1 in %": 100 * share})
            for name, share in self._top1(network, FEATURE_SELECTIONS).items()
        ]

    def _joint_network(self, backbone: Path, labels: Sequence[str]) -> Variant:
        settings = self._settings(self.config.pretraining, times=len(labels))
        degrader = Degrader({label: self.degrader.synthesizers[label] for label in labels})
        network = load_backbone(backbone).requires_grad_(True)
        task = BackboneTask(network, degrader, self.photos, self.held_out, settings)
        state = self._train(task, settings, "phase-two-joint")
        cost = training_cost(task, state)
        metrics = self._adapter_psnr(network, labels)
        return Variant(part="Phase II", name="the whole network, jointly", figures=metrics, **cost.model_dump())

    @torch.inference_mode()
    def _adapter_psnr(self, network: Backbone, labels: Sequence[str]) -> dict[str, float]:
        """Return the PSNR in dB of a network without adapters on the adapters' samples."""
        metrics = {}
        for label in labels:
            pairs = held_out_pairs(self.degrader, self.held_out, label)
            values = [psnr(network(degraded[None])[0].clamp(0, 1), clean) for degraded, clean in pairs]
            metrics[label] = sum(values) / len(values)
        return metrics | {"mean": sum(metrics.values()) / len(metrics)}

    @torch.inference_mode()
    def _mixture_psnr(self, network: Backbone) -> dict[str, float]:
        """Return the PSNR in dB on held-out chains of two and on photos damaged by regions."""
        kinds = {
            "chains": Recipe(cutmix=0.0, mixture=1.0, clean=0.0),
            "regions": Recipe(cutmix=1.0, mixture=0.0, clean=0.0),
        }
        metrics = {}
        for name, recipe in kinds.items():
            degrader, values = Degrader(self.degrader.synthesizers, recipe), []
            for item in range(self.config.mixture_count):
                generator = generator_for(0, Stream.ABLATION, item)
                sample = degrader.sample(self.held_out.crop(generator, VALIDATION_SIDE), generator)
                values.append(psnr(network(sample.degraded[None])[0].clamp(0, 1), sample.clean))
            metrics[name] = sum(values) / len(values)
        return metrics

    def _top1(self, network: Backbone, selections: Sequence[str]) -> dict[str, float]:
        """Return the accuracy in [0, 1] on single degradations, by selection of features."""
        replay = build_replay(network, self.degrader, [self.photos], self.held_out, self.config.replay, 0)
        known, context = replay.features, network.size.context
        columns = torch.arange(known.values.shape[1])
        compression = columns.numel() - context - compression_features.STATISTICS
        selected = {
            ALL_FEATURES: columns,
            NO_FILE_FEATURES: torch.cat([columns[:compression], columns[-context:]]),
            CROPS_ALONE: columns[:-context],
            GLOBAL_VIEW_ALONE: columns[-context:],
        }
        samples = [sample for sample in replay.held_out if len(sample.labels) == 1]
        return {name: _accuracy(known, samples, selected[name]) for name in selections}

    def _settings(self, defaults: AnySettings, times: int = 1) -> AnySettings:
        limits = {
            "steps": NO_STEP_LIMIT,
            "minutes": self.minutes * times,
            "validate_every": NO_STEP_LIMIT,
            "checkpoint_minutes": 1.0,
        }
        return defaults.model_copy(update=limits)

    def _train(self, task: Task, settings: Settings, name: str) -> State:
        self.log(name.replace("-", " "))
        return train(task, settings, self.out / name, quiet=True)


def _untrained(part: str, name: str, metrics: dict[str, float]) -> Variant:
    return Variant(part=part, name=name, figures=metrics, **_sum([]).model_dump())


def _sum(costs: Sequence[TrainingCost]) -> TrainingCost:
    return TrainingCost(
        trained=sum(one.trained for one in costs),
        steps=sum(one.steps for one in costs),
        minutes=sum(one.minutes for one in costs),
        multiply_adds=sum(one.multiply_adds for one in costs),
    )


def _accuracy(known: Features, samples: Sequence[HeldOut], columns: Tensor) -> float:
    """Fit an estimator to the chosen columns of the features; return its accuracy on `samples`."""
    features = replace(known, values=known.values[:, columns])
    torch.manual_seed(0)
    untrained = Estimator(known.labels, features.values.shape[1])
    estimator = refit(untrained, known.backbone, known.labels, [], [features])
    seen = torch.stack([sample.features for sample in samples])[:, columns]
    with torch.inference_mode():
        predicted = estimator(seen).argmax(1).tolist()
    correct: list[bool] = [known.labels[i] == sample.labels[0] for i, sample in zip(predicted, samples, strict=True)]
    return sum(correct) / len(correct)
