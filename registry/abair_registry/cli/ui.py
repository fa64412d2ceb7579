"""The command `abair-registry ui`: MLflow's page on the registry's own store."""

from __future__ import annotations

from typing import Annotated

import typer

from abair.cli.console import reporting

app = typer.Typer()


@app.command()
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="On this machine.")] = 5000,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page.")] = True,
) -> None:
    """Look at the runs in MLflow's page; Ctrl-C ends it.

    Example: abair-registry ui --port 5050
    """
    with reporting() as reporter:
        from abair_registry.settings import Settings
        from abair_registry.tracking import ui

        ui.serve(Settings(), port, reporter.log, browser=browser)
