"""Operations while MLflow is away do their work, and the next command that reaches it mirrors them."""

from __future__ import annotations

import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from tests.registry.conftest import Run, complaints
from tests.support.outcomes import aliases, client, live, sqlite

from abair.errors import RegistryError
from abair_registry.operations import run_report
from abair_registry.settings import Settings
from abair_registry.tracking.mlflow_client import Runs

pytestmark = pytest.mark.slow


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a server that does not run, set for commands."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    return url


def notes(err: str, kind: str) -> list[str]:
    """The lines of this kind, `warning` or `note`, on stderr."""
    return [line for line in complaints(err) if line.startswith(f"abair-registry: {kind}: ")]


@sqlite
def test_operations_without_a_server_do_their_work_and_are_mirrored_by_the_next_command(
    run: Run, settings: Settings, nobody: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, (told,), err = run("disable", "rain", "--yes", "--reason", "smears")
    assert (code, told["outcome"], told["run_id"], live(run)) == (0, "live", None, 2), err
    (warning,) = notes(err, "warning")
    assert f"MLflow at {nobody}" in warning
    assert "the next command that reaches MLflow mirrors its run" in warning
    code, _, err = run("rollback")
    assert (code, live(run), len(notes(err, "warning"))) == (0, 1, 1), err
    code, (looked,), _ = run("doctor")
    assert (code, [nobody in problem for problem in looked["problems"]]) == (1, [True])

    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    code, _, err = run("promote", "2")
    assert (code, notes(err, "warning")) == (0, []), err
    (note,) = notes(err, "note")
    assert "MLflow has caught up: run " in note
    assert "champion is version 1" in note
    assert not (settings.home / "outbox").exists()
    there = client(settings)
    (version,) = there.search_model_versions("name='abair'")
    held = there.get_run(version.run_id)  # the operation's own, not one that only holds the bundle
    assert aliases(settings) == {"champion": "2"}
    assert (held.info.status, held.data.tags["abair.kind"], held.data.tags["abair.outcome"]) == (
        "FINISHED", "disable", "live",
    )  # fmt: skip
    assert held.data.tags["mlflow.note.content"].startswith("## Deployment 2 is live.")
    assert (held.data.params["labels"], held.data.tags["abair.asked"]) == ("noise, low-light, clean", "smears")
    assert "psnr/clean/SW" in held.data.metrics
    assert {"report.json", "lineage.json", "figures", "bundle"} <= {
        file.path for file in there.list_artifacts(version.run_id)
    }
    assert run("doctor")[1] == [{"mended": [], "problems": [], "notes": run("doctor")[1][0]["notes"]}]


def garbage(store: Path) -> None:
    store.write_bytes(b"no database at all" * 100)


def revision(number: str) -> Callable[[Path], None]:
    """Of the schema: one of an old MLflow, or one that this MLflow does not know."""

    def change(store: Path) -> None:
        with closing(sqlite3.connect(store)) as database:
            database.execute("UPDATE alembic_version SET version_num = ?", [number])
            database.commit()

    return change


@pytest.mark.rare
@pytest.mark.exhaustive
@sqlite
def test_a_store_that_cannot_be_used_stops_no_operation(run: Run, settings: Settings, empty_store: Path) -> None:
    def fresh(*arguments: str) -> tuple[int, str]:
        """In a process of its own: in this one MLflow has opened its store already."""
        command = [sys.executable, "-m", "abair_registry", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
        return done.returncode, done.stderr

    store = settings.home / "mlflow.db"
    run("list")
    assert fresh("disable", "rain", "--yes")[0] == 0
    whole = store.read_bytes()
    for number, spoil in enumerate([garbage, revision("451aebb31d03"), revision("ffffffffffff")]):
        spoil(store)
        code, err = fresh(*(["rollback"] if number % 2 == 0 else ["promote", "2"]))
        assert (code, live(run)) == (0, 1 if number % 2 == 0 else 2), err
        (warning,) = notes(err, "warning")
        assert f"move {store} away" in warning
        store.write_bytes(whole)
    store.unlink()  # and who moved it away gets a new one
    shutil.copyfile(empty_store, store)
    code, err = fresh("promote", "2")
    assert (code, len(notes(err, "note")), aliases(settings)) == (0, 1, {"champion": "2"}), err


@sqlite
@pytest.mark.parametrize("stops", ["error", "kill"])
def test_a_failed_operation_of_which_mlflow_knew_nothing_is_a_closed_run_later(
    stops: str, run: Run, settings: Settings, nobody: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise MemoryError("no room") if stops == "error" else KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(run_report, "evidence", stop)
        assert run("disable", "rain", "--yes")[0] == (1 if stops == "error" else 130)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert run("doctor")[0] == 0
    runs = client(settings).search_runs([Runs(settings).experiment()], "tags.`abair.kind` = 'disable'")
    assert [found.info.status for found in runs] == ["FAILED" if stops == "error" else "KILLED"]
    assert not (settings.home / "outbox").exists()


@sqlite
def test_a_server_that_dies_in_the_middle_costs_a_warning_and_the_run_is_completed(
    run: Run, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(runs: Runs, *_: object, **__: object) -> None:
        runs.away = RegistryError("MLflow at http://x: connection refused")
        raise runs.away

    with monkeypatch.context() as patched:
        patched.setattr(Runs, "metrics", gone)
        code, (told,), err = run("disable", "rain", "--yes")
    assert (code, told["outcome"], len(notes(err, "warning"))) == (0, "live", 1), err
    begun = client(settings).get_run(told["run_id"])
    assert (begun.info.status, begun.data.metrics) == ("RUNNING", {})
    code, (result,), err = run("doctor")
    assert (code, result["problems"]) == (0, [])
    ended = client(settings).get_run(told["run_id"])
    assert (ended.info.status, ended.data.tags["abair.outcome"]) == ("FINISHED", "live")
    assert "psnr/clean/SW" in ended.data.metrics


@pytest.mark.rare
@sqlite
@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (Path.unlink, "its files are gone (deployment.json)"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "its file deployment.json was changed"),
    ],
)
def test_a_bundle_in_mlflow_without_its_description_is_registered_again(
    run: Run, settings: Settings, damage: Callable[[Path], object], says: str
) -> None:
    assert run("doctor")[0] == 0
    (description,) = (settings.home / "artifacts").rglob("bundle/deployment.json")
    damage(description)
    code, (told,), err = run("doctor")
    assert (code, says in "; ".join(told["mended"])) == (0, True), (told, err)
    assert run("doctor")[1][0]["mended"] == []


@pytest.mark.exhaustive
@sqlite
def test_what_was_lost_in_mlflow_is_told_and_registered_again(run: Run, settings: Settings) -> None:
    from click.testing import CliRunner
    from mlflow.cli import gc

    assert run("disable", "rain", "--yes")[0] == 0
    there = client(settings)

    def champion() -> tuple[str, str]:
        found = there.get_model_version_by_alias("abair", "champion")
        return found.version, found.run_id

    def mended() -> str:
        code, (result,), err = run("doctor")
        assert (code, aliases(settings)) == (0, {"champion": "2"}), err
        assert run("doctor")[1][0]["mended"] == []
        return "; ".join(result["mended"])

    there.delete_run(champion()[1])  # on the page
    assert "of version 1 its run was deleted" in mended()
    there.delete_run(champion()[1])
    uri = f"sqlite:///{settings.home / 'mlflow.db'}"
    environment = {"MLFLOW_TRACKING_URI": uri}
    CliRunner().invoke(gc, ["--backend-store-uri", uri], env=environment, catch_exceptions=False)
    assert "of version 2 its run is gone" in mended()
    (estimator,) = (settings.home / "artifacts" / champion()[1]).rglob("estimator.safetensors")
    estimator.unlink()
    assert "of version 3 its files are gone (estimator.safetensors)" in mended()
    there.set_registered_model_alias("abair", "champion", "1")
    assert mended() == "champion is version 4, was 1"
    there.delete_model_version("abair", "4")
    assert "deployment 2 is version 5 of the model" in mended()
    (estimator,) = (settings.home / "artifacts" / champion()[1]).rglob("estimator.safetensors")
    estimator.unlink()
    estimator.mkdir()  # which MLflow would copy the file into, each time
    assert "its files are gone (estimator.safetensors)" in mended()
    before = champion()[0]
    there.delete_experiment(Runs(settings).experiment())
    assert "deployment 2 is version" in mended() or champion()[0] == before
    code, _, err = run("rollback")
    assert (code, notes(err, "warning"), aliases(settings)) == (0, [], {"champion": "1"})
