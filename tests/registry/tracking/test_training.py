"""Trainings as MLflow runs: they end as the training does, in an experiment that operations do not look at."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from abair.plugin_kit.tracking import tracker
from abair_registry.settings import Settings
from abair_registry.tracking.mlflow_client import TRAINING, Runs


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
