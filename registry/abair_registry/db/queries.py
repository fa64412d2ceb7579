"""Queries on the registry's tables, and changes to them within the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session, selectinload

from abair.errors import RegistryError
from abair.labels import CLEAN
from abair_registry.db.audit import Actor, record_event
from abair_registry.db.models import (
    AdapterRow,
    BackboneRow,
    DeploymentRow,
    EstimatorRow,
    EventRow,
    LiveRow,
    MemberRow,
    PluginRow,
    ReleaseRow,
    ReplayRow,
    now,
)


@dataclass(frozen=True)
class NewAdapter:
    """An adapter to record, whose files are blobs already."""

    degradation: str
    title: str
    backbone_id: int
    rank: int
    parameters: int
    config_sha256: str
    weights_sha256: str


@dataclass(frozen=True)
class NewRelease:
    """A version of a plugin to record, as it was found and probed."""

    name: str
    distribution: str
    version: str
    module: str
    adapters: Sequence[NewAdapter]
    files: dict[str, str] = field(default_factory=dict)
    declared: dict[str, Any] = field(default_factory=dict)


def ensure_backbone(session: Session, size: str, fingerprint: str, sha256: str) -> BackboneRow:
    """Return the backbone with this fingerprint; record it if it is new."""
    found = session.scalar(select(BackboneRow).where(BackboneRow.fingerprint == fingerprint))
    if found is None:
        found = BackboneRow(size=size, fingerprint=fingerprint, sha256=sha256, created=now())
        session.add(found)
        session.flush()
    return found


def backbone_size(session: Session, number: int) -> str:
    """Return the size's name of a recorded backbone."""
    return session.get_one(BackboneRow, number).size


def ensure_estimator(session: Session, sha256: str, labels: Sequence[str]) -> EstimatorRow:
    """Return the estimator with this hash; record it if it is new."""
    found = session.scalar(select(EstimatorRow).where(EstimatorRow.sha256 == sha256))
    if found is None:
        found = EstimatorRow(sha256=sha256, labels=list(labels), created=now())
        session.add(found)
        session.flush()
    return found


def plugins(session: Session) -> list[PluginRow]:
    """All that was ever added, with releases and adapters, by name."""
    loaded = selectinload(PluginRow.releases).selectinload(ReleaseRow.adapters).selectinload(AdapterRow.backbone)
    return list(session.scalars(select(PluginRow).options(loaded).order_by(PluginRow.name)))


def plugin(session: Session, name: str) -> PluginRow | None:
    """Return the plugin with this name, or None."""
    return session.scalar(select(PluginRow).where(PluginRow.name == name))


def release_of(found: PluginRow, adapters: Sequence[AdapterRow]) -> ReleaseRow | None:
    """Return the plugin's release that owns one of `adapters`, or else its newest."""
    serving = {adapter.release_id for adapter in adapters}
    live = [release for release in found.releases if release.id in serving]
    candidates = live or found.releases
    return candidates[-1] if candidates else None


def degradation_owners(session: Session, besides: str) -> dict[str, str]:
    """Return each degradation's distribution, of all recorded plugins but `besides`."""
    deployment = live(session)
    serving = [member.adapter for member in deployment.members] if deployment else []
    names: dict[str, str] = {}
    for found in plugins(session):
        release = release_of(found, [adapter for adapter in serving if adapter.release.plugin_id == found.id])
        if found.name != besides and found.state != "removed" and release is not None:
            names |= {adapter.degradation: found.distribution for adapter in release.adapters}
    return names


def record_release(session: Session, new: NewRelease, actor: Actor) -> ReleaseRow:
    """Record a release as a candidate; return the recorded one if it has the same files.

    Adapters for a backbone that the recorded one has none for are added to it.

    Raises:
        RegistryError: the version was recorded with other files, or the name belongs to another
            distribution.
    """
    found = plugin(session, new.name)
    if found is None:
        found = PluginRow(name=new.name, distribution=new.distribution, state="candidate", created=now())
        session.add(found)
        session.flush()
    elif found.distribution != new.distribution and found.state != "removed":
        raise RegistryError(
            f"plugin {new.name}: found distribution {new.distribution}, but the name belongs to {found.distribution}; "
            f"run: abair-registry remove {new.name}"
        )
    found.distribution = new.distribution
    same = session.scalar(select(ReleaseRow).where(ReleaseRow.plugin_id == found.id, ReleaseRow.version == new.version))
    if same is not None:
        backbones = {adapter.backbone_id for adapter in new.adapters}
        recorded = {_identify(adapter) for adapter in same.adapters if adapter.backbone_id in backbones}
        given = {_identify(adapter) for adapter in new.adapters}
        if (recorded and recorded != given) or (same.files and new.files and same.files != new.files):
            raise RegistryError(
                f"plugin {new.name}: version {new.version} was recorded with other files; expected a release to stay "
                "as it is; raise the version of the distribution and install it again"
            )
        release = same
        if not recorded:  # known by its adapters for another backbone
            session.add_all(AdapterRow(release_id=same.id, **vars(adapter)) for adapter in new.adapters)
            session.flush()
            session.refresh(same)
    else:
        release = ReleaseRow(
            plugin=found,
            version=new.version,
            module=new.module,
            files=dict(new.files),
            declared=dict(new.declared),
            created=now(),
        )
        session.add(release)
        session.flush()
        session.add_all(AdapterRow(release_id=release.id, **vars(adapter)) for adapter in new.adapters)
        session.flush()
    if found.state != "live":
        found.state, found.reason = "candidate", ""
    record_event(session, actor, "record", new.name, {"version": new.version, "distribution": new.distribution})
    return release


def _identify(adapter: AdapterRow | NewAdapter) -> tuple[str, int, str, str]:
    return adapter.degradation, adapter.backbone_id, adapter.config_sha256, adapter.weights_sha256


def live(session: Session) -> DeploymentRow | None:
    """Return the live deployment with everything that its bundle names, or None."""
    loaded = selectinload(LiveRow.deployment)
    members = (
        loaded.selectinload(DeploymentRow.members).selectinload(MemberRow.adapter).selectinload(AdapterRow.release)
    )
    row = session.scalar(
        select(LiveRow).options(
            members.selectinload(ReleaseRow.plugin),
            loaded.selectinload(DeploymentRow.backbone),
            loaded.selectinload(DeploymentRow.estimator),
        )
    )
    return None if row is None else row.deployment


def live_number(session: Session) -> int | None:
    """Return the number of the live deployment, or None."""
    row = session.get(LiveRow, 1)
    return row.deployment_number if row else None


def propose(
    session: Session,
    adapters: Sequence[AdapterRow],
    outputs: EstimatorRow,
    actor: Actor,
    *,
    action: str,
    subject: str,
    operation_id: int | None = None,
    run_id: str | None = None,
    detail: Mapping[str, Any] | None = None,
    number: int | None = None,
    created: datetime | None = None,
) -> DeploymentRow:
    """Record a new deployment, not live yet; `adapters` are in the order of the estimator's labels.

    It gets the next number and this moment, unless it had others in a registry that was lost.

    Raises:
        RegistryError: labels and adapters differ, or the adapters are for several backbones.
    """
    labels = [*(adapter.degradation for adapter in adapters), CLEAN]
    backbones = {adapter.backbone_id for adapter in adapters}
    if labels != list(outputs.labels) or len(backbones) != 1:
        raise RegistryError(
            f"deployment: found adapters for {labels} on {len(backbones)} backbones and an estimator for "
            f"{list(outputs.labels)}; expected equal labels and one backbone"
        )
    number = number or (session.scalar(select(func.max(DeploymentRow.number))) or 0) + 1
    deployment = DeploymentRow(
        number=number, backbone_id=backbones.pop(), estimator=outputs, operation_id=operation_id,
        created=created or now(), actor=actor.name, reason=actor.reason, run_id=run_id,
    )  # fmt: skip
    session.add(deployment)
    session.flush()
    session.add_all(
        MemberRow(deployment_number=number, position=position, adapter_id=adapter.id, label=adapter.degradation)
        for position, adapter in enumerate(adapters)
    )
    session.flush()
    detail = {"labels": labels, **(detail or {})}
    record_event(session, actor, action, subject, detail, deployment=number, operation_id=operation_id)
    return deployment


def publish(
    session: Session,
    deployment: DeploymentRow,
    actor: Actor,
    *,
    action: str,
    subject: str,
    operation_id: int | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Make a recorded deployment the live one and set the plugins' states accordingly."""
    row = session.get(LiveRow, 1)
    previous = row.deployment_number if row else None
    if row is None:
        session.add(LiveRow(id=1, deployment_number=deployment.number, since=now()))
    else:
        row.deployment_number, row.since = deployment.number, now()
    session.flush()
    session.expire_all()
    members = session.scalars(
        select(PluginRow.id)
        .join(ReleaseRow)
        .join(AdapterRow)
        .join(MemberRow)
        .where(MemberRow.deployment_number == deployment.number)
        .distinct()
    )
    serving = set(members)
    for found in session.scalars(select(PluginRow)):
        if found.id in serving:
            found.state, found.reason = "live", ""
        elif found.state == "live":
            found.state, found.reason = "disabled", f"not in deployment {deployment.number}"
    detail = {"labels": deployment.labels, "before": previous, **(detail or {})}
    record_event(session, actor, action, subject, detail, deployment=deployment.number, operation_id=operation_id)


def predecessor(session: Session, number: int) -> int | None:
    """Return the number of the deployment that was live until this one first went live."""
    for event in session.scalars(select(EventRow).where(EventRow.deployment_number == number).order_by(EventRow.id)):
        if "before" in event.detail:
            return None if event.detail["before"] is None else int(event.detail["before"])
    return None


def was_live(session: Session, number: int) -> bool:
    """Return whether a deployment is or ever was live."""
    recorded = session.scalars(select(EventRow).where(EventRow.deployment_number == number))
    return any("before" in event.detail for event in recorded)


def challenger(session: Session) -> DeploymentRow | None:
    """Return the newest deployment that was proposed to follow the live one and was never live."""
    row = session.get(LiveRow, 1)
    newest = session.scalars(select(DeploymentRow).order_by(DeploymentRow.number.desc()).limit(50))
    for deployment in newest:
        if row is None or deployment.number <= row.deployment_number:
            return None
        if not was_live(session, deployment.number) and champion_of(session, deployment) == row.deployment_number:
            return deployment
    return None


def champion_of(session: Session, deployment: DeploymentRow) -> int | None:
    """Return the number of the live deployment that this one's gates compared it with."""
    query = select(EventRow).where(EventRow.deployment_number == deployment.number).order_by(EventRow.id).limit(1)
    first = session.scalar(query)
    found = first.detail.get("champion") if first else None
    return None if found is None else int(found)


def recorded_files(session: Session, adapters: Iterable[int]) -> dict[str, dict[str, str]]:
    """Return the SHA-256 of the files of these adapters' releases, by plugin and path."""
    rows = session.scalars(select(AdapterRow).where(AdapterRow.id.in_(list(adapters))))
    return {row.release.plugin.name: dict(row.release.files) for row in rows}


def record_replay(session: Session, backbone_id: int, adapter_id: int | None, sha256: str) -> None:
    """Record the replay of an adapter's label, or without an adapter that of undamaged photos.

    The newest counts.
    """
    if newest_replays(session, backbone_id, [adapter_id]).get(adapter_id) != sha256:
        session.add(ReplayRow(backbone_id=backbone_id, adapter_id=adapter_id, sha256=sha256, created=now()))
        session.flush()


def newest_replays(session: Session, backbone_id: int, adapters: Sequence[int | None]) -> dict[int | None, str]:
    """Return the SHA-256 of the newest replay of each adapter id.

    The key None stands for undamaged photos.
    """
    rows = session.scalars(select(ReplayRow).where(ReplayRow.backbone_id == backbone_id).order_by(ReplayRow.id))
    return {row.adapter_id: row.sha256 for row in rows if row.adapter_id in adapters}


def history(session: Session) -> list[tuple[DeploymentRow, bool]]:
    """Return all deployments, newest first, each with whether it is live."""
    row = session.get(LiveRow, 1)
    pointed = row.deployment_number if row else None
    listed = session.scalars(
        select(DeploymentRow).options(selectinload(DeploymentRow.estimator)).order_by(DeploymentRow.number.desc())
    )
    return [(deployment, deployment.number == pointed) for deployment in listed]
