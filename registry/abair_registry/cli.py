"""The command line `abair-registry`: parse, call, print."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

import abair
from abair.commands import entry
from abair.commands.options import PLAIN
from abair.commands.reporting import Reporter, reporting

if TYPE_CHECKING:
    from abair_registry.catalogue import Catalogue
    from abair_registry.lifecycle import Outcome
    from abair_registry.store import Who

app = typer.Typer(name="abair-registry", pretty_exceptions_enable=False, **(PLAIN | {"add_completion": True}))
db = typer.Typer(help="The database's schema.", **PLAIN)
app.add_typer(db, name="db")

Json = Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout.")]
Actor = Annotated[str | None, typer.Option(help="Who does it, for the audit.  [default: the login name]")]
Reason = Annotated[str, typer.Option(help="Why, for the audit.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"abair-registry {abair.__version__}", flush=True)
        raise typer.Exit


def _names(incomplete: str) -> list[str]:
    """For shells: what is recorded or installed."""
    from abair_registry import candidates

    return sorted({point.name for point in candidates.installed() if point.name.startswith(incomplete)})


Name = Annotated[str, typer.Argument(help="Of a plugin, or of its distribution.", autocompletion=_names)]


@app.callback()
def _start(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Say the version and exit.")
    ] = False,
) -> None:
    """The registry of ABAIR's plugins: what is installed, what is live, since when, and why.

    Examples: abair-registry list; abair-registry add snow --reason "asked for by the archive"; abair-registry history
    """


@app.command()
def add(name: Name, actor: Actor = None, reason: Reason = "", json: Json = False) -> None:
    """Probe an installed plugin and record it as a candidate.

    Example: abair-registry add snow --reason "asked for by the archive"
    """
    with reporting(json_lines=json) as reporter, _opened(reporter) as opened:
        from abair_registry import lifecycle

        outcome = lifecycle.add(opened, name, _who(actor, reason))
        _show_outcome(reporter, outcome, json=json)


@app.command("list")
def list_plugins(json: Json = False) -> None:
    """All plugins that are recorded or installed; none of them is imported.

    Example: abair-registry list --json
    """
    with reporting(json_lines=json) as reporter, _opened(reporter) as opened:
        from abair_registry import inspection

        rows = inspection.plugin_rows(opened)
        if json:
            for row in rows:
                reporter.result(asdict(row))
            return
        _table(
            ("name", "state", "version", "installed", "distribution", "problem"),
            [
                (
                    row.name,
                    row.state,
                    row.version or "-",
                    row.installed_version or "-",
                    row.distribution,
                    row.problem or "",
                )
                for row in rows
            ],
        )


@app.command()
def show(name: Name, json: Json = False) -> None:
    """One plugin: its releases, its adapters, and what was done to it.

    Example: abair-registry show noise
    """
    with reporting(json_lines=json) as reporter, _opened(reporter) as opened:
        from abair_registry import inspection

        told = inspection.plugin_story(opened, name)
        if json:
            reporter.result(told)
            return
        releases, events = told.pop("releases"), told.pop("events")
        for key, value in told.items():
            print(f"{key:<18}{'-' if value is None else value}")
        _table(
            ("version", "degradation", "backbone", "rank", "parameters", "SHA-256"),
            [
                (r["version"], a["degradation"], a["backbone"], str(a["rank"]), str(a["parameters"]), a["sha256"][:12])
                for r in releases
                for a in r["adapters"]
            ],
        )
        _table(
            ("when", "who", "what", "deployment", "why"),
            [(e["at"], e["actor"], e["action"], str(e["deployment"] or "-"), e["reason"]) for e in events],
        )


@app.command()
def disable(name: Name, actor: Actor = None, reason: Reason = "", yes: Yes = False, json: Json = False) -> None:
    """Take a plugin out of what is served; it stays recorded.

    Example: abair-registry disable blur --reason "smears faces" --yes
    """
    _leave("disable", name, actor, reason, yes=yes, json=json)


@app.command()
def enable(name: Name, actor: Actor = None, reason: Reason = "", json: Json = False) -> None:
    """Serve a disabled plugin again.

    Example: abair-registry enable blur
    """
    with reporting(json_lines=json) as reporter, _opened(reporter) as opened:
        from abair_registry import lifecycle

        _show_outcome(reporter, lifecycle.enable(opened, name, _who(actor, reason)), json=json)


@app.command()
def remove(name: Name, actor: Actor = None, reason: Reason = "", yes: Yes = False, json: Json = False) -> None:
    """Take a plugin out of what is served and off the list; history keeps it.

    Example: abair-registry remove blur --yes
    """
    _leave("remove", name, actor, reason, yes=yes, json=json)


@app.command()
def history(json: Json = False) -> None:
    """All deployments, newest first: when, by whom, why, with which labels.

    Example: abair-registry history --json
    """
    with reporting(json_lines=json) as reporter, _opened(reporter) as opened:
        from abair_registry import inspection

        rows = inspection.history_rows(opened)
        if json:
            for row in rows:
                reporter.result(row)
            return
        _table(
            ("deployment", "live", "created", "actor", "labels", "reason"),
            [
                (
                    str(r["deployment"]),
                    "live" if r["live"] else "",
                    r["created"],
                    r["actor"],
                    " ".join(r["labels"]),
                    r["reason"],
                )
                for r in rows
            ],
        )


@app.command()
def verify(json: Json = False) -> None:
    """Hash again every file of what is live; say what changed.

    Example: abair-registry verify
    """
    with reporting(json_lines=json) as reporter, _opened(reporter) as opened:
        from abair.errors import RegistryError
        from abair_registry import inspection

        count, problems = inspection.verify(opened)
        for problem in problems:
            reporter.fail(RegistryError(problem))
        if json:
            reporter.result({"files": count, "problems": problems})
        elif not problems:
            print(f"{count} files, all as recorded", flush=True)


@app.command()
def doctor(json: Json = False) -> None:
    """Look for what is wrong, and mend what can be mended.

    Example: abair-registry doctor
    """
    with reporting(json_lines=json) as reporter, _opened(reporter) as opened:
        from abair.errors import RegistryError
        from abair_registry import catalogue, inspection

        mended = inspection.mend(opened)
        if catalogue.changed(opened) and catalogue.settle(opened):
            mended.append("deployment.json: written anew")
        _, problems = inspection.verify(opened)
        notes = inspection.installed_changes(opened)
        for problem in problems:
            reporter.fail(RegistryError(problem))
        if json:
            reporter.result({"mended": mended, "problems": problems, "notes": notes})
            return
        for line in (*(f"mended: {text}" for text in mended), *(f"note: {text}" for text in notes)):
            print(line, flush=True)
        if not problems:
            print("nothing is wrong" if not mended else "nothing else is wrong", flush=True)


@app.command()
def pull(
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="URL", help="A shared folder, as file:///...  [default: ABAIR_SHARED_URL]"),
    ] = None,
    json: Json = False,
) -> None:
    """Bring the live deployment of a shared registry home: its blobs and its file.

    Example: abair-registry pull --from file:///shared/abair
    """
    with reporting(json_lines=json) as reporter, _opened(reporter, settle=False) as opened:
        from abair_registry import sharing

        count, number = sharing.pull(opened, source)
        if json:
            reporter.result({"deployment": number, "fetched": count})
        else:
            print(f"deployment {number} is here; {count} blobs were fetched", flush=True)


@app.command()
def push(
    target: Annotated[
        str | None,
        typer.Option("--to", metavar="URL", help="A shared folder, as file:///...  [default: ABAIR_SHARED_URL]"),
    ] = None,
    json: Json = False,
) -> None:
    """Put the live deployment's blobs where other hosts of the same registry can pull them.

    Example: abair-registry push --to file:///shared/abair
    """
    with reporting(json_lines=json) as reporter, _opened(reporter) as opened:
        from abair_registry import sharing

        count, number = sharing.push(opened, target)
        if json:
            reporter.result({"deployment": number, "stored": count})
        else:
            print(f"deployment {number}: {count} blobs were stored", flush=True)


@db.command()
def upgrade(revision: Annotated[str, typer.Argument(help="As `db current` names it.")] = "head") -> None:
    """Bring the schema up to this program's revision; a SQLite file is backed up first.

    Example: abair-registry db upgrade
    """
    _migrate(revision, up=True)


@db.command()
def downgrade(
    revision: Annotated[str, typer.Argument(help="As `db current` names it; base: no tables.")], yes: Yes = False
) -> None:
    """Take the schema back to an older revision; a SQLite file is backed up first.

    Example: abair-registry db downgrade 0001 --yes
    """
    _ask(f"Take the schema back to {revision}? What newer tables and columns hold is lost.", yes=yes)
    _migrate(revision, up=False)


@db.command()
def current() -> None:
    """Say the schema's revision, and this program's.

    Example: abair-registry db current
    """
    with reporting(), _database() as database:
        from abair_migrations import HEAD
        from abair_registry import schema

        print(f"found {schema.current(database.engine) or 'none'}, this program's is {HEAD}", flush=True)


@db.command()
def check() -> None:
    """Compare the tables with this program's.

    Example: abair-registry db check
    """
    with reporting(), _database() as database:
        from abair_migrations import HEAD
        from abair_registry import schema

        schema.check(database.engine)
        print(f"revision {HEAD}, all tables as expected", flush=True)


def _migrate(revision: str, *, up: bool) -> None:
    with reporting() as reporter, _database() as database:
        from abair_registry import schema

        backup = (schema.upgrade if up else schema.downgrade)(database.engine, revision)
        if backup is not None:
            reporter.say(f"the database was backed up to {backup}")
        print(f"the schema's revision is {schema.current(database.engine) or 'none'}", flush=True)


def _leave(action: str, name: str, actor: str | None, reason: str, *, yes: bool, json: bool) -> None:
    with reporting(json_lines=json) as reporter, _opened(reporter) as opened:
        from abair_registry import lifecycle

        with opened.database.read() as session:
            lifecycle.recorded(session, name)
        _ask(f"{action.capitalize()} plugin {name}? A new deployment without it goes live.", yes=yes)
        does = lifecycle.disable if action == "disable" else lifecycle.remove
        _show_outcome(reporter, does(opened, name, _who(actor, reason)), json=json)


def _ask(question: str, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter("missing, and there is no terminal to ask on", param_hint="--yes")
    if not typer.confirm(question, err=True):
        raise typer.Exit(1)


def _who(actor: str | None, reason: str) -> Who:
    from abair_registry.store import Who, this_user

    return Who(actor or this_user(), reason)


def _show_outcome(reporter: Reporter, outcome: Outcome, *, json: bool) -> None:
    if json:
        reporter.result(asdict(outcome))
    else:
        print(
            f"plugin {outcome.name} {outcome.version}: {outcome.state}; deployment {outcome.deployment} is live",
            flush=True,
        )


@contextmanager
def _database() -> Iterator[Any]:
    from abair_registry.database import Database
    from abair_registry.settings import Settings

    database = Database(Settings())
    try:
        with database.telling():
            yield database
    finally:
        database.close()


@contextmanager
def _opened(reporter: Reporter, *, settle: bool = True) -> Iterator[Catalogue]:
    """The registry; a stale file that serves is written first, and if it cannot be, the command still goes on."""
    from abair.errors import RegistryError
    from abair_registry import catalogue
    from abair_registry.settings import Settings

    with catalogue.opened(Settings()) as opened:
        if settle and catalogue.changed(opened):
            try:
                catalogue.settle(opened)
            except RegistryError as error:
                reporter.say(f"warning: {error}")
        yield opened


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table for people: rich's where it is seen, plain columns where it is piped."""
    if not sys.stdout.isatty():
        widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
        for row in (columns, *rows):
            print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip(), flush=True)
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(*columns)
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    Console().print(table)


def run(arguments: Sequence[str]) -> int:
    """One call of the command line; returns the exit code and never raises for anything but `SystemExit`."""
    return entry.run(app, "abair-registry", arguments)


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
