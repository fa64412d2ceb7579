"""One operation at a time, under a lock; what a kill leaves is undone by the next."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

import pytest
from sqlalchemy import select, text

from abair.errors import RegistryError
from abair.signals import Terminated
from abair_registry.db import audit, migrate
from abair_registry.db.audit import Actor
from abair_registry.db.engine import Database
from abair_registry.db.models import OperationRow, now
from abair_registry.db.operation_lock import operation_lock
from abair_registry.operations import lock
from abair_registry.settings import Settings

ME, OTHER = Actor("ada", "because"), Actor("bob")


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    """An empty registry's."""
    database = Database(settings)
    migrate.ensure(database.engine)
    yield database
    database.close()


def rows(database: Database) -> list[tuple[str, str, str, str | None]]:
    with database.read() as session:
        found = session.scalars(select(OperationRow).order_by(OperationRow.id))
        return [(operation.kind, operation.state, operation.step, operation.error) for operation in found]


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_steps_are_recorded_as_they_begin_and_the_end_with_them(database: Database) -> None:
    with lock.working(database, "add", "snow", ME) as work:
        assert rows(database) == [("add", "running", "", None)]
        work.step("probe")
        work.step("train", route="features")
        assert rows(database) == [("add", "running", "train", None)]
        with work.session() as (_, operation):
            assert operation.detail["arguments"] == {}
            assert operation.detail["route"] == "features"
    assert rows(database) == [("add", "done", "train", None)]
    with database.read() as session:
        (told,) = audit.events(session, "snow")
        assert (told.actor, told.action, told.reason, told.operation_id) == ("ada", "add done", "because", work.id)


@pytest.mark.parametrize(
    ("raised", "state", "error"),
    [
        (RegistryError("it failed"), "failed", "it failed"),
        (ZeroDivisionError("zero"), "failed", "ZeroDivisionError('zero')"),
        (KeyboardInterrupt(), "undone", "stopped by Ctrl-C"),
        (Terminated("stopped by SIGTERM"), "undone", "stopped by SIGTERM"),
    ],
)
def test_what_stops_an_operation_is_recorded(database: Database, raised: BaseException, state: str, error: str) -> None:
    def fail() -> None:
        with lock.working(database, "add", "snow", ME) as work:
            work.step("train")
            raise raised

    with pytest.raises(type(raised)):
        fail()
    assert rows(database) == [("add", state, "train", error)]


def test_a_second_administrator_is_told_who_is_doing_what_since_when(database: Database) -> None:
    with lock.working(database, "add", "snow", ME) as work:
        work.step("train")
        said = rf"ada is busy with add snow \(operation 1, step train, process {os.getpid()} on .*\) since 20.*--wait"
        with (
            pytest.raises(RegistryError, match=said),
            lock.working(database, "disable", "rain", OTHER),
        ):
            pass
    assert [row[:2] for row in rows(database)] == [("add", "done")]


def test_a_lock_without_an_operation_is_told_as_well(database: Database) -> None:
    held = operation_lock(database.engine)
    assert held.take()
    with pytest.raises(RegistryError, match="recorded no operation"), lock.working(database, "add", "snow", ME):
        pass
    held.release()
    assert rows(database) == []


@pytest.mark.slow
def test_one_who_waits_gets_the_turn_when_the_other_is_done(database: Database) -> None:
    seen: list[lock.Running] = []

    def second() -> None:
        with lock.working(database, "disable", "rain", OTHER, wait=True, waiting=seen.append):
            pass

    with lock.working(database, "add", "snow", ME):
        thread = threading.Thread(target=second)
        thread.start()
        until(lambda: bool(seen))
        assert [row[1] for row in rows(database)] == ["running"]
    thread.join(20)
    assert [row[:2] for row in rows(database)] == [("add", "done"), ("disable", "done")]
    assert [other.actor for other in seen] == ["ada"]


def test_each_step_is_a_sign_of_life(database: Database) -> None:
    def heartbeat() -> datetime:
        with database.read() as session:
            return session.scalars(select(OperationRow.heartbeat)).one()

    with lock.working(database, "add", "snow", ME) as work:
        first = heartbeat()
        work.step("train")
        assert heartbeat() > first


@pytest.mark.parametrize(
    "said", [{"host": "elsewhere"}, {"process": 2**22 + 1}, {"heartbeat": now() - timedelta(days=1)}]
)
def test_an_operation_is_left_alone_while_its_lock_is_held_whatever_its_row_says(
    database: Database, said: dict[str, object]
) -> None:
    with lock.working(database, "add", "snow", ME) as work:
        change(database, work.id, said)
        assert lock.recover(database) == []
        with pytest.raises(RegistryError, match="ada is busy"):
            lock.expect_nobody(database)
        change(database, work.id, {"process": os.getpid()})
        work.step("publish")


def change(database: Database, number: int, said: dict[str, object]) -> None:
    with database.write() as session:
        operation = session.get_one(OperationRow, number)
        for name, value in said.items():
            setattr(operation, name, value)


def test_an_operation_whose_lock_was_cut_publishes_nothing_after_another_took_its_place(database: Database) -> None:
    with lock.working(database, "add", "snow", ME) as work:
        work._lock.release()
        (dead,) = lock.recover(database)
        assert dead.id == work.id
        with pytest.raises(RegistryError, match=r"operation 1: the lock was lost \(found state undone"):
            work.step("publish")
    assert [row[1] for row in rows(database)] == ["undone"]


@pytest.mark.slow
@pytest.mark.parametrize("settings", ["postgresql"], indirect=True)
def test_an_operation_goes_on_after_its_connection_was_cut_if_nobody_took_its_place(database: Database) -> None:
    with lock.working(database, "add", "snow", ME) as work:
        with database.engine.connect() as connection:
            cut = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
            assert connection.scalar(text(cut))
        work.step("train")
        assert lock.recover(database) == []
    assert [row[1] for row in rows(database)] == ["done"]


def test_a_host_whose_clock_is_wrong_takes_nobodys_place(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with lock.working(database, "add", "snow", ME) as work:
        monkeypatch.setattr(lock, "now", lambda: now() + timedelta(hours=1))
        work.step("train")
        assert lock.recover(database) == []


BUSY = """
import sys
from abair_registry.db.engine import Database
from abair_registry.db.queries import Actor
from abair_registry.operations import lock
from abair_registry.settings import Settings
with lock.working(Database(Settings()), "add", "snow", Actor("ada")) as work:
    work.step("train")
    print("training", flush=True)
    sys.stdin.readline()
    work.step("publish")
"""


@contextmanager
def busy(environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process that is at its step `train` until it is given a line; killed in the end."""
    command = [sys.executable, "-c", BUSY]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "training\n"
            yield process
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("host", [None, "elsewhere"])
def test_what_a_killed_process_left_is_undone_by_the_next_at_once(
    database: Database, environment: dict[str, str], host: str | None
) -> None:
    with busy(environment) as process:
        if host is not None:  # of a container that is gone, say
            change(database, 1, {"host": host})
        assert lock.recover(database) == []
        process.send_signal(signal.SIGKILL)
        process.wait()
        until(lambda: bool(lock.recover(database)), seconds=2)
    with lock.working(database, "disable", "rain", OTHER):
        pass
    assert [row[:3] for row in rows(database)] == [("add", "undone", "train"), ("disable", "done", "")]
    assert "was gone at step train" in str(rows(database)[0][3])


@pytest.mark.slow
def test_a_process_that_stands_still_loses_nothing(database: Database, environment: dict[str, str]) -> None:
    with busy(environment) as process:
        process.send_signal(signal.SIGSTOP)
        change(database, 1, {"heartbeat": now() - timedelta(days=1)})
        assert lock.recover(database) == []
        with pytest.raises(RegistryError, match="ada is busy"), lock.working(database, "disable", "rain", OTHER):
            pass
        process.send_signal(signal.SIGCONT)
        process.communicate("go on\n", timeout=20)
        assert process.returncode == 0
    assert [row[:3] for row in rows(database)] == [("add", "done", "publish")]
