"""The command line `abair-registry`, assembled from its groups of commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

import abair
from abair.cli.options import PLAIN
from abair.cli.run import run_app
from abair_registry.cli import bench, changes, db, init, status, ui

app = typer.Typer(name="abair-registry", pretty_exceptions_enable=False, **(PLAIN | {"add_completion": True}))


def _version(wanted: bool) -> None:
    if wanted:
        print(f"abair-registry {abair.__version__}", flush=True)
        raise typer.Exit


@app.callback()
def _start(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Decide which plugins are live: add, disable, promote, roll back.

    See what is live, since when, and why.

    Examples: abair-registry list; abair-registry add grain --reason "asked for by the archive"
    """


for group in (init, changes, status, ui, bench):
    app.add_typer(group.app)
app.add_typer(db.app, name="db")


def run(arguments: Sequence[str]) -> int:
    """Run one call of the command line and return its exit code.

    Raises nothing but `SystemExit`.
    """
    return run_app(app, "abair-registry", arguments)
