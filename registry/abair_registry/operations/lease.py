"""Operations: what is being done to the registry, by whom, at which step, under a lease that a heartbeat renews.

One at a time (the table's index holds that). Whoever does it renews the lease every few seconds; an operation whose
lease ran out, or whose process is gone from where process numbers mean the same, was killed, and the next one takes its
place. Time is the database's, which all hosts that share it have in common.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from sqlalchemy import DateTime, func, select
from sqlalchemy.orm import Session

from abair.errors import AbairError, RegistryError
from abair_registry.db import audit, queries
from abair_registry.db.audit import Actor
from abair_registry.db.engine import Database
from abair_registry.db.models import PUBLISHED, OperationRow, now

HEARTBEAT: Final = 5.0
"""Seconds between two renewals."""
LEASE: Final = timedelta(seconds=60)
"""An operation that was not renewed for so long is taken for dead, on whichever host it ran."""
POLL: Final = 0.5


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
    """The operation in hand; `step` records where it is, `session` writes only while the lease is ours."""

    def __init__(self, database: Database, number: int) -> None:
        self.id = number
        self._database = database
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="heartbeat", daemon=True)

    def step(self, name: str, **detail: Any) -> None:
        """Record the step that begins, and what is known so far.

        Raises:
            RegistryError: the lease was lost.
        """
        with self.session() as (session, operation):
            operation.step = name
            operation.detail = operation.detail | detail
            session.flush()

    @contextmanager
    def session(self) -> Iterator[tuple[Session, OperationRow]]:
        """One transaction in which the operation is certainly still ours.

        Raises:
            RegistryError: somebody took the lease, because it was not renewed in time.
        """
        with self._database.write() as session:
            operation = session.get(OperationRow, self.id)
            if operation is None or operation.state != "running" or operation.process != os.getpid():
                raise RegistryError(
                    f"operation {self.id}: the lease was lost (found state "
                    f"{operation.state if operation else 'none'}, expected running); nothing was published; "
                    "run the command again"
                )
            operation.heartbeat = _moment(session)
            yield session, operation

    def _renew(self) -> None:
        while not self._stop.wait(HEARTBEAT):
            try:
                with self.session():
                    pass
            except RegistryError:  # the database may be back at the next beat; a lost lease is told by the next step
                continue

    def __enter__(self) -> Work:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


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
    """Do one operation: begun here, and ended as `done`, `failed` with the error, or `undone` by Ctrl-C.

    `arguments` are what it takes to do it again.

    Raises:
        RegistryError: another one is running, and `wait` is false.
    """
    number = _begin(database, kind, subject, actor, dict(arguments or {}), wait=wait, waiting=waiting)
    try:
        with Work(database, number) as work:
            yield work
    except KeyboardInterrupt:
        end(database, number, "undone", "stopped by Ctrl-C")
        raise
    except BaseException as error:
        end(database, number, "failed", str(error) if isinstance(error, AbairError) else repr(error))
        raise
    end(database, number, "done")


def end(database: Database, number: int, state: str, error: str | None = None) -> None:
    """Close an operation that is running; one that is closed already stays as it is."""
    with database.write() as session:
        operation = session.get(OperationRow, number)
        if operation is not None and operation.state == "running":
            _close(session, operation, state, error)


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
    """The newest operation that got anywhere, if it was killed, stopped or failed, and can be done again."""
    begun = select(OperationRow).where(OperationRow.step != "").order_by(OperationRow.id.desc())
    newest = session.scalar(begun.limit(1))
    return newest if newest is not None and newest.state in ("undone", "failed") else None


def running(session: Session) -> Running | None:
    """The operation that is being done, or was when its process was killed."""
    operation = session.scalar(select(OperationRow).where(OperationRow.state == "running"))
    return None if operation is None else _seen(operation)


def recover(database: Database) -> list[Running]:
    """Undo what killed processes left, and return it; what was published already is done.

    Publishing is one transaction, so there is nothing half done.
    """
    dead: list[Running] = []
    with database.read() as session:  # most of the time there is nobody, and nobody else shall wait for that
        if running(session) is None:
            return dead
    with database.write() as session:
        for operation in session.scalars(select(OperationRow).where(OperationRow.state == "running")).all():
            if not _alive(operation, _moment(session)):
                dead.append(_seen(operation))
                where = f"process {operation.process} on {operation.host}"
                _close(session, operation, "undone", f"{where} was gone at step {operation.step or 'start'}")
    return dead


def _begin(
    database: Database,
    kind: str,
    subject: str,
    actor: Actor,
    arguments: dict[str, Any],
    *,
    wait: bool,
    waiting: Callable[[Running], None] | None,
) -> int:
    told = False
    while True:
        recover(database)
        with database.write() as session:
            other = running(session)
            if other is None:
                moment = _moment(session)
                operation = OperationRow(
                    kind=kind, subject=subject, state="running", actor=actor.name, reason=actor.reason,
                    host=socket.gethostname(), process=os.getpid(), started=moment, heartbeat=moment,
                    detail={"arguments": arguments, "place": _place()},
                )  # fmt: skip
                session.add(operation)
                session.flush()
                return operation.id
        if not wait:
            raise _busy(other)
        if waiting is not None and not told:
            waiting(other)
            told = True
        time.sleep(POLL)


def _busy(other: Running) -> RegistryError:
    return RegistryError(f"registry: {other}; expected nobody; wait for it with --wait, or try again later")


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


def _alive(operation: OperationRow, moment: datetime) -> bool:
    """Whether its lease holds; a process of this place is looked for as well, so that nobody waits for a dead one."""
    if moment - operation.heartbeat > LEASE:
        return False
    if operation.host != socket.gethostname() or operation.detail.get("place") != _place():
        return True
    try:
        os.kill(operation.process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _place() -> str:
    """Where process numbers mean the same: this boot of this machine and, where containers have their own, this one."""
    found = []
    with suppress(OSError):  # there is no such file outside Linux: the host's name must do
        found.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        found.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(found)


def _moment(session: Session) -> datetime:
    """This moment by the database's clock; SQLite has none of its own, and no other host's either."""
    if session.get_bind().dialect.name == "postgresql":
        return session.scalars(select(func.clock_timestamp(type_=DateTime(timezone=True)))).one()
    return now()


def _seen(operation: OperationRow) -> Running:
    return Running(
        operation.id, operation.kind, operation.subject, operation.step, operation.actor, operation.host,
        operation.process, operation.started,
    )  # fmt: skip
