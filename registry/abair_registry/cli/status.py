"""Commands that inspect, repair and copy: list, show, history, verify, doctor, push, pull.

The first four change nothing.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from typing import Annotated

import typer

from abair.cli.console import reporting
from abair_registry.cli.common import Json, Name, registry_for, registry_to_look_at, table, tell_cut_short

app = typer.Typer()

SOURCE_HELP = (
    "Folder to fetch from, as file:///path, s3://bucket/path, gs://bucket/path or any other URL that fsspec knows.  "
    "[default: ABAIR_SHARED_URL]"
)
TARGET_HELP = SOURCE_HELP.replace("fetch from", "store in")


@app.command("list")
def list_plugins(json: Json = False) -> None:
    """List all plugins: what is installed, what is live, and what needs attention.

    No plugin is imported. The state `available` means installed and never added; `live` means that
    restoring uses the plugin's adapters.

    Example: abair-registry list --json
    """
    with reporting(json_lines=json) as reporter, registry_to_look_at(reporter) as registry:
        from abair_registry.maintenance import status
        from abair_registry.plugins.installed import unreadable_distributions

        rows = status.plugin_statuses(registry)
        for problem in unreadable_distributions():
            reporter.log(f"warning: {problem}")
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
    """Show one plugin: its releases with their adapters, its card, and what was done to it by whom.

    Example: abair-registry show noise
    """
    with reporting(json_lines=json) as reporter, registry_to_look_at(reporter) as registry:
        from abair_registry.maintenance import status

        shown = status.describe_plugin(registry, name)
        if json:
            reporter.result(shown)
            return
        releases, events = shown.pop("releases"), shown.pop("events")
        for key, value in shown.items():
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
    """List all deployments, newest first: when, by whom and why each was made, and its labels.

    Use it to find the number of a deployment for `rollback --to` or `promote`.

    Example: abair-registry history --json
    """
    with reporting(json_lines=json) as reporter, registry_to_look_at(reporter) as registry:
        from abair_registry.maintenance import status

        rows = status.deployment_history(registry)
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
    """Check every file of the live deployment against its recorded SHA-256; changes nothing.

    Exit code 1 means that a file is missing or was changed; `doctor` repairs what it can.

    Example: abair-registry verify
    """
    with reporting(json_lines=json) as reporter, registry_to_look_at(reporter) as registry:
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
def doctor(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what is wrong; repair and write nothing.")] = False,
    json: Json = False,
) -> None:
    """Find and repair killed operations, changed files, a stale deployment.json, and MLflow.

    Use it after a crash, or when another command names it. Exit code 1 means that a problem is
    left. A dry run finds changed files and a stale deployment.json.

    Example: abair-registry doctor
    """
    if dry_run:
        _print_findings(json)
        return
    with reporting(json_lines=json) as reporter, registry_for(reporter, undo=False) as registry:
        from abair.errors import RegistryError
        from abair_registry.maintenance import integrity
        from abair_registry.operations import lock
        from abair_registry.registry import sync_live_file
        from abair_registry.tracking import sync
        from abair_registry.tracking.mlflow_client import Runs

        repaired = [f"operation {left.id}, {left.kind} {left.subject}: ended, its process is gone"
                  for left in lock.recover(registry.database)]  # fmt: skip
        tell_cut_short(reporter, registry)
        repaired += integrity.repair(registry)
        with suppress(RegistryError):  # a file is missing or cannot be written, which is told next
            if sync_live_file(registry):
                repaired.append("deployment.json: written anew")
        _, problems = integrity.verify(registry)
        runs = Runs(registry.settings)
        try:
            repaired += sync.reconcile(registry, runs) if sync.is_expected(registry, runs) else []
        except RegistryError as error:
            problems.append(str(error))
        notes = integrity.installed_changes(registry)
        for problem in problems:
            reporter.fail(RegistryError(problem))
        if json:
            reporter.result({"mended": repaired, "problems": problems, "notes": notes})
            return
        for line in (*(f"mended: {text}" for text in repaired), *(f"note: {text}" for text in notes)):
            print(line, flush=True)
        if not problems:
            print("nothing is wrong" if not repaired else "nothing else is wrong", flush=True)


def _print_findings(json: bool) -> None:
    """Print what is wrong with the files of the live deployment, and change nothing."""
    with reporting(json_lines=json) as reporter, registry_to_look_at(reporter) as registry:
        from abair.errors import RegistryError
        from abair_registry.maintenance import integrity

        _, problems = integrity.verify(registry)
        notes = integrity.installed_changes(registry)
        for problem in problems:
            reporter.fail(RegistryError(problem))
        if json:
            reporter.result({"mended": [], "problems": problems, "notes": notes})
            return
        for text in notes:
            print(f"note: {text}", flush=True)
        if not problems:
            print("nothing is wrong", flush=True)


@app.command()
def pull(
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="URL", help=SOURCE_HELP),
    ] = None,
    json: Json = False,
) -> None:
    """Fetch the live deployment of a registry that several hosts share.

    Afterwards this host restores with it.     Missing blobs come from the shared folder, or without
    one from the MLflow server (MLFLOW_TRACKING_URI). Each is verified by its SHA-256 before
    deployment.json is written.

    Example: abair-registry pull --from file:///shared/abair
    """
    with reporting(json_lines=json) as reporter, registry_for(reporter, sync=False) as registry:
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
        typer.Option("--to", metavar="URL", help=TARGET_HELP),
    ] = None,
    json: Json = False,
) -> None:
    """Store the live deployment's blobs in a shared folder.

    Other hosts of the same registry can pull them there. Use it on the host that ran the operation.
    Blobs that are there unchanged are not stored again.

    Example: abair-registry push --to file:///shared/abair
    """
    with reporting(json_lines=json) as reporter, registry_for(reporter) as registry:
        from abair_registry.maintenance import remote

        count, number = remote.push(registry, target)
        if json:
            reporter.result({"deployment": number, "stored": count})
        else:
            print(f"deployment {number}: {count} blobs were stored", flush=True)
