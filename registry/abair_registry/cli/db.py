"""The commands `abair-registry db`: the database's schema."""

from __future__ import annotations

from typing import Annotated

import typer

from abair.cli.console import reporting
from abair.cli.options import PLAIN
from abair_registry.cli.common import Yes, acting_user, ask, database

app = typer.Typer(
    help="Inspect and change the database's schema: after an update of ABAIR, or before going back to an older one.",
    **PLAIN,
)


@app.command()
def upgrade(
    revision: Annotated[str, typer.Argument(help="Revision to upgrade to; head is this program's.")] = "head",
) -> None:
    """Upgrade the schema to this program's revision; a SQLite file is backed up first.

    Triggers and indexes that somebody dropped or changed are made again. Other commands ask for
    it when the database was made by an older ABAIR.

    Example: abair-registry db upgrade
    """
    _migrate(revision, up=True)


@app.command()
def downgrade(
    revision: Annotated[str, typer.Argument(help="Revision to go back to; base removes all tables.")], yes: Yes = False
) -> None:
    """Downgrade the schema to an older revision; a SQLite file is backed up first.

    Use it before you install an older ABAIR. What newer tables and columns hold is lost.

    Example: abair-registry db downgrade 0001 --yes
    """
    ask(f"Take the schema back to {revision}? What newer tables and columns hold is lost.", yes=yes)
    _migrate(revision, up=False)


@app.command()
def current() -> None:
    """Print the schema's revision, and the one that this program expects.

    Example: abair-registry db current
    """
    with reporting(), database(read_only=True) as found:
        from abair_migrations import HEAD
        from abair_registry.db import migrate

        revision = migrate.current(found.engine) if found.is_there else None
        print(f"found {revision or 'none'}, this program's is {HEAD}", flush=True)


@app.command()
def check() -> None:
    """Compare the database's schema with the one that this program expects; changes nothing.

    Compared are tables, columns, constraints, indexes and triggers. Exit code 1 means that they
    differ; `db upgrade` makes triggers and indexes again.

    Example: abair-registry db check
    """
    with reporting() as reporter, database(read_only=True) as found:
        from abair.errors import RegistryError
        from abair_migrations import HEAD
        from abair_registry.db import migrate
        from abair_registry.db.definitions import differences

        migrate.check_revision(found.engine)
        with found.engine.connect() as connection:
            problems = differences(connection)
        for problem in problems:
            reporter.fail(RegistryError(str(problem)))
        if not problems:
            print(f"revision {HEAD}, all tables as expected", flush=True)


def _migrate(revision: str, *, up: bool) -> None:
    with reporting() as reporter, database() as found:
        from abair_migrations import HEAD
        from abair_registry.db import migrate

        backup = (migrate.upgrade if up else migrate.downgrade)(found.engine, revision)
        if backup is not None:
            reporter.log(f"the database was backed up to {backup}")
        if up and migrate.current(found.engine) == HEAD:
            from abair_registry.db.mending import mend

            mended, errors = mend(found.engine, acting_user(None, "db upgrade"))
            for name in mended:
                reporter.log(f"{name}: made again; rows may have been changed meanwhile")
            for error in errors:
                reporter.fail(error)
        print(f"the schema's revision is {migrate.current(found.engine) or 'none'}", flush=True)
