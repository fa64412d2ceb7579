"""Assembling a deployment's bundle: files of backbone, adapters, estimator, copied and hashed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from abair.continual.replay import Replay
from abair.contract import CONFIG_FILE, WEIGHTS_FILE
from abair.deployment import (
    BACKBONE_FILE,
    ESTIMATOR_FILE,
    REPLAY_FILE,
    AdapterRef,
    BackboneRef,
    Deployment,
    file_ref,
    read_deployment,
    write_deployment,
)
from abair.discovery import Found
from abair.errors import DeploymentError
from abair.labels import CLEAN
from abair.locations import FILE_NAME
from abair.model.backbone import fingerprint, load_backbone
from abair.model.estimator import load_estimator
from abair.model.lora import read_adapter


def assemble(
    folder: Path,
    *,
    name: str,
    created: datetime,
    backbone: Path,
    estimator: Path,
    adapters: Sequence[Found],
    replay: Replay | None = None,
) -> Deployment:
    """Check the parts against each other and make the bundle `folder`, replacing an older one.

    Raises:
        AdapterError: an adapter does not belong to the backbone.
        DeploymentError: backbone or estimator cannot be used, the estimator's labels are others, or
            `folder` holds something that is no bundle.
    """
    labels = (*(found.degradation.name for found in adapters), CLEAN)
    network = load_backbone(backbone)
    network_fingerprint = fingerprint(network)
    load_estimator(estimator, labels)
    for found in adapters:
        read_adapter(
            found.degradation.adapters / network.size.name, network, network_fingerprint, found.degradation.name
        )
    with _replace_folder(folder) as aside:
        shutil.copyfile(backbone, aside / BACKBONE_FILE)
        shutil.copyfile(estimator, aside / ESTIMATOR_FILE)
        if replay is not None:
            replay.save(aside / REPLAY_FILE)
        deployment = Deployment(
            name=name,
            created=created,
            labels=labels,
            backbone=BackboneRef(
                size=network.size.name,
                fingerprint=network_fingerprint,
                file=file_ref(aside / BACKBONE_FILE, aside),
            ),
            adapters=tuple(_copy_adapter(found, network.size.name, aside) for found in adapters),
            estimator=file_ref(aside / ESTIMATOR_FILE, aside),
            replay=file_ref(aside / REPLAY_FILE, aside) if replay is not None else None,
        )
        write_deployment(deployment, aside)
    return read_deployment(folder)


def _copy_adapter(found: Found, size: str, folder: Path) -> AdapterRef:
    degradation = found.degradation
    target = folder / "adapters" / degradation.name
    target.mkdir(parents=True)
    for file in (CONFIG_FILE, WEIGHTS_FILE):
        shutil.copyfile(degradation.adapters / size / file, target / file)
    return AdapterRef(
        degradation=degradation.name,
        title=degradation.title,
        distribution=found.distribution,
        version=found.version,
        config=file_ref(target / CONFIG_FILE, folder),
        weights=file_ref(target / WEIGHTS_FILE, folder),
    )


@contextmanager
def _replace_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder that then replaces `folder`; after an exception that is as it was."""
    if folder.exists() and not (folder / FILE_NAME).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise DeploymentError(f"{folder}: found something that is no bundle; expected a free name; choose another")
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield aside
        aside.chmod(0o755)
        if folder.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
            folder.rename(old / folder.name)
            aside.rename(folder)
            shutil.rmtree(old)
        else:
            aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
