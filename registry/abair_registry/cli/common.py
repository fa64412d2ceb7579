"""What the commands share: options, the opened registry, tables for people."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from abair.cli.console import Reporter

if TYPE_CHECKING:
    from abair_registry.db.audit import Actor
    from abair_registry.registry import Registry

Json = Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout.")]
ActorOption = Annotated[str | None, typer.Option(help="Who does it, for the audit.  [default: the login name]")]
Reason = Annotated[str, typer.Option(help="Why, for the audit.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def _names(incomplete: str) -> list[str]:
    """For shells: what is recorded or installed."""
    from abair_registry.plugins import installed

    return sorted({point.name for point in installed.installed_plugins() if point.name.startswith(incomplete)})


Name = Annotated[str, typer.Argument(help="Of a plugin, or of its distribution.", autocompletion=_names)]


def acting_user(actor: str | None, reason: str) -> Actor:
    """Who does it, for the audit."""
    from abair_registry.db.audit import Actor, this_user

    return Actor(actor or this_user(), reason)


def ask(question: str, *, yes: bool) -> None:
    """Go on only after a yes; where nobody can be asked, `--yes` must have said so."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter("missing, and there is no terminal to ask on", param_hint="--yes")
    if not typer.confirm(question, err=True):
        raise typer.Exit(1)


@contextmanager
def database() -> Iterator[Any]:
    """The database alone, whatever its schema."""
    from abair_registry.db.engine import Database
    from abair_registry.settings import Settings

    connected = Database(Settings())
    try:
        with connected.telling():
            yield connected
    finally:
        connected.close()


@contextmanager
def registry_for(reporter: Reporter, *, settle: bool = True) -> Iterator[Registry]:
    """The registry; a stale file that serves is written first, and if it cannot be, the command still goes on."""
    from abair.errors import RegistryError
    from abair_registry.registry import live_file_is_stale, open_registry, sync_live_file
    from abair_registry.settings import Settings

    with open_registry(Settings()) as it:
        if settle and live_file_is_stale(it):
            try:
                sync_live_file(it)
            except RegistryError as error:
                reporter.say(f"warning: {error}")
        yield it


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, result: bool = True) -> None:
    """A table for people: rich's where it is seen, plain columns where it is piped; on stderr if it is no `result`."""
    stream = sys.stdout if result else sys.stderr
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
