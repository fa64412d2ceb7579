"""A deployment as plain values, and how another one differs from it: what operations work on without a session."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from sqlalchemy.orm import Session

from abair.errors import RegistryError
from abair.labels import CLEAN
from abair_registry.db import queries
from abair_registry.db.models import Adapter, Deployment


@dataclass(frozen=True)
class Part:
    """An adapter that serves, or shall: its label, its two blobs, where it is from, and its label's replay, if kept."""

    label: str
    adapter_id: int
    plugin: str
    distribution: str
    version: str
    config_sha256: str
    weights_sha256: str
    replay: str | None


@dataclass(frozen=True)
class Serving:
    """What serves, or shall: backbone, adapters in the order of the labels, and the estimator that it begins with.

    `number` is the deployment's, or the one's that it shall follow; `replay` is that of undamaged photos.
    """

    number: int
    backbone_id: int
    backbone_sha256: str
    fingerprint: str
    estimator_sha256: str
    parts: tuple[Part, ...]
    replay: str | None

    @property
    def labels(self) -> tuple[str, ...]:
        """The parts' labels and, last, `clean`."""
        return (*(part.label for part in self.parts), CLEAN)

    @property
    def plugins(self) -> tuple[str, ...]:
        """The plugins' names, each once."""
        return tuple(dict.fromkeys(part.plugin for part in self.parts))

    def without(self, plugin: str) -> Serving:
        """The same less a plugin's parts."""
        return replace(self, parts=tuple(part for part in self.parts if part.plugin != plugin))

    def with_parts(self, plugin: str, parts: Sequence[Part]) -> Serving:
        """The same with a plugin's parts: in the place of those of the same labels, or behind the others."""
        given = {part.label: part for part in parts}
        kept = [given.pop(part.label, part) for part in self.parts if part.plugin != plugin or part.label in given]
        return replace(self, parts=(*kept, *given.values()))


def serving(session: Session, deployment: Deployment) -> Serving:
    """A recorded deployment as plain values."""
    adapters = [member.adapter for member in deployment.members]
    kept = queries.replays(session, deployment.backbone_id, [None, *(adapter.id for adapter in adapters)])
    return Serving(
        number=deployment.number,
        backbone_id=deployment.backbone_id,
        backbone_sha256=deployment.backbone.sha256,
        fingerprint=deployment.backbone.fingerprint,
        estimator_sha256=deployment.estimator.sha256,
        parts=parts_of(adapters, kept),
        replay=kept.get(None),
    )


def parts_of(adapters: Iterable[Adapter], kept: dict[int | None, str]) -> tuple[Part, ...]:
    """Recorded adapters as parts; `kept` are the replays by the adapters' ids."""
    return tuple(
        Part(
            label=adapter.degradation,
            adapter_id=adapter.id,
            plugin=adapter.release.plugin.name,
            distribution=adapter.release.plugin.distribution,
            version=adapter.release.version,
            config_sha256=adapter.config_sha256,
            weights_sha256=adapter.weights_sha256,
            replay=kept.get(adapter.id),
        )
        for adapter in adapters
    )


def live(session: Session) -> Serving:
    """What serves.

    Raises:
        RegistryError: nothing does.
    """
    deployment = queries.live(session)
    if deployment is None:
        raise RegistryError("registry: found no live deployment, expected one; run: abair-registry doctor")
    return serving(session, deployment)
