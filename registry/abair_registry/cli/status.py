"""Commands that look: list, show, history, verify, doctor; and push and pull, which copy what is live."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from typing import Annotated

import typer

from abair.cli.console import reporting
from abair_registry.cli.common import Json, Name, registry_for, table

app = typer.Typer()


@app.command("list")
def list_plugins(json: Json = False) -> None:
    """All plugins that are recorded or installed; none of them is imported.

    Example: abair-registry list --json
    """
    with reporting(json_lines=json) as reporter, registry_for(reporter) as registry:
        from abair_registry.maintenance import integrity

        rows = integrity.plugin_rows(registry)
        if json:
            for row in rows:
                reporter.result(asdict(row))
            return
        table(
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
    with reporting(json_lines=json) as reporter, registry_for(reporter) as registry:
        from abair_registry.maintenance import integrity

        told = integrity.plugin_story(registry, name)
        if json:
            reporter.result(told)
            return
        releases, events = told.pop("releases"), told.pop("events")
        for key, value in told.items():
            print(f"{key:<18}{'-' if value is None else value}")
        table(
            ("version", "degradation", "backbone", "rank", "parameters", "SHA-256"),
            [
                (r["version"], a["degradation"], a["backbone"], str(a["rank"]), str(a["parameters"]), a["sha256"][:12])
                for r in releases
                for a in r["adapters"]
            ],
        )
        table(
            ("when", "who", "what", "deployment", "why"),
            [(e["at"], e["actor"], e["action"], str(e["deployment"] or "-"), e["reason"]) for e in events],
        )


@app.command()
def history(json: Json = False) -> None:
    """All deployments, newest first: when, by whom, why, with which labels.

    Example: abair-registry history --json
    """
    with reporting(json_lines=json) as reporter, registry_for(reporter) as registry:
        from abair_registry.maintenance import integrity

        rows = integrity.history_rows(registry)
        if json:
            for row in rows:
                reporter.result(row)
            return
        table(
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
    with reporting(json_lines=json) as reporter, registry_for(reporter) as registry:
        from abair.errors import RegistryError
        from abair_registry.maintenance import integrity

        count, problems = integrity.verify(registry)
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
    with reporting(json_lines=json) as reporter, registry_for(reporter) as registry:
        from abair.errors import RegistryError
        from abair_registry.maintenance import integrity
        from abair_registry.operations import lock
        from abair_registry.registry import sync_live_file
        from abair_registry.tracking import sync
        from abair_registry.tracking.mlflow_client import Runs

        mended = [f"operation {left.id}, {left.kind} {left.subject}: ended, its process is gone"
                  for left in lock.recover(registry.database)]  # fmt: skip
        mended += integrity.mend(registry)
        with suppress(RegistryError):  # a file is missing or cannot be written, which is told next
            if sync_live_file(registry):
                mended.append("deployment.json: written anew")
        _, problems = integrity.verify(registry)
        runs = Runs(registry.settings)
        try:
            mended += sync.agree(registry, runs) if runs.used else []
        except RegistryError as error:
            problems.append(str(error))
        notes = integrity.installed_changes(registry)
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

    The blobs come from the shared folder, or where none is named from the MLflow server (MLFLOW_TRACKING_URI).

    Example: abair-registry pull --from file:///shared/abair
    """
    with reporting(json_lines=json) as reporter, registry_for(reporter, settle=False) as registry:
        from abair_registry.maintenance import remote

        count, number = remote.pull(registry, source)
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
    with reporting(json_lines=json) as reporter, registry_for(reporter) as registry:
        from abair_registry.maintenance import remote

        count, number = remote.push(registry, target)
        if json:
            reporter.result({"deployment": number, "stored": count})
        else:
            print(f"deployment {number}: {count} blobs were stored", flush=True)
