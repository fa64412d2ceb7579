"""Record the deployment that the package ships as number 1 of a new registry."""

from __future__ import annotations

import json
import math
from pathlib import Path

from sqlalchemy.orm import Session

from abair.deployment import factory_folder, read_deployment
from abair.model.safetensors_io import read_header
from abair_registry.db import queries
from abair_registry.db.audit import Actor
from abair_registry.db.models import DeploymentRow
from abair_registry.db.queries import NewAdapter, NewRelease
from abair_registry.storage.blobs import Blobs


def import_factory(session: Session, blobs: Blobs, actor: Actor, factory: Path | None = None) -> DeploymentRow:
    """Record the shipped bundle as deployment 1, so that history begins with what is served.

    Raises:
        DeploymentError: the factory's files are not those that it names.
        RegistryError: its files cannot be stored.
    """
    source = read_deployment(factory or factory_folder())
    for file in source.files():
        blobs.add(source.find(file), file.sha256)
    backbone = queries.ensure_backbone(
        session, source.backbone.size, source.backbone.fingerprint, source.backbone.file.sha256
    )
    adapters = []
    for ref in source.adapters:
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
        adapters += queries.record_release(session, new, actor).adapters
    if source.replay is not None:
        for adapter_id in (None, *(adapter.id for adapter in adapters)):
            queries.record_replay(session, backbone.id, adapter_id, source.replay.sha256)
    outputs = queries.ensure_estimator(session, source.estimator.sha256, source.labels)
    deployment = queries.propose(session, adapters, outputs, actor, action="record", subject="factory")
    queries.publish(session, deployment, actor, action="import", subject="factory")
    return deployment
