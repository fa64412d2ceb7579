"""The jobs that plugins do for an operation, as the requests that a worker process gets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from abair.report import Report
from abair_registry.plugins.worker.protocol import WorkerRequest


class PluginRef(BaseModel):
    """A plugin by its entry point.

    The caller compared `distribution` with the registry's record.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    module: str
    distribution: str


class LabelReplay(BaseModel):
    """The replay of one live label, whose held-out samples a new label damages further."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str
    replay: Path


class TrainedAdapter(BaseModel):
    """A label's adapter: its configuration and its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str
    files: tuple[Path, Path]


class Job(WorkerRequest):
    """What every job has: the plugins that it needs."""

    plugins: tuple[PluginRef, ...]


class HooksJob(Job):
    """Load the plugin, and tell whether it has a gate."""

    task: Literal["hooks"] = "hooks"


class GatesJob(Job):
    """Call the plugin's `abair_gates` with a report."""

    task: Literal["gates"] = "gates"
    report: Report


class NoticesJob(Job):
    """Call each plugin's `abair_deployed` with the deployment in a folder."""

    task: Literal["notices"] = "notices"
    deployment: Path


class SynthesisJob(Job):
    """Run synthesisers on photos and write the result to `out`.

    Attributes:
        threads: of torch.
        backbone: the frozen network's file.
        photos: a folder of clean photos; without one, the sample photos.
        seed: of all samples.
        out: the file that gets the result.
    """

    threads: int
    backbone: Path
    photos: Path | None
    seed: int
    out: Path


class ReplayJob(SynthesisJob):
    """Make the replay of a new label.

    Attributes:
        label: the new label.
        adapter: its configuration and weights.
        known: the adapters of the live labels that are mixed with the new one.
        others: the replays of all live labels.
        trained: how many damaged training samples the replay gets; half as many undamaged ones.
        judged: how many held-out samples it gets.
        judged_clean: how many undamaged held-out samples it gets.
        kept: how many held-out samples it gets of each mixture with a live label.
        chained: how many samples it gets with the new damage over that of `known` labels, if there
            are any.
        source: what the samples are made of, which the replay says.
    """

    task: Literal["replay"] = "replay"
    label: str
    adapter: tuple[Path, Path]
    known: tuple[TrainedAdapter, ...]
    others: tuple[LabelReplay, ...]
    trained: int
    judged: int
    judged_clean: int
    kept: int
    chained: int
    source: str


class EstimatorJob(SynthesisJob):
    """Train the whole estimator.

    Attributes:
        labels: of its outputs, `clean` last.
        adapters: configuration and weights of each label but `clean`, in the order of `labels`.
        trained: steps of the training.
        samples: how many samples are made.
        validation: held-out samples a label, for the curves.
        temperature: held-out samples that choose the temperature.
        folder: where samples, checkpoints and history are kept.
    """

    task: Literal["estimator"] = "estimator"
    labels: tuple[str, ...]
    adapters: tuple[tuple[Path, Path], ...]
    trained: int
    samples: int
    validation: int
    temperature: int
    folder: Path


AnyJob = HooksJob | GatesJob | NoticesJob | ReplayJob | EstimatorJob
JOBS: Final[TypeAdapter[AnyJob]] = TypeAdapter(Annotated[AnyJob, Field(discriminator="task")])
