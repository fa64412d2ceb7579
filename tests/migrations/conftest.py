"""What tests of migrations share: empty databases of both kinds, and rows for every table of revision 0001."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine, text

from abair_migrations import VERSION_TABLE
from abair_registry.db.engine import Database
from abair_registry.settings import Settings

MOMENT = "2026-01-02 03:04:05.000006"
SHA = {letter: letter * 64 for letter in "abcdefg"}

ROWS = (
    f"INSERT INTO backbone VALUES (1, 'tiny', '{SHA['a']}', '{SHA['b']}', '{MOMENT}')",
    f"INSERT INTO estimator VALUES (1, '{SHA['c']}', '[\"noise\", \"clean\"]', '{MOMENT}')",
    *(
        f"INSERT INTO operation VALUES ({number}, '{kind}', 'noise', '{state}', '{step}', 'me', 'because', 'host', 7, "
        f"'{MOMENT}', '{MOMENT}', {finished}, {error}, '{{\"seconds\": {number}.5, \"text\": \"100 %\"}}')"
        for number, kind, state, step, finished, error in (
            (1, "add", "done", "published", f"'{MOMENT}'", "NULL"),
            (2, "retrain", "undone", "train", f"'{MOMENT}'", "'killed'"),
            (5, "import", "running", "", "NULL", "NULL"),
        )
    ),
    f"INSERT INTO plugin VALUES (1, 'noise', 'abair-noise', 'live', '', '{MOMENT}')",
    f"INSERT INTO deployment VALUES (1, 1, 1, NULL, '{MOMENT}', 'me', 'first', NULL)",
    f"INSERT INTO deployment VALUES (2, 1, 1, 1, '{MOMENT}', 'me', 'second', 'run')",
    f"INSERT INTO release VALUES (1, 1, '0.1.0', 'abair_noise', '{{}}', '{{\"noise\": {{}}}}', '{MOMENT}')",
    f"INSERT INTO adapter VALUES (1, 1, 1, 'noise', 'Noise', 4, 100, '{SHA['d']}', '{SHA['e']}')",
    f"INSERT INTO replay VALUES (1, 1, NULL, '{SHA['f']}', '{MOMENT}')",
    f"INSERT INTO replay VALUES (2, 1, 1, '{SHA['g']}', '{MOMENT}')",
    f"INSERT INTO event VALUES (1, '{MOMENT}', 'me', 'import', 'deployment 1', 'first', 1, NULL, '{{}}')",
    f"INSERT INTO event VALUES (2, '{MOMENT}', 'me', 'add', 'noise', 'second', 2, 1, '{{\"x\": 1}}')",
    f"INSERT INTO live VALUES (1, 2, '{MOMENT}')",
    "INSERT INTO member VALUES (1, 0, 1, 'noise')",
    "INSERT INTO member VALUES (2, 0, 1, 'noise')",
)


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    """Of an empty database."""
    database = Database(settings)
    yield database.engine
    database.close()


def fill(engine: Engine) -> None:
    """Put rows into every table, as SQL of revision 0001."""
    with engine.begin() as connection:
        for statement in ROWS:
            connection.exec_driver_sql(statement.replace("%", "%%") if engine.dialect.name != "sqlite" else statement)


def all_rows(engine: Engine) -> dict[str, list[tuple[object, ...]]]:
    """Return the rows of every table but the version's."""
    with engine.connect() as connection:
        return {table: rows_of(connection, table) for table in tables(connection)}


def rows_of(connection: Connection, table: str) -> list[tuple[object, ...]]:
    return [tuple(row) for row in connection.execute(text(f"SELECT * FROM {table} ORDER BY 1, 2"))]


def tables(connection: Connection) -> list[str]:
    return sorted(set(connection.dialect.get_table_names(connection)) - {VERSION_TABLE})
