"""Trainings as MLflow runs: they end as the training does, in an experiment that operations do not look at."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from abair.errors import RegistryError
from abair.plugin_kit.tracking import tracker
from abair_registry.processes.identity import ProcessIdentity
from abair_registry.settings import Settings
from abair_registry.tracking.mlflow_client import Runs
from abair_registry.tracking.outbox import drain_trainings
from abair_registry.tracking.store import TRAINING
from abair_registry.tracking.training import close_trainings


@pytest.fixture
def home(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ABAIR_HOME", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mlflow.db").write_bytes(empty_store.read_bytes())
    return tmp_path


def status(home: Path, run_id: str) -> tuple[str, str]:
    from mlflow import MlflowClient

    run = MlflowClient(f"sqlite:///{home / 'mlflow.db'}").get_run(run_id)
    return run.info.status, run.data.tags.get("abair.reason", "")


def history(home: Path, run_id: str) -> list[Any]:
    from mlflow import MlflowClient

    return list(MlflowClient(f"sqlite:///{home / 'mlflow.db'}").get_metric_history(run_id, "train/psnr"))


def test_a_training_is_a_run_of_its_own_experiment(home: Path) -> None:
    from mlflow import MlflowClient

    with tracker()("train adapter snow", params={"steps": 4}, tags={"abair.kind": "train adapter"}) as run:
        run.metrics({"train/psnr": 20.0}, 2)
        run.describe("## Adapter `snow`")
        run.figure(Figure((1, 1)), "figures/curves.png")
        assert Runs(Settings()).running() == []  # what mends operations' runs does not see it
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(TRAINING)
    assert experiment is not None
    [found] = client.search_runs([experiment.experiment_id])
    assert found.info.run_id == run.run_id
    assert status(home, run.run_id) == ("FINISHED", "")
    assert [m.value for m in client.get_metric_history(run.run_id, "train/psnr")] == [20.0]
    assert [file.path for file in client.list_artifacts(run.run_id, "figures")] == ["figures/curves.png"]


@pytest.mark.parametrize(("error", "ended"), [(ValueError("no photos"), "FAILED"), (KeyboardInterrupt(), "KILLED")])
def test_a_training_that_is_stopped_ends_its_run_with_the_reason(home: Path, error: BaseException, ended: str) -> None:
    with pytest.raises(type(error)), tracker()("train adapter snow", params={}, tags={}) as run:
        raise error
    assert status(home, run.run_id) == (ended, str(error) or "KeyboardInterrupt")


def test_a_training_goes_on_without_its_server_and_the_next_one_mirrors_its_run(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    real, kept = Runs.metrics, home / "outbox"

    def lost(*_: object, **__: object) -> None:
        raise RegistryError("MLflow at http://mlflow: connection refused")

    with tracker()("train adapter snow", params={"steps": 4}, tags={}, warn=told.append) as run:
        run.metrics({"train/psnr": 20.0}, 1)
        monkeypatch.setattr(Runs, "metrics", lost)
        for step in (2, 3):
            run.metrics({"train/psnr": 21.0}, step)
        run.text("a table", "report.md")

    assert len(told) == 1
    assert "connection refused; the training goes on; the next command that reaches MLflow mirrors its run" in told[0]
    assert len(list(kept.iterdir())) == 1
    monkeypatch.setattr(Runs, "metrics", real)

    with tracker()("train adapter rain", params={}, tags={}, warn=told.append):
        pass

    assert len(told) == 1
    assert not kept.exists()
    assert run.run_id is not None
    assert status(home, run.run_id) == ("FINISHED", "")
    assert [metric.step for metric in history(home, run.run_id)] == [1, 2, 3]


def test_a_kept_training_that_was_killed_ends_so_and_one_that_goes_on_is_left(home: Path) -> None:
    this = ProcessIdentity.of_this_process()
    for training, process in (("gone", replace(this, number=2**22 + 1)), ("alive", this)):
        folder = home / "outbox" / training
        folder.mkdir(parents=True)
        begin = {"name": "train adapter snow", "tags": {"abair.training": training, **process.as_tags()}, "params": {}}
        (folder / "entries.jsonl").write_text(json.dumps(["begin", begin]) + "\n")
    runs = Runs(Settings(), experiment=TRAINING)

    done, refused = drain_trainings(home, runs)

    assert (len(done), refused) == (1, [])
    assert [folder.name for folder in (home / "outbox").iterdir()] == ["alive"]
    found = runs.find({"abair.training": "gone"})
    assert found is not None
    assert status(home, found)[0] == "KILLED"


TRAINING_WITHOUT_END = """
import time
from abair.plugin_kit.tracking import tracker
with tracker()("train adapter snow", params={}, tags={"abair.kind": "train adapter"}) as run:
    print(run.run_id, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def training(home: Path) -> Iterator[subprocess.Popen[str]]:
    """A tracked training in a process of its own, whose run has begun."""
    command = [sys.executable, "-c", TRAINING_WITHOUT_END]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


@pytest.mark.slow
def test_the_next_to_connect_closes_the_run_of_a_training_that_was_killed(
    home: Path, training: subprocess.Popen[str]
) -> None:
    assert training.stdout is not None
    run_id = training.stdout.readline().strip()
    runs = Runs(Settings())
    assert close_trainings(runs) == []  # it is alive
    training.kill()
    training.wait()
    with tracker()("train adapter snow", params={}, tags={}):
        state, reason = status(home, run_id)
        assert (state, reason.partition(" on ")[0]) == ("KILLED", f"process {training.pid}")
        assert len(runs.running(TRAINING)) == 1  # its own


def test_the_run_of_another_hosts_training_stays_open(home: Path) -> None:
    this = ProcessIdentity.of_this_process()
    runs = Runs(Settings(), experiment=TRAINING)
    others = [replace(this, host="elsewhere/0", number=2**22 + 1), replace(this, host=this.host.partition("/")[0])]
    kept = [runs.begin("train adapter snow", tags=other.as_tags(), params={}) for other in others]
    kept.append(runs.begin("by an older version", tags={}, params={}))
    gone = runs.begin("train adapter snow", tags=replace(this, number=2**22 + 1).as_tags(), params={})
    reused = runs.begin("train adapter snow", tags=replace(this, started="another-boot 5").as_tags(), params={})
    assert close_trainings(runs) == [f"run {run} ended as KILLED" for run in (reused, gone)]
    assert {run_id for run_id, _ in runs.running()} == set(kept)
