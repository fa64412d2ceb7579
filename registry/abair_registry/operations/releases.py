"""Releases on their way into the registry: probed, kept as blobs, given their replays."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from packaging.version import InvalidVersion, Version
from sqlalchemy.orm import Session

from abair.text import quote_foreign
from abair_registry.db import queries
from abair_registry.db.models import AdapterRow
from abair_registry.db.queries import NewAdapter, NewRelease
from abair_registry.db.snapshot import DeploymentSnapshot, Member, members_of
from abair_registry.plugins.admission import ProbedPlugin
from abair_registry.plugins.installed import Candidate
from abair_registry.storage.blobs import Blobs


def keep_release(blobs: Blobs, probed: ProbedPlugin, backbone_id: int) -> NewRelease:
    """Keep the probed adapters as blobs, and return the release to record.

    Raises:
        RegistryError: they cannot be stored.
    """
    adapters = []
    for degradation in probed.degradations:
        for adapter in degradation.adapters:
            blobs.add(adapter.config, adapter.config_sha256)
            blobs.add(adapter.weights, adapter.weights_sha256)
            adapters.append(
                NewAdapter(
                    degradation=degradation.name,
                    title=degradation.title,
                    backbone_id=backbone_id,
                    rank=adapter.rank,
                    parameters=adapter.parameters,
                    config_sha256=adapter.config_sha256,
                    weights_sha256=adapter.weights_sha256,
                )
            )
    candidate = probed.candidate
    return NewRelease(
        name=candidate.name, distribution=candidate.distribution, version=candidate.version,
        module=candidate.module, adapters=adapters, files=candidate.files,
        declared={
            found.name: {"title": found.title, "synthesizer": found.synthesizer, "card": found.card}
            for found in probed.degradations
        },
    )  # fmt: skip


def describe_candidate(candidate: Candidate, live: DeploymentSnapshot) -> str:
    """Return name and version of a plugin that is to be added, and what else is to be known of it.

    This is that a newer version of it is live, and the further groups of its entry points.
    """
    told = f"{candidate.name} {candidate.version}"
    newer = {member.version for member in live.members if member.plugin == candidate.name}
    with suppress(InvalidVersion):
        if any(Version(version) > Version(candidate.version) for version in newer):
            told += f", older than {', '.join(newer)}, which is live"
    others = ", ".join(candidate.groups)
    return told + (f", which also has entry points in {quote_foreign(others, 200)}" if others else "")


def without_lost(members: Sequence[Member], blobs: Blobs) -> tuple[Member, ...]:
    """Return the members; one whose replay's file is lost or changed is without."""
    return tuple(replace(m, replay=None) if m.replay is not None and blobs.problem(m.replay) else m for m in members)


def with_replays(session: Session, adapters: Sequence[AdapterRow], backbone_id: int) -> tuple[Member, ...]:
    """Return recorded adapters for a backbone as members, each with its replay if it has one."""
    kept = queries.newest_replays(session, backbone_id, [adapter.id for adapter in adapters])
    return members_of(adapters, kept)
