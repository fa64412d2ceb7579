#!/usr/bin/env bash
# Alembic's batch mode on SQLite copies a table into a new one and drops the old one. Triggers of
# the table go with it, and `alembic check` (compare_metadata) does not see that they are gone.
# A table kept append-only by a trigger can be changed after the next migration that touches it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check alembic==1.20.0 sqlalchemy==2.1.0
"$folder/venv/bin/python" - <<'PY'
import alembic
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations

metadata = sa.MetaData()
event = sa.Table("event", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("text", sa.String(50)))
engine = sa.create_engine("sqlite://")
triggers = sa.text("SELECT name FROM sqlite_master WHERE type = 'trigger'")
with engine.begin() as connection:
    metadata.create_all(connection)
    connection.exec_driver_sql(
        "CREATE TRIGGER append_only BEFORE DELETE ON event BEGIN SELECT RAISE(ABORT, 'append-only'); END"
    )
    before = list(connection.scalars(triggers))
    context = MigrationContext.configure(connection)
    with Operations(context).batch_alter_table("event") as batch:
        batch.alter_column("text", existing_type=sa.String(50), nullable=False)
    after = list(connection.scalars(triggers))
    event.c.text.nullable = False
    differences = compare_metadata(MigrationContext.configure(connection), metadata)
print("alembic", alembic.__version__, "sqlalchemy", sa.__version__)
print("triggers before:", before, "after batch_alter_table:", after)
print("differences that compare_metadata reports:", differences)
assert before == ["append_only"] and after == [] and differences == []
PY
