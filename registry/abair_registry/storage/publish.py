"""Publish the live deployment: `deployment.json` in the home, written after the commit.

The registry's transaction is the one commit point. After a kill between commit and file, the older
deployment still serves, complete; the next writing command writes the file (`write_live_file`).
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.orm import Session

from abair.deployment import (
    AdapterRef,
    BackboneRef,
    FileRef,
    read_deployment,
    write_deployment,
)
from abair.deployment import Deployment as Bundle
from abair.errors import DeploymentError, RegistryError
from abair_registry.db import queries
from abair_registry.db.models import DeploymentRow
from abair_registry.storage.blobs import Blobs, blob_path


def make_bundle(deployment: DeploymentRow, blobs: Blobs) -> Bundle:
    """Return a recorded deployment as the bundle that restoring reads; its files are blobs.

    Raises:
        RegistryError: a blob is missing.
    """

    def ref(sha256: str) -> FileRef:
        return FileRef(path=str(blob_path(sha256)), size=blobs.size(sha256), sha256=sha256)

    return Bundle(
        name=str(deployment.number),
        created=deployment.created,
        labels=tuple(deployment.labels),
        backbone=BackboneRef(
            size=deployment.backbone.size,
            fingerprint=deployment.backbone.fingerprint,
            file=ref(deployment.backbone.sha256),
        ),
        adapters=tuple(
            AdapterRef(
                degradation=member.label,
                title=member.adapter.title,
                distribution=member.adapter.release.plugin.distribution,
                version=member.adapter.release.version,
                config=ref(member.adapter.config_sha256),
                weights=ref(member.adapter.weights_sha256),
            )
            for member in deployment.members
        ),
        estimator=ref(deployment.estimator.sha256),
    )


def read_published(home: Path) -> Bundle | None:
    """Return the deployment that the home serves, None without one that can be read."""
    try:
        return read_deployment(home) if (home / "deployment.json").exists() else None
    except DeploymentError:
        return None


def is_published(wanted: Bundle, home: Path) -> bool:
    """Return whether the home serves exactly this bundle."""
    found = read_published(home)
    return found is not None and found.model_dump() == wanted.model_dump()  # without the folder, which both know


def write_live_file(session: Session, blobs: Blobs) -> bool:
    """Write the live deployment's file if it is missing or stale; returns whether it was written.

    Raises:
        RegistryError: a blob is missing, or the file cannot be written.
    """
    deployment = queries.live(session)
    if deployment is None:
        return False
    wanted = make_bundle(deployment, blobs)
    if is_published(wanted, blobs.home):
        return False
    try:
        write_deployment(wanted, blobs.home)
    except OSError as error:
        raise RegistryError(
            f"{blobs.home}: deployment {deployment.number} is live in the registry, but its file cannot be written "
            f"({error.strerror or error}); what served before still serves; mend it, then run: abair-registry doctor"
        ) from None
    return True
