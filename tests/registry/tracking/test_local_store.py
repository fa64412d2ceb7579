"""A home that was moved or copied makes MLflow's store its own; a home's name may be unusual."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.registry.conftest import Run, complaints
from tests.support.outcomes import aliases, sqlite

from abair.deployment import read_deployment
from abair_registry.settings import Settings
from abair_registry.tracking.mlflow_client import Runs
from abair_registry.tracking.store import TRAINING

pytestmark = pytest.mark.slow


def runs_of(home: Path, experiment: str = "abair") -> Runs:
    return Runs(Settings(home=home, tracking_uri=None), experiment=experiment)


def files(home: Path) -> dict[Path, bytes]:
    return {path.relative_to(home): path.read_bytes() for path in home.rglob("*") if path.is_file()}


@pytest.fixture
def home(tmp_path: Path, empty_store: Path, bundle: Path) -> Path:
    """A home whose store holds a run, a training, and the bundle as champion."""
    made = tmp_path / "old place"
    made.mkdir()
    shutil.copyfile(empty_store, made / "mlflow.db")
    runs = runs_of(made)
    runs.register(runs.begin("add snow", tags={}, params={}), bundle, description="", tags={})
    runs.point("champion", "1")
    training = runs_of(made, TRAINING)
    training.text(training.begin("train", tags={}, params={}), "old", "note.txt")
    return made


def test_a_copied_home_writes_and_cleans_up_in_itself_alone(home: Path, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    copy = tmp_path / "new 100%" / "place"
    shutil.copytree(home, copy)
    before = files(home)
    runs = runs_of(copy)
    runs.text(runs.begin("here", tags={}, params={}), "new", "note.txt")
    there = MlflowClient(runs.uri, runs.uri)
    experiments = [e for e in there.search_experiments() if e.name.startswith("abair")]
    held = [there.get_run(r.info.run_id) for e in experiments for r in there.search_runs([e.experiment_id])]
    addresses = [e.artifact_location for e in experiments] + [r.info.artifact_uri for r in held]
    addresses.append(there.get_model_version("abair", "1").source)
    assert len(addresses) == 2 + 3 + 1
    assert all(address.startswith((copy / "artifacts").as_uri()) for address in addresses), addresses
    version = there.get_model_version("abair", "1")
    there.delete_run(version.run_id)

    from click.testing import CliRunner
    from mlflow.cli import gc

    environment = {"MLFLOW_TRACKING_URI": runs.uri}
    CliRunner().invoke(gc, ["--backend-store-uri", runs.uri], env=environment, catch_exceptions=False)
    assert not list((copy / "artifacts").rglob("estimator.safetensors"))
    assert files(home) == before
    assert (copy / "mlflow.db.before-move").read_bytes()[:15] == b"SQLite format 3"


def test_a_moved_home_hands_out_its_own_bundles(home: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    home.rename(moved)
    runs = runs_of(moved)
    assert read_deployment(runs.fetch("models:/abair@champion", tmp_path / "out")).labels[-1] == "clean"
    assert [v.number for v in runs.versions()] == ["1"]
    assert not home.exists()


def test_another_name_of_the_same_home_is_no_move(home: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(home, target_is_directory=True)
    assert runs_of(tmp_path / "link").version("champion") == "1"
    assert not (home / "mlflow.db.before-move").exists()


def test_a_new_store_in_the_place_of_an_old_one_hands_out_no_old_bundle(
    home: Path, tmp_path: Path, bundle: Path, empty_store: Path
) -> None:
    runs_of(home).fetch("models:/abair/1", tmp_path / "out")
    shutil.copyfile(empty_store, home / "mlflow.db")
    other = tmp_path / "other"
    shutil.copytree(bundle, other)
    (other / "mark").write_text("another")
    runs = runs_of(home)
    runs.register(runs.begin("add frost", tags={}, params={}), other, description="", tags={})
    assert (runs.fetch("models:/abair/1", tmp_path / "out") / "mark").read_text() == "another"


@sqlite
@pytest.mark.parametrize("name", ["100%", "a#b c@d;e&f=g"])
def test_a_home_of_an_unusual_name_works(
    name: str, run: Run, settings: Settings, tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "at" / name
    home.mkdir(parents=True)
    if name != "100%":  # where MLflow makes its tables itself
        shutil.copyfile(empty_store, home / "mlflow.db")
    monkeypatch.setenv("ABAIR_HOME", str(home))
    assert run("disable", "rain", "--yes")[0] == 0
    assert aliases(settings.model_copy(update={"home": home})) == {"champion": "2"}
    assert list((home / "artifacts").rglob("estimator.safetensors"))
    assert [path.name for path in (tmp_path / "at").iterdir()] == [name]


@sqlite
@pytest.mark.parametrize("name", ["what?", "a%20b"])
@pytest.mark.parametrize("command", [["list"], ["disable", "rain", "--yes"], ["doctor"]])
def test_a_home_of_an_impossible_name_is_refused_before_anything_is_written(
    name: str, command: list[str], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "at").mkdir()
    monkeypatch.setenv("ABAIR_HOME", str(tmp_path / "at" / name))
    code, _, err = run(*command)
    (line,) = complaints(err)
    assert (code, "ABAIR_HOME: found" in line, "expected a path without ?" in line) == (1, True, True)
    assert list((tmp_path / "at").iterdir()) == []
