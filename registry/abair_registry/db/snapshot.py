"""Deployments as plain values, which operations work on without a session."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from sqlalchemy.orm import Session

from abair.errors import RegistryError
from abair.labels import CLEAN
from abair_registry.db import queries
from abair_registry.db.models import AdapterRow, DeploymentRow


@dataclass(frozen=True)
class Member:
    """An adapter of a deployment, with its origin, its two blobs and its label's replay, if any."""

    label: str
    adapter_id: int
    plugin: str
    distribution: str
    version: str
    config_sha256: str
    weights_sha256: str
    replay: str | None


@dataclass(frozen=True)
class DeploymentSnapshot:
    """A deployment, recorded or proposed; its members are in the order of the labels.

    `number` is the deployment's, or for a proposal that of the deployment which it follows.
    `replay` is that of undamaged photos.
    """

    number: int
    backbone_id: int
    backbone_sha256: str
    fingerprint: str
    estimator_sha256: str
    members: tuple[Member, ...]
    replay: str | None

    @property
    def labels(self) -> tuple[str, ...]:
        """The members' labels and, last, `clean`."""
        return (*(member.label for member in self.members), CLEAN)

    @property
    def plugins(self) -> tuple[str, ...]:
        """The plugins' names, each once."""
        return tuple(dict.fromkeys(member.plugin for member in self.members))

    def without(self, plugin: str) -> DeploymentSnapshot:
        """Return the snapshot without a plugin's members."""
        return replace(self, members=tuple(member for member in self.members if member.plugin != plugin))

    def with_members(self, plugin: str, members: Sequence[Member]) -> DeploymentSnapshot:
        """Return the snapshot with a plugin's members in the places of their labels.

        New labels come last.
        """
        given = {member.label: member for member in members}
        kept = [
            given.pop(member.label, member)
            for member in self.members
            if member.plugin != plugin or member.label in given
        ]
        return replace(self, members=(*kept, *given.values()))


def take_snapshot(session: Session, deployment: DeploymentRow) -> DeploymentSnapshot:
    """Return a recorded deployment as plain values."""
    adapters = [member.adapter for member in deployment.members]
    kept = queries.newest_replays(session, deployment.backbone_id, [None, *(adapter.id for adapter in adapters)])
    return DeploymentSnapshot(
        number=deployment.number,
        backbone_id=deployment.backbone_id,
        backbone_sha256=deployment.backbone.sha256,
        fingerprint=deployment.backbone.fingerprint,
        estimator_sha256=deployment.estimator.sha256,
        members=members_of(adapters, kept),
        replay=kept.get(None),
    )


def members_of(adapters: Iterable[AdapterRow], kept: dict[int | None, str]) -> tuple[Member, ...]:
    """Return recorded adapters as members; `kept` are the replays by adapter id."""
    return tuple(
        Member(
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


def live_snapshot(session: Session) -> DeploymentSnapshot:
    """Return the live deployment as plain values.

    Raises:
        RegistryError: nothing is live.
    """
    deployment = queries.live(session)
    if deployment is None:
        raise RegistryError("registry: found no live deployment, expected one; see: abair-registry history")
    return take_snapshot(session, deployment)
