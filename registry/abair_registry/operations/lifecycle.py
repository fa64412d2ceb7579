"""What an administrator does to plugins: add, disable, enable, remove; retrain; resume what was interrupted."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from abair.errors import RegistryError
from abair.text import near_misses
from abair_registry.db import queries
from abair_registry.db.models import AdapterRow, DeploymentRow, PluginRow
from abair_registry.db.queries import Actor, NewAdapter, NewRelease
from abair_registry.db.snapshot import DeploymentSnapshot, live_snapshot, members_of
from abair_registry.operations import lock, pipeline, promotion
from abair_registry.operations.lock import Work
from abair_registry.operations.pipeline import OperationOptions, OperationResult, Proposal, remember
from abair_registry.operations.progress import Steps, Terminal, quiet
from abair_registry.operations.promotion import PointerMove
from abair_registry.plugins import admission, installed
from abair_registry.plugins.admission import LIMITS, Limits
from abair_registry.registry import Registry
from abair_registry.settings import Thresholds


def add(
    registry: Registry,
    name: str,
    actor: Actor,
    options: OperationOptions | None = None,
    terminal: Terminal | None = None,
    limits: Limits = LIMITS,
) -> OperationResult:
    """Find and probe an installed plugin, record it, train an estimator that knows it, and let it serve if gates pass.

    Raises:
        AdmissionError: it is not installed, or the probe refuses it; the registry stays as it was.
        RegistryError: its version was recorded with other files, or MLflow or the database cannot be used.
        TrainingError: its synthesiser failed.
    """
    options, terminal = options or OperationOptions(), terminal or quiet()
    candidate = installed.find(name)
    if not options.wait:
        lock.expect_nobody(registry.database)

    def probed(steps: Steps) -> tuple[DeploymentSnapshot, admission.Probed]:
        with registry.database.read() as session:
            champion = live_snapshot(session)
            taken = queries.taken(session, besides=candidate.name)
        steps.begin(f"probe {candidate.name} {candidate.version}")
        return champion, admission.probe(candidate, registry.blobs.path(champion.backbone_sha256), taken, limits)

    # before the operation begins: one that is refused here leaves no trace
    first = probed(terminal.steps)

    def prepare(work: Work, steps: Steps) -> Proposal | None:
        with registry.database.read() as session:
            champion = live_snapshot(session)
            size = queries.backbone_size(session, champion.backbone_id)
            known = queries.plugin(session, candidate.name)
            before = {"before": [known.state, known.reason]} if known else {}
        work.step("probe")
        # another operation may have come in between
        found = first[1] if first[0] == champion else probed(steps)[1]
        work.step("record", **before)
        new = _release(registry, candidate, found, champion.backbone_id, size)
        with work.session() as (session, _):
            release = queries.record(session, new, actor)
            adapters = [a.id for a in release.adapters if a.backbone_id == champion.backbone_id]
        if set(adapters) == {member.adapter_id for member in champion.members if member.plugin == candidate.name}:
            return None  # it serves as it is
        work.step("train")
        remember(registry, champion, adapters, options, steps)
        with registry.database.read() as session:
            members = _members(session, adapters, champion)
        proposal = champion.with_members(candidate.name, members)
        return Proposal(
            candidate.name,
            proposal,
            fresh=tuple(member.label for member in members),
            on_refusal=lambda session, reason: _reject(session, candidate.name, champion, reason),
        )

    return pipeline.run(registry, "add", candidate.name, actor, options, prepare, terminal)


def disable(
    registry: Registry,
    name: str,
    actor: Actor,
    options: OperationOptions | None = None,
    terminal: Terminal | None = None,
) -> OperationResult:
    """Take a plugin out of what is served; it stays recorded.

    Raises:
        RegistryError: it was never added, is disabled already, or nothing would be left.
    """
    return _leave(registry, name, actor, "disable", "disabled", options or OperationOptions(), terminal or quiet())


def remove(
    registry: Registry,
    name: str,
    actor: Actor,
    options: OperationOptions | None = None,
    terminal: Terminal | None = None,
) -> OperationResult:
    """Take a plugin out of what is served and out of the list; its history stays, older deployments keep their blobs.

    Raises:
        RegistryError: it was never added, is removed already, or nothing would be left.
    """
    return _leave(registry, name, actor, "remove", "removed", options or OperationOptions(), terminal or quiet())


def enable(
    registry: Registry,
    name: str,
    actor: Actor,
    options: OperationOptions | None = None,
    terminal: Terminal | None = None,
) -> OperationResult:
    """Serve a disabled plugin again, as it served last.

    Raises:
        RegistryError: it is not disabled, or never served.
        TrainingError: it left no samples behind that an estimator could be fitted to.
    """
    options, terminal = options or OperationOptions(), terminal or quiet()

    def prepare(work: Work, steps: Steps) -> Proposal:
        with registry.database.read() as session:
            found = recorded(session, name)
            if found.state != "disabled":
                raise RegistryError(
                    f"plugin {found.name}: found state {found.state}, expected disabled; "
                    f"see: abair-registry show {found.name}"
                )
            champion = live_snapshot(session)
            theirs = _last_of(session, found)
            owners = {member.label: member.plugin for member in champion.members if member.plugin != found.name}
            if other := next((a.degradation for a in theirs if a.degradation in owners), None):
                raise RegistryError(
                    f"plugin {found.name}: its degradation {other} is served by plugin {owners[other]}; expected the "
                    f"name to be free; run: abair-registry disable {owners[other]}"
                )
            members = _members(session, [adapter.id for adapter in theirs], champion)
            proposal = champion.with_members(found.name, members)
            # an estimator that knew all of them together needs no training
            knew = _knew(session, proposal)
        begin = proposal if knew is None else knew
        return Proposal(found.name, begin, fresh=() if knew else tuple(member.label for member in members))

    with registry.database.read() as session:
        subject = recorded(session, name).name
    return pipeline.run(registry, "enable", subject, actor, options, prepare, terminal)


def retrain(
    registry: Registry, actor: Actor, options: OperationOptions | None = None, terminal: Terminal | None = None
) -> OperationResult:
    """Train the whole estimator of what serves again, from samples of all its plugins.

    Raises:
        RegistryError: one of them is not installed.
    """
    options = options or OperationOptions(route="full")

    def prepare(work: Work, steps: Steps) -> Proposal:
        with registry.database.read() as session:
            return Proposal("estimator", live_snapshot(session))

    return pipeline.run(registry, "retrain", "estimator", actor, options, prepare, terminal or quiet())


def resume(registry: Registry, actor: Actor, terminal: Terminal | None = None) -> OperationResult | PointerMove | None:
    """Do again what was killed, stopped or failed last, as it was asked for; None if there is nothing.

    Raises:
        AbairError: as that operation does.
    """
    lock.recover(registry.database)
    with registry.database.read() as session:
        other = lock.running(session)
        if other is not None:
            raise RegistryError(f"registry: {other}; expected nobody; try again later")
        left = lock.interrupted(session)
        if left is None:
            return None
        kind, subject, asked = left.kind, left.subject, dict(left.detail.get("arguments", {}))
        actor = Actor(actor.name, actor.reason or left.reason)
    if kind == "promote":
        return promotion.promote(
            registry, asked.get("number"), actor, force=bool(asked.get("force")), terminal=terminal
        )
    if kind == "rollback":
        return promotion.rollback(registry, asked.get("to"), actor, terminal=terminal)
    options = OperationOptions(**asked | {"thresholds": Thresholds(**asked.get("thresholds", {}))})
    if kind == "retrain":
        return retrain(registry, actor, options, terminal)
    return {"add": add, "disable": disable, "enable": enable, "remove": remove}[kind](
        registry, subject, actor, options, terminal
    )


def recorded(session: Session, name: str) -> PluginRow:
    """A plugin that was added, by its name or its distribution.

    Raises:
        RegistryError: nothing was added under the name; suggests near misses.
    """
    everything = queries.plugins(session)
    for found in everything:
        if name in {found.name, found.distribution}:
            return found
    near = near_misses(name, [found.name for found in everything])
    raise RegistryError(
        f"plugin {name}: never added; "
        + (f"did you mean {', '.join(near)}? " if near else "")
        + f"found {', '.join(found.name for found in everything) or 'none'}; see: abair-registry list"
    )


def _leave(
    registry: Registry, name: str, actor: Actor, kind: str, state: str, options: OperationOptions, terminal: Terminal
) -> OperationResult:
    def prepare(work: Work, steps: Steps) -> Proposal | None:
        with registry.database.read() as session:
            found = recorded(session, name)
            if found.state in {state, "removed"}:
                raise RegistryError(
                    f"plugin {found.name}: is {found.state} already; expected another state; see: abair-registry list"
                )
            champion = live_snapshot(session)
            proposal = champion.without(found.name)
            if not proposal.members:
                raise RegistryError(
                    f"plugin {found.name}: is the last one live; expected another to stay; add or enable one first"
                )
            subject = found.name

        def settle_states(session: Session) -> None:
            plugin = queries.plugin(session, subject)
            assert plugin is not None
            plugin.state, plugin.reason = state, actor.reason

        if proposal.members == champion.members:  # it does not serve: there is nothing to make
            with work.session() as (session, operation):
                settle_states(session)
                queries.record_event(session, actor, kind, subject, operation_id=operation.id)
            return None
        return Proposal(subject, proposal, settle_states=settle_states)

    with registry.database.read() as session:
        subject = recorded(session, name).name
    return pipeline.run(registry, kind, subject, actor, options, prepare, terminal)


def _release(
    registry: Registry, candidate: installed.Candidate, probed: admission.Probed, backbone_id: int, size: str
) -> NewRelease:
    """What was probed, its adapters kept as blobs."""
    adapters = []
    for degradation in probed.degradations:
        for adapter in degradation.adapters:
            if adapter.backbone == size:
                registry.blobs.add(adapter.config, adapter.config_sha256)
                registry.blobs.add(adapter.weights, adapter.weights_sha256)
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
    return NewRelease(
        name=candidate.name, distribution=candidate.distribution, version=candidate.version, module=candidate.module,
        adapters=adapters, files=candidate.files,
        declared={
            found.name: {"title": found.title, "synthesizer": found.synthesizer, "card": found.card}
            for found in probed.degradations
        },
    )  # fmt: skip


def _members(session: Session, adapters: list[int], champion: DeploymentSnapshot) -> Any:
    found = [session.get_one(AdapterRow, number) for number in adapters]
    return members_of(found, queries.replays(session, champion.backbone_id, list(adapters)))


def _reject(session: Session, name: str, champion: DeploymentSnapshot, reason: str) -> None:
    """A refused plugin's state; one that serves in an earlier version goes on doing so."""
    found = queries.plugin(session, name)
    if found is not None and name not in champion.plugins:
        found.state, found.reason = "rejected", reason


def _knew(session: Session, proposal: DeploymentSnapshot) -> DeploymentSnapshot | None:
    """The proposal with the newest estimator that knew exactly these adapters, in that deployment's order."""
    wanted = {member.adapter_id: member for member in proposal.members}
    for deployment in _newest_first(session):
        ids = [member.adapter_id for member in deployment.members]
        if set(ids) == wanted.keys() and queries.served(session, deployment.number):
            return DeploymentSnapshot(
                number=proposal.number,
                backbone_id=proposal.backbone_id,
                backbone_sha256=proposal.backbone_sha256,
                fingerprint=proposal.fingerprint,
                estimator_sha256=deployment.estimator.sha256,
                members=tuple(wanted[number] for number in ids),
                replay=proposal.replay,
            )
    return None


def _last_of(session: Session, plugin: PluginRow) -> list[AdapterRow]:
    """The adapters with which a plugin served last."""
    ids = {release.id for release in plugin.releases}
    for deployment in _newest_first(session):
        adapters = [m.adapter for m in deployment.members if m.adapter.release_id in ids]
        if adapters and queries.served(session, deployment.number):
            return adapters
    raise RegistryError(
        f"plugin {plugin.name}: was never live; expected one that served before; run: abair-registry add {plugin.name}"
    )


def _newest_first(session: Session) -> list[DeploymentRow]:
    return list(session.scalars(select(DeploymentRow).order_by(DeploymentRow.number.desc())))
