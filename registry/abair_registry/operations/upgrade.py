"""Upgrade: move what is live to the backbone of the factory that the installed package brings.

A backbone cannot be moved to one plugin at a time, because all adapters of a deployment belong to
one. So the labels move together: those of the factory with its adapters and its estimator, those of
other plugins with their own adapters for the new backbone, to which the estimator is fitted. The
gates compare the result with what is live on the same samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from packaging.utils import canonicalize_name
from sqlalchemy.orm import Session
from typing_extensions import override

from abair.deployment import AdapterRef, Deployment, read_deployment
from abair.errors import AdmissionError, RegistryError
from abair.labels import CLEAN
from abair.locations import factory_folder
from abair.model.backbone import load_backbone
from abair.model.estimator import load_estimator, save_estimator
from abair_registry.db import audit, queries
from abair_registry.db.audit import Actor
from abair_registry.db.models import PluginRow
from abair_registry.db.snapshot import DeploymentSnapshot, Member, live_snapshot
from abair_registry.operations.lock import Work
from abair_registry.operations.pipeline import ChallengerOperation
from abair_registry.operations.progress import Steps
from abair_registry.operations.releases import keep_release, with_replays
from abair_registry.operations.requests import OperationOptions, Proposal, Unchanged
from abair_registry.plugins import admission, installed
from abair_registry.plugins.admission import LIMITS, Limits, MissingAdapterError, ProbedPlugin
from abair_registry.registry import Registry
from abair_registry.storage import factory
from abair_registry.storage.blobs import Blobs


class Upgrade(ChallengerOperation):
    """Move what is live to the factory's backbone, all labels at once.

    `without` names live plugins that stay behind, because they have no adapter for it. Nothing is
    done if the factory's backbone is live already.

    Raises:
        AdmissionError: The probe refuses a plugin.
        RegistryError: A live plugin has no adapter for the backbone and is not in `without`, or
            `without` names one that has, or that is not live.
        TrainingError: A synthesiser failed.
    """

    kind: ClassVar[str] = "upgrade"
    samples_new_labels: ClassVar[bool] = True

    def __init__(
        self,
        actor: Actor,
        options: OperationOptions | None = None,
        without: Sequence[str] = (),
        limits: Limits = LIMITS,
    ) -> None:
        super().__init__("factory", actor, options)
        self._without, self._limits = tuple(dict.fromkeys(without)), limits

    @classmethod
    @override
    def from_record(cls, subject: str, arguments: Mapping[str, Any], actor: Actor) -> Self:
        """Return the operation that was recorded with these arguments."""
        options = {name: value for name, value in arguments.items() if name != "without"}
        return cls(actor, OperationOptions.from_json(options), arguments.get("without", ()))

    @override
    def arguments(self) -> dict[str, Any]:
        """Return what is recorded."""
        return super().arguments() | {"without": list(self._without)}

    @override
    def find(self, session: Session) -> None:
        """Read what the package brings."""
        self._factory = read_deployment(factory_folder())

    @override
    def unchanged(self, session: Session, registry: Registry) -> Unchanged | None:
        """Tell whether the factory's backbone is live."""
        backbone = self._factory.backbone
        if live_snapshot(session).fingerprint == backbone.fingerprint:
            live = f"the backbone {backbone.size}, which the package brings, is live already"
            stay = [name for name in self._without if name in live_snapshot(session).plugins]
            asked = " ".join(f"--without {name}" for name in self._without)
            return Unchanged(f"{live}; {asked} left nothing behind{_still_live(stay)}" if asked else live)
        return None

    @override
    def prepare(self, registry: Registry, steps: Steps) -> None:
        """Sort the live plugins, and probe those that come with adapters of their own.

        Raises:
            AdmissionError: The probe refuses one.
            RegistryError: One has no adapter for the factory's backbone, or `without` is wrong.
        """
        with registry.database.read() as session:
            champion = live_snapshot(session)
            shipped = _shipped(session, champion, self._factory)
            taken = {name: queries.degradation_owners(session, besides=name) for name in champion.plugins}
        from_factory = {ref.degradation for ref in shipped}
        others = [name for name in champion.plugins if not _labels(champion, name) <= from_factory]
        self._check_without(champion, others)
        probed, missing = {}, {}
        backbone = self._factory.find(self._factory.backbone.file)
        for name in others:
            if name in self._without:
                continue
            steps.begin(f"probe {name}")
            try:
                probed[name] = admission.probe(installed.find(name), backbone, taken[name], self._limits)
            except MissingAdapterError:
                missing[name] = f"has no adapter for the backbone {self._factory.backbone.size}"
            except AdmissionError as error:
                if installed.is_installed(name):
                    raise
                missing[name] = str(error)
        if missing:
            names = ", ".join(missing)
            raise RegistryError(
                f"upgrade: plugin {names}: {'; '.join(dict.fromkeys(missing.values()))}; expected every live plugin to "
                f"have one; install versions that do, or leave them out: "
                f"{' '.join(f'--without {name}' for name in missing)} --reason WHY"
            )
        self._moves = _Moves(champion, shipped, probed)

    @override
    def plan(self, registry: Registry, work: Work, steps: Steps) -> Proposal:
        """Record the factory's parts and the plugins' releases, and propose them together."""
        champion = self._moves.champion
        work.step("record")
        with registry.database.read() as session:
            if live_snapshot(session) != champion:
                raise RegistryError(
                    f"deployment {champion.number}: is no longer live; expected it to stay while the upgrade was "
                    "prepared; run the command again"
                )
        factory.keep_files(self._factory, registry.blobs)
        estimator_sha256 = self._keep_estimator(registry.blobs)
        with work.session() as (session, _):
            base = self._record_factory(session, estimator_sha256)
        deployment = base
        for name, probed in self._moves.probed.items():
            with work.session() as (session, _):
                release = queries.record_release(
                    session, keep_release(registry.blobs, probed, base.backbone_id), self.actor
                )
                adapters = [adapter for adapter in release.adapters if adapter.backbone_id == base.backbone_id]
                deployment = deployment.with_members(name, with_replays(session, adapters, base.backbone_id))
        new = tuple(member.label for member in deployment.members if member.plugin in self._moves.probed)
        return Proposal(self.subject, deployment, new, base)

    @override
    def on_publish(self, session: Session) -> None:
        """Write why plugins were left behind."""
        for name in self._without:
            plugin = queries.plugin(session, name)
            if plugin is not None:
                plugin.reason = f"left out of the upgrade to {self._factory.backbone.size}: {self.actor.reason}"
                audit.record_event(session, self.actor, "leave out", name, {"backbone": self._factory.backbone.size})

    def _check_without(self, champion: DeploymentSnapshot, others: Sequence[str]) -> None:
        for name in self._without:
            if name in others:
                continue
            why = "has its adapter from the factory" if name in champion.plugins else "is not live"
            raise RegistryError(
                f"upgrade: --without {name}: {why}; expected one of {', '.join(others) or 'none'}; leave it away"
            )

    def _keep_estimator(self, blobs: Blobs) -> str:
        """Keep the factory's estimator for the labels that are used, and return its SHA-256."""
        source = self._factory
        labels = tuple(ref.degradation for ref in self._moves.shipped)
        if (*labels, CLEAN) == source.labels:
            return source.estimator.sha256
        size = load_backbone(source.find(source.backbone.file)).size
        estimator = load_estimator(source.find(source.estimator), source.labels, size).with_labels((*labels, CLEAN))
        with blobs.writing() as path:
            save_estimator(estimator, path)
            return blobs.add(path)

    def _record_factory(self, session: Session, estimator_sha256: str) -> DeploymentSnapshot:
        """Record the factory's parts, and return them as a deployment that is none yet."""
        adapters = factory.record_adapters(session, self._factory, self._moves.shipped, self.actor)
        backbone = self._factory.backbone
        backbone_id = queries.ensure_backbone(session, backbone.size, backbone.fingerprint, backbone.file.sha256).id
        return DeploymentSnapshot(
            number=self._moves.champion.number,
            backbone_id=backbone_id,
            backbone_sha256=backbone.file.sha256,
            fingerprint=backbone.fingerprint,
            estimator_sha256=estimator_sha256,
            members=with_replays(session, adapters, backbone_id),
            replay=queries.newest_replays(session, backbone_id, [None]).get(None),
        )


@dataclass(frozen=True)
class _Moves:
    """What moves: the factory's adapters that are used, and the plugins that bring their own."""

    champion: DeploymentSnapshot
    shipped: tuple[AdapterRef, ...]
    probed: Mapping[str, ProbedPlugin]


def _still_live(names: Sequence[str]) -> str:
    """Return what is to be said of plugins that were to be left behind and are live."""
    if not names:
        return ""
    return f": {', '.join(names)} stays live; to take it out: abair-registry disable {names[0]}"


def _labels(deployment: DeploymentSnapshot, plugin: str) -> set[str]:
    return {member.label for member in deployment.members if member.plugin == plugin}


def _shipped(session: Session, champion: DeploymentSnapshot, source: Deployment) -> tuple[AdapterRef, ...]:
    """Return the factory's adapters that are to be live.

    These are those of labels that are live from the same distribution, and those of plugins that
    nobody took out of use. A label that another distribution has in the registry stays with it.
    """
    live: dict[str, Member] = {member.label: member for member in champion.members}
    owners = queries.degradation_owners(session, besides="")
    chosen = []
    for ref in source.adapters:
        plugin = queries.plugin(session, ref.degradation)
        owner = live[ref.degradation].distribution if ref.degradation in live else owners.get(ref.degradation)
        if owner is not None and canonicalize_name(owner) != canonicalize_name(ref.distribution):
            continue
        if ref.degradation not in live and plugin is not None and _is_out_of_use(session, plugin):
            continue
        chosen.append(ref)
    return tuple(chosen)


def _is_out_of_use(session: Session, plugin: PluginRow) -> bool:
    """Return whether an administrator took a plugin out of what is live: a rollback did not."""
    if plugin.state == "disabled":
        return audit.taken_out_by(session, plugin) != "rollback"
    return plugin.state == "removed"
