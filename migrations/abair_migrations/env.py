"""Alembic's environment: runs on the caller's connection, in a transaction of its own."""

from alembic import context

from abair_migrations import VERSION_TABLE
from abair_migrations.sqlite_rebuilds import guarded_transaction

connection = context.config.attributes["connection"]
with guarded_transaction(connection) as after_step:
    context.configure(
        connection=connection,
        version_table=VERSION_TABLE,
        render_as_batch=True,
        compare_type=True,
        on_version_apply=after_step,
    )
    context.run_migrations()
