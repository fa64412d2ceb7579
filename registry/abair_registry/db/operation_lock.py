"""The lock of the one operation at a time, which its holder's death frees.

On SQLite it is a locked file beside the database, on PostgreSQL an advisory lock. It says that
somebody is at work; who that is, the operation's row says. ADR 0002 (docs/decisions/) has the
reasons and the figures.
"""

from __future__ import annotations

import stat
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from filelock import FileLock, Timeout
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from abair.errors import RegistryError
from abair_registry.db.migrate import LOCK_KEY

KEY: Final = LOCK_KEY + 2
"""Of PostgreSQL's advisory lock; the two before it lock the schema and the writers."""
# The lock's connection is idle for as long as a training lasts, so no time-out may end it. The
# server must notice a host that is lost without a word, here after 30 + 3 * 10 s: the keepalives
# that a client sets in its URL only tell the client about the server.
_SETTINGS: Final = text(
    "SELECT set_config(name, value, true) FROM pg_settings JOIN (VALUES "
    "('idle_in_transaction_session_timeout', '0'), ('transaction_timeout', '0'), "
    "('tcp_keepalives_idle', '30'), ('tcp_keepalives_interval', '10'), "
    "('tcp_keepalives_count', '3')) AS wanted (name, value) USING (name)"
)
_TAKE: Final = text("SELECT pg_try_advisory_xact_lock(:key)")


class OperationLock(Protocol):
    """A lock that one process at a time holds, for as long as it lives at most."""

    def take(self) -> bool:
        """Take the lock if it is free; return whether it was."""

    def keep(self) -> None:
        """Take the lock again if the connection that held it was cut."""

    def release(self) -> None:
        """Free the lock if this object holds it."""


def operation_lock(engine: Engine) -> OperationLock:
    """Return the lock of a database, not taken yet."""
    if engine.dialect.name == "sqlite":
        return _FileLock(Path(str(engine.url.database)))
    return _AdvisoryLock(engine)


class _FileLock:
    """The operating system's lock on a file. The file stays; a forked child has no part in it."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._lock: FileLock | None = None

    def take(self) -> bool:
        path = self._database.with_name(f"{self._database.name}.operation.lock")
        try:
            # whoever may write the database may lock it, and its owner always, because filelock
            # asks for that (findings/filelock_mode_of_owner.sh)
            mode = stat.S_IMODE(self._database.stat().st_mode) | stat.S_IRUSR | stat.S_IWUSR
            lock = FileLock(path, mode=mode, thread_local=False)
            lock.acquire(blocking=False)
        except Timeout:
            return False
        except OSError as error:
            if path.is_dir():
                raise RegistryError(
                    f"{path}: found a folder, expected a file to lock; move {path} away, then run the command again"
                ) from None
            raise RegistryError(
                f"{path}: cannot be locked ({error.strerror or error}); expected a file that can "
                "be written, on a file system with locks; move the registry to one, or use "
                "PostgreSQL"
            ) from None
        self._lock = lock
        return True

    def keep(self) -> None:
        pass  # there is no connection

    def release(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()


class _AdvisoryLock:
    """PostgreSQL's advisory lock, held by a transaction that stays open.

    A session-level lock excludes nobody behind PgBouncer in transaction mode. This one does, and
    an idle transaction that has read no table keeps no old row versions alive.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None

    def take(self) -> bool:
        connection = self._engine.connect()
        try:
            connection.execute(_SETTINGS)
            if connection.scalar(_TAKE, {"key": KEY}):
                self._connection = connection
        finally:
            if self._connection is not connection:
                connection.close()
        return self._connection is connection

    def keep(self) -> None:
        if self._connection is not None:
            try:
                self._connection.execute(text("SELECT 1"))
                return
            except DBAPIError:
                self.release()
        self.take()

    def release(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(DBAPIError):  # a connection that was cut holds nothing
                connection.close()
