"""A migration that its author wrote carelessly: what SQLite's rebuilds of a table lose comes back, or it is told."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, text
from sqlalchemy.exc import SAWarning
from tests.migrations.conftest import all_rows, fill

import abair_migrations
from abair.errors import RegistryError
from abair_migrations import HEAD, MigrationError, sqlite_rebuilds
from abair_registry.db import migrate
from abair_registry.db.definitions import read
from abair_registry.settings import Settings

pytestmark = pytest.mark.parametrize("settings", ["sqlite"], indirect=True)

REBUILD = """
    with op.batch_alter_table("{table}", recreate="always"):
        pass
"""
Step = Callable[[str], None]


@pytest.fixture
def filled(engine: Engine) -> Engine:
    """A database of the newest revision with rows in every table."""
    migrate.upgrade(engine)
    fill(engine)
    return engine


@pytest.fixture
def step(filled: Engine, tmp_path: Path) -> Step:
    """Upgrades to a revision after the newest one that does what it is given."""
    versions = tmp_path / "versions"
    versions.mkdir()
    config = Config()
    config.set_main_option("script_location", "abair_migrations:")
    config.set_main_option("path_separator", "os")
    ours = Path(abair_migrations.__file__).parent / "versions"
    config.set_main_option("version_locations", f"{ours}{os.pathsep}{versions}")

    def upgrade(body: str) -> None:
        (versions / "step.py").write_text(
            f"from alembic import op\nrevision = 'step'\ndown_revision = {HEAD!r}\n\ndef upgrade():\n{body}"
        )
        with filled.connect() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "step")

    return upgrade


def definitions(engine: Engine) -> Any:
    with engine.connect() as connection:
        return read(connection)


def ask(engine: Engine, statement: str) -> Any:
    with engine.begin() as connection:
        result = connection.execute(text(statement))
        return result.scalar() if result.returns_rows else None


@pytest.mark.parametrize("table", ["event", "operation", "deployment", "member", "backbone"])
def test_a_rebuilt_table_keeps_rows_triggers_indexes_and_constraints(filled: Engine, step: Step, table: str) -> None:
    before, rows = definitions(filled), all_rows(filled)
    step(REBUILD.format(table=table))
    assert migrate.current(filled) == "step"
    assert (definitions(filled), all_rows(filled)) == (before, rows)


def test_an_index_on_an_expression_comes_back(filled: Engine, step: Step) -> None:
    ask(filled, "CREATE INDEX ix_lower ON event (lower(action)) WHERE id > 0")
    before = definitions(filled)
    with pytest.warns(SAWarning, match="Skipped unsupported reflection of expression-based index"):
        step(REBUILD.format(table="event"))
    assert definitions(filled) == before


def test_views_and_triggers_elsewhere_that_name_the_table_do_not_stop_its_rebuild(filled: Engine, step: Step) -> None:
    ask(filled, "CREATE TABLE theirs (id INTEGER)")
    ask(filled, "CREATE VIEW kinds AS SELECT kind FROM operation")
    ask(
        filled,
        "CREATE TRIGGER theirs_insert AFTER INSERT ON theirs BEGIN SELECT RAISE(ABORT, 'none') "
        "WHERE NOT EXISTS (SELECT 1 FROM operation); END",
    )
    step(REBUILD.format(table="operation"))
    ask(filled, "INSERT INTO theirs VALUES (1)")
    assert ask(filled, "SELECT count(*) FROM kinds") == 3


def test_what_a_step_drops_by_name_stays_away(filled: Engine, step: Step) -> None:
    drop = '\n    op.execute("DROP TRIGGER tr_event_update")\n    op.drop_index("ix_event_subject", "event")\n'
    step(REBUILD.format(table="event") + '    op.execute("SELECT 1")\n')
    assert "trigger tr_event_update" in definitions(filled)["event"]
    migrate_back(filled)
    step(drop + REBUILD.format(table="event"))
    items = definitions(filled)["event"]
    assert "trigger tr_event_update" not in items
    assert "index ix_event_subject" not in items
    assert "trigger tr_event_delete" in items


def migrate_back(engine: Engine) -> None:
    ask(engine, f"UPDATE abair_alembic_version SET version_num = '{HEAD}'")


def test_a_table_that_is_dropped_takes_its_triggers_along(filled: Engine, step: Step) -> None:
    step('\n    op.drop_table("replay")\n')
    assert "replay" not in definitions(filled)


def test_an_index_that_fits_no_longer_is_told_and_nothing_is_changed(filled: Engine, step: Step) -> None:
    ask(filled, "CREATE INDEX ix_lower ON plugin (lower(reason))")
    before, rows = definitions(filled), all_rows(filled)
    drop_column = '\n    with op.batch_alter_table("plugin", recreate="always") as batch:\n'
    with (
        pytest.warns(SAWarning, match="Skipped unsupported reflection"),
        pytest.raises(
            MigrationError, match=r"index ix_lower of table plugin was lost and cannot be made again \(no such column"
        ),
    ):
        step(f'{drop_column}        batch.drop_column("reason")\n')
    assert (definitions(filled), all_rows(filled), migrate.current(filled)) == (before, rows, HEAD)


def test_a_row_left_without_its_parent_stops_the_migration_with_both_names(filled: Engine, step: Step) -> None:
    rows = all_rows(filled)
    with pytest.raises(
        MigrationError, match="row 2 of table deployment would refer to a row of operation that is missing, and 1 more"
    ):
        step('\n    op.execute("DELETE FROM operation WHERE id = 1")\n')
    assert (all_rows(filled), migrate.current(filled)) == (rows, HEAD)


def test_rows_of_others_that_are_broken_already_do_not_stop_it(filled: Engine, step: Step) -> None:
    with filled.connect() as connection:
        driver: Any = connection.connection.driver_connection
        driver.execute("PRAGMA foreign_keys=OFF")
        driver.execute("CREATE TABLE theirs (id INTEGER PRIMARY KEY, other INTEGER REFERENCES theirs (id))")
        driver.execute("INSERT INTO theirs VALUES (1, 77)")
        driver.execute("PRAGMA foreign_keys=ON")
    step(REBUILD.format(table="operation"))
    assert migrate.current(filled) == "step"


@pytest.mark.parametrize("body", ["\n    pass\n", '\n    raise ValueError("a mistake")\n'])
def test_foreign_keys_are_on_again_whatever_happened(filled: Engine, step: Step, body: str) -> None:
    failed = False
    try:
        step(body)
    except ValueError:
        failed = True
    assert failed == ("mistake" in body)
    assert ask(filled, "PRAGMA foreign_keys") == 1
    assert ask(filled, "PRAGMA legacy_alter_table") == 0


def test_an_error_in_the_middle_leaves_the_old_schema_whole(filled: Engine, step: Step) -> None:
    before, rows = definitions(filled), all_rows(filled)
    with pytest.raises(ValueError, match="a mistake"):
        step(REBUILD.format(table="operation") + '    raise ValueError("a mistake")\n')
    assert (definitions(filled), all_rows(filled), migrate.current(filled)) == (before, rows, HEAD)


def test_a_caller_in_a_transaction_is_refused_because_foreign_keys_would_stay_on(filled: Engine) -> None:
    with (
        filled.begin() as connection,
        pytest.raises(RuntimeError, match="foreign keys cannot be switched off"),
        sqlite_rebuilds.guarded_transaction(connection),
    ):
        pass


def test_a_failed_migration_of_ours_is_one_clear_line(engine: Engine, settings: Settings) -> None:
    """Rows that the new CHECK forbids: who switched CHECKs off wrote them."""
    migrate.upgrade(engine, "0001")
    fill(engine)
    with engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        driver.execute("PRAGMA ignore_check_constraints=ON")
        driver.execute("UPDATE operation SET kind = 'nonsense' WHERE id = 1")
        driver.execute("PRAGMA ignore_check_constraints=OFF")
    with pytest.raises(
        RegistryError, match=r"^schema revision 0002: .*ck_operation_kind; found 0001, which is left as"
    ):
        migrate.upgrade(engine)
    assert migrate.current(engine) == "0001"
