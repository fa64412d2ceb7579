"""Operations: what is being done to the registry, by whom, at which step; one at a time.

Whoever does an operation holds a lock that dies with its process. The row of the operation says who
that is, and the table's index allows one row that is running. A row that is running while the lock
is free belongs to a killed process; the next one closes it as undone. The lock changes hands only
in a transaction that changes the row as well, so nobody sees one without the other. Times are the
database's, which all hosts that share it have in common.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import DateTime, func, select
from sqlalchemy.orm import Session

from abair.errors import AbairError, RegistryError
from abair_registry.db import audit, queries
from abair_registry.db.audit import Actor
from abair_registry.db.engine import Database
from abair_registry.db.models import PUBLISHED, OperationRow, now
from abair_registry.db.operation_lock import OperationLock, operation_lock
from abair_registry.processes.identity import ProcessIdentity

GONE: Final = "gone"
"""Key in an operation's detail: it was undone because its process was gone."""
PROCESS: Final = "process"
"""Key in an operation's detail: the tags of its process's identity."""
POLL: Final = 0.5
"""Seconds between two tries of one who waits for the lock."""


@dataclass(frozen=True)
class Running:
    """An operation as somebody else sees it."""

    id: int
    kind: str
    subject: str
    step: str
    actor: str
    host: str
    process: int
    started: datetime

    def __str__(self) -> str:
        since = self.started.isoformat(timespec="seconds")
        return (
            f"{self.actor} is busy with {self.kind} {self.subject} (operation {self.id}, step {self.step or 'start'}, "
            f"process {self.process} on {self.host}) since {since}"
        )


class Work:
    """The operation in hand; `step` records where it is, `session` writes only while it is ours."""

    def __init__(self, database: Database, number: int, lock: OperationLock) -> None:
        self.id = number
        self._database = database
        self._lock = lock

    def step(self, name: str, **detail: Any) -> None:
        """Record the step that begins, and what is known so far.

        Raises:
            RegistryError: the lock was lost.
        """
        with self.session() as (session, operation):
            operation.step = name
            operation.detail = operation.detail | detail
            session.flush()

    @contextmanager
    def session(self) -> Iterator[tuple[Session, OperationRow]]:
        """One transaction in which the operation is certainly still ours.

        Raises:
            RegistryError: the connection that held the lock was cut, and somebody else took it.
        """
        with self._database.write() as session:
            operation = session.get(OperationRow, self.id)
            if operation is None or operation.state != "running" or operation.process != os.getpid():
                raise RegistryError(
                    f"operation {self.id}: the lock was lost (found state "
                    f"{operation.state if operation else 'none'}, expected running); nothing was published; "
                    "run the command again"
                )
            self._lock.keep()
            operation.heartbeat = _moment(session)
            yield session, operation


@contextmanager
def working(
    database: Database,
    kind: str,
    subject: str,
    actor: Actor,
    *,
    arguments: Mapping[str, Any] | None = None,
    wait: bool = False,
    waiting: Callable[[Running], None] | None = None,
) -> Iterator[Work]:
    """Hold the lock for one operation and record how it ends.

    It ends as `done`, as `failed` with the error, or as `undone` by Ctrl-C or SIGTERM. `arguments`
    are what it takes to run it again.

    Raises:
        RegistryError: another one is running, and `wait` is false.
    """
    lock = operation_lock(database.engine)
    try:
        number = _begin(database, lock, kind, subject, actor, dict(arguments or {}), wait=wait, waiting=waiting)
        try:
            yield Work(database, number, lock)
        except KeyboardInterrupt as stop:
            end(database, number, "undone", str(stop) or "stopped by Ctrl-C", lock=lock)
            raise
        except BaseException as error:
            end(database, number, "failed", str(error) if isinstance(error, AbairError) else repr(error), lock=lock)
            raise
        end(database, number, "done", lock=lock)
    finally:
        lock.release()  # held still where the row could not be closed; the next command closes it


def end(
    database: Database, number: int, state: str, error: str | None = None, *, lock: OperationLock | None = None
) -> None:
    """Close an operation that is running, and free its lock; one that is closed stays as it is."""
    with database.write() as session:
        operation = session.get(OperationRow, number)
        if operation is not None and operation.state == "running":
            _close(session, operation, state, error)
        if lock is not None:
            lock.release()


def expect_nobody(database: Database) -> None:
    """Nothing, unless another operation is running.

    Raises:
        RegistryError: by whom, with what, since when.
    """
    recover(database)
    with database.read() as session:
        other = running(session)
    if other is not None:
        raise _busy(other)


def interrupted(session: Session) -> OperationRow | None:
    """Return the newest operation that had begun a step, if it ended early and can run again."""
    newest = _newest_begun(session)
    return newest if newest is not None and newest.state in ("undone", "failed") else None


def _newest_begun(session: Session) -> OperationRow | None:
    begun = select(OperationRow).where(OperationRow.step != "").order_by(OperationRow.id.desc())
    return session.scalar(begun.limit(1))


def cut_short(session: Session) -> Running | None:
    """Return the operation that can run again and whose process is gone, if any; writes nothing.

    The lock cannot be tried without taking it. So of one that is recorded as running this only
    tells what is certain: that its process on this host has ended.
    """
    newest = _newest_begun(session)
    if newest is None or newest.step == PUBLISHED:
        return None
    if newest.state == "running":
        return abandoned(session)
    return _seen(newest) if newest.state == "undone" and newest.detail.get(GONE) else None


def abandoned(session: Session) -> Running | None:
    """Return the operation that is recorded as running and whose process on this host is gone."""
    operation = session.scalar(select(OperationRow).where(OperationRow.state == "running"))
    if operation is None:
        return None
    process = ProcessIdentity.from_tags(operation.detail.get(PROCESS, {}))
    return _seen(operation) if process is not None and process.is_gone() else None


def settle(database: Database, number: int) -> None:
    """Close an operation that ended early as done: what it was to do is done."""
    with database.write() as session:
        operation = session.get_one(OperationRow, number)
        if operation.state in ("undone", "failed"):
            _close(session, operation, "done", None)


def running(session: Session) -> Running | None:
    """Return the operation that is running, or was when its process was killed."""
    operation = session.scalar(select(OperationRow).where(OperationRow.state == "running"))
    return None if operation is None else _seen(operation)


def newest(session: Session) -> int | None:
    """Return the number of the operation that began last: if it changes, another one has begun."""
    return session.scalar(select(func.max(OperationRow.id)))


def recover(database: Database) -> list[Running]:
    """Undo what killed processes left, and return it; what was published already is done.

    Publishing is one transaction, so there is nothing half done.
    """
    with database.read() as session:  # most of the time there is nobody, and nobody else shall wait for that
        if running(session) is None:
            return []
    lock = operation_lock(database.engine)
    with database.write() as session:
        if not lock.take():
            return []
        try:
            return _undo_dead(session)
        finally:
            lock.release()


def _undo_dead(session: Session) -> list[Running]:
    """Close as undone what is recorded as running: the caller has the lock, so nobody does it."""
    dead = []
    for operation in session.scalars(select(OperationRow).where(OperationRow.state == "running")).all():
        dead.append(_seen(operation))
        operation.detail = {**operation.detail, GONE: True}
        where = f"process {operation.process} on {operation.host}"
        _close(session, operation, "undone", f"{where} was gone at step {operation.step or 'start'}")
    session.flush()
    return dead


def _begin(
    database: Database,
    lock: OperationLock,
    kind: str,
    subject: str,
    actor: Actor,
    arguments: dict[str, Any],
    *,
    wait: bool,
    waiting: Callable[[Running], None] | None,
) -> int:
    """Take the lock and record the operation in one transaction; return its number."""
    told = False
    while True:
        with database.write() as session:
            if lock.take():
                _undo_dead(session)
                moment = _moment(session)
                operation = OperationRow(
                    kind=kind, subject=subject, state="running", actor=actor.name, reason=actor.reason,
                    host=socket.gethostname(), process=os.getpid(), started=moment, heartbeat=moment,
                    detail={"arguments": arguments, PROCESS: ProcessIdentity.of_this_process().as_tags()},
                )  # fmt: skip
                session.add(operation)
                session.flush()
                return operation.id
            other = running(session)
        if not wait:
            raise _busy(other)
        if other is not None and waiting is not None and not told:
            waiting(other)
            told = True
        time.sleep(POLL)


def _busy(other: Running | None) -> RegistryError:
    who = other or "a process that has recorded no operation holds the lock"
    return RegistryError(f"registry: {who}; expected nobody; wait for it with --wait, or try again later")


def _close(session: Session, operation: OperationRow, state: str, error: str | None) -> None:
    if operation.step == PUBLISHED:
        state = "done"  # whatever came after cannot take that back
    operation.state, operation.error, operation.finished = state, error, _moment(session)
    if state != "done" and (before := operation.detail.get("before")):
        found = queries.plugin(session, operation.subject)
        if found is not None and found.state == "candidate":
            found.state, found.reason = before  # a plugin that was known is again what it was
    actor, action = Actor(operation.actor, error or operation.reason), f"{operation.kind} {state}"
    audit.record_event(session, actor, action, operation.subject, {"step": operation.step}, operation_id=operation.id)


def _moment(session: Session) -> datetime:
    """Return the time by the database's clock; SQLite has none, and serves this host alone."""
    if session.get_bind().dialect.name == "postgresql":
        return session.scalars(select(func.clock_timestamp(type_=DateTime(timezone=True)))).one()
    return now()


def _seen(operation: OperationRow) -> Running:
    return Running(
        operation.id, operation.kind, operation.subject, operation.step, operation.actor, operation.host,
        operation.process, operation.started,
    )  # fmt: skip
