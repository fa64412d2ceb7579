"""Add, Enable, Disable, Remove, Retrain: the operations on plugins that make a challenger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

from sqlalchemy import select
from sqlalchemy.orm import Session
from typing_extensions import override

from abair.errors import RegistryError
from abair_registry.db import audit, queries
from abair_registry.db.audit import Actor
from abair_registry.db.lookup import recorded
from abair_registry.db.models import AdapterRow, DeploymentRow, PluginRow
from abair_registry.db.snapshot import DeploymentSnapshot, Member, live_snapshot
from abair_registry.maintenance.offer import offered_factory
from abair_registry.operations import lock
from abair_registry.operations.lock import Work
from abair_registry.operations.pipeline import ChallengerOperation
from abair_registry.operations.progress import Steps
from abair_registry.operations.releases import describe_candidate, keep_release, with_replays, without_lost
from abair_registry.operations.replays import add_replays, source_of, without_other_sources
from abair_registry.operations.requests import OperationOptions, Proposal, Unchanged
from abair_registry.plugins import admission, calls, installed
from abair_registry.plugins.admission import LIMITS, Limits, MissingAdapterError
from abair_registry.plugins.installed import Candidate
from abair_registry.registry import Registry


class Add(ChallengerOperation):
    """Find and probe an installed plugin, record it, and train an estimator that knows its labels.

    Raises:
        AdmissionError: It is not installed, or the probe refuses it; the registry stays as it was.
        RegistryError: Its version was recorded with other files, or MLflow or the database cannot
            be used.
        TrainingError: Its synthesiser failed.
    """

    kind: ClassVar[str] = "add"
    samples_new_labels: ClassVar[bool] = True

    def __init__(
        self,
        subject: str,
        actor: Actor,
        options: OperationOptions | None = None,
        limits: Limits = LIMITS,
        candidate: Candidate | None = None,
    ) -> None:
        super().__init__(subject, actor, options)
        self._limits, self._found = limits, candidate

    @override
    def find(self, session: Session) -> None:
        """Find the plugin among those that are installed.

        Raises:
            AdmissionError: It is not installed.
        """
        self._candidate = self._found or installed.find(self.subject)
        self.subject = self._candidate.name

    @override
    def unchanged(self, session: Session, registry: Registry) -> Unchanged | None:
        """Tell whether the version that is installed is live, with the same files."""
        found, champion = queries.plugin(session, self.subject), live_snapshot(session)
        live = {member.adapter_id for member in champion.members if member.plugin == self.subject}
        for release in found.releases if found and found.distribution == self._candidate.distribution else ():
            adapters = {adapter.id for adapter in release.adapters if adapter.backbone_id == champion.backbone_id}
            same = (release.version, release.files) == (self._candidate.version, self._candidate.files)
            lost = any(member.replay is None for member in without_lost(champion.members, registry.blobs))
            if live and same and adapters == live and not lost:
                return self._live_already()
        return None

    def _live_already(self) -> Unchanged:
        return Unchanged(f"plugin {self.subject}: version {self._candidate.version} is live already")

    @override
    def prepare(self, registry: Registry, steps: Steps) -> None:
        """Probe the plugin.

        Raises:
            AdmissionError: The probe refuses it.
            RegistryError: Another operation is running, and this one was not asked to wait.
        """
        if not self.options.wait:
            lock.expect_nobody(registry.database)
        self._probe(registry, steps)

    @override
    def plan(self, registry: Registry, work: Work, steps: Steps) -> Proposal | Unchanged:
        """Record the plugin's release and propose its adapters, unless they are live."""
        with registry.database.read() as session:
            champion = live_snapshot(session)
            known = queries.plugin(session, self.subject)
            before = {"before": [known.state, known.reason]} if known else {}
        work.step("probe")
        if champion != self._champion:  # another operation ended after `prepare`
            self._probe(registry, steps)
        work.step("record", **before)
        release = keep_release(registry.blobs, self._probed, champion.backbone_id)
        with work.session() as (session, _):
            recorded = queries.record_release(session, release, self.actor)
            adapters = [a for a in recorded.adapters if a.backbone_id == champion.backbone_id]
            members = without_lost(with_replays(session, adapters, champion.backbone_id), registry.blobs)
        live = {member.adapter_id for member in champion.members if member.plugin == self.subject}
        if live == {member.adapter_id for member in members}:
            self._make_lost_replays(registry, work, champion, members, steps)
            return self._live_already()
        settings = registry.settings  # samples of an add that was refused serve only the same photos again
        source = source_of(settings.clean_dir, settings.challenger, self.options.seed)
        members = without_other_sources(members, registry.blobs, source)
        deployment = champion.with_members(self.subject, members)
        return Proposal(self.subject, deployment, tuple(member.label for member in members))

    def _make_lost_replays(
        self, registry: Registry, work: Work, champion: DeploymentSnapshot, members: Sequence[Member], steps: Steps
    ) -> None:
        """Make lost replays of live labels again: later estimators need them."""
        lost = tuple(member.label for member in members if member.replay is None)
        if not lost:
            return
        work.step("train")
        whole = champion.with_members(self.subject, members)
        whole = replace(whole, members=without_lost(whole.members, registry.blobs))
        with registry.database.read() as session:
            files = queries.recorded_files(session, (member.adapter_id for member in whole.members))
        plugins = calls.verify_plugins(whole.members, files)
        add_replays(registry, whole, Proposal(self.subject, whole, lost), plugins, self.options.seed, steps)
        with work.session() as (session, row):
            audit.record_event(session, self.actor, "mend", self.subject, {"replays": list(lost)}, operation_id=row.id)

    @override
    def on_refusal(self, session: Session, reason: str) -> None:
        """Mark the plugin as rejected; one that is live in an earlier version stays live."""
        found = queries.plugin(session, self.subject)
        if found is not None and self.subject not in self._champion.plugins:
            found.state, found.reason = "rejected", reason

    def _probe(self, registry: Registry, steps: Steps) -> None:
        with registry.database.read() as session:
            self._champion = live_snapshot(session)
            taken = queries.degradation_owners(session, besides=self.subject)
        steps.begin(f"probe {describe_candidate(self._candidate, self._champion)}")
        backbone = registry.blobs.path(self._champion.backbone_sha256)
        try:
            self._probed = admission.probe(self._candidate, backbone, taken, self._limits)
        except MissingAdapterError as error:
            offer = offered_factory(registry)
            if offer is None or not installed.has_adapter(self._candidate, offer.backbone):
                raise
            raise MissingAdapterError(
                f"{error}; it has one for {offer.backbone}, which the package brings: abair-registry upgrade"
            ) from None


class Enable(ChallengerOperation):
    """Make a disabled plugin live again, with the adapters with which it was live last.

    Raises:
        RegistryError: It is neither live nor disabled, or was never live.
        TrainingError: It has no replay that an estimator could be fitted to.
    """

    kind: ClassVar[str] = "enable"

    @override
    def find(self, session: Session) -> None:
        """Look the plugin up by its name or its distribution."""
        self.subject = recorded(session, self.subject).name

    @override
    def unchanged(self, session: Session, registry: Registry) -> Unchanged | None:
        """Tell whether the plugin is live.

        Raises:
            RegistryError: It is neither that nor disabled.
        """
        found = recorded(session, self.subject)
        if found.state == "live":
            return Unchanged(f"plugin {found.name}: is live already")
        if found.state != "disabled":
            advice = f"see: abair-registry show {found.name}"
            if found.state == "removed":
                advice = f"to have it again, install {found.distribution} and run: abair-registry add {found.name}"
            raise RegistryError(f"plugin {found.name}: found state {found.state}, expected disabled; {advice}")
        return None

    @override
    def plan(self, registry: Registry, work: Work, steps: Steps) -> Proposal | Unchanged:
        """Propose the plugin's last adapters; an estimator that knew them all needs no training."""
        with registry.database.read() as session:
            if unchanged := self.unchanged(session, registry):  # by an operation that ended meanwhile
                return unchanged
            found = recorded(session, self.subject)
            champion = live_snapshot(session)
            adapters = _last_live_adapters(session, found, champion.backbone_id)
            owners = {member.label: member.plugin for member in champion.members if member.plugin != found.name}
            if other := next((a.degradation for a in adapters if a.degradation in owners), None):
                raise RegistryError(
                    f"plugin {found.name}: its degradation {other} is served by plugin {owners[other]}; expected the "
                    f"name to be free; run: abair-registry disable {owners[other]}"
                )
            members = with_replays(session, adapters, champion.backbone_id)
            deployment = champion.with_members(found.name, members)
            earlier = _with_earlier_estimator(session, deployment)
        if earlier is not None:
            return Proposal(self.subject, earlier)
        return Proposal(self.subject, deployment, tuple(member.label for member in members))


class Disable(ChallengerOperation):
    """Take a plugin out of what is live; it stays recorded.

    Raises:
        RegistryError: It was never added, was removed, or nothing would stay live.
    """

    kind: ClassVar[str] = "disable"
    state: ClassVar[str] = "disabled"
    """The plugin's state afterwards."""

    @override
    def find(self, session: Session) -> None:
        """Look the plugin up by its name or its distribution."""
        self.subject = recorded(session, self.subject).name

    @override
    def unchanged(self, session: Session, registry: Registry) -> Unchanged | None:
        """Tell whether the plugin has the state that is asked for. Raises RegistryError."""
        found = recorded(session, self.subject)
        if found.state == self.state:
            return Unchanged(f"plugin {found.name}: is {self.state} already")
        if found.state == "removed":
            raise RegistryError(
                f"plugin {found.name}: is removed; expected one that is live or disabled; see: abair-registry list"
            )
        return None

    @override
    def plan(self, registry: Registry, work: Work, steps: Steps) -> Proposal | Unchanged:
        """Propose what is live without the plugin; if it is not live, only write its state."""
        with registry.database.read() as session:
            if unchanged := self.unchanged(session, registry):  # by an operation that ended meanwhile
                return unchanged
            champion = live_snapshot(session)
        deployment = champion.without(self.subject)
        if not deployment.members:
            raise RegistryError(
                f"plugin {self.subject}: is the last one live; expected another to stay; add or enable one first"
            )
        if deployment.members == champion.members:
            with work.session() as (session, row):
                self.on_publish(session)
                audit.record_event(session, self.actor, self.kind, self.subject, operation_id=row.id)
            return Unchanged(f"plugin {self.subject}: is {self.state} now, and was not live")
        return Proposal(self.subject, deployment)

    @override
    def on_publish(self, session: Session) -> None:
        """Write the plugin's state, and why it has it."""
        plugin = recorded(session, self.subject)
        plugin.state, plugin.reason = self.state, self.actor.reason


class Remove(Disable):
    """Take a plugin out of what is live and off the list; its history and older deployments stay.

    Raises:
        RegistryError: It was never added, or nothing would stay live.
    """

    kind: ClassVar[str] = "remove"
    state: ClassVar[str] = "removed"


class Retrain(ChallengerOperation):
    """Train the whole estimator of what is live again, on new samples of all its plugins.

    Raises:
        RegistryError: One of them is not installed as it is recorded.
    """

    kind: ClassVar[str] = "retrain"

    def __init__(self, actor: Actor, options: OperationOptions | None = None) -> None:
        super().__init__("estimator", actor, options or OperationOptions(route="full"))

    @classmethod
    @override
    def from_record(cls, subject: str, arguments: Mapping[str, Any], actor: Actor) -> Self:
        """Return the operation that was recorded with these arguments."""
        return cls(actor, OperationOptions.from_json(arguments))

    @override
    def plan(self, registry: Registry, work: Work, steps: Steps) -> Proposal:
        """Propose what is live, with another estimator."""
        with registry.database.read() as session:
            return Proposal(self.subject, live_snapshot(session))


def _with_earlier_estimator(session: Session, proposed: DeploymentSnapshot) -> DeploymentSnapshot | None:
    """Return the proposal with the newest estimator that was live with exactly its adapters."""
    wanted = {member.adapter_id: member for member in proposed.members}
    for deployment in _newest_first(session):
        ids = [member.adapter_id for member in deployment.members]
        if set(ids) == wanted.keys() and queries.was_live(session, deployment.number):
            members = tuple(wanted[number] for number in ids)
            return replace(proposed, estimator_sha256=deployment.estimator.sha256, members=members)
    return None


def _last_live_adapters(session: Session, plugin: PluginRow, backbone_id: int) -> list[AdapterRow]:
    """Return the adapters for this backbone with which a plugin was live last."""
    ids = {release.id for release in plugin.releases}
    for deployment in _newest_first(session):
        adapters = [m.adapter for m in deployment.members if m.adapter.release_id in ids]
        if adapters and deployment.backbone_id == backbone_id and queries.was_live(session, deployment.number):
            return adapters
    raise RegistryError(
        f"plugin {plugin.name}: was never live with the backbone {queries.backbone_size(session, backbone_id)}; "
        f"expected adapters that served before; run: abair-registry add {plugin.name}"
    )


def _newest_first(session: Session) -> list[DeploymentRow]:
    return list(session.scalars(select(DeploymentRow).order_by(DeploymentRow.number.desc())))
