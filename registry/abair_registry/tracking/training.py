"""MLflow runs for trainings: the tracker behind `abair train adapter --track`."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

from abair.errors import RegistryError
from abair_registry.processes.identity import ProcessIdentity
from abair_registry.settings import Settings
from abair_registry.tracking import outbox
from abair_registry.tracking.mlflow_client import Runs
from abair_registry.tracking.outbox import TrainingRun
from abair_registry.tracking.store import TRAINING


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
def track_training(
    name: str,
    *,
    params: Mapping[str, object],
    tags: Mapping[str, str],
    warn: Callable[[str], None] = lambda _: None,
) -> Iterator[TrainingRun]:
    """Open a run that ends as the block ends: finished, failed, or killed by Ctrl-C.

    The training goes on without MLflow: `warn` is told in one line, and the run is kept in the home
    until a later training, operation or `doctor` mirrors it. Its tags name this process. If that is
    killed, the next one that connects to the store from this host closes the run.
    """
    settings = Settings()
    settings.home.mkdir(parents=True, exist_ok=True)
    runs = Runs(settings, experiment=TRAINING)
    with suppress(RegistryError):  # the run's beginning tells
        outbox.drain_trainings(settings.home, runs)
        outbox.settle(settings.home)
        close_trainings(runs)
    run = TrainingRun(runs, settings.home, warn)
    identity = {outbox.TRAINING_RUN: secrets.token_hex(16), **ProcessIdentity.of_this_process().as_tags()}
    run.begin(name, tags={**tags, **identity}, params=params)
    try:
        yield run
    except BaseException as error:
        run.end("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED", str(error) or type(error).__name__)
        raise
    run.end("FINISHED")
