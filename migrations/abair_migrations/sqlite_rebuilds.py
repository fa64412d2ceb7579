"""Migrations on SQLite: what Alembic does to a table there, and what keeps it from harm.

SQLite cannot change a constraint. Alembic's batch mode copies the table into a new one, drops the
old one and gives its name to the new one. Four things go wrong, the first two without a word:
triggers of the table are gone (`findings/alembic_sqlite_batch_triggers.sh`), so are indexes on
expressions, foreign keys that point at the table keep it from being dropped, and the renaming fails
if a view or another table's trigger names the table.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, event

from abair_migrations import MigrationError

_DROP = re.compile(r"\s*DROP\s+(?:TRIGGER|INDEX)\s+(?:IF\s+EXISTS\s+)?[\"`\[]?([^\s;\"`\]]+)", re.IGNORECASE)
_RENAME_COPY = re.compile(r"\s*ALTER\s+TABLE\s+[\"`\[]?_alembic_tmp_", re.IGNORECASE)

AfterStep = Callable[..., None]


@contextmanager
def guarded_transaction(connection: Connection) -> Iterator[AfterStep | None]:
    """Run migrations in one transaction in which SQLite's tables can be rebuilt.

    Yields what Alembic is to call after each step, as `on_version_apply`: triggers and indexes that
    the step did not drop by name are made again. Before the commit all foreign keys are checked.
    PostgreSQL needs none of this and gets a transaction.

    Raises:
        MigrationError: A row refers to one that does not exist and did before, or a trigger or an
            index fits its table no longer; everything is rolled back.
        RuntimeError: The connection is in a transaction, where foreign keys cannot be switched off.
    """
    if connection.dialect.name != "sqlite":
        with connection.begin():
            yield None
        return
    driver: Any = connection.connection.driver_connection
    with _foreign_keys_off(driver), connection.begin():
        broken = _broken_references(driver)
        with _kept_objects(connection, driver) as after_step:
            yield after_step
        if new := sorted(_broken_references(driver) - broken, key=str):
            table, row, parent = new[0]
            more = f", and {len(new) - 1} more such rows" if len(new) > 1 else ""
            raise MigrationError(f"row {row} of table {table} would refer to a row of {parent} that is missing{more}")


@contextmanager
def _foreign_keys_off(driver: sqlite3.Connection) -> Iterator[None]:
    """Switch them off, which within a transaction does nothing and says nothing."""
    (before,) = driver.execute("PRAGMA foreign_keys").fetchone()
    driver.execute("PRAGMA foreign_keys=OFF")
    if driver.execute("PRAGMA foreign_keys").fetchone()[0]:
        raise RuntimeError("found a transaction that has begun, expected none: foreign keys cannot be switched off")
    try:
        yield
    finally:
        driver.execute(f"PRAGMA foreign_keys={before}")


def _broken_references(driver: sqlite3.Connection) -> set[tuple[str, int | None, str]]:
    """Return table, row and referred table of each; other programs' tables may have some."""
    return {(table, row, parent) for table, row, parent, _ in driver.execute("PRAGMA foreign_key_check")}


@contextmanager
def _kept_objects(connection: Connection, driver: sqlite3.Connection) -> Iterator[AfterStep]:
    """Yield what makes triggers and indexes again that a step lost; it works within the block."""
    before, dropped = _triggers_and_indexes(driver), set[str]()

    def watch(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if found := _DROP.match(statement):
            dropped.add(found[1].rpartition(".")[2].casefold())
        elif _RENAME_COPY.match(statement):
            # otherwise SQLite looks through all views and triggers and finds the old table missing
            driver.execute("PRAGMA legacy_alter_table=ON")

    def end_watch(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if _RENAME_COPY.match(statement):
            driver.execute("PRAGMA legacy_alter_table=OFF")

    def after_step(**_: object) -> None:
        nonlocal before
        now = _triggers_and_indexes(driver)
        tables = {name for (name,) in driver.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")}
        for name, (kind, table, sql) in before.items():
            if name in now or name.casefold() in dropped or table not in tables:
                continue
            try:
                driver.execute(sql)
            except sqlite3.Error as error:
                raise MigrationError(
                    f"{kind} {name} of table {table} was lost and cannot be made again ({error}); the migration must "
                    "drop it by name"
                ) from None
        before = _triggers_and_indexes(driver)
        dropped.clear()

    event.listen(connection, "before_cursor_execute", watch)
    event.listen(connection, "after_cursor_execute", end_watch)
    try:
        yield after_step
    finally:
        event.remove(connection, "before_cursor_execute", watch)
        event.remove(connection, "after_cursor_execute", end_watch)
        driver.execute("PRAGMA legacy_alter_table=OFF")


def _triggers_and_indexes(driver: sqlite3.Connection) -> dict[str, tuple[str, str, str]]:
    """Return kind, table and SQL by name, indexes first, but for those of UNIQUE constraints."""
    rows = driver.execute(
        "SELECT name, type, tbl_name, sql FROM sqlite_master "
        "WHERE type IN ('index', 'trigger') AND sql IS NOT NULL ORDER BY type, name"
    )
    return {name: (kind, table, sql) for name, kind, table, sql in rows}
