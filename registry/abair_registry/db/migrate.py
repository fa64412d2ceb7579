"""The schema's revision: checked at every start, changed on request.

The only caller of Alembic, a slow import.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from filelock import FileLock
from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.exc import IntegrityError

from abair.errors import RegistryError
from abair.text import error_text
from abair_migrations import HEAD, VERSION_TABLE, MigrationError
from abair_registry.db import backup

if TYPE_CHECKING:
    from alembic.config import Config

LOCK_KEY: Final = 0x4142414952
"""Key of PostgreSQL's advisory lock: ABAIR in ASCII."""
LOCK_SECONDS: Final = 120


def current(engine: Engine) -> str | None:
    """Return the schema's revision, or None for a database without our tables."""
    with engine.connect() as connection:
        return _revision(connection)


def ensure(engine: Engine, head: str = HEAD) -> None:
    """Create the schema `head` in an empty database; of two processes at once, both succeed.

    Raises:
        RegistryError: the schema is older or newer than this program.
    """
    found = current(engine)
    if found is None:
        with _lock(engine):
            found = current(engine)
            if found is None:
                _migrate(engine, head, up=True)
                return
    if found != head:
        raise _other_revision(found, head)


def check_revision(engine: Engine) -> None:
    """Check that the schema is this program's; changes nothing.

    Raises:
        RegistryError: it is older, newer or missing.
    """
    if (found := current(engine)) != HEAD:
        raise _other_revision(found)


def upgrade(engine: Engine, revision: str = "head") -> Path | None:
    """Upgrade the schema to `revision` in one transaction.

    Returns the backup of a SQLite file that held a schema.

    Raises:
        RegistryError: no such revision, the backup cannot be written, or the rows do not fit; then
            nothing is changed.
    """
    with _lock(engine):
        return _migrate(engine, revision, up=True)


def downgrade(engine: Engine, revision: str) -> Path | None:
    """Downgrade the schema to `revision` (`base`: no tables); otherwise as `upgrade`."""
    with _lock(engine):
        return _migrate(engine, revision, up=False)


def known_revisions() -> list[str]:
    """Return all revisions, oldest first."""
    from alembic.script import ScriptDirectory

    return [script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()][::-1]


def _migrate(engine: Engine, revision: str, *, up: bool) -> Path | None:
    from alembic import command

    found, known = current(engine), known_revisions()
    if found is not None and found not in known:
        raise _other_revision(found)
    revision = HEAD if revision == "head" else revision
    if revision not in {"base", *known}:
        raise RegistryError(f"schema revision {revision}: unknown; expected one of base, {', '.join(known)}")
    order = ["base", *known]
    before, after = order.index(found or "base"), order.index(revision)
    if before > after if up else before < after:
        wanted, other = ("a newer", "downgrade") if up else ("an older", "upgrade")
        raise RegistryError(
            f"schema revision {revision}: found {found or 'none'}, expected {wanted} one; for this one run: "
            f"abair-registry db {other} {revision}"
        )
    copy = _back_up(engine, found) if found is not None and found != revision else None
    config = _config()
    try:
        with engine.execution_options(write=True).connect() as connection:
            config.attributes["connection"] = connection
            (command.upgrade if up else command.downgrade)(config, revision)
    except (MigrationError, IntegrityError) as error:
        reason = error_text(error.orig if isinstance(error, IntegrityError) and error.orig else error)
        raise RegistryError(
            f"schema revision {revision}: {reason}; found {found or 'none'}, which is left as it was"
        ) from None
    return copy


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()


def _other_revision(found: str | None, head: str = HEAD) -> RegistryError:
    if found is None:
        return RegistryError(f"registry: found no schema, expected revision {head}; run: abair-registry db upgrade")
    if found in known_revisions():
        return RegistryError(
            f"registry: found schema revision {found}, expected {head}; run: abair-registry db upgrade "
            "(a SQLite file is backed up first)"
        )
    return RegistryError(
        f"registry: found schema revision {found}, expected {head}; it was made by a newer ABAIR; "
        "run: pip install --upgrade abair"
    )


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "abair_migrations:")
    config.set_main_option("path_separator", "os")
    return config


@contextmanager
def _lock(engine: Engine) -> Iterator[None]:
    """Keep other processes from creating or changing the schema of this database."""
    if engine.dialect.name == "sqlite":
        with FileLock(f"{engine.url.database}.lock", timeout=LOCK_SECONDS):
            # a setting of the file, made once: to repeat it while others write could find it locked
            raw = engine.raw_connection()  # WAL cannot be switched on within a transaction
            try:
                raw.cursor().execute("PRAGMA journal_mode=WAL")
            finally:
                raw.close()
            yield
    else:
        with engine.connect() as connection:
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": LOCK_KEY})
            try:
                yield
            finally:
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": LOCK_KEY})


def _back_up(engine: Engine, revision: str) -> Path | None:
    """Copy a SQLite database, including what is still in its journal."""
    if engine.dialect.name != "sqlite" or not engine.url.database:
        return None
    source = Path(engine.url.database)
    target = source.with_name(f"{source.name}.{revision}.{backup.timestamp()}.backup")
    try:
        backup.copy_database(source, target)
    except sqlite3.Error as error:
        target.unlink(missing_ok=True)
        raise RegistryError(
            f"{target}: the backup cannot be written ({error}); expected space beside {source}; nothing was changed"
        ) from None
    return target
