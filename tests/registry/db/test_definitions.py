"""What somebody took from the schema is told by name and made again; what is not ABAIR's is left alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from abair_registry.db import migrate
from abair_registry.db.audit import Actor
from abair_registry.db.definitions import compare, differences, read
from abair_registry.db.engine import Database
from abair_registry.db.mending import mend
from abair_registry.settings import Settings

ME = Actor("me", "because")
sqlite = pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
postgresql = pytest.mark.parametrize("settings", ["postgresql"], indirect=True)

OPERATION = (
    "INSERT INTO operation (id, kind, subject, state, step, actor, reason, host, process, started, heartbeat, detail) "
    "VALUES ({id}, 'add', 's', 'running', '', 'me', '', 'host', 1, '2026-01-01', '2026-01-01', '{{}}')"
)


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    """Of an empty database with the newest schema."""
    database = Database(settings)
    migrate.upgrade(database.engine)
    yield database.engine
    database.close()


def execute(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement.replace(":", r"\:")))


def edit_sql(engine: Engine, name: str, old: str, new: str) -> None:
    """Change SQLite's record of a table or trigger, as someone does who makes a table anew without some of it."""
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.execute("PRAGMA writable_schema=ON")
        changed = driver.execute(
            "UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE name = ? AND instr(sql, ?)", (old, new, name, old)
        )
        assert changed.rowcount == 1
        driver.execute("PRAGMA writable_schema=OFF")
    engine.dispose()


def told(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return [str(difference) for difference in differences(connection)]


def drop_trigger(engine: Engine, table: str, event: str) -> None:
    on = f" ON {table}" if engine.dialect.name == "postgresql" else ""
    execute(engine, f"DROP TRIGGER tr_{table}_{event}{on}")


def test_a_new_database_is_as_expected(engine: Engine) -> None:
    assert told(engine) == []


def test_each_trigger_that_is_missing_is_told_with_what_could_happen(engine: Engine) -> None:
    drop_trigger(engine, "event", "delete")
    drop_trigger(engine, "release", "update")
    assert told(engine) == [
        "trigger tr_event_delete of table event is missing: rows could be deleted; run: abair-registry db upgrade",
        "trigger tr_release_update of table release is missing: rows could be changed; run: abair-registry db upgrade",
    ]


def test_a_partial_index_that_is_missing_is_told(engine: Engine) -> None:
    execute(engine, "DROP INDEX ix_operation_running")
    assert told(engine) == [
        "index ix_operation_running of table operation is missing: rows could be repeated; "
        "run: abair-registry db upgrade"
    ]


def test_an_index_with_another_condition_is_told(engine: Engine) -> None:
    execute(
        engine,
        "DROP INDEX ix_operation_running",
        "CREATE UNIQUE INDEX ix_operation_running ON operation (state) WHERE state = 'Running'",
    )
    (line,) = told(engine)
    assert line.startswith("index ix_operation_running of table operation: found CREATE UNIQUE INDEX")
    assert "'Running'" in line
    assert "'running'" in line
    assert line.endswith("; rows could be repeated; run: abair-registry db upgrade")


@sqlite
def test_sqlites_check_that_is_missing_or_weaker_is_told(engine: Engine) -> None:
    edit_sql(engine, "live", "CHECK (id = 1)", "CHECK (id = 1 OR 1)")
    edit_sql(engine, "event", "CONSTRAINT ck_event_who CHECK (length(actor) > 0 AND length(action) > 0), ", "")
    assert told(engine) == [
        "constraint ck_event_who of table event is missing: wrong values could be written; "
        "expected CHECK (length(actor) > 0 AND length(action) > 0); restore the database from a backup",
        "constraint ck_live_one of table live: found CHECK (id = 1 OR 1), expected CHECK (id = 1); wrong values could "
        "be written; restore the database from a backup",
    ]


@postgresql
def test_postgresqls_constraint_that_is_missing_or_weaker_is_told(engine: Engine) -> None:
    execute(
        engine,
        "ALTER TABLE event DROP CONSTRAINT ck_event_who",
        "ALTER TABLE live DROP CONSTRAINT ck_live_one",
        "ALTER TABLE live ADD CONSTRAINT ck_live_one CHECK (id = 1) NOT VALID",
        "ALTER TABLE live DROP CONSTRAINT fk_live_deployment_number_deployment",
    )
    check, weaker, key = told(engine)
    assert check.startswith(
        "constraint ck_event_who of table event is missing: wrong values could be written; expected"
    )
    assert weaker.startswith("constraint ck_live_one of table live: found CHECK (id = 1) NOT VALID, expected CHECK (id")
    assert "rows could refer to others that do not exist; expected FOREIGN KEY (deployment_number)" in key


def test_a_column_or_table_that_is_missing_is_told(engine: Engine) -> None:
    execute(engine, "ALTER TABLE plugin DROP COLUMN reason", "DROP TABLE live")
    table, column = told(engine)
    assert table == "table live is missing: ABAIR could fail; restore the database from a backup"
    assert column.startswith("column reason of table plugin is missing: ABAIR could fail; expected ")


def test_what_somebody_added_to_our_tables_is_told_and_left_alone(engine: Engine) -> None:
    execute(engine, "CREATE INDEX theirs ON event (actor)")
    (line,) = told(engine)
    assert line.startswith("index theirs of table event: found CREATE INDEX theirs ON event")
    assert line.endswith(", expected none; find out who made it, and drop it")
    assert mend(engine, ME) == ([], [])
    assert told(engine) == [line]


@postgresql
def test_a_trigger_that_is_switched_off_or_calls_another_function_is_told_and_mended(engine: Engine) -> None:
    execute(
        engine,
        "ALTER TABLE event DISABLE TRIGGER USER",
        "CREATE OR REPLACE FUNCTION abair_append_only() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END'",
    )
    lines = told(engine)
    assert lines[0].startswith("function abair_append_only: found CREATE OR REPLACE FUNCTION abair_append_only()")
    assert len(lines) == 4
    assert all(" (disabled), expected CREATE TRIGGER tr_event_" in line for line in lines[1:])
    assert len(mend(engine, ME)[0]) == 4
    assert told(engine) == []
    with pytest.raises(DBAPIError, match="event is append-only"):
        execute(engine, "DELETE FROM event")


@sqlite
def test_spaces_quotes_and_comments_make_no_difference(engine: Engine) -> None:
    edit_sql(engine, "live", "CHECK (id = 1)", "check(id=1 /* one */)")
    edit_sql(engine, "live", "deployment_number INTEGER", '-- the number,\n"deployment_number"   integer')
    edit_sql(engine, "tr_event_delete", "BEFORE DELETE ON event", 'BEFORE\n\tDELETE ON "event"')
    assert told(engine) == []


def test_other_programs_tables_make_no_difference(engine: Engine) -> None:
    execute(engine, "CREATE TABLE theirs (id INTEGER PRIMARY KEY, event INTEGER REFERENCES event (id), CHECK (id > 0))")
    if engine.dialect.name == "sqlite":
        execute(engine, "CREATE TRIGGER theirs_t BEFORE DELETE ON theirs BEGIN SELECT RAISE(ABORT, 'no'); END")
    else:
        execute(
            engine, "CREATE SCHEMA other", "CREATE TABLE other.event (id INTEGER)", "CREATE INDEX ON other.event (id)"
        )
    execute(engine, "CREATE INDEX theirs_i ON theirs (event) WHERE event > 1", "CREATE VIEW v AS SELECT * FROM event")
    assert told(engine) == []


@postgresql
def test_a_registry_in_a_schema_of_its_own_is_as_expected(engine: Engine) -> None:
    migrate.downgrade(engine, "base")
    execute(engine, "CREATE SCHEMA abair", f'ALTER DATABASE "{engine.url.database}" SET search_path = abair, public')
    engine.dispose()
    migrate.upgrade(engine)
    assert told(engine) == []


def test_looking_needs_no_permission_to_write(engine: Engine, settings: Settings) -> None:
    drop_trigger(engine, "event", "delete")
    looking = Database(settings, read_only=True)
    assert len(told(looking.engine)) == 1
    with pytest.raises(DBAPIError, match=r"read-?only"):
        execute(looking.engine, "DROP TABLE live")
    looking.close()


def test_what_was_dropped_is_made_again_and_recorded(engine: Engine) -> None:
    with engine.connect() as connection:
        before = read(connection)
    execute(engine, "DROP INDEX ix_operation_running", "DROP INDEX ix_event_subject")
    for event in ("update", "delete"):
        drop_trigger(engine, "event", event)
    names = [
        "index ix_event_subject of table event", "trigger tr_event_delete of table event",
        "trigger tr_event_update of table event", "index ix_operation_running of table operation",
    ]  # fmt: skip
    assert mend(engine, ME) == (names, [])
    with engine.connect() as connection:
        assert compare(read(connection), before) == []
        event = connection.execute(text("SELECT actor, action, subject, reason, detail FROM event")).one()
    assert tuple(event)[:4] == ("me", "mend", "schema", "because")
    assert all(name in str(event.detail) for name in names)
    with pytest.raises(DBAPIError, match="event is append-only"):
        execute(engine, "DELETE FROM event")
    with pytest.raises(DBAPIError, match=r"UNIQUE|unique"):
        execute(engine, OPERATION.format(id=1), OPERATION.format(id=2))
    assert mend(engine, ME) == ([], [])


def test_a_unique_index_that_rows_contradict_is_told_and_the_rest_is_mended(engine: Engine) -> None:
    execute(engine, "DROP INDEX ix_operation_running", OPERATION.format(id=1), OPERATION.format(id=2))
    drop_trigger(engine, "release", "delete")
    mended, (error,) = mend(engine, ME)
    assert mended == ["trigger tr_release_delete of table release"]
    assert str(error).startswith("index ix_operation_running of table operation: cannot be made again (")
    assert told(engine) == [
        "index ix_operation_running of table operation is missing: rows could be repeated; "
        "run: abair-registry db upgrade"
    ]
