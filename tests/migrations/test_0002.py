"""Revision 0002 on filled databases, up and down: nothing is lost, and what was refused still is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError
from tests.migrations.conftest import MOMENT, all_rows, fill

from abair.errors import RegistryError
from abair_migrations import HEAD
from abair_registry.db import migrate
from abair_registry.db.definitions import differences, read
from abair_registry.db.models import APPEND_ONLY, Base

KILLED = """
import os, signal, sys
from pathlib import Path
from sqlalchemy import event
from abair_registry.db import migrate
from abair_registry.db.engine import Database
from abair_registry.settings import Settings

engine = Database(Settings(home=Path(sys.argv[1]), registry_url=None)).engine
seen = []

@event.listens_for(engine, "after_cursor_execute")
def die(connection, cursor, statement, *rest):
    if statement.strip().startswith(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

migrate.upgrade(engine)
"""


@pytest.fixture
def filled(engine: Engine) -> Engine:
    """A database of revision 0001 with rows in every table."""
    migrate.upgrade(engine, "0001")
    fill(engine)
    return engine


def insert_operation(engine: Engine, number: int, kind: str, state: str = "done") -> None:
    finished = "NULL" if state == "running" else f"'{MOMENT}'"
    with engine.begin() as connection:
        connection.execute(
            text(
                f"INSERT INTO operation VALUES ({number}, '{kind}', 's', '{state}', 'train', 'me', '', 'host', 7, "
                f"'{MOMENT}', '{MOMENT}', {finished}, NULL, '{{\"a\": 1}}')".replace(":", r"\:")
            )
        )


def refused(engine: Engine, statement: str) -> str:
    with pytest.raises(DBAPIError) as caught, engine.begin() as connection:
        connection.execute(text(statement))
    return str(caught.value.orig)


def assert_append_only(engine: Engine) -> None:
    for table in APPEND_ONLY:
        column = {"deployment": "number", "member": "position"}.get(table, "id")
        assert f"{table} is append-only" in refused(engine, f"UPDATE {table} SET {column} = {column}")
        assert f"{table} is append-only" in refused(engine, f"DELETE FROM {table}")


def test_every_row_of_every_table_is_the_same_after_up_and_down(filled: Engine) -> None:
    before = all_rows(filled)
    assert set(before) == set(Base.metadata.tables)
    assert all(before.values())
    with filled.connect() as connection:
        definitions = read(connection)
    migrate.upgrade(filled, "0002")
    assert all_rows(filled) == before
    migrate.downgrade(filled, "0001")
    assert all_rows(filled) == before
    with filled.connect() as connection:
        assert read(connection) == definitions
    migrate.upgrade(filled, "0002")
    assert all_rows(filled) == before


def test_what_was_refused_is_refused_after_up_and_after_down(filled: Engine) -> None:
    for migrate_to in (migrate.upgrade, migrate.downgrade):
        migrate_to(filled, "0002" if migrate_to is migrate.upgrade else "0001")
        assert_append_only(filled)
        with pytest.raises(DBAPIError, match=r"UNIQUE constraint failed|ix_operation_running"):
            insert_operation(filled, 9, "add", "running")
        with pytest.raises(DBAPIError, match="ck_operation_kind"):
            insert_operation(filled, 9, "nonsense")
        with pytest.raises(DBAPIError, match="ck_operation_state"):
            insert_operation(filled, 9, "add", "nonsense")
        assert "FOREIGN KEY" in refused(filled, "DELETE FROM operation WHERE id = 1").upper()


def test_a_database_that_was_upgraded_is_the_same_as_a_new_one(filled: Engine) -> None:
    migrate.upgrade(filled)
    with filled.connect() as connection:
        assert differences(connection) == []


def test_the_new_kinds_are_allowed_only_since(filled: Engine) -> None:
    for kind in ("upgrade", "init"):
        with pytest.raises(DBAPIError, match="ck_operation_kind"):
            insert_operation(filled, 9, kind)
    migrate.upgrade(filled)
    insert_operation(filled, 9, "upgrade")
    insert_operation(filled, 10, "init")


@pytest.mark.parametrize("settings", ["postgresql"], indirect=True)
def test_tables_that_are_append_only_cannot_be_truncated(filled: Engine) -> None:
    migrate.upgrade(filled)
    for table in APPEND_ONLY:
        assert f"{table} is append-only" in refused(filled, f"TRUNCATE {table} CASCADE")


def kinds(engine: Engine) -> list[tuple[str, str]]:
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT kind, step FROM operation WHERE id > 8 ORDER BY id"))
        return [(row.kind, row.step) for row in rows]


def test_operations_of_the_new_kinds_go_down_as_older_kinds_and_come_back(filled: Engine) -> None:
    migrate.upgrade(filled)
    insert_operation(filled, 9, "upgrade")
    insert_operation(filled, 10, "init", "undone")
    before = all_rows(filled)
    migrate.downgrade(filled, "0001")
    # an older program would resume what was cut short and has a step
    assert kinds(filled) == [("retrain", "train"), ("import", "")]
    assert_append_only(filled)
    migrate.upgrade(filled)
    after = all_rows(filled)
    assert kinds(filled) == [("upgrade", "train"), ("init", "train")]
    assert after == before


@pytest.mark.parametrize("target", ["0001", "base"])
def test_no_way_down_while_an_operation_of_a_new_kind_is_running(filled: Engine, target: str) -> None:
    migrate.upgrade(filled)
    with filled.begin() as connection:
        connection.execute(text(f"UPDATE operation SET state = 'done', finished = '{MOMENT}'".replace(":", r"\:")))
    insert_operation(filled, 9, "upgrade", "running")
    before = all_rows(filled)
    with pytest.raises(RegistryError, match=r"operation 9 \(upgrade\) is running, .*; found 0002, which is left as"):
        migrate.downgrade(filled, target)
    assert (migrate.current(filled), all_rows(filled)) == (HEAD, before)


@pytest.mark.slow
@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
@pytest.mark.parametrize("moment", ["DROP TABLE", "ALTER TABLE", "UPDATE abair_alembic"])
def test_a_kill_in_the_middle_leaves_the_old_schema_whole(filled: Engine, tmp_path: Path, moment: str) -> None:
    before = all_rows(filled)
    with filled.connect() as connection:
        definitions = read(connection)
    filled.dispose()
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "home", moment], capture_output=True, timeout=120)
    assert killed.returncode == -9, killed.stderr
    assert (migrate.current(filled), all_rows(filled)) == ("0001", before)
    with filled.connect() as connection:
        assert read(connection) == definitions
    migrate.upgrade(filled)
    assert all_rows(filled) == before
