"""Publish the live deployment: `deployment.json` in the home, written after the commit.

The registry's transaction is the one commit point. After a kill between commit and file, the older
deployment still serves, complete; the next writing command writes the file (`write_live_file`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from abair.deployment import AdapterRef, BackboneRef, FileRef, read_deployment, write_deployment
from abair.deployment import Deployment as Bundle
from abair.errors import DeploymentError, RegistryError
from abair.locations import FILE_NAME
from abair_registry.db import queries
from abair_registry.db.models import AdapterRow, BackboneRow, DeploymentRow, now
from abair_registry.db.snapshot import DeploymentSnapshot
from abair_registry.storage.blobs import Blobs, blob_path


def make_bundle(deployment: DeploymentRow, blobs: Blobs) -> Bundle:
    """Return a recorded deployment as the bundle that restoring reads; its files are blobs.

    Raises:
        RegistryError: a blob is missing.
    """
    return _make_bundle(deployment, blobs.size)


def make_proposed_bundle(
    session: Session, proposed: DeploymentSnapshot, estimator_sha256: str, blobs: Blobs, *, name: str
) -> Bundle:
    """Return a proposal with an estimator as a bundle, which no deployment records.

    Raises:
        RegistryError: a blob is missing.
    """
    adapters = [(member.label, session.get_one(AdapterRow, member.adapter_id)) for member in proposed.members]
    backbone = session.get_one(BackboneRow, proposed.backbone_id)
    return _assemble(name, now(), proposed.labels, backbone, adapters, estimator_sha256, blobs.size)


def _make_bundle(deployment: DeploymentRow, size: Callable[[str], int]) -> Bundle:
    adapters = [(member.label, member.adapter) for member in deployment.members]
    return _assemble(
        str(deployment.number), deployment.created, tuple(deployment.labels), deployment.backbone, adapters,
        deployment.estimator.sha256, size,
    )  # fmt: skip


def _assemble(
    name: str,
    created: datetime,
    labels: tuple[str, ...],
    backbone: BackboneRow,
    adapters: Sequence[tuple[str, AdapterRow]],
    estimator_sha256: str,
    size: Callable[[str], int],
) -> Bundle:
    def ref(sha256: str) -> FileRef:
        return FileRef(path=str(blob_path(sha256)), size=size(sha256), sha256=sha256)

    return Bundle(
        name=name,
        created=created,
        labels=labels,
        backbone=BackboneRef(size=backbone.size, fingerprint=backbone.fingerprint, file=ref(backbone.sha256)),
        adapters=tuple(
            AdapterRef(
                degradation=label,
                title=adapter.title,
                distribution=adapter.release.plugin.distribution,
                version=adapter.release.version,
                config=ref(adapter.config_sha256),
                weights=ref(adapter.weights_sha256),
            )
            for label, adapter in adapters
        ),
        estimator=ref(estimator_sha256),
    )


def read_published(home: Path) -> Bundle | None:
    """Return the deployment that the home serves, None without one that can be read."""
    try:
        return read_deployment(home) if (home / FILE_NAME).exists() else None
    except DeploymentError:
        return None


def difference(deployment: DeploymentRow, blobs: Blobs) -> str | None:
    """Return how the home's file differs from a deployment as it is recorded, in words, or None.

    Sizes are compared with those of the blobs that are whole.
    """
    path = blobs.home / FILE_NAME
    if not path.exists():
        return "is missing"
    if path.is_dir():
        return "is a folder"
    try:
        found = read_deployment(path)
    except DeploymentError as error:
        return str(error).removeprefix(f"{path}: ")
    if found.name != str(deployment.number):
        return f"is deployment {found.name}, and {deployment.number} is live"
    named = {file.sha256: file.size for file in found.files()}

    def size(sha256: str) -> int:
        try:
            recorded = blobs.size(sha256)
        except RegistryError:
            return named.get(sha256, 0)
        whole = recorded == named.get(sha256) or blobs.problem(sha256) is None
        return recorded if whole else named.get(sha256, 0)

    recorded = _make_bundle(deployment, size)
    edited = _first_difference(found.model_dump(mode="json"), recorded.model_dump(mode="json"))
    return edited or (None if found.has_checksum else "has no checksum")


def _first_difference(found: object, recorded: object, where: str = "") -> str | None:
    """Return the first place in two JSON documents at which they differ, in words, or None."""
    pairs: list[tuple[object, object, object]] = []
    if isinstance(found, dict) and isinstance(recorded, dict):
        pairs = [(key, found.get(key), recorded[key]) for key in recorded]
    elif isinstance(found, list) and isinstance(recorded, list) and len(found) == len(recorded):
        pairs = [(place, *pair) for place, pair in enumerate(zip(found, recorded, strict=True))]
    elif found != recorded:
        return f"was edited: {where} is {found}, recorded is {recorded}"
    texts = (_first_difference(one, other, f"{where}.{key}".lstrip(".")) for key, one, other in pairs)
    return next(filter(None, texts), None)


def write_live_file(session: Session, blobs: Blobs) -> bool:
    """Write the live deployment's file if it is missing or stale; returns whether it was written.

    Raises:
        RegistryError: a blob is missing, the file cannot be written, or the home serves a
            deployment that is newer than all that are recorded.
    """
    deployment = queries.live(session)
    if deployment is None or difference(deployment, blobs) is None:
        return False
    wanted = make_bundle(deployment, blobs)
    if (folder := blobs.home / FILE_NAME).is_dir():
        raise RegistryError(
            f"{folder}: found a folder, expected the file that serves; move {folder} away, then run the command again"
        )
    served, newest = read_published(blobs.home), session.scalar(select(func.max(DeploymentRow.number)))
    if served is not None and served.name.isdigit() and int(served.name) > (newest or 0):
        raise RegistryError(
            f"{blobs.home / FILE_NAME}: is deployment {served.name}, and the registry's newest is {newest}; expected "
            "the database that it was recorded in, of which this is an older copy, or another one; correct "
            f"ABAIR_REGISTRY_URL or ABAIR_HOME; to let deployment {deployment.number} serve, move {FILE_NAME} away"
        )
    try:
        write_deployment(wanted, blobs.home)
    except OSError as error:
        raise RegistryError(
            f"{blobs.home}: deployment {deployment.number} is live in the registry, but its file cannot be written "
            f"({error.strerror or error}); what served before still serves; make {blobs.home / FILE_NAME} writable, "
            "then run the command again"
        ) from None
    return True
