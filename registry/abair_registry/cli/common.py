"""What the commands share: options, the open registry, tables for people."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from abair.cli.console import Reporter
from abair.text import quote_foreign

if TYPE_CHECKING:
    from abair_registry.db.audit import Actor
    from abair_registry.registry import Registry

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object a line on stdout, for programs.")]
ActorOption = Annotated[str | None, typer.Option(help="Name to record in the audit trail.  [default: the login name]")]
Reason = Annotated[str, typer.Option(help="Why you do it; recorded in the audit trail and shown by `history`.")]
Yes = Annotated[
    bool, typer.Option("--yes", "-y", help="Do not ask for confirmation; needed where no terminal is attached.")
]


def _names(incomplete: str) -> list[str]:
    """Complete a plugin's name for shells; names that could not be added are left out."""
    from abair_registry.plugins import installed

    names = {point.name for point in installed.installed_plugins() if installed.PLAIN_NAME.fullmatch(point.name)}
    return sorted(name for name in names if name.startswith(incomplete))


Name = Annotated[
    str, typer.Argument(help="Name of a plugin (noise) or of its distribution (abair-noise).", autocompletion=_names)
]


def acting_user(actor: str | None, reason: str) -> Actor:
    """Return the actor for the audit trail; without a name, the login name.

    Raises:
        RegistryError: a text is not UTF-8, so no database takes it.
    """
    from abair.errors import RegistryError
    from abair_registry.db.audit import Actor, this_user

    for option, text in (("--actor", actor or ""), ("--reason", reason)):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise RegistryError(f"{option}: found {os.fsencode(text)!r}; expected text in UTF-8") from None
    return Actor(actor or this_user(), reason)


def ask(question: str, *, yes: bool) -> None:
    """Ask for confirmation; without a terminal, `--yes` must have given it."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter("missing, and there is no terminal to ask on", param_hint="--yes")
    if not typer.confirm(question, err=True):
        raise typer.Exit(1)


@contextmanager
def database(*, read_only: bool = False) -> Iterator[Any]:
    """Yield the database alone, whatever its schema is."""
    from abair_registry.db.engine import Database
    from abair_registry.settings import Settings

    connected = Database(Settings(), read_only=read_only)
    try:
        with connected.translate_errors():
            yield connected
    finally:
        connected.close()


@contextmanager
def registry_for(reporter: Reporter, *, sync: bool = True, undo: bool = True) -> Iterator[Registry]:
    """Yield the open registry, in order: what can be said of that is told on stderr.

    At the end a copy of a SQLite database is kept if it changed, however the command ended.

    Args:
        reporter: of the command.
        sync: write a stale live file first, and only warn if that fails.
        undo: undo an operation whose process is gone, and tell how to run it again.
    """
    from abair.errors import RegistryError
    from abair.locations import FILE_NAME
    from abair_registry.maintenance.repair import record_mended
    from abair_registry.operations import lock
    from abair_registry.registry import keep_backup, live_file_problem, open_registry, sync_live_file
    from abair_registry.settings import Settings

    with open_registry(Settings()) as registry:
        try:
            if sync and (problem := live_file_problem(registry)):
                try:
                    if sync_live_file(registry) and not registry.begun:
                        told = f"{FILE_NAME}: written again, because it {problem}"
                        record_mended(registry, [told], acting_user(None, ""))
                        reporter.log(f"mended: {told}")
                except RegistryError as error:
                    reporter.log(f"warning: {error}")
            if undo:
                with suppress(RegistryError):  # an operation tells what is wrong with the lock
                    lock.recover(registry.database)
                tell_cut_short(reporter, registry)
            yield registry
        finally:
            try:
                keep_backup(registry)
            except RegistryError as error:
                reporter.log(f"warning: {error}")


def tell_cut_short(reporter: Reporter, registry: Registry) -> None:
    """Say in one line which operation was cut short and can run again, if any; writes nothing."""
    from abair_registry.operations import lock

    with registry.database.read() as session:
        left = lock.cut_short(session)
    if left is not None:
        reporter.log(
            f"operation {left.id}, {left.kind} {left.subject} by {left.actor}, was cut short at step {left.step}: "
            f"process {left.process} on {left.host} is gone; to run it again: abair-registry resume"
        )


@contextmanager
def registry_to_look_at(reporter: Reporter, *, warn: bool = True) -> Iterator[Registry]:
    """Yield the registry, writing nothing; say on stderr what does not agree with it.

    Without `warn` the command itself says what is wrong with the file that serves.
    """
    from abair.locations import FILE_NAME, HOME
    from abair_registry.registry import live_file_problem, look
    from abair_registry.settings import Settings

    with look(Settings()) as registry:
        home = registry.settings.home
        if not registry.recorded and os.environ.get(HOME) and not home.exists():
            reporter.log(f"note: {HOME} names {home}, which does not exist yet; shown is what comes with ABAIR")
        elif warn and registry.recorded and (problem := live_file_problem(registry)):
            reporter.log(
                f"warning: {home / FILE_NAME} is not the deployment that is live in the registry: it {problem}; run: "
                "abair-registry verify, which says what helps"
            )
        tell_cut_short(reporter, registry)
        yield registry


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, result: bool = True) -> None:
    """Print a table: rich's on a terminal, plain columns in a pipe.

    It goes to stderr if it is no `result`. Cells may hold text by strangers.
    """
    rows = [[quote_foreign(cell) for cell in row] for row in rows]
    stream = sys.stdout if result else sys.stderr
    if stream is None:  # closed before this program began
        return
    if not stream.isatty():
        widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
        for row in (columns, *rows):
            print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip(), file=stream)
        stream.flush()
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    shown = Table(*columns)
    for row in rows:
        shown.add_row(*(escape(cell) for cell in row))
    Console(file=stream).print(shown)
