"""Assembles a deployment's bundle: copies the files of backbone, adapters and estimator together and hashes them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from abair.backbone import fingerprint, load_backbone
from abair.contract import CLEAN
from abair.deployment import AdapterRef, BackboneRef, Deployment, file_ref, write_deployment
from abair.discovery import Found
from abair.estimator import load_estimator
from abair.lora import CONFIG_FILE, WEIGHTS_FILE, read_adapter

BACKBONE_FILE: Final = "backbone.safetensors"
ESTIMATOR_FILE: Final = "estimator.safetensors"


def assemble(
    folder: Path, *, name: str, created: datetime, backbone: Path, estimator: Path, adapters: Sequence[Found]
) -> Deployment:
    """Check the parts against each other, copy them below `folder`, and write `deployment.json` last.

    Raises:
        AdapterError: an adapter does not belong to the backbone.
        DeploymentError: backbone or estimator cannot be used, or the estimator's labels are others.
    """
    labels = (*(found.degradation.name for found in adapters), CLEAN)
    network = load_backbone(backbone)
    mark = fingerprint(network)
    load_estimator(estimator, labels)
    for found in adapters:
        read_adapter(found.degradation.adapters / network.size.name, network, mark, found.degradation.name)
    folder.mkdir(parents=True, exist_ok=True)
    _copy(backbone, folder / BACKBONE_FILE)
    _copy(estimator, folder / ESTIMATOR_FILE)
    references = []
    for found in adapters:
        degradation = found.degradation
        target = folder / "adapters" / degradation.name
        for file in (CONFIG_FILE, WEIGHTS_FILE):
            _copy(degradation.adapters / network.size.name / file, target / file)
        references.append(
            AdapterRef(
                degradation=degradation.name,
                title=degradation.title,
                distribution=found.distribution,
                version=found.version,
                config=file_ref(target / CONFIG_FILE, folder),
                weights=file_ref(target / WEIGHTS_FILE, folder),
            )
        )
    deployment = Deployment(
        name=name,
        created=created,
        labels=labels,
        backbone=BackboneRef(size=network.size.name, fingerprint=mark, file=file_ref(folder / BACKBONE_FILE, folder)),
        adapters=tuple(references),
        estimator=file_ref(folder / ESTIMATOR_FILE, folder),
    )
    write_deployment(deployment, folder)
    return deployment


def _copy(source: Path, target: Path) -> None:
    if source.resolve() != target.resolve():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
