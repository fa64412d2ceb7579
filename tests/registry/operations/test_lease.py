"""One operation at a time, under a lease; what a kill leaves is undone by the next."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import select

from abair.errors import RegistryError
from abair_registry.db import audit
from abair_registry.db.audit import Actor
from abair_registry.db.models import OperationRow, now
from abair_registry.operations import lease
from abair_registry.registry import Registry, open_registry
from abair_registry.settings import Settings

ME, OTHER = Actor("ada", "because"), Actor("bob")


def rows(registry: Registry) -> list[tuple[str, str, str, str | None]]:
    with registry.database.read() as session:
        found = session.scalars(select(OperationRow).order_by(OperationRow.id))
        return [(operation.kind, operation.state, operation.step, operation.error) for operation in found]


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_steps_are_recorded_as_they_begin_and_the_end_with_them(registry: Registry) -> None:
    with lease.working(registry.database, "add", "snow", ME) as work:
        assert rows(registry) == [("add", "running", "", None)]
        work.step("probe")
        work.step("train", route="features")
        assert rows(registry) == [("add", "running", "train", None)]
        with work.session() as (_, operation):
            assert operation.detail["arguments"] == {}
            assert operation.detail["route"] == "features"
    assert rows(registry) == [("add", "done", "train", None)]
    with registry.database.read() as session:
        (told,) = audit.events(session, "snow")
        assert (told.actor, told.action, told.reason, told.operation_id) == ("ada", "add done", "because", work.id)


@pytest.mark.parametrize(
    ("raised", "state", "error"),
    [
        (RegistryError("it failed"), "failed", "it failed"),
        (ZeroDivisionError("zero"), "failed", "ZeroDivisionError('zero')"),
        (KeyboardInterrupt(), "undone", "stopped by Ctrl-C"),
    ],
)
def test_what_stops_an_operation_is_recorded(registry: Registry, raised: BaseException, state: str, error: str) -> None:
    def fail() -> None:
        with lease.working(registry.database, "add", "snow", ME) as work:
            work.step("train")
            raise raised

    with pytest.raises(type(raised)):
        fail()
    assert rows(registry) == [("add", state, "train", error)]


def test_a_second_administrator_is_told_who_is_doing_what_since_when(registry: Registry) -> None:
    with lease.working(registry.database, "add", "snow", ME) as work:
        work.step("train")
        said = rf"ada is busy with add snow \(operation 1, step train, process {os.getpid()} on .*\) since 20.*--wait"
        with (
            pytest.raises(RegistryError, match=said),
            lease.working(registry.database, "disable", "rain", OTHER),
        ):
            pass
    assert [row[:2] for row in rows(registry)] == [("add", "done")]


def test_one_who_waits_gets_the_turn_when_the_other_is_done(registry: Registry) -> None:
    seen: list[lease.Running] = []

    def second() -> None:
        with lease.working(registry.database, "disable", "rain", OTHER, wait=True, waiting=seen.append):
            pass

    with lease.working(registry.database, "add", "snow", ME):
        thread = threading.Thread(target=second)
        thread.start()
        until(lambda: bool(seen))
        assert [row[1] for row in rows(registry)] == ["running"]
    thread.join(20)
    assert [row[:2] for row in rows(registry)] == [("add", "done"), ("disable", "done")]
    assert [other.actor for other in seen] == ["ada"]


def test_the_lease_is_renewed_while_a_step_takes_long(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT", 0.05)

    def heartbeat() -> object:
        with registry.database.read() as session:
            return session.scalars(select(OperationRow.heartbeat)).one()

    with lease.working(registry.database, "add", "snow", ME):
        first = heartbeat()
        until(lambda: heartbeat() != first)


@pytest.mark.parametrize(
    "elsewhere",
    [
        pytest.param({"host": "elsewhere"}, id="host"),
        # a container of the same name: its process numbers mean nothing here
        pytest.param({"detail": {"arguments": {}, "place": "a boot pid:[1]"}}, id="container"),
    ],
)
def test_an_operation_elsewhere_is_left_alone_until_its_lease_runs_out(
    registry: Registry, elsewhere: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(process: int, signal: int) -> None:
        raise ProcessLookupError

    with lease.working(registry.database, "add", "snow", ME) as work:
        with registry.database.write() as session:
            operation = session.get(OperationRow, work.id)
            assert operation is not None
            for name, value in elsewhere.items():
                setattr(operation, name, value)
            operation.heartbeat = now() - lease.LEASE + timedelta(seconds=30)
        with monkeypatch.context() as patched:
            patched.setattr(os, "kill", gone)
            assert lease.recover(registry.database) == []
        with registry.database.write() as session:
            operation = session.get(OperationRow, work.id)
            assert operation is not None
            operation.heartbeat = now() - lease.LEASE - timedelta(seconds=1)
        (dead,) = lease.recover(registry.database)
        assert dead.id == work.id
        with pytest.raises(RegistryError, match=r"operation 1: the lease was lost \(found state undone"):
            work.step("publish")
    assert [row[1] for row in rows(registry)] == ["undone"]


def test_a_host_whose_clock_is_wrong_takes_no_lease_of_a_shared_database(
    new_database: Callable[[], str], tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(home=tmp_path, registry_url=SecretStr(new_database()))
    with (
        open_registry(settings, bundle) as registry,
        lease.working(registry.database, "add", "snow", ME) as work,
    ):
        monkeypatch.setattr(lease, "now", lambda: now() + timedelta(hours=1))
        work.step("train")
        assert lease.recover(registry.database) == []


KILLED = """
import sys, time
from abair_registry.db.engine import Database
from abair_registry.db.queries import Actor
from abair_registry.operations import lease
from abair_registry.settings import Settings
with lease.working(Database(Settings()), "add", "snow", Actor("ada")) as work:
    work.step("train")
    print("training", flush=True)
    time.sleep(600)
"""


def test_what_a_killed_process_left_is_undone_by_the_next(registry: Registry, environment: dict[str, str]) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED], env=environment, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "training\n"
        assert lease.recover(registry.database) == []
        child.send_signal(signal.SIGKILL)
    with lease.working(registry.database, "disable", "rain", OTHER):
        pass
    assert [row[:3] for row in rows(registry)] == [("add", "undone", "train"), ("disable", "done", "")]
    assert "was gone at step train" in str(rows(registry)[0][3])
