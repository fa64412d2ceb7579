"""Bring MLflow to the registry's state: model versions, tags, aliases, ended runs.

The registry decides and MLflow follows. The same code runs after an operation, after a crash
between the two, and after a week without the server.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from abair.contract import CONFIG_FILE, WEIGHTS_FILE
from abair.deployment import BACKBONE_FILE, ESTIMATOR_FILE, FileRef, deployment_text, write_deployment
from abair.deployment import Deployment as Bundle
from abair.errors import RegistryError
from abair.locations import FILE_NAME
from abair.text import escape_markdown, quote_foreign
from abair_registry.db import queries
from abair_registry.db.models import CONCLUSION, DeploymentRow, OperationRow
from abair_registry.registry import Registry
from abair_registry.storage import publish
from abair_registry.storage.blobs import Blobs
from abair_registry.tracking import outbox
from abair_registry.tracking.mlflow_client import Runs, Status
from abair_registry.tracking.model_versions import Alias, Version
from abair_registry.tracking.store import TRAINING
from abair_registry.tracking.training import close_trainings

RETIRED: Final = "retired"
_IMPORT: Final = "import"
"""Kind of a run that holds a deployment which no operation made."""
Row = TypeVar("Row", DeploymentRow, OperationRow)
_STATUS: Final[dict[str, Status]] = {"done": "FINISHED", "undone": "KILLED", "failed": "FAILED"}


def is_expected(registry: Registry, runs: Runs) -> bool:
    """Return whether MLflow should know of this registry: there is a store, or there was one."""
    if runs.has_store or outbox.is_pending(registry.settings.home):
        return True
    with registry.database.read() as session:
        tracked = select(DeploymentRow.number).where(DeploymentRow.run_id.is_not(None)).limit(1)
        return session.scalar(tracked) is not None


def reconcile(registry: Registry, runs: Runs, operation: int | None = None) -> list[str]:
    """Bring versions, tags, aliases and runs to the registry's state; close killed trainings' runs.

    First the runs that were kept meanwhile are told, also the one of the `operation` that calls.
    A version whose run or files are gone is registered again, from the blobs. If an operation of
    another process changed meanwhile what is live, this could undo what that told MLflow, so it
    begins anew.

    Returns a line for each change.

    Raises:
        RegistryError: MLflow cannot be reached or written, or refuses a run.
    """
    done, refused = outbox.drain(registry, runs, operation)
    while True:
        before = _wanted_numbers(registry)
        lines, wrote = _mirror(registry, runs)
        done += lines
        if not wrote or _wanted_numbers(registry) == before:
            break
    trainings = Runs(registry.settings, experiment=TRAINING) if outbox.is_pending(registry.settings.home) else None
    if trainings is not None:
        mirrored, not_taken = outbox.drain_trainings(registry.settings.home, trainings)
        done, refused = done + mirrored, refused + not_taken
    if refused:
        raise RegistryError("; ".join(refused))
    outbox.settle(registry.settings.home)
    return done + close_trainings(runs)


def _wanted_numbers(registry: Registry) -> list[int | None]:
    """Return the numbers of the deployments that are live and that wait for review."""
    with registry.database.read() as session:
        found = queries.live(session), queries.challenger(session)
        return [None if deployment is None else deployment.number for deployment in found]


def _mirror(registry: Registry, runs: Runs) -> tuple[list[str], bool]:
    """Bring versions, tags, aliases and runs to the registry's state.

    Returns a line for each change, and whether anything was written: tags have no line.
    """
    done, tagged = list[str](), False
    with registry.database.read() as session:
        wanted: dict[Alias, DeploymentRow | None] = {
            "champion": queries.live(session),
            "challenger": queries.challenger(session),
        }
        bundles = {
            alias: (deployment, publish.make_bundle(deployment, registry.blobs), _run_ids(session, deployment))
            for alias, deployment in wanted.items()
            if deployment is not None
        }
        to_close = _runs_to_close(session, runs)
    versions = runs.versions()
    places: dict[Alias, str | None] = {"champion": None, "challenger": None}
    for alias, (deployment, bundle, run_ids) in bundles.items():
        digest = bundle_digest(bundle)
        found, lost = _whole_version(runs, versions, deployment.number, bundle, digest)
        if found is None:
            found = _register(runs, registry.blobs, deployment, bundle, digest, run_ids)
            if lost and runs.problem(found, _sizes(bundle)) is not None:  # what lies in that run cannot be replaced
                found = _register(runs, registry.blobs, deployment, bundle, digest, ())
            versions.append(found)
            done.append(f"deployment {deployment.number} is version {found.number} of the model{lost}")
        places[alias] = found.number
    for version in versions:
        state = next((alias for alias, number in places.items() if number == version.number), RETIRED)
        if version.tags.get("abair.state") != state:
            runs.tag_version(version.number, {"abair.state": state})
            tagged = True
    for alias, number in places.items():
        before = runs.version(alias)
        if before != number:
            runs.point(alias, number)
            done.append((f"{alias} is version {number}" if number else f"there is no {alias}")
                        + (f", was {before}" if before else ""))  # fmt: skip
    for run_id, status, reason, conclusion in to_close:
        if conclusion:
            runs.conclude(run_id, **conclusion)
        else:
            runs.end(run_id, status, reason)
        done.append(f"run {run_id} ended as {status}")
    return done, tagged or bool(done)


def bundle_digest(bundle: Bundle) -> str:
    """Return the SHA-256 over a bundle's labels and its files' hashes.

    The deployment's name and date do not count.
    """
    parts = [*bundle.labels, bundle.backbone.file.sha256, bundle.estimator.sha256]
    parts += [sha for adapter in bundle.adapters for sha in (adapter.config.sha256, adapter.weights.sha256)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def export_bundle(bundle: Bundle, blobs: Blobs, folder: Path) -> Bundle:
    """Write the complete bundle below `folder`, its files under plain names.

    Returns it with these names.
    """
    whole = _named_plainly(bundle)
    for blob, file in zip(bundle.files(), whole.files(), strict=True):
        (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(blobs.path(blob.sha256), folder / file.path)
    write_deployment(whole, folder)
    return whole


def _named_plainly(bundle: Bundle) -> Bundle:
    """Return the bundle with its files under plain names instead of the blobs'."""

    def named(ref: FileRef, path: str) -> FileRef:
        return ref.model_copy(update={"path": path})

    adapters = tuple(
        ref.model_copy(
            update={
                "config": named(ref.config, f"adapters/{ref.degradation}/{CONFIG_FILE}"),
                "weights": named(ref.weights, f"adapters/{ref.degradation}/{WEIGHTS_FILE}"),
            }
        )
        for ref in bundle.adapters
    )
    backbone = bundle.backbone.model_copy(update={"file": named(bundle.backbone.file, BACKBONE_FILE)})
    return bundle.model_copy(
        update={"backbone": backbone, "adapters": adapters, "estimator": named(bundle.estimator, ESTIMATOR_FILE)}
    )


def _sizes(bundle: Bundle) -> dict[str, int]:
    """Return the size in bytes of each of a bundle's files under its plain name."""
    whole = _named_plainly(bundle)
    sizes = {file.path: file.size for file in whole.files()}
    return sizes | {FILE_NAME: len(deployment_text(whole).encode())}


def _whole_version(
    runs: Runs, versions: Sequence[Version], number: int, bundle: Bundle, digest: str
) -> tuple[Version | None, str]:
    """Return the newest whole version of a deployment, or None and what the newest one has lost."""
    files = _sizes(bundle)
    lost = ""
    for version in versions:
        if _matches(version, number, digest):
            problem = runs.problem(version, files)
            if problem is None:
                return version, ""
            lost = lost or f", registered again: of version {version.number} {problem}"
    return None, lost


def _run_ids(session: Session, deployment: DeploymentRow) -> list[str]:
    """Return the runs that may be the one of a deployment's operation.

    A run that was kept meanwhile was begun after the deployment was recorded.
    """
    operation = session.get(OperationRow, deployment.operation_id) if deployment.operation_id else None
    later = operation.detail.get("run_id") if operation is not None else None
    return [run_id for run_id in (later, deployment.run_id) if run_id]


def _register(
    runs: Runs, blobs: Blobs, deployment: DeploymentRow, bundle: Bundle, digest: str, run_ids: Sequence[str]
) -> Version:
    """Register a model version for a deployment.

    One without a run gets a short run to hold it.
    """
    run_id = next((known for known in run_ids if runs.exists(known)), None)
    own = run_id is None
    if run_id is None:
        run_id = runs.begin(
            f"deployment {deployment.number}",
            tags={
                "abair.kind": _IMPORT, "abair.deployment": str(deployment.number), "abair.actor": deployment.actor,
                "abair.started": deployment.created.isoformat(),
            },
            params={"labels": ", ".join(bundle.labels)},
        )  # fmt: skip
        why = (
            f"whose run is not here; operation {deployment.operation_id} made it"
            if deployment.operation_id
            else "which no operation made"
        )
        runs.describe(run_id, f"**Deployment {deployment.number}**, {why}: {deployment.reason or 'imported'}.")
    with tempfile.TemporaryDirectory() as folder:
        export_bundle(bundle, blobs, Path(folder))
        tags = {"abair.deployment": str(deployment.number), "abair.bundle": digest}
        description = " ".join(filter(None, (
            f"Deployment {deployment.number}: {', '.join(bundle.labels)}.",
            deployment.reason and f"Reason: {escape_markdown(quote_foreign(deployment.reason))}.",
            f"To make it live: `abair-registry promote {deployment.number}` if it waits for review, "
            f"`abair-registry rollback --to {deployment.number}` if it was live.",
        )))  # fmt: skip
        number = runs.register(run_id, Path(folder), description=description, tags=tags)
    if own:
        runs.end(run_id, "FINISHED")
    return Version(number, run_id, tags)


def _matches(version: Version, number: int, digest: str) -> bool:
    return version.tags.get("abair.deployment") == str(number) and version.tags.get("abair.bundle") == digest


def _runs_to_close(session: Session, runs: Runs) -> list[tuple[str, Status, str, dict[str, Any]]]:
    """Return runs still open whose operation has ended: it was killed, or MLflow was away.

    Each with the status to close it with, a reason, and the conclusion to write, if there is one.
    """
    left: list[tuple[str, Status, str, dict[str, Any]]] = []
    for run_id, tags in runs.running():
        if tags.get("abair.kind") == _IMPORT:
            imported = _get_row(session, DeploymentRow, tags.get("abair.deployment", ""))
            if imported is not None and imported.created.isoformat() == tags.get("abair.started"):
                left.append((run_id, "KILLED", "stopped before the bundle was kept; another run holds it", {}))
            continue
        operation = _get_row(session, OperationRow, tags.get("abair.operation", ""))
        if operation is None or operation.started.isoformat() != tags.get("abair.started"):
            continue  # another registry's, which shares the server
        if operation.state == "running":
            continue
        conclusion = operation.detail.get(CONCLUSION, {})
        left.append((run_id, _STATUS[operation.state], operation.error or "", conclusion))
    return left


def _get_row(session: Session, kind: type[Row], number: str) -> Row | None:
    return session.get(kind, int(number)) if number.isdigit() else None
