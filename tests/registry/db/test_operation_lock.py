"""A lock that its holder's death frees, and nothing else does."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from abair.errors import RegistryError
from abair_registry.db import migrate
from abair_registry.db.engine import Database
from abair_registry.db.operation_lock import OperationLock, operation_lock
from abair_registry.settings import Settings

pytestmark = pytest.mark.slow

HOLDER = """
import os, sys, time
from abair_registry.db.engine import Database
from abair_registry.db.operation_lock import operation_lock
from abair_registry.settings import Settings

lock = operation_lock(Database(Settings()).engine)
assert lock.take()
if sys.argv[1:] == ["fork"] and os.fork() == 0:
    time.sleep(600)
print(os.getpid(), flush=True)
time.sleep(600)
"""


def only(backend: str) -> pytest.MarkDecorator:
    """Run a test on one backend."""
    return pytest.mark.parametrize("settings", [backend], indirect=True)


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    database = Database(settings)
    migrate.ensure(database.engine)
    yield database
    database.close()


@pytest.fixture
def lock(database: Database) -> Iterator[OperationLock]:
    """A second one beside the holder's."""
    lock = operation_lock(database.engine)
    yield lock
    lock.release()


@contextmanager
def holder(environment: dict[str, str], *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process of its own that has taken the lock; it and its children are killed in the end."""
    command = [sys.executable, "-c", HOLDER, *arguments]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == f"{process.pid}\n"
            yield process
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def until(condition: Callable[[], bool]) -> float:
    """Seconds until it holds."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < began + 20
        time.sleep(0.02)
    return time.monotonic() - began


def test_one_has_it_at_a_time(database: Database, lock: OperationLock) -> None:
    other = operation_lock(database.engine)
    assert lock.take()
    assert not other.take()
    lock.release()
    lock.release()  # nothing more happens
    assert other.take()
    other.release()


def test_a_killed_holders_lock_is_free_at_once(lock: OperationLock, environment: dict[str, str]) -> None:
    with holder(environment) as process:
        assert not lock.take()
        process.kill()
        assert until(lock.take) < 5


def test_a_stopped_holder_keeps_it(lock: OperationLock, environment: dict[str, str]) -> None:
    with holder(environment) as process:
        process.send_signal(signal.SIGSTOP)
        time.sleep(1)
        assert not lock.take()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX systems fork")
def test_a_forked_child_that_ends_takes_it_from_nobody(
    database: Database, lock: OperationLock, environment: dict[str, str]
) -> None:
    assert lock.take()
    code = f"import os, sys\n{HOLDER.split('assert', maxsplit=1)[0]}\nsys.exit(lock.take())"
    child = os.fork()
    if child == 0:
        del lock
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


# On PostgreSQL the child keeps the connection open, which is what the server sees.
@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX systems fork")
@only("sqlite")
def test_a_file_is_free_though_a_forked_child_outlives_its_killed_holder(
    lock: OperationLock, environment: dict[str, str]
) -> None:
    with holder(environment, "fork") as process:
        assert not lock.take()
        process.kill()
        assert until(lock.take) < 5


@only("postgresql")
def test_a_connection_that_was_cut_is_made_again(database: Database, lock: OperationLock) -> None:
    assert lock.take()
    with database.engine.connect() as connection:
        cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE locktype = 'advisory' AND granted"
        assert connection.scalar(text(cut)) == 1
    other = operation_lock(database.engine)
    until(other.take)
    other.release()
    lock.keep()
    assert not other.take()


@only("sqlite")
def test_whoever_may_write_the_database_may_lock_it(database: Database, lock: OperationLock) -> None:
    path = Path(str(database.engine.url.database))
    path.chmod(0o660)
    assert lock.take()
    (found,) = path.parent.glob("*.operation.lock")
    assert stat.S_IMODE(found.stat().st_mode) == 0o660


@only("sqlite")
def test_the_lock_of_a_read_only_database_is_its_owners(database: Database, lock: OperationLock) -> None:
    path = Path(str(database.engine.url.database))
    path.chmod(0o440)
    assert lock.take()
    (found,) = path.parent.glob("*.operation.lock")
    assert stat.S_IMODE(found.stat().st_mode) == 0o640


@only("sqlite")
def test_a_file_that_cannot_be_locked_is_told_in_one_line(database: Database, lock: OperationLock) -> None:
    path = Path(str(database.engine.url.database))
    path.with_name(f"{path.name}.operation.lock").mkdir()
    with pytest.raises(RegistryError, match=r"found a folder, expected a file to lock; move") as caught:
        lock.take()
    assert "\n" not in str(caught.value)


@only("sqlite")
@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
def test_a_folder_in_the_place_of_a_file_of_sqlites_is_told_with_what_to_do(database: Database, suffix: str) -> None:
    database.close()
    beside = Path(f"{database.engine.url.database}{suffix}")
    beside.unlink(missing_ok=True)
    beside.mkdir()
    with pytest.raises(RegistryError, match=r"is a folder, where SQLite keeps a file\); .*; move .* away"):  # noqa: SIM117
        with database.write() as session:
            session.execute(text("SELECT count(*) FROM plugins"))
