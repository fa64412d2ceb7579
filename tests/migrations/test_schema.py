"""`abair_migrations/schema/` is what the migrations make, and the models say the same.

After a new revision: `pytest tests/migrations/test_schema.py --update-schema`, then read the difference.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine

import abair_migrations
from abair_migrations import VERSION_TABLE
from abair_registry.db import migrate
from abair_registry.db.definitions import Definitions, compare, expected, read
from abair_registry.db.models import APPEND_ONLY, Base

FOLDER = Path(abair_migrations.__file__).parent / "schema"


def test_the_expected_schema_is_what_the_migrations_make(engine: Engine, request: pytest.FixtureRequest) -> None:
    migrate.upgrade(engine)
    with engine.connect() as connection:
        made = read(connection)
    if request.config.getoption("--update-schema"):
        text = json.dumps(made, indent=2, sort_keys=True, ensure_ascii=False)
        (FOLDER / f"{engine.dialect.name}.json").write_text(f"{text}\n", encoding="utf-8")
    assert compare(made, expected(engine.dialect.name)) == []


def test_the_expected_schema_keeps_every_append_only_table_so() -> None:
    for dialect, events in (("sqlite", ("update", "delete")), ("postgresql", ("update", "delete", "truncate"))):
        wanted = {item for items in expected(dialect).values() for item in items}
        assert {f"trigger tr_{table}_{event}" for table in APPEND_ONLY for event in events} <= wanted


def models_alone(wanted: Definitions) -> Definitions:
    """Return what models can say: no triggers and functions, and no condition that only PostgreSQL's migration has."""
    kept = ("column", "constraint", "index")
    return {
        table: {
            item: sql for item, sql in items.items() if item.startswith(kept) and item != "index ix_operation_running"
        }
        for table, items in wanted.items()
        if table
    }


def test_the_models_make_the_same_tables_constraints_and_indexes(engine: Engine) -> None:
    Base.metadata.create_all(engine)
    with engine.connect() as connection:
        made = read(connection)
    assert compare(models_alone(made), models_alone(expected(engine.dialect.name))) == []
    if engine.dialect.name == "sqlite":
        index = "index ix_operation_running"
        assert made["operation"][index] == expected("sqlite")["operation"][index]


def test_alembic_finds_no_difference_between_models_and_migrations(engine: Engine) -> None:
    migrate.upgrade(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE, "compare_type": True})
        found = compare_metadata(context, Base.metadata)
    assert [d for d in found if getattr(d[1], "name", None) != VERSION_TABLE] == []
