"""An operation whose process is gone: every command says so and names what to do; looking writes nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from sqlalchemy import select
from tests.registry.conftest import Run, complaints
from tests.support.outcomes import live

from abair_registry.db import queries
from abair_registry.db.audit import Actor
from abair_registry.db.engine import Database
from abair_registry.db.models import EventRow, OperationRow
from abair_registry.operations import lock
from abair_registry.registry import Registry
from abair_registry.settings import Settings
from abair_registry.tracking import sync
from abair_registry.tracking.mlflow_client import Runs

pytestmark = pytest.mark.slow

BUSY = """
import time
from abair_registry.db.audit import Actor
from abair_registry.operations import lock
from abair_registry.operations.requests import OperationOptions
from abair_registry.registry import open_registry, sync_live_file
from abair_registry.settings import Settings
options = OperationOptions(force=True).as_json()
with open_registry(Settings()) as registry:
    sync_live_file(registry)
    with lock.working(registry.database, "disable", "rain", Actor("ada", "a test"), arguments=options) as work:
        work.step("train")
        print("training", flush=True)
        time.sleep(600)
"""


@pytest.fixture
def process(run: Run) -> Iterator[subprocess.Popen[str]]:
    """An operation at its step `train`, in a process of its own."""
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "training\n"
        yield process
        process.kill()


def state(settings: Settings) -> str:
    database = Database(settings, read_only=True)
    with database.read() as session:
        found = session.get_one(OperationRow, 1).state
    database.close()
    return found


def test_every_command_names_resume_until_the_operation_is_done(
    process: subprocess.Popen[str], run: Run, settings: Settings
) -> None:
    assert complaints(run("list")[2]) == []  # it is at work
    process.kill()
    process.wait()
    for command in (("list",), ("show", "rain"), ("history",), ("verify",)):
        (told,) = complaints(run(*command)[2])
        assert told.startswith("abair-registry: operation 1, disable rain by ada, was cut short at step train: process")
        assert told.endswith(" is gone; to run it again: abair-registry resume")
    code, (found,), err = run("doctor", "--dry-run")
    assert (code, complaints(err)[0]) == (1, told)
    assert found["problems"] == [
        f"operation 1, disable rain: recorded as running, and its process {process.pid} is gone; run: abair-registry "
        "doctor"
    ]
    assert state(settings) == "running"  # who looks writes nothing
    code, (mended,), err = run("doctor")
    assert (code, complaints(err), state(settings)) == (0, [told], "undone")
    assert mended["mended"][0] == "operation 1, disable rain: ended, its process is gone"
    assert run("doctor", "--dry-run")[0] == 0
    assert complaints(run("list")[2]) == [told]
    code, (result,), err = run("resume")
    assert (code, result["outcome"], live(run)) == (0, "live", 2), err
    assert complaints(run("list")[2]) == []


def test_a_command_that_may_write_undoes_it_and_says_so(
    process: subprocess.Popen[str], run: Run, settings: Settings
) -> None:
    process.kill()
    process.wait()
    (settings.home / "shared").mkdir()
    code, _, err = run("push", "--to", (settings.home / "shared").as_uri())
    assert (code, state(settings)) == (0, "undone")
    assert [line.endswith("abair-registry resume") for line in complaints(err)] == [True]


def test_what_was_done_by_hand_meanwhile_is_not_named_any_more(
    process: subprocess.Popen[str], run: Run, settings: Settings
) -> None:
    process.kill()
    process.wait()
    database = Database(settings)
    with database.write() as session:  # as an operation before it did
        found = queries.plugin(session, "rain")
        assert found is not None
        found.state = "disabled"
    database.close()
    code, (told,), _ = run("resume")
    assert (code, told["unchanged"], state(settings)) == (0, "plugin rain: is disabled already", "done")
    assert complaints(run("list")[2]) == []


def test_doctor_leaves_mlflow_to_an_operation_that_is_running(
    process: subprocess.Popen[str], run: Run, settings: Settings
) -> None:
    code, (told,), err = run("doctor")
    assert (code, complaints(err), told["mended"], told["problems"]) == (0, [], [], [])
    (note,) = [note for note in told["notes"] if note.startswith("MLflow was not looked at: ada is busy with disable")]
    assert note.endswith("and tells it what is live at the end")
    process.kill()
    process.wait()
    assert "champion is version 1" in run("doctor")[1][0]["mended"]


def test_doctor_calls_nothing_mended_that_another_operation_was_about_to_tell_mlflow(
    run: Run, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconcile = sync.reconcile

    def beside_another(registry: Registry, runs: Runs) -> list[str]:
        with lock.working(registry.database, "rollback", "2", Actor("ada", "a test")):
            return reconcile(registry, runs)

    assert run("list")[0] == 0
    with monkeypatch.context() as patched:
        patched.setattr(sync, "reconcile", beside_another)
        code, (told,), err = run("doctor")
    assert (code, complaints(err), told["mended"], told["problems"]) == (0, [], [], [])
    assert [note for note in told["notes"] if note.startswith("MLflow was told beside an operation")]
    database = Database(settings, read_only=True)
    with database.read() as session:
        assert session.scalars(select(EventRow).where(EventRow.action == "mend")).all() == []
    database.close()
