"""What MLflow is told, in a store below the home; what a store that is gone costs."""

from __future__ import annotations

import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from abair import Restorer
from abair.errors import DeploymentError, RegistryError
from abair_registry.settings import Settings
from abair_registry.tracking.mlflow_client import Runs

pytestmark = pytest.mark.slow


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(Settings(home=tmp_path, tracking_uri=None))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A working folder in which nothing may be left behind."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield
    assert list(folder.iterdir()) == []


def test_a_run_keeps_all_that_it_was_told(runs: Runs, tmp_path: Path) -> None:
    run_id = runs.begin("add snow", tags={"abair.kind": "add"}, params={"seed": 0, "labels": ["noise", "snow"]})
    for step in range(3):
        runs.metrics(run_id, {"loss": 1.0 / (step + 1), "snow/SW": 26.0}, step=step)
    runs.describe(run_id, "# Verdict: live")
    figure = Figure()
    figure.subplots().plot([0, 1])
    runs.figure(run_id, figure, "figures/curve.png")
    runs.text(run_id, "{}", "report.json")
    runs.end(run_id, "FINISHED")

    from mlflow import MlflowClient

    client = MlflowClient(runs.uri, runs.uri)
    run = client.get_run(run_id)
    assert (run.info.run_name, run.info.status) == ("add snow", "FINISHED")
    assert run.data.params == {"seed": "0", "labels": "['noise', 'snow']"}
    assert run.data.tags["mlflow.note.content"] == "# Verdict: live"
    assert [metric.value for metric in client.get_metric_history(run_id, "loss")] == [1.0, 0.5, 1 / 3]
    assert sorted(file.path for file in client.list_artifacts(run_id)) == ["figures", "report.json"]
    assert run.info.artifact_uri.startswith((tmp_path / "artifacts").as_uri())


def test_many_metrics_are_told_in_parts(runs: Runs) -> None:
    run_id = runs.begin("many", tags={}, params={})
    runs.metrics(run_id, {f"m/{number}": float(number) for number in range(1203)})
    with runs._connected() as client:
        assert len(client.get_run(run_id).data.metrics) == 1203


def test_a_run_ends_once_with_its_reason(runs: Runs) -> None:
    run_id = runs.begin("add snow", tags={}, params={})
    runs.end(run_id, "FAILED", "the gate said no")
    runs.end(run_id, "FINISHED")

    from mlflow import MlflowClient

    run = MlflowClient(runs.uri, runs.uri).get_run(run_id)
    assert (run.info.status, run.data.tags["abair.reason"]) == ("FAILED", "the gate said no")


def test_a_bundle_is_a_version_of_the_model_and_comes_back_byte_for_byte(
    runs: Runs, bundle: Path, tmp_path: Path
) -> None:
    assert runs.version("champion") is None
    versions = []
    for name in ("add snow", "add frost"):
        run_id = runs.begin(name, tags={}, params={})
        versions.append(runs.register(run_id, bundle, description=name, tags={"labels": "noise, clean"}))
    assert versions == ["1", "2"]
    runs.point("champion", "1")
    runs.point("challenger", "2")
    assert (runs.version("champion"), runs.version("challenger")) == ("1", "2")
    runs.point("champion", "2")
    runs.point("challenger", None)
    runs.point("challenger", None)
    assert (runs.version("champion"), runs.version("challenger")) == ("2", None)
    for uri in ("models:/abair@champion", "models:/abair/1"):
        fetched = runs.fetch(uri, tmp_path / uri.replace("/", "_"))
        files = {path.relative_to(bundle): path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
        assert len(files) >= 9
        assert files == {path.relative_to(fetched): path.read_bytes() for path in fetched.rglob("*") if path.is_file()}


@pytest.mark.parametrize("uri", ["models:/abair@champion", "models:/abair/7", "models:/nothing/1"])
def test_a_model_that_is_not_there_is_one_line(runs: Runs, uri: str, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"found no runs in .*; expected those of an operation"):
        runs.fetch(uri, tmp_path / "out")
    assert not list(tmp_path.rglob("mlflow.db"))  # to ask for something makes nothing
    runs.experiment()
    with pytest.raises(RegistryError) as caught:
        runs.fetch(uri, tmp_path / "out")
    assert str(caught.value) == (
        f"deployment {uri}: found no such model version in {runs.display_uri}; expected one that an operation "
        "registered; see: abair-registry ui"
    )


def test_restore_reads_a_version_of_the_model(
    bundle: Path, tmp_path: Path, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ABAIR_HOME", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    runs = Runs(Settings())
    run_id = runs.begin("add snow", tags={}, params={})
    runs.register(run_id, bundle, description="", tags={})
    runs.point("champion", "1")
    expected = Restorer.load(bundle)(photo).image
    for name in ("models:/abair@champion", "models:/abair/1", f"runs:/{run_id}"):
        assert np.array_equal(Restorer.load(name)(photo).image, expected)
    for wrong in ("models:/abair@chmpion", "models:/abiar@champion", "models:/abair/99"):
        with pytest.raises(DeploymentError) as caught:
            Restorer.load(wrong)
        assert f"deployment {wrong}: found no such model version in sqlite" in str(caught.value)
        assert "; expected models:/abair@champion, models:/abair/1; see: abair-registry ui" in str(caught.value)
    with pytest.raises(DeploymentError, match="found no bundle in the run; expected that of an operation"):
        Restorer.load(f"runs:/{runs.begin('disable snow', tags={}, params={})}")
    with pytest.raises(DeploymentError, match="found no such run in sqlite"):
        Restorer.load(f"runs:/{'0' * 32}")
    with pytest.raises(DeploymentError, match="nothing that is installed fetches ftp:/"):
        Restorer.load("ftp://host/bundle")


def test_a_name_that_is_none_is_told_with_the_form(runs: Runs, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="models:/abair: expected models:/abair@champion, models:/abair/NUMBER or "):
        runs.fetch("models:/abair", tmp_path)


def test_a_server_that_is_gone_is_one_line_without_its_password(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    runs = Runs(Settings(home=tmp_path, tracking_uri=f"http://ada:secret@127.0.0.1:{port}"))
    with pytest.raises(RegistryError, match=r"MLflow at http://\*\*\*@127\.0\.0\.1") as caught:
        runs.begin("add snow", tags={}, params={})
    assert "cannot be reached (connection refused); expected a store that can be reached" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


OUTSIDE = """
import socket, sys
from pathlib import Path
asked = []
connect = socket.socket.connect
def refuse(self, address):
    asked.append(address)
    raise OSError("no network in this test")
socket.socket.connect = refuse
socket.getaddrinfo = lambda *a, **k: asked.append(a) or (_ for _ in ()).throw(OSError("no names in this test"))
from abair_registry.tracking.mlflow_client import Runs
from abair_registry.settings import Settings
runs = Runs(Settings(home=Path(sys.argv[1]), tracking_uri=None))
run = runs.begin("quiet", tags={}, params={})
runs.metrics(run, {"x": 1.0})
runs.end(run, "FINISHED")
import time
time.sleep(1.5)  # telemetry is sent by a thread
print(asked)
"""


def test_nothing_is_sent_anywhere(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", OUTSIDE, str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout.strip().splitlines()[-1:]) == (0, ["[]"]), done.stderr


FIRST_USE = """
import sys
from pathlib import Path
from abair_registry.settings import Settings
from abair_registry.tracking.mlflow_client import Runs
print(Runs(Settings(home=Path(sys.argv[1]), tracking_uri=None)).experiment())
"""


@pytest.mark.rare
@pytest.mark.exhaustive
def test_two_first_uses_at_once_make_one_store(tmp_path: Path) -> None:
    home = tmp_path / "home"
    command = [sys.executable, "-c", FIRST_USE, str(home)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [one.communicate(timeout=300) for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    assert said[0][0] == said[1][0]
    assert sorted(path.name for path in home.iterdir() if not path.name.endswith((".lock", "-wal", "-shm"))) == [
        "mlflow.db"
    ]


def test_a_kill_while_the_store_is_made_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    settings = Settings(home=tmp_path / "home", tracking_uri=None)
    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "search_experiments", stop)
        with pytest.raises(KeyboardInterrupt):
            Runs(settings).experiment()
    assert not (settings.home / "mlflow.db").exists()
    (settings.home / ".mlflow-killed").mkdir()  # what SIGKILL leaves
    (settings.home / ".mlflow-killed" / "made.db").write_bytes(b"half of it")
    assert Runs(settings).experiment()


def test_a_store_whose_tables_are_incomplete_is_named_with_what_to_do(tmp_path: Path) -> None:
    store = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(store)) as database:
        database.execute("CREATE TABLE experiments (experiment_id INTEGER)")
        database.commit()
    with pytest.raises(RegistryError, match=rf"MLflow at sqlite.*to begin with an empty one, move {store} away"):
        Runs(Settings(home=tmp_path, tracking_uri=None)).experiment()
    store.write_bytes(b"no database at all" * 100)
    with pytest.raises(RegistryError, match=rf"move {store} away"):
        Runs(Settings(home=tmp_path, tracking_uri=None)).experiment()


def test_a_store_without_a_table_is_one_line_and_mlflow_prints_nothing(
    tmp_path: Path, empty_store: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "mlflow.db"
    shutil.copyfile(empty_store, store)
    Runs(Settings(home=tmp_path, tracking_uri=None)).experiment()
    with closing(sqlite3.connect(store)) as database:
        database.execute("DROP TABLE runs")
        database.commit()
    with pytest.raises(RegistryError, match="no such table: runs; expected a store") as refusal:
        Runs(Settings(home=tmp_path, tracking_uri=None)).running()
    assert "SELECT" not in str(refusal.value)
    assert capfd.readouterr().err == ""
