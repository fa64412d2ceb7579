"""The commands `abair-registry db`: the database's schema and its backups."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from abair.cli.console import reporting
from abair.cli.options import PLAIN
from abair_registry.cli.common import Yes, acting_user, ask, database

app = typer.Typer(
    help="Inspect and change the database's schema, for an update of ABAIR or back; put back a backup of the database.",
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
        from abair_registry.registry import begins_anew
        from abair_registry.settings import Settings

        if begins_anew(Settings()) and not found.is_there:
            raise RegistryError(
                f"registry: found no database, expected revision {HEAD}; the first command that writes makes one, such "
                "as: abair-registry init"
            )
        migrate.check_revision(found.engine)
        with found.engine.connect() as connection:
            problems = differences(connection)
        for problem in problems:
            reporter.fail(RegistryError(str(problem)))
        if not problems:
            print(f"revision {HEAD}, all tables as expected", flush=True)


@app.command()
def restore(
    copy: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="Copy to put back.  [default: the newest one that is not damaged]"),
    ] = None,
    yes: Yes = False,
) -> None:
    """Put a backup of a SQLite database back; the database that was there is moved aside.

    Every command that writes keeps a copy in the folder `backups` beside the database, the newest
    five. If the home serves a newer deployment than the copy knows, that is recorded in it.

    Example: abair-registry db restore --yes
    """
    with reporting() as reporter:
        from abair_registry.maintenance import restore
        from abair_registry.settings import Settings

        settings = Settings()
        chosen = restore.choose(settings, copy)
        if restore.is_usable(settings):
            ask(f"Replace the database, in which nothing is wrong, by {chosen}?", yes=yes)
        done = restore.put_back(settings, chosen, acting_user(None, f"the database was restored from {chosen.name}"))
        if done.replaced is not None:
            reporter.log(f"the database that was there is now {done.replaced}")
        if done.adopted is not None:
            reporter.log(f"deployment {done.adopted}, which serves and is newer than this copy, was recorded in it")
        for warning in done.warnings:
            reporter.log(f"warning: {warning}")
        print(f"the database is that of {chosen}; deployment {done.live} is live", flush=True)


def _migrate(revision: str, *, up: bool) -> None:
    with reporting() as reporter, database() as found:
        from abair_migrations import HEAD
        from abair_registry.db import migrate
        from abair_registry.registry import begins_anew
        from abair_registry.settings import Settings

        begins_anew(Settings())  # refuses a damaged database, and an empty one beside a home that was used
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
