"""The cost of one more degradation: an adapter for the frozen network, or joint training of all.

All-in-one networks are trained on all their degradations together (Serrano-Lozano et al., section
1), so each new one means training everything again. This is what the joint runs do: the network
starts from the backbone's weights, which is a head start, and is trained on all labels for a given
time. The question is when its mean PSNR over the labels reaches that of the frozen backbone with
each label's own adapter. Both are measured on the same held-out samples. The adapter is chosen by
the true label, as the estimator would choose it. Refitting the estimator costs seconds, on features
that are kept; `abair-registry bench` measures it.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from abair.contract import RECORD_FILE
from abair.data.degrade import Degrader
from abair.data.photos import CleanPhotos
from abair.data.synthesizers import load_synthesizer
from abair.discovery import Found
from abair.errors import TrainingError
from abair.evaluation.training_cost import COST_COLUMNS, TrainingCost, training_cost
from abair.model.backbone import Backbone, fingerprint, load_backbone
from abair.model.lora import Adapter, Blender, read_adapter
from abair.text import markdown_table
from abair.training.adapter import AdapterTask
from abair.training.adapter_data import held_out_pairs
from abair.training.backbone import BackboneTask, psnr
from abair.training.loop import train
from abair.training.report import HISTORY
from abair.training.settings import (
    ADAPTING,
    PRETRAINING,
    AdapterSettings,
    BackboneSettings,
    read_settings,
    with_current_names,
)

NO_STEP_LIMIT: Final = 1_000_000
"""More steps than any run makes: time ends it."""
STEP_TIME_SETTINGS: Final = (
    "batch", "crop", "rank", "scene_size", "scene_probability", "darken_probability", "mix_with", "mix_probability",
    "blended",
)  # fmt: skip
"""The settings that the time of a step of an adapter's training depends on."""

Pairs = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class ComparisonConfig:
    """How the two approaches are run.

    `timing_minutes`: how long an adapter is trained to measure the time of a step on this machine.
    `validate_every`: steps between two validations of a joint run.
    """

    timing_minutes: float = 0.5
    validate_every: int = 100
    pretraining: BackboneSettings = PRETRAINING
    adapting: AdapterSettings = ADAPTING


class ApproachResult(TrainingCost):
    """Cost and quality of one approach; `psnr` is the mean in dB of the labels' `figures`."""

    psnr: float
    figures: dict[str, float]


class Stage(BaseModel):
    """One more label, by both approaches.

    `reached` are the minutes after which the joint network was as good; None if it never was.
    """

    model_config = ConfigDict(frozen=True)

    labels: tuple[str, ...]
    new: str
    adapter: ApproachResult
    joint: ApproachResult
    reached: float | None


class CostComparison(BaseModel):
    """All stages, and the conditions of the measurement."""

    model_config = ConfigDict(frozen=True)

    size: str
    minutes: float
    photos: str
    threads: int
    stages: tuple[Stage, ...]

    def markdown(self) -> str:
        """Return the comparison as a page with one table."""
        rows = []
        for stage in self.stages:
            short = stage.adapter.psnr - stage.joint.psnr
            reached = f"never, short by {short:.2f} dB" if stage.reached is None else f"{stage.reached:.1f} minutes"
            for name, result, as_good in (("adapter", stage.adapter, "-"), ("joint", stage.joint, reached)):
                metrics = [f"{result.minutes:.1f}", f"{result.psnr:.2f}", f"{result.figures[stage.new]:.2f}"]
                rows.append([str(len(stage.labels)), stage.new, name, *result.cells, *metrics, as_good])
        columns = ["labels", "new label", "approach", *COST_COLUMNS, "minutes", "mean PSNR", "PSNR of the new label",
                   "as good after"]  # fmt: skip
        return (
            "# One more degradation: an adapter, or joint training\n\n"
            f"Backbone `{self.size}`, {self.threads} threads, on held-out photos. The joint network was trained for "
            f"{self.minutes:g} minutes per stage. PSNR in dB is the mean over all labels, of the frozen backbone with "
            "each label's own adapter, and of the joint network.\n\n"
            f"{markdown_table(columns, rows, left=(1, 2, len(columns) - 1))}\n"
        )


def compare_costs(
    plugins: Mapping[str, Found],
    new: Sequence[str],
    photos: CleanPhotos,
    held_out: CleanPhotos,
    backbone: Path,
    out: Path,
    *,
    minutes: float,
    config: ComparisonConfig | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> CostComparison:
    """Add the labels in `new` one after the other to those of `plugins`, by both approaches.

    The steps of an adapter's training are read from its record; the time of a step is measured on
    this machine. A joint run that was interrupted continues from its checkpoint in `out`.

    Raises:
        TrainingError: an adapter has no record, or a checkpoint in `out` belongs to another run.
        AdapterError: an adapter belongs to another backbone.
    """
    network = load_backbone(backbone)
    digest, size = fingerprint(network), network.size.name
    degrader = Degrader({name: load_synthesizer(found.degradation) for name, found in plugins.items()})
    samples = {name: held_out_pairs(degrader, held_out, name) for name in plugins}
    adapters = {
        name: read_adapter(found.degradation.adapters / size, network, digest, name) for name, found in plugins.items()
    }
    adapter_psnr = {
        name: _mean_psnr(Blender(network, [adapter]).blend([1.0]), samples[name]) for name, adapter in adapters.items()
    }
    runs = _Runs(backbone, degrader, adapters, photos, held_out, samples, out, minutes, config or ComparisonConfig())
    stages = []
    for count, name in enumerate(new, 1):
        labels = [label for label in plugins if label not in new[count:]]
        of_labels = {label: adapter_psnr[label] for label in labels}
        target = _mean(of_labels)
        log(f"{name}: measuring the time of a step of its adapter's training")
        cost = runs.adapter_cost(name, plugins[name].degradation.adapters / size / RECORD_FILE)
        log(f"{name}: training {len(labels)} labels jointly for {minutes:g} minutes")
        joint, reached = runs.train_jointly(labels, target)
        adapter = ApproachResult(psnr=target, figures=of_labels, **cost.model_dump())
        stages.append(Stage(labels=tuple(labels), new=name, adapter=adapter, joint=joint, reached=reached))
    return CostComparison(
        size=size,
        minutes=minutes,
        photos=photos.digest(),
        threads=torch.get_num_threads(),
        stages=tuple(stages),
    )


@dataclass(frozen=True)
class _Runs:
    """The training runs of a comparison."""

    backbone: Path
    degrader: Degrader
    adapters: Mapping[str, Adapter]
    photos: CleanPhotos
    held_out: CleanPhotos
    samples: Mapping[str, Pairs]
    out: Path
    minutes: float
    config: ComparisonConfig

    def adapter_cost(self, name: str, record: Path) -> TrainingCost:
        """Return the cost of an adapter's recorded steps, timed on this machine."""
        try:
            recorded = tomllib.loads(record.read_text(encoding="utf-8"))
            steps = int(recorded["run"]["steps"])
            current = with_current_names(recorded["settings"])
            step_settings: dict[str, Any] = {key: value for key, value in current.items() if key in STEP_TIME_SETTINGS}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TrainingError(
                f"{record}: cannot be read as the record of a training ({error}); expected what `abair train adapter "
                f"{name}` writes beside the weights"
            ) from None
        settings = read_settings(
            self.config.adapting, None, **step_settings,
            steps=NO_STEP_LIMIT, minutes=self.config.timing_minutes, validate_every=NO_STEP_LIMIT,
        )  # fmt: skip
        partners = [self.adapters[label] for label in settings.mix_with if label in self.adapters and settings.blended]
        network = load_backbone(self.backbone)
        task = AdapterTask(network, name, self.degrader, self.photos, self.held_out, settings, partners=partners)
        state = train(task, settings, self.out / f"pace-{name}", quiet=True)
        measured, factor = training_cost(task, state), steps / max(1, state.step)
        return TrainingCost(
            trained=measured.trained,
            steps=steps,
            minutes=factor * measured.minutes,
            multiply_adds=factor * measured.multiply_adds,
        )

    def train_jointly(self, labels: Sequence[str], target: float) -> tuple[ApproachResult, float | None]:
        """Train the whole network on `labels`; also return the minutes until `target` dB."""
        settings = self.config.pretraining.model_copy(
            update={
                "steps": NO_STEP_LIMIT,
                "minutes": self.minutes,
                "validate_every": self.config.validate_every,
                "checkpoint_minutes": 1.0,
            }
        )
        degrader = Degrader({name: self.degrader.synthesizers[name] for name in labels})
        network = load_backbone(self.backbone).requires_grad_(True)
        task = _JointTask(network, degrader, self.photos, self.held_out, settings, self.samples)
        folder = self.out / f"joint-{len(labels)}"
        state = train(task, settings, folder, quiet=True)
        history = [json.loads(line) for line in (folder / HISTORY).read_text(encoding="utf-8").splitlines()]
        reached = next((entry["seconds"] / 60 for entry in history if entry["psnr"] >= target), None)
        metrics = task.validate()
        cost = training_cost(task, state)
        return ApproachResult(psnr=metrics.pop("psnr"), figures=metrics, **cost.model_dump()), reached


class _JointTask(BackboneTask):
    """Phase I's task, validated on the samples that the adapters are measured on."""

    def __init__(
        self, backbone: Backbone, degrader: Degrader, photos: CleanPhotos, held_out: CleanPhotos,
        settings: BackboneSettings, samples: Mapping[str, Pairs],
    ) -> None:  # fmt: skip
        super().__init__(backbone, degrader, photos, held_out, settings)
        self._samples = samples

    def validate(self) -> dict[str, float]:
        """Return the PSNR in dB of each label, and their mean as `psnr`."""
        names = [name for name in self.degrader.labels if name in self._samples]
        metrics = {name: _mean_psnr(self.module.backbone, self._samples[name]) for name in names}
        return {"psnr": _mean(metrics)} | metrics


@torch.inference_mode()
def _mean_psnr(network: Backbone, pairs: Pairs) -> float:
    values = [psnr(network(degraded[None])[0].clamp(0, 1), clean) for degraded, clean in pairs]
    return sum(values) / len(values)


def _mean(metrics: Mapping[str, float]) -> float:
    return sum(metrics.values()) / len(metrics)
