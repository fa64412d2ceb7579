"""Commands that inspect, repair and copy: list, show, history, verify, doctor, push, pull.

The first four change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from abair.cli.console import Reporter, reporting
from abair.text import one_line, quote_foreign
from abair_registry.cli.common import (
    Json,
    Name,
    acting_user,
    registry_for,
    registry_to_look_at,
    table,
    tell_cut_short,
)

if TYPE_CHECKING:
    from abair_registry.registry import Registry

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
        from abair_registry.maintenance.offer import offered_factory
        from abair_registry.plugins.installed import unreadable_distributions

        rows = status.plugin_statuses(registry)
        for problem in unreadable_distributions():
            reporter.log(f"warning: {problem}")
        if offer := offered_factory(registry):
            reporter.log(f"note: {offer}")
        if json:
            for row in rows:
                reporter.result(asdict(row))
            return
        shown, hidden = status.without_floods(rows)
        for distribution, count in hidden.items():
            reporter.log(f"note: {quote_foreign(distribution, 60)} has {count} more plugins; --json lists them")
        table(
            ("name", "state", "version", "installed", "distribution", "problem"),
            [
                (
                    quote_foreign(row.name, 60),
                    row.state,
                    row.version or "-",
                    quote_foreign(row.installed_version or "-", 40),
                    quote_foreign(row.distribution, 60),
                    row.problem or "",
                )
                for row in shown
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
            print(f"{key:<18}{'-' if value is None else quote_foreign(str(value))}")
        table(
            ("version", "degradation", "backbone", "rank", "parameters", "SHA-256"),
            [
                (r["version"], a["degradation"], a["backbone"], str(a["rank"]), str(a["parameters"]), a["sha256"][:12])
                for r in releases
                for a in r["adapters"]
            ],
        )
        table(
            ("when", "who", "what", "deployment", "gates", "why"),
            [
                (e["at"], e["actor"], e["action"], str(e["deployment"] or "-"), e["gates"] or "-", e["reason"])
                for e in events
            ],
        )


@app.command()
def history(json: Json = False) -> None:
    """List all deployments, newest first, and what was live when.

    The first table says when, by whom and why each was made, and its labels; the second one when,
    by whom and why each went live.

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
            ("deployment", "live", "created", "actor", "labels", "gates", "reason"),
            [
                (
                    str(r["deployment"]),
                    "live" if r["live"] else "",
                    r["created"],
                    r["actor"],
                    " ".join(r["labels"]),
                    r["gates"] or "-",
                    r["reason"],
                )
                for r in rows
            ],
        )
        print()
        live = [(event, str(r["deployment"])) for r in rows for event in r["went_live"]]
        table(
            ("went live", "deployment", "by", "actor", "reason"),
            [
                (event["at"], number, event["action"], event["actor"], event["reason"])
                for event, number in sorted(live, key=lambda one: one[0]["event"], reverse=True)
            ],
        )


@app.command()
def verify(json: Json = False) -> None:
    """Check every file that deployments need against its recorded SHA-256; changes nothing.

    The live deployment's come first, then those of deployments that one can go back to. Exit code 1
    means that a file is missing or was changed; each line says what helps.

    Example: abair-registry verify
    """
    with reporting(json_lines=json) as reporter, registry_to_look_at(reporter, warn=False) as registry:
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
    """Find and repair killed operations, changed files, a wrong deployment.json, and MLflow.

    Use it after a crash, or when another command names it. Files are put back from the package, an
    installed plugin, MLflow's bundles or the shared folder. Exit code 1 means that a problem is
    left. While an operation is running, MLflow is left to it. A dry run does not look at MLflow.

    Example: abair-registry doctor
    """
    if dry_run:
        _print_findings(json)
        return
    with reporting(json_lines=json) as reporter, registry_for(reporter, sync=False, undo=False) as registry:
        from abair.errors import RegistryError
        from abair_registry.maintenance import repair
        from abair_registry.operations import lock
        from abair_registry.tracking import sync
        from abair_registry.tracking.local_store import BEFORE_MOVE
        from abair_registry.tracking.mlflow_client import Runs

        registry.database.check_writable()
        mended = [f"operation {left.id}, {left.kind} {left.subject}: ended, its process is gone"
                  for left in lock.recover(registry.database)]  # fmt: skip
        tell_cut_short(reporter, registry)
        runs = Runs(registry.settings)
        done, problems = repair.repair(registry, runs)
        mended += [line for line in done if not registry.begun]
        notes = _notes(registry)
        with registry.database.read() as session:
            busy, newest = lock.running(session), lock.newest(session)
        if busy is not None:  # both would tell MLflow the same
            notes.append(f"MLflow was not looked at: {busy}, and tells it what is live at the end")
        elif not problems:  # MLflow is told what serves, which is whole
            try:
                told = sync.reconcile(registry, runs) if sync.is_expected(registry, runs) else []
            except RegistryError as error:
                told = []
                problems.append(str(error))
            if runs.claimed:
                mended.append(f"MLflow's store: it named another home's files; as it was, it is {BEFORE_MOVE}")
            with registry.database.read() as session:
                alone = lock.newest(session) == newest
            if alone:
                mended += told
            elif told:  # the other operation was about to tell the same: nothing was wrong
                notes.append(f"MLflow was told beside an operation that began meanwhile: {'; '.join(told)}")
        repair.record_mended(registry, mended, acting_user(None, ""))
        _print_health(reporter, json, mended, problems, notes)


def _print_findings(json: bool) -> None:
    """Print what is wrong with the files that deployments need, and change nothing."""
    with reporting(json_lines=json) as reporter, registry_to_look_at(reporter, warn=False) as registry:
        from abair_registry.maintenance import integrity
        from abair_registry.operations import lock

        _, problems = integrity.verify(registry)
        with registry.database.read() as session:
            left = lock.abandoned(session)
        if left is not None:
            problems.append(
                f"operation {left.id}, {left.kind} {left.subject}: recorded as running, and its process {left.process} "
                "is gone; run: abair-registry doctor"
            )
        notes = [*_notes(registry), "MLflow was not looked at, as doctor does without --dry-run"]
        _print_health(reporter, json, [], problems, notes)


def _notes(registry: Registry) -> list[str]:
    """Return what is no problem, but good to know: of plugins, and of what the package offers."""
    from abair_registry.maintenance import integrity
    from abair_registry.maintenance.offer import offered_factory

    offer = offered_factory(registry)
    changes = [*integrity.installed_changes(registry), *integrity.plugins_that_fail(registry)]
    return [*changes, *([str(offer)] if offer else [])]


def _print_health(
    reporter: Reporter, json: bool, mended: Sequence[str], problems: Sequence[str], notes: Sequence[str]
) -> None:
    """Print what was mended, what is wrong, each a failure, and notes."""
    from abair.errors import RegistryError

    for problem in problems:
        reporter.fail(RegistryError(problem))
    if json:
        reporter.result({"mended": list(mended), "problems": list(problems), "notes": list(notes)})
        return
    for line in (*(f"mended: {text}" for text in mended), *(f"note: {text}" for text in notes)):
        print(one_line(line), flush=True)
    if not problems:
        print("nothing else is wrong" if mended else "nothing is wrong", flush=True)


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
    """Store the blobs of the live deployment in a shared folder, and those of all others.

    Other hosts of the same registry can pull them there, promote a challenger and go back. Use it
    on the host that ran the operation. Blobs that are there unchanged are not stored again.

    Example: abair-registry push --to file:///shared/abair
    """
    with reporting(json_lines=json) as reporter, registry_for(reporter) as registry:
        from abair_registry.maintenance import remote

        count, number = remote.push(registry, target)
        if json:
            reporter.result({"deployment": number, "stored": count})
        else:
            print(f"deployment {number}: {count} blobs were stored", flush=True)
