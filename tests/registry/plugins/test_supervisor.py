"""The parent of a worker process finds and ends all that a plugin started, wherever it went."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from abair_registry.plugins.worker import supervisor
from abair_registry.processes.marked import MARK, find_marked

SLEEP = "import time; time.sleep(600)"


@pytest.fixture
def pids(tmp_path: Path) -> Iterator[Path]:
    """A folder in which each process leaves a file that is named by its number; whatever is left is killed."""
    folder = tmp_path / "pids"
    folder.mkdir()
    yield folder
    for path in folder.iterdir():
        if psutil.pid_exists(int(path.name)):
            psutil.Process(int(path.name)).kill()


def start(program: str, mark: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {MARK: mark}
    return subprocess.Popen([sys.executable, "-c", program], env=environment, start_new_session=True)


def wait_for(folder: Path, count: int) -> list[int]:
    deadline = time.monotonic() + 60
    while len(list(folder.iterdir())) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return [int(path.name) for path in folder.iterdir()]


def running(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def leave_pid(folder: Path) -> str:
    return f"import os, pathlib; (pathlib.Path({os.fspath(folder)!r}) / str(os.getpid())).touch()"


def test_a_grandchild_that_daemonised_is_found_by_its_mark_after_the_worker_ended(pids: Path) -> None:
    mark = secrets.token_hex(16)
    daemon = (
        "import os, time\nif os.fork(): os._exit(0)\nos.setsid()\nif os.fork(): os._exit(0)\n"
        f"{leave_pid(pids)}\ntime.sleep(600)"
    )
    worker = start(daemon, mark)
    assert worker.wait(60) == 0
    (pid,) = wait_for(pids, 1)
    assert [process.pid for process in find_marked(mark)] == [pid]
    supervisor._end(worker, mark)
    assert not running(pid)
    assert find_marked(mark) == []


def test_a_child_that_cleared_its_environment_is_found_as_a_descendant(pids: Path) -> None:
    mark = secrets.token_hex(16)
    child = f"{leave_pid(pids)}; {SLEEP}"
    worker = start(
        "import subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', {child!r}], env={{}}, start_new_session=True)\ntime.sleep(600)",
        mark,
    )
    (pid,) = wait_for(pids, 1)
    assert [process.pid for process in find_marked(mark)] == [worker.pid]
    supervisor._end(worker, mark)
    assert not running(pid)
    assert worker.returncode is not None


def test_another_runs_processes_are_left_alone(pids: Path) -> None:
    other = start(f"{leave_pid(pids)}; {SLEEP}", secrets.token_hex(16))
    wait_for(pids, 1)
    worker = start("pass", secrets.token_hex(16))
    supervisor._end(worker, secrets.token_hex(16))
    assert running(other.pid)
    other.kill()
    other.wait()
