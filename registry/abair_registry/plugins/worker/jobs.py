"""The jobs that plugins do for an operation, as the requests that a worker process gets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from abair.report import Report
from abair_registry.plugins.worker.protocol import Asked


class Point(BaseModel):
    """A plugin by its entry point; `distribution` is the one whose metadata the asking process compared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    module: str
    distribution: str


class Damaged(BaseModel):
    """Held-out samples of one live label, which a new one damages further."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str
    replay: Path


class Trained(BaseModel):
    """A label's adapter: its configuration and its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str
    files: tuple[Path, Path]


class Errand(Asked):
    """What each errand has: the plugins that it needs."""

    points: tuple[Point, ...]


class Gates(Errand):
    """Ask each plugin's `abair_gates` about a report."""

    task: Literal["gates"] = "gates"
    report: Report


class Notices(Errand):
    """Tell each plugin's `abair_deployed` of the deployment in a folder."""

    task: Literal["notices"] = "notices"
    deployment: Path


class Making(Errand):
    """Run synthesisers on the photos of a folder, without one on those of scikit-image; `out` gets the result."""

    threads: int
    backbone: Path
    photos: Path | None
    seed: int
    out: Path


class MakeReplay(Making):
    """Make what a new label leaves behind: `trained`, `judged` and `kept` samples, as `trainer` says.

    And `chained` samples with its damage over that of the labels that are `known`, if there are any.
    """

    task: Literal["replay"] = "replay"
    label: str
    adapter: tuple[Path, Path]
    known: tuple[Trained, ...]
    others: tuple[Damaged, ...]
    trained: int
    judged: int
    kept: int
    chained: int


class MakeEstimator(Making):
    """Train the whole estimator, `trained` steps on `samples`; `adapters` are two files each, in `labels`' order."""

    task: Literal["estimator"] = "estimator"
    labels: tuple[str, ...]
    adapters: tuple[tuple[Path, Path], ...]
    trained: int
    samples: int
    folder: Path


Request = Gates | Notices | MakeReplay | MakeEstimator
REQUESTS: Final[TypeAdapter[Request]] = TypeAdapter(Annotated[Request, Field(discriminator="task")])
