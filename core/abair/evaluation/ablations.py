"""Ablations: what the parts of the method are worth, each variant trained for the same time, from the same seed.

As section 4.4 of the paper (Serrano-Lozano et al.) asks: phase I without Degradation CutMix and without the
segmentation head, adapters of other ranks, one network trained jointly instead of adapters, an estimator that sees
less. All is judged on held-out photos. Runs are short, so differences are between beginners; they say which way a part
pulls, not how far it takes one. A run that was cut off goes on from its checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from abair.continual.refit import refit
from abair.continual.replay import Features, HeldOut, replay_of
from abair.data.degrade import CleanPhotos, Degrader, Recipe, generator_for
from abair.evaluation.training_cost import Effort, spent
from abair.model import compression_features
from abair.model.backbone import SIZES, Backbone, freeze, load_backbone
from abair.model.estimator import Estimator
from abair.training.adapter import AdapterTask
from abair.training.adapter_data import held_out_pairs
from abair.training.backbone import TYPE_WEIGHT, VALIDATION_SIDE, BackboneTask, psnr
from abair.training.loop import train
from abair.training.settings import ADAPTING, PRETRAINING, AnySettings, Settings
from abair.training.task import State, Task

if TYPE_CHECKING:
    from abair.data.synthesizers import Synthesizer

RANKS: Final = (2, 4, 8, 16)
MIXED: Final = 24
"""Held-out samples of each kind of mixture."""
LOOKED_AT: Final = 8
"""Held-out samples a label and chain that an estimator is tried on."""
ALL: Final = "all features"
ENDLESS: Final = 1_000_000
"""Steps that are never done: time ends a run."""

Say = Callable[[str], None]


class Variant(Effort):
    """One variant of a part of the method: what its training cost, and figures on held-out samples."""

    part: str
    name: str
    figures: dict[str, float]


class Ablations(BaseModel):
    """All runs, in the order of the tables."""

    model_config = ConfigDict(frozen=True)

    size: str
    minutes: float
    labels: tuple[str, ...]
    photos: str
    variants: tuple[Variant, ...]

    def markdown(self) -> str:
        """A table a part."""
        lines = ["# Ablations", "", f"Backbone `{self.size}`, each run {self.minutes:g} minutes, on held-out photos."]
        for part in dict.fromkeys(variant.part for variant in self.variants):
            chosen = [variant for variant in self.variants if variant.part == part]
            columns = list(dict.fromkeys(name for variant in chosen for name in variant.figures))
            lines += [
                "",
                f"## {part}",
                "",
                f"| variant | trained | steps | 10^12 multiply-adds | {' | '.join(columns)} |",
            ]
            lines.append("|---|" + "---:|" * (len(columns) + 3))
            for one in chosen:
                cells = [f"{one.figures[name]:.2f}" if name in one.figures else "-" for name in columns]
                lines.append(f"| {one.name} | {one.cells} | {' | '.join(cells)} |")
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
    say: Say = lambda text: None,
) -> Ablations:
    """Train all variants for `minutes` each; phase II's begin from the file `backbone` and learn `adapters`.

    Raises:
        TrainingError: a run cannot be trained, or a checkpoint in `out` is another run's.
    """
    degrader = Degrader(synthesizers)
    network = load_backbone(backbone)
    bench = _Bench(degrader, photos, held_out, out, minutes, say)
    variants = [
        *bench.phase_one(network.size.name),
        *bench.phase_two(backbone, adapters),
        *bench.phase_three(network),
    ]
    return Ablations(
        size=network.size.name,
        minutes=minutes,
        labels=degrader.labels,
        photos=photos.digest(),
        variants=tuple(variants),
    )


class _Bench:
    """What all variants share."""

    def __init__(
        self, degrader: Degrader, photos: CleanPhotos, held_out: CleanPhotos, out: Path, minutes: float, say: Say
    ) -> None:
        self.degrader, self.photos, self.held_out = degrader, photos, held_out
        self.out, self.minutes, self.say = out, minutes, say

    def phase_one(self, size: str) -> list[Variant]:
        """The backbone from nothing, with all parts and without one of them."""
        whole = self.degrader.recipe
        made = []
        for name, recipe, type_weight in (
            ("whole", whole, TYPE_WEIGHT),
            ("without CutMix", replace(whole, cutmix=0.0), TYPE_WEIGHT),
            ("without segmentation head", whole, 0.0),
        ):
            settings = self._settings(PRETRAINING)
            torch.manual_seed(settings.seed)
            degrader = Degrader(self.degrader.synthesizers, recipe)
            network = Backbone(SIZES[size])
            task = BackboneTask(network, degrader, self.photos, self.held_out, settings, type_weight)
            state = self._train(task, settings, f"phase-one-{name.replace(' ', '-')}")
            effort = spent(task, state)
            freeze(network)
            figures = {"single": task.validate()["psnr"]} | self._mixtures(network)
            figures["top-1 in %"] = 100 * self._top1(network)[ALL]
            made.append(Variant(part="Phase I", name=name, figures=figures, **effort.model_dump()))
        return made

    def phase_two(self, backbone: Path, labels: Sequence[str]) -> list[Variant]:
        """Adapters of several ranks, and the whole network trained on for as long as all adapters of a rank were."""
        made = []
        for rank in RANKS:
            figures, efforts = {}, []
            for label in labels:
                settings = self._settings(ADAPTING).model_copy(update={"rank": rank})
                degrader = Degrader({label: self.degrader.synthesizers[label]})
                task = AdapterTask(load_backbone(backbone), label, degrader, self.photos, self.held_out, settings)
                state = self._train(task, settings, f"phase-two-rank-{rank}-{label}")
                figures[label] = task.validate()["psnr"]
                efforts.append(spent(task, state))
            figures["mean"] = sum(figures.values()) / len(figures)
            made.append(
                Variant(part="Phase II", name=f"adapters of rank {rank}", figures=figures, **_sum(efforts).model_dump())
            )
        return [self._bare(backbone, labels), *made, self._joint(backbone, labels)]

    def _bare(self, backbone: Path, labels: Sequence[str]) -> Variant:
        figures = self._as_adapters(load_backbone(backbone), labels)
        return _untrained("Phase II", "the frozen backbone", figures)

    def _joint(self, backbone: Path, labels: Sequence[str]) -> Variant:
        settings = self._settings(PRETRAINING, times=len(labels))
        degrader = Degrader({label: self.degrader.synthesizers[label] for label in labels})
        network = load_backbone(backbone).requires_grad_(True)
        task = BackboneTask(network, degrader, self.photos, self.held_out, settings)
        state = self._train(task, settings, "phase-two-joint")
        effort = spent(task, state)
        figures = self._as_adapters(network, labels)
        return Variant(part="Phase II", name="the whole network, jointly", figures=figures, **effort.model_dump())

    @torch.inference_mode()
    def _as_adapters(self, network: Backbone, labels: Sequence[str]) -> dict[str, float]:
        """What an adapter's validation says, of a network that has none."""
        figures = {}
        for label in labels:
            pairs = held_out_pairs(self.degrader, self.held_out, label)
            values = [psnr(network(degraded[None])[0].clamp(0, 1), clean) for degraded, clean in pairs]
            figures[label] = sum(values) / len(values)
        return figures | {"mean": sum(figures.values()) / len(figures)}

    def phase_three(self, network: Backbone) -> list[Variant]:
        """Estimators that see all features, the crops' alone, or the global view's alone."""
        self.say("phase three")
        freeze(network)
        return [
            _untrained("Phase III", name, {"top-1 in %": 100 * share}) for name, share in self._top1(network).items()
        ]

    @torch.inference_mode()
    def _mixtures(self, network: Backbone) -> dict[str, float]:
        """PSNR in dB on held-out chains of two, and on photos damaged by regions."""
        kinds = {
            "chains": Recipe(cutmix=0.0, double=1.0, clean=0.0),
            "regions": Recipe(cutmix=1.0, double=0.0, clean=0.0),
        }
        figures = {}
        for name, recipe in kinds.items():
            degrader, values = Degrader(self.degrader.synthesizers, recipe), []
            for item in range(MIXED):
                generator = generator_for(0, 17, item)
                sample = degrader.sample(self.held_out.crop(generator, VALIDATION_SIDE), generator)
                values.append(psnr(network(sample.degraded[None])[0].clamp(0, 1), sample.clean))
            figures[name] = sum(values) / len(values)
        return figures

    def _top1(self, network: Backbone) -> dict[str, float]:
        """Share of held-out single degradations that an estimator names rightly, by the features that it is given."""
        replay = replay_of(network, self.degrader, [self.photos], self.held_out, LOOKED_AT, 0)
        known, context = replay.features, network.size.context
        places = torch.arange(known.values.shape[1])
        network_sees = places.numel() - context - compression_features.STATISTICS
        columns = {
            ALL: places,
            "without the files' marks": torch.cat([places[:network_sees], places[-context:]]),
            "crops alone": places[:-context],
            "global view alone": places[-context:],
        }
        samples = [sample for sample in replay.held_out if len(sample.labels) == 1]
        return {name: _accuracy(known, samples, chosen) for name, chosen in columns.items()}

    def _settings(self, defaults: AnySettings, times: int = 1) -> AnySettings:
        given = {
            "steps": ENDLESS,
            "minutes": self.minutes * times,
            "validate_every": ENDLESS,
            "checkpoint_minutes": 1.0,
        }
        return defaults.model_copy(update=given)

    def _train(self, task: Task, settings: Settings, name: str) -> State:
        self.say(name.replace("-", " "))
        return train(task, settings, self.out / name, quiet=True)


def _untrained(part: str, name: str, figures: dict[str, float]) -> Variant:
    return Variant(part=part, name=name, figures=figures, **_sum([]).model_dump())


def _sum(efforts: Sequence[Effort]) -> Effort:
    return Effort(
        trained=sum(one.trained for one in efforts),
        steps=sum(one.steps for one in efforts),
        minutes=sum(one.minutes for one in efforts),
        multiply_adds=sum(one.multiply_adds for one in efforts),
    )


def _accuracy(known: Features, samples: Sequence[HeldOut], chosen: Tensor) -> float:
    features = replace(known, values=known.values[:, chosen])
    torch.manual_seed(0)
    untrained = Estimator(known.labels, features.values.shape[1])
    estimator = refit(untrained, known.backbone, known.labels, [], [features], 0)
    seen = torch.stack([sample.seen for sample in samples])[:, chosen]
    with torch.inference_mode():
        said = estimator(seen).argmax(1).tolist()
    right: list[bool] = [known.labels[place] == sample.labels[0] for place, sample in zip(said, samples, strict=True)]
    return sum(right) / len(right)
