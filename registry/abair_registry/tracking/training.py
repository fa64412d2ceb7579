"""MLflow runs for trainings: the tracker behind `abair train adapter --track`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from abair.errors import RegistryError
from abair_registry.processes.identity import ProcessIdentity
from abair_registry.settings import Settings
from abair_registry.tracking.mlflow_client import Runs
from abair_registry.tracking.store import TRAINING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class TrackedRun:
    """One run, as `abair.plugin_kit.tracking.Tracker` describes it.

    Each method raises RegistryError.
    """

    runs: Runs
    run_id: str

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log metrics at a step."""
        self.runs.metrics(self.run_id, values, step)

    def figure(self, figure: Figure, path: str) -> None:
        """Store a figure as an image."""
        self.runs.figure(self.run_id, figure, path)

    def text(self, text: str, path: str) -> None:
        """Store a text as a file."""
        self.runs.text(self.run_id, text, path)

    def describe(self, markdown: str) -> None:
        """Set the text at the top of the run's page."""
        self.runs.describe(self.run_id, markdown)


def close_trainings(runs: Runs) -> list[str]:
    """Close the runs of trainings on this host whose process is gone; return a line for each.

    A run of another host, or of a process that is alive, stays as it is.

    Raises:
        RegistryError: the store cannot be reached or written.
    """
    closed = []
    for run_id, tags in runs.running(TRAINING):
        process = ProcessIdentity.from_tags(tags)
        if process is not None and process.is_gone():
            runs.end(run_id, "KILLED", f"{process} was gone before the training ended")
            closed.append(f"run {run_id} ended as KILLED")
    return closed


@contextmanager
def track_training(name: str, *, params: Mapping[str, object], tags: Mapping[str, str]) -> Iterator[TrackedRun]:
    """Open a run that ends as the block ends: finished, failed, or killed by Ctrl-C.

    Its tags name this process. If that is killed, the next one that connects to the store from this
    host closes the run.

    Raises:
        RegistryError: the store cannot be reached or written.
    """
    settings = Settings()
    settings.home.mkdir(parents=True, exist_ok=True)
    runs = Runs(settings, experiment=TRAINING)
    close_trainings(runs)
    run_id = runs.begin(name, tags={**tags, **ProcessIdentity.of_this_process().as_tags()}, params=params)
    try:
        yield TrackedRun(runs, run_id)
    except BaseException as error:
        status: Literal["KILLED", "FAILED"] = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
        with suppress(RegistryError):  # the store may be what failed
            runs.end(run_id, status, str(error) or type(error).__name__)
        raise
    runs.end(run_id, "FINISHED")
