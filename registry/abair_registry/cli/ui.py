"""The command `abair-registry ui`: MLflow's page on the registry's store."""

from __future__ import annotations

from typing import Annotated

import typer

from abair.cli.console import reporting

app = typer.Typer()


@app.command()
def ui(
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of the page on this machine; choose another if it is taken.")
    ] = 5000,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in the browser, or only print its address.")
    ] = True,
) -> None:
    """Open MLflow's page on the runs of all operations: metrics, gates, figures, bundles.

    Ctrl-C or SIGTERM ends it, and its server.

    If MLFLOW_TRACKING_URI names a server, that server's page is opened instead.

    Example: abair-registry ui --port 5050
    """
    with reporting() as reporter:
        from abair_registry.settings import Settings
        from abair_registry.tracking import ui

        ui.serve(Settings(), port, reporter.log, browser=browser)
