"""Rebuild a lost catalogue from what the home serves and from the bundles of MLflow's runs.

The files say what each deployment consists of. What they do not say is lost with the database: who
did what and why, the gates' verdicts, and what was only recorded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from packaging.utils import canonicalize_name
from sqlalchemy.orm import Session

from abair.continual.replay import Replay
from abair.deployment import AdapterRef, Deployment, read_deployment
from abair.errors import AbairError, DeploymentError, RegistryError, TrainingError
from abair.labels import CLEAN
from abair.locations import FILE_NAME
from abair.model.safetensors_io import read_header
from abair_registry.db import backup, migrate, queries
from abair_registry.db.audit import Actor
from abair_registry.db.engine import DamagedDatabaseError, Database
from abair_registry.db.models import AdapterRow, DeploymentRow
from abair_registry.db.queries import NewAdapter, NewRelease
from abair_registry.maintenance.sources import Sources, local_bundles
from abair_registry.plugins import installed
from abair_registry.registry import Registry, is_empty, live_file_problem, sync_live_file
from abair_registry.settings import Settings
from abair_registry.storage.blobs import Blobs
from abair_registry.tracking.mlflow_client import Runs


@dataclass(frozen=True)
class Rebuilt:
    """What was recorded again: the live deployment, earlier ones, and what is not possible now.

    `replaced` is where a damaged database was moved to.
    """

    live: int
    earlier: tuple[int, ...]
    lost: tuple[str, ...]
    replaced: Path | None = None


@dataclass(frozen=True)
class _Found:
    """A deployment whose files are all blobs: its number, the run that holds it, how it served."""

    number: int
    bundle: Deployment
    run_id: str | None
    challenger: bool = False


def from_home(settings: Settings, actor: Actor) -> Rebuilt:
    """Record what the home serves, and what MLflow's runs hold, in an empty or missing database.

    A damaged SQLite file is moved aside first.

    Raises:
        RegistryError: the database is not empty, nothing serves, or a file of what serves is lost.
    """
    damaged = False
    try:
        if not is_empty(settings):
            raise RegistryError(
                "registry: found a database that is in use; expected an empty or missing one; what it records needs no "
                "rebuilding: abair-registry history"
            )
    except DamagedDatabaseError:
        damaged = True
    served = _read_served(settings)
    _complete(served, settings)
    lost: list[str] = []
    earlier = _earlier(served, settings, lost)
    number = int(served.name) if served.name.isdigit() else 1 + max((found.number for found in earlier), default=0)
    runs = {(b.name, b.estimator.sha256): _run_id(b) for b, _ in local_bundles(settings)}
    live = _Found(number, served, runs.get((served.name, served.estimator.sha256)))
    database = Database(settings)
    try:
        replaced = backup.set_aside(database.file) if damaged and database.file is not None else None
        with database.translate_errors():
            migrate.ensure(database.engine)
        blobs = Blobs(settings.home)
        with database.write() as session:
            if queries.history(session):
                raise RegistryError("registry: another process has begun it meanwhile; see: abair-registry history")
            numbers, unrecorded = _Recorder(session, blobs, actor).record(live, earlier)
        registry = Registry(settings, database, blobs)
        if live_file_problem(registry):
            sync_live_file(registry)
    finally:
        database.close()
    return Rebuilt(number, tuple(numbers), (*unrecorded, *lost), replaced)


def adopt_served(registry: Registry, actor: Actor) -> Rebuilt | None:
    """Record what the home serves if the database is an older copy, which does not know it.

    Returns:
        What was recorded, or None if nothing newer serves.

    Raises:
        RegistryError: a file of what serves is lost, or it contradicts what is recorded.
    """
    try:
        served = _read_served(registry.settings)
    except RegistryError:
        return None
    with registry.database.read() as session:
        newest = queries.history(session)[0][0].number
    if not served.name.isdigit() or int(served.name) <= newest:
        return None
    _complete(served, registry.settings)
    found = _Found(int(served.name), served, None)
    with registry.database.write() as session:
        _, lost = _Recorder(session, registry.blobs, actor).record(found, [])
    return Rebuilt(found.number, (), tuple(lost))


class _Recorder:
    """Records deployments that were found, in one transaction."""

    def __init__(self, session: Session, blobs: Blobs, actor: Actor) -> None:
        self.session, self.blobs, self.actor = session, blobs, actor
        self._adapters: dict[tuple[str, str, str], AdapterRow] = {}
        """By degradation, weights and backbone."""

    def record(self, live: _Found, earlier: Sequence[_Found]) -> tuple[list[int], list[str]]:
        """Record the releases, the deployments, their replays, and one event that tells it.

        Returns the earlier deployments' numbers, and a line for each thing that was lost.
        """
        lost: list[str] = ["the audit trail: who made these deployments, why, and what the gates measured"]
        known = _adapters_of(live.bundle)
        everything = [live]
        for found in earlier:
            own = _adapters_of(found.bundle)
            if any(known.get(key, weights) != weights for key, weights in own.items()):
                lost.append(f"deployment {found.number}, whose adapters contradict those of the same versions")
                continue
            known |= own
            everything.append(found)
        everything.sort(key=lambda found: found.number)
        self._record_releases([found.bundle for found in everything])
        before = queries.live_number(self.session)
        rows: dict[int, DeploymentRow] = {}
        for found in everything:
            detail: dict[str, object] = {"champion": live.number} if found.challenger else {"before": before}
            rows[found.number] = self._propose(found, {} if found is live else detail)
            if found.number < live.number and not found.challenger:
                before = found.number
        lost += self._record_replays([found.bundle for found in everything])
        queries.publish(
            self.session, rows[live.number], self.actor, action="rebuild", subject="registry",
            detail={"before": before, "rebuilt": sorted(rows), "lost": lost},
        )  # fmt: skip
        for plugin in queries.plugins(self.session):
            if plugin.state == "candidate":
                plugin.state, plugin.reason = "disabled", "found in an earlier deployment"
        return sorted(rows.keys() - {live.number}), lost

    def _propose(self, found: _Found, detail: dict[str, object]) -> DeploymentRow:
        bundle = found.bundle
        adapters = [
            self._adapters[a.degradation, a.weights.sha256, bundle.backbone.fingerprint] for a in bundle.adapters
        ]
        source = "rebuilt from MLflow's bundle" if detail else "rebuilt from what served"
        return queries.propose(
            self.session, adapters, queries.ensure_estimator(self.session, bundle.estimator.sha256, bundle.labels),
            replace(self.actor, reason=source), action="rebuild", subject="registry", run_id=found.run_id,
            detail=detail, number=found.number, created=bundle.created,
        )  # fmt: skip

    def _record_releases(self, bundles: Sequence[Deployment]) -> None:
        """Record each distribution's version once, with all its adapters in any of the bundles."""
        seen: dict[tuple[str, str, str, str], tuple[AdapterRef, Deployment]] = {}
        for bundle in bundles:
            for ref in bundle.adapters:
                key = (ref.distribution, ref.version, ref.degradation, bundle.backbone.fingerprint)
                seen.setdefault(key, (ref, bundle))
        for (distribution, version), group in groupby(sorted(seen), key=lambda key: key[:2]):
            refs = [seen[key] for key in group]
            name, module = _plugin_name(distribution, [ref.degradation for ref, _ in refs])
            release = NewRelease(
                name=name, distribution=distribution, version=version, module=module,
                declared={ref.degradation: {"title": ref.title} for ref, _ in refs},
                adapters=[self._new_adapter(ref, bundle) for ref, bundle in refs],
            )  # fmt: skip
            for adapter in queries.record_release(self.session, release, self.actor).adapters:
                place = (adapter.degradation, adapter.weights_sha256, adapter.backbone.fingerprint)
                self._adapters[place] = adapter

    def _new_adapter(self, ref: AdapterRef, bundle: Deployment) -> NewAdapter:
        backbone = queries.ensure_backbone(
            self.session, bundle.backbone.size, bundle.backbone.fingerprint, bundle.backbone.file.sha256
        )
        config = json.loads(self.blobs.path(ref.config.sha256).read_text(encoding="utf-8"))
        shapes = read_header(self.blobs.path(ref.weights.sha256)).shapes.values()
        return NewAdapter(
            degradation=ref.degradation,
            title=ref.title,
            backbone_id=backbone.id,
            rank=int(config["r"]),
            parameters=sum(math.prod(shape) for shape in shapes),
            config_sha256=ref.config.sha256,
            weights_sha256=ref.weights.sha256,
        )

    def _record_replays(self, bundles: Sequence[Deployment]) -> list[str]:
        """Record the blobs that are replays, of the labels that they say; return who has none.

        Of several for a label that which has fewest other labels counts, then the newest.
        """
        used = {file.sha256 for bundle in bundles for file in bundle.files() if file != bundle.replay}
        replays = []
        for sha256 in self.blobs:
            if sha256 not in used and self.blobs.problem(sha256) is None:
                with suppress(TrainingError):
                    features = Replay.load(self.blobs.path(sha256)).features
                    replays.append((len(features.labels), -self.blobs.path(sha256).stat().st_mtime, sha256, features))
        lost = []
        for adapter in self._adapters.values():
            fitting = [r for r in replays if r[3].backbone == adapter.backbone.fingerprint]
            mine = min((r[:3] for r in fitting if adapter.degradation in r[3].labels), default=None)
            if mine is not None:
                queries.record_replay(self.session, adapter.backbone_id, adapter.id, mine[2])
            else:
                lost.append(
                    f"the replay of {adapter.degradation}: later operations need it; to make it again, run: "
                    f"abair-registry add {adapter.release.plugin.name}"
                )
            if clean := max((r[:3] for r in fitting if CLEAN in r[3].labels), default=None):
                queries.record_replay(self.session, adapter.backbone_id, None, clean[2])
        return lost


def _read_served(settings: Settings) -> Deployment:
    """Return what the home serves. Raises RegistryError if nothing can be read."""
    path = settings.home / FILE_NAME
    try:
        return read_deployment(path)
    except DeploymentError as error:
        raise RegistryError(
            f"registry: nothing serves from which it could be rebuilt ({error}); put {path} back from a backup, or "
            f"begin anew: move {settings.home} away, then run: abair-registry init"
        ) from None


def _complete(bundle: Deployment, settings: Settings) -> None:
    """Make all files of a bundle blobs, and put back the lost ones; also the package's replays.

    Raises:
        RegistryError: a file is lost, and nothing on this host holds it.
    """
    blobs, sources = Blobs(settings.home), Sources(settings)
    for file in bundle.files():
        if not blobs.problem(file.sha256):
            continue
        try:
            blobs.add(bundle.find(file), file.sha256)
        except DeploymentError:
            source = sources.find(file.sha256)
            if source is None:
                raise RegistryError(
                    f"deployment {bundle.name}: {blobs.problem(file.sha256)}, and nothing on this host holds it; "
                    f"expected all files of what serves; put it back from a backup of {settings.home}"
                ) from None
            sources.put_back(file.sha256, source, blobs)
    if found := sources.shipped_replay(bundle):
        with suppress(RegistryError):  # another one may be there
            sources.put_back(*found, blobs)


def _earlier(served: Deployment, settings: Settings, lost: list[str]) -> list[_Found]:
    """Return what MLflow's local runs hold complete, the newest of each number, and make it blobs.

    What does not fit the served deployment's number and date is of another registry's life.
    """
    challengers = _challengers(settings, lost)
    found: dict[int, _Found] = {}
    for bundle, _ in local_bundles(settings):
        if not bundle.name.isdigit() or bundle.name == served.name or int(bundle.name) in found:
            continue
        if served.name.isdigit() and (int(bundle.name) < int(served.name)) != (bundle.created < served.created):
            continue
        try:
            bundle.verify()
            for file in bundle.files():
                Blobs(settings.home).add(bundle.find(file), file.sha256)
        except AbairError as error:
            lost.append(f"deployment {bundle.name}, whose bundle is not complete: {error}")
            continue
        number = int(bundle.name)
        found[number] = _Found(number, bundle, _run_id(bundle), number in challengers)
    return list(found.values())


def _challengers(settings: Settings, lost: list[str]) -> set[int]:
    """Return the numbers of the deployments that MLflow says wait for review."""
    if settings.tracking_uri is not None:
        lost.append("earlier deployments that only MLflow's server holds: it may hold other registries' as well")
        return set()
    runs = Runs(settings)
    try:
        versions = runs.versions() if runs.has_store else []
    except RegistryError as error:
        lost.append(f"which deployments were never live: {error}")
        return set()
    waiting = [v.tags.get("abair.deployment", "") for v in versions if v.tags.get("abair.state") == "challenger"]
    return {int(number) for number in waiting if number.isdigit()}


def _adapters_of(bundle: Deployment) -> dict[tuple[str, str, str, str], tuple[str, str]]:
    """Return the SHA-256 of each adapter's files by what a registry records once."""
    return {
        (ref.distribution, ref.version, ref.degradation, bundle.backbone.fingerprint): (
            ref.config.sha256,
            ref.weights.sha256,
        )
        for ref in bundle.adapters
    }


def _run_id(bundle: Deployment) -> str:
    """Return the id of the run that holds a bundle, which is the name of its folder."""
    return bundle.folder.parent.parent.name


def _plugin_name(distribution: str, degradations: Sequence[str]) -> tuple[str, str]:
    """Return a plugin's name and module: those that are installed, or what is usual."""
    same = [
        plugin
        for plugin in installed.installed_plugins()
        if canonicalize_name(plugin.distribution) == canonicalize_name(distribution)
    ]
    module = distribution.replace("-", "_")
    if len(same) == 1:
        return same[0].name, same[0].module
    if len(set(degradations)) == 1:
        return degradations[0], module
    return distribution.removeprefix("abair-"), module
