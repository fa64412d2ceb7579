"""The connection to the database, SQLite or PostgreSQL, with one writer at a time."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, cast
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DatabaseError, DataError, DBAPIError, NoSuchModuleError, OperationalError
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool, StaticPool

from abair.errors import MissingExtraError, RegistryError
from abair.text import error_text
from abair_registry.db import backup
from abair_registry.db.migrate import LOCK_KEY
from abair_registry.settings import DATABASE, Settings

BUSY_SECONDS: Final = 120
"""Seconds that a writer waits for another; operations hold a transaction for milliseconds."""
CONNECT_SECONDS: Final = 10
READ_ONLY: Final = "25006"
"""SQLSTATE of a write in a PostgreSQL database that is read-only.

SQLite raises an `OperationalError` instead.
"""
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_NO_ROOM: Final = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR})


class DamagedDatabaseError(RegistryError):
    """The database is there, and what it holds cannot be read or contradicts itself."""


class Database:
    """Sessions that read or write.

    A writer holds the database from its first statement to its commit.
    """

    def __init__(self, settings: Settings, *, read_only: bool = False) -> None:
        """Connect to the database that the settings name, or to the one below the home.

        With `read_only` nothing is made or changed, neither home nor file, whatever is asked for.

        Raises:
            RegistryError: the URL cannot be used, or the home cannot be made.
            MissingExtraError: the database's driver is not installed.
        """
        self.url = _url(settings, make_home=not read_only)
        try:
            self.engine = _engine(self.url, read_only=read_only)
        except NoSuchModuleError:
            raise _unusable(self.url, f"no driver for {self.url.drivername}") from None
        except ImportError as error:
            raise MissingExtraError(
                f"registry: {error.name} is missing; install it with: pip install 'abair[registry]'"
            ) from None
        self._writing = self.engine.execution_options(write=True)

    @classmethod
    def in_memory(cls) -> Database:
        """Return an empty database that ends with this process, without a schema."""
        database = cls.__new__(cls)
        database.url = URL.create("sqlite", database=":memory:")
        database.engine = _sqlite_engine(create_engine(database.url, poolclass=StaticPool))
        database._writing = database.engine.execution_options(write=True)
        return database

    @property
    def is_there(self) -> bool:
        """False if it is a SQLite file that does not exist.

        Raises:
            RegistryError: its folder may not be read.
        """
        try:
            return self.url.get_backend_name() != "sqlite" or Path(str(self.url.database)).exists()
        except OSError as error:
            raise _unusable(self.url, error.strerror or str(error)) from None

    @property
    def file(self) -> Path | None:
        """The SQLite file, or None for one in memory and for PostgreSQL."""
        own = self.url.get_backend_name() == "sqlite" and self.url.database != ":memory:"
        return Path(str(self.url.database)) if own else None

    def check_sound(self) -> None:
        """Check the pages and the references of a SQLite file, which takes milliseconds.

        Raises:
            RegistryError: it is damaged; the text says what brings it back.
        """
        if self.file is None:
            return
        if self.file.is_dir():
            raise self.damaged("it is a folder")
        with self.translate_errors():
            raw = self.engine.raw_connection()
            try:
                found = backup.damage(cast("sqlite3.Connection", raw.driver_connection))
            finally:
                raw.close()
        if found is not None:
            raise self.damaged(found)

    def damaged(self, reason: str) -> DamagedDatabaseError:
        """Return the error that tells a damage, with what brings the database back."""
        return DamagedDatabaseError(
            f"registry {_display_url(self.url)}: is damaged ({reason}); nothing was changed; "
            f"{backup.way_back(self.file)}"
        )

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Yield a session on one consistent state."""
        with self.translate_errors(), Session(self.engine) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Yield a session that is committed at the end, or rolled back by an exception."""
        with self.translate_errors(), Session(self._writing) as session, session.begin():
            yield session

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Turn errors of the database's driver into one line of ours.

        Raises:
            RegistryError: the database cannot be reached, read or written.
        """
        try:
            yield
        except sqlite3.Error as error:  # before SQLAlchemy has the connection
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED:
                raise self.damaged(error_text(error)) from None
            raise _unusable(self.url, error_text(error)) from None
        except OperationalError as error:
            reason = error_text(error.orig or error)
            if getattr(error.orig, "sqlite_errorcode", 0) == sqlite3.SQLITE_ERROR:  # a table or column is missing
                raise self.damaged(reason) from None
            raise _unusable(self.url, reason) from None
        except DBAPIError as error:
            if getattr(error.orig, "sqlite_errorcode", 0) & 0xFF in _DAMAGED:
                raise self.damaged(error_text(error.orig or error)) from None
            # a file that is no database, a text too long for its column, a read-only database
            if type(error) in {DatabaseError, DataError} or getattr(error.orig, "sqlstate", None) == READ_ONLY:
                raise _unusable(self.url, error_text(error.orig or error)) from None
            raise

    def check_writable(self) -> None:
        """Check that somebody could write; nothing is written.

        Raises:
            RegistryError: nobody could; the text says why.
        """
        with self.write() as session:
            session.connection()

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def _url(settings: Settings, *, make_home: bool) -> URL:
    if settings.registry_url is None:
        try:
            if make_home or (settings.home.exists() and not settings.home.is_dir()):
                settings.home.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RegistryError(
                f"{settings.home}: cannot be made ({error.strerror or error}); expected a folder that can be written; "
                "set ABAIR_HOME to one"
            ) from None
        if settings.home.is_dir() and not os.access(settings.home, os.R_OK | os.X_OK):
            raise RegistryError(
                f"{settings.home}: cannot be read (Permission denied); expected a folder that you may read; change its "
                "permissions, or set ABAIR_HOME to another one"
            )
        return URL.create("sqlite", database=str(settings.home / DATABASE))
    try:
        url = make_url(settings.registry_url.get_secret_value())
    except ArgumentError:
        raise RegistryError(
            "ABAIR_REGISTRY_URL: found something that is no URL (not shown: it may hold a password); expected "
            "postgresql://USER@HOST/DATABASE or sqlite:////path/to/registry.db"
        ) from None
    if url.get_backend_name() == "postgresql" and "+" not in url.drivername:
        url = url.set(drivername="postgresql+psycopg")
    sqlite = url.get_backend_name() == "sqlite"
    # with two slashes a path begins with a host, and its rest is sought in the working folder
    host = sqlite and (url.host or url.username)
    if not (sqlite or url.get_backend_name() == "postgresql") or host or not url.database:
        raise RegistryError(
            f"ABAIR_REGISTRY_URL: found {_display_url(url)}; expected "
            "postgresql://USER@HOST/DATABASE or sqlite:////path/to/registry.db"
        )
    if sqlite and not Path(url.database).parent.is_dir():
        raise RegistryError(
            f"ABAIR_REGISTRY_URL: {Path(url.database).parent} is no folder; expected the database's folder"
        )
    return url


def _engine(url: URL, *, read_only: bool) -> Engine:
    if url.get_backend_name() == "postgresql":
        arguments: dict[str, object] = {"connect_timeout": CONNECT_SECONDS}
        if read_only:
            arguments["options"] = "-c default_transaction_read_only=on"
        engine = create_engine(url, connect_args=arguments, pool_pre_ping=True)
        event.listen(engine, "begin", _take_turn)
        return engine
    if not read_only:
        return _sqlite_engine(create_engine(url, connect_args={"timeout": BUSY_SECONDS}))
    path = Path(str(url.database))
    return _sqlite_engine(create_engine("sqlite://", creator=lambda: _connect_to_read(path), poolclass=NullPool))


def _connect_to_read(path: Path) -> sqlite3.Connection:
    """Open a file that is to be read alone.

    SQLite makes two files beside one that it reads. Only who may write all of them takes them away
    at the end; those of somebody else would keep the owner from writing. Without them, as in a
    folder that cannot be written and on a full disk, SQLite reads a file whose journal is empty if
    it is told that nobody writes.
    """
    file = f"file:{quote(str(path.absolute()))}"
    journal = path.with_name(f"{path.name}-wal")
    settled = not journal.exists() or journal.stat().st_size == 0
    own = all(os.access(place, os.W_OK) for place in (path, path.parent))
    if not settled or own:
        mode = "rw" if settled else "ro"  # what a killed process left there stays
        connection = sqlite3.connect(f"{file}?mode={mode}", uri=True, timeout=BUSY_SECONDS)
        try:
            connection.execute("PRAGMA query_only=ON")
            connection.execute("PRAGMA schema_version")  # which needs a file of shared memory
        except sqlite3.OperationalError as error:
            connection.close()
            if not settled or error.sqlite_errorcode & 0xFF not in _NO_ROOM:
                raise
        else:
            return connection
    return sqlite3.connect(f"{file}?mode=ro&immutable=1", uri=True, timeout=BUSY_SECONDS)


def _sqlite_engine(engine: Engine) -> Engine:
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # Python's driver would begin transactions by itself; here the "begin" event does
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute(f"PRAGMA busy_timeout={1000 * BUSY_SECONDS}")
    connection.execute("PRAGMA synchronous=FULL")


def _begin_sqlite(connection: Connection) -> None:
    # a writer that began as a reader would fail instead of waiting if another wrote meanwhile
    writes = connection.get_execution_options().get("write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _take_turn(connection: Connection) -> None:
    """Let writers on PostgreSQL take turns as on SQLite, so the same program is correct on both."""
    if connection.get_execution_options().get("write"):
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK_KEY + 1})


def _unusable(url: URL, reason: str) -> RegistryError:
    for secret in filter(None, [url.password, *(url.query[name] for name in _secrets(url))]):
        reason = reason.replace(str(secret), "***")
    advice = "check ABAIR_REGISTRY_URL and ABAIR_HOME"
    if url.get_backend_name() == "sqlite" and url.database:
        beside = [Path(f"{url.database}{suffix}") for suffix in ("-wal", "-shm", "-journal")]
        if folder := next((path for path in beside if path.is_dir()), None):
            reason, advice = f"{folder} is a folder, where SQLite keeps a file", f"move {folder} away"
        elif foreign := next((path for path in beside if path.exists() and not os.access(path, os.W_OK)), None):
            reason = f"{foreign} cannot be written, whose owner is {_owner(foreign)}"
            advice = f"let {foreign} belong to the owner of {url.database}, who can then write both"
    return RegistryError(
        f"registry {_display_url(url)}: cannot be used ({reason}); expected a database that "
        f"can be reached and written; {advice}"
    )


def _owner(path: Path) -> str:
    try:
        return path.owner()
    except (KeyError, NotImplementedError, OSError):  # a user without a name, or Windows
        return str(path.stat().st_uid)


def _secrets(url: URL) -> list[str]:
    """Return the names in a URL's query that hold a secret for libpq."""
    return [name for name in url.query if "password" in name.lower()]


def _display_url(url: URL) -> str:
    """Return the URL without its passwords, for people."""
    shown = url.update_query_dict(dict.fromkeys(_secrets(url), "***")) if _secrets(url) else url
    return shown.render_as_string(hide_password=True).replace("%2A%2A%2A", "***")
