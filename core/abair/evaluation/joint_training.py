"""What one more degradation costs: an adapter beside a frozen network, or the whole network trained jointly once more.

All-in-one networks are trained on all their degradations together (Serrano-Lozano et al., section 1), so each new one
means training everything again. Here that is done: the network begins with the backbone's weights, which is more than
most have, and is trained on all labels for a given time; what counts is when it is as good, on the mean over the
labels, as the frozen backbone with each label's own adapter. Both are judged on the same held-out samples; the adapter
is told which label it is, as the estimator would tell it. What refitting the estimator costs is measured by
`abair-registry bench`: seconds, on features that are kept.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from abair.contract import RECORD_FILE
from abair.data.degrade import CleanPhotos, Degrader
from abair.data.synthesizers import load_synthesizer
from abair.discovery import Found
from abair.errors import TrainingError
from abair.evaluation.training_cost import Effort, spent
from abair.model.backbone import Backbone, fingerprint, load_backbone
from abair.model.lora import Adapter, Blender, read_adapter
from abair.training.adapter import AdapterTask
from abair.training.adapter_data import held_out_pairs
from abair.training.backbone import BackboneTask, psnr
from abair.training.loop import train
from abair.training.report import HISTORY
from abair.training.settings import ADAPTING, PRETRAINING, BackboneSettings, read_settings, with_current_names

PACE: Final = 0.5
"""Minutes for which an adapter is trained to see how long a step takes on this machine."""
ENDLESS: Final = 1_000_000
"""Steps that are never done: time ends a run."""
SAMPLED: Final = (
    "batch", "crop", "rank", "scene_size", "scene_probability", "darken_probability", "mix_with", "mix_probability",
    "blended",
)  # fmt: skip
"""Settings on which it depends how long a step of an adapter's training takes."""
JUDGED_EVERY: Final = 100

Pairs = list[tuple[Tensor, Tensor]]


class Way(Effort):
    """What one way costs and brings: `psnr` is the mean in dB over the labels, `figures` each label's."""

    psnr: float
    figures: dict[str, float]


class Stage(BaseModel):
    """One label more, both ways. `reached`: minutes after which the joint network was as good; None if it never was."""

    model_config = ConfigDict(frozen=True)

    labels: tuple[str, ...]
    new: str
    adapter: Way
    joint: Way
    reached: float | None


class Costs(BaseModel):
    """All stages, and what they were measured with."""

    model_config = ConfigDict(frozen=True)

    size: str
    minutes: float
    photos: str
    threads: int
    stages: tuple[Stage, ...]

    def markdown(self) -> str:
        """One table."""
        lines = [
            "# One more degradation: an adapter, or everything again",
            "",
            f"Backbone `{self.size}`, {self.threads} threads, on held-out photos. The joint network had "
            f"{self.minutes:g} minutes a stage; PSNR is the mean over all labels, of the frozen backbone with each "
            "label's own adapter, and of the joint network.",
            "",
            "| labels | new | way | trained | steps | 10^12 multiply-adds | minutes | mean PSNR | the new label | "
            "as good after |",
            "|---:|---|---|---:|---:|---:|---:|---:|---:|---|",
        ]
        for stage in self.stages:
            short = stage.adapter.psnr - stage.joint.psnr
            reached = f"never, short by {short:.2f} dB" if stage.reached is None else f"{stage.reached:.1f} minutes"
            for name, way, told in (("adapter", stage.adapter, "-"), ("joint", stage.joint, reached)):
                numbers = f"{way.cells} | {way.minutes:.1f} | {way.psnr:.2f} | {way.figures[stage.new]:.2f}"
                lines.append(f"| {len(stage.labels)} | {stage.new} | {name} | {numbers} | {told} |")
        return "\n".join(lines) + "\n"


def compare(
    plugins: Mapping[str, Found],
    new: Sequence[str],
    photos: CleanPhotos,
    held_out: CleanPhotos,
    backbone: Path,
    out: Path,
    *,
    minutes: float,
    say: Callable[[str], None] = lambda text: None,
) -> Costs:
    """For each of the labels in `new`, added in turn to the other ones of `plugins`: both ways, measured here.

    An adapter's steps are those of its record; how long one takes is measured on this machine. A joint training that
    was cut off goes on from its checkpoint in `out`.

    Raises:
        TrainingError: an adapter has no record, or a checkpoint in `out` is another run's.
        AdapterError: an adapter does not belong to the backbone.
    """
    network = load_backbone(backbone)
    mark, size = fingerprint(network), network.size.name
    degrader = Degrader({name: load_synthesizer(found.degradation) for name, found in plugins.items()})
    samples = {name: held_out_pairs(degrader, held_out, name) for name in plugins}
    adapters = {
        name: read_adapter(found.degradation.adapters / size, network, mark, name) for name, found in plugins.items()
    }
    adapted = {
        name: _mean_psnr(Blender(network, [adapter]).blend([1.0]), samples[name]) for name, adapter in adapters.items()
    }
    stages = []
    for count, name in enumerate(new, 1):
        labels = [label for label in plugins if label not in new[count:]]
        target = {label: adapted[label] for label in labels}
        say(f"{name}: the pace of its adapter's training")
        record = plugins[name].degradation.adapters / size / RECORD_FILE
        beside = _beside(record, backbone, degrader, adapters, name, photos, held_out, out)
        say(f"{name}: {len(labels)} labels jointly, {minutes:g} minutes")
        joint, reached = _jointly(
            backbone, degrader, labels, photos, held_out, samples, out / f"joint-{len(labels)}", minutes, _mean(target)
        )
        kept = Way(psnr=_mean(target), figures=target, **beside.model_dump())
        stages.append(Stage(labels=tuple(labels), new=name, adapter=kept, joint=joint, reached=reached))
    return Costs(
        size=size,
        minutes=minutes,
        photos=photos.digest(),
        threads=torch.get_num_threads(),
        stages=tuple(stages),
    )


def _beside(
    record: Path,
    backbone: Path,
    degrader: Degrader,
    adapters: Mapping[str, Adapter],
    name: str,
    photos: CleanPhotos,
    held_out: CleanPhotos,
    out: Path,
) -> Effort:
    """What the adapter's training cost: its recorded steps at the pace of this machine."""
    try:
        said = tomllib.loads(record.read_text(encoding="utf-8"))
        steps = int(said["run"]["steps"])
        same: dict[str, Any] = {
            key: value for key, value in with_current_names(said["settings"]).items() if key in SAMPLED
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"{record}: cannot be read as the record of a training ({error}); expected what `abair train adapter "
            f"{name}` writes beside the weights"
        ) from None
    settings = read_settings(ADAPTING, None, **same, steps=ENDLESS, minutes=PACE, validate_every=ENDLESS)
    partners = [adapters[label] for label in settings.mix_with if label in adapters and settings.blended]
    task = AdapterTask(load_backbone(backbone), name, degrader, photos, held_out, settings, partners=partners)
    state = train(task, settings, out / f"pace-{name}", quiet=True)
    tried, share = spent(task, state), steps / max(1, state.step)
    return Effort(
        trained=tried.trained, steps=steps, minutes=share * tried.minutes, multiply_adds=share * tried.multiply_adds
    )


class _JointTask(BackboneTask):
    """Phase I's task, judged on the samples that the adapters are judged on."""

    def __init__(
        self, backbone: Backbone, degrader: Degrader, photos: CleanPhotos, held_out: CleanPhotos,
        settings: BackboneSettings, samples: Mapping[str, Pairs],
    ) -> None:  # fmt: skip
        super().__init__(backbone, degrader, photos, held_out, settings)
        self._samples = samples

    def validate(self) -> dict[str, float]:
        """PSNR in dB, each label's and the mean."""
        names = [name for name in self.degrader.labels if name in self._samples]
        figures = {name: _mean_psnr(self.module.backbone, self._samples[name]) for name in names}
        return {"psnr": _mean(figures)} | figures


def _jointly(
    backbone: Path,
    degrader: Degrader,
    labels: Sequence[str],
    photos: CleanPhotos,
    held_out: CleanPhotos,
    samples: Mapping[str, Pairs],
    folder: Path,
    minutes: float,
    target: float,
) -> tuple[Way, float | None]:
    settings = PRETRAINING.model_copy(
        update={"steps": ENDLESS, "minutes": minutes, "validate_every": JUDGED_EVERY, "checkpoint_minutes": 1.0}
    )
    of_all = Degrader({name: degrader.synthesizers[name] for name in labels})
    network = load_backbone(backbone).requires_grad_(True)
    task = _JointTask(network, of_all, photos, held_out, settings, samples)
    state = train(task, settings, folder, quiet=True)
    told = [json.loads(line) for line in (folder / HISTORY).read_text(encoding="utf-8").splitlines()]
    reached = next((one["seconds"] / 60 for one in told if one["psnr"] >= target), None)
    figures = task.validate()
    return Way(psnr=figures.pop("psnr"), figures=figures, **spent(task, state).model_dump()), reached


@torch.inference_mode()
def _mean_psnr(network: Backbone, pairs: Pairs) -> float:
    values = [psnr(network(degraded[None])[0].clamp(0, 1), clean) for degraded, clean in pairs]
    return sum(values) / len(values)


def _mean(figures: Mapping[str, float]) -> float:
    return sum(figures.values()) / len(figures)
