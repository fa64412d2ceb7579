"""Record what the package ships: as deployment 1 of a new registry, or as parts of a later one."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy.orm import Session

from abair.deployment import AdapterRef, Deployment, read_deployment
from abair.locations import factory_folder
from abair.model.safetensors_io import read_header
from abair_registry.db import queries
from abair_registry.db.audit import Actor
from abair_registry.db.models import AdapterRow, DeploymentRow
from abair_registry.db.queries import NewAdapter, NewRelease
from abair_registry.storage.blobs import Blobs


def import_factory(session: Session, blobs: Blobs, actor: Actor, factory: Path | None = None) -> DeploymentRow:
    """Record the shipped bundle as deployment 1, so that history begins with what is served.

    Raises:
        DeploymentError: the factory's files are not those that it names.
        RegistryError: its files cannot be stored.
    """
    source = read_deployment(factory or factory_folder())
    keep_files(source, blobs)
    adapters = record_adapters(session, source, source.adapters, actor)
    outputs = queries.ensure_estimator(session, source.estimator.sha256, source.labels)
    deployment = queries.propose(session, adapters, outputs, actor, action="record", subject="factory")
    queries.publish(session, deployment, actor, action="import", subject="factory")
    return deployment


def keep_files(source: Deployment, blobs: Blobs) -> None:
    """Keep all files of a bundle as blobs.

    Raises:
        DeploymentError: they are not those that the bundle names.
        RegistryError: they cannot be stored.
    """
    for file in source.files():
        blobs.add(source.find(file), file.sha256)


def record_adapters(
    session: Session, source: Deployment, adapters: Sequence[AdapterRef], actor: Actor
) -> list[AdapterRow]:
    """Record a bundle's backbone, some of its adapters, and its replay as theirs.

    Raises:
        RegistryError: an adapter's release was recorded with other files.
    """
    backbone = queries.ensure_backbone(
        session, source.backbone.size, source.backbone.fingerprint, source.backbone.file.sha256
    )
    rows = []
    for ref in adapters:
        shapes = read_header(source.find(ref.weights)).shapes.values()
        new = NewRelease(
            name=ref.degradation,
            distribution=ref.distribution,
            version=ref.version,
            module=ref.distribution.replace("-", "_"),
            declared={ref.degradation: {"title": ref.title}},
            adapters=[
                NewAdapter(
                    degradation=ref.degradation,
                    title=ref.title,
                    backbone_id=backbone.id,
                    rank=int(json.loads(source.find(ref.config).read_text(encoding="utf-8"))["r"]),
                    parameters=sum(math.prod(shape) for shape in shapes),
                    config_sha256=ref.config.sha256,
                    weights_sha256=ref.weights.sha256,
                )
            ],
        )
        release = queries.record_release(session, new, actor)
        rows += [adapter for adapter in release.adapters if adapter.backbone_id == backbone.id]
    if source.replay is not None:
        for adapter_id in (None, *(adapter.id for adapter in rows)):
            queries.record_replay(session, backbone.id, adapter_id, source.replay.sha256)
    return rows
