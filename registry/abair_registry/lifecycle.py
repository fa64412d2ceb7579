"""What an administrator does to plugins: add, disable, enable, remove. Each is one transaction, then the file."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from abair.contract import CLEAN
from abair.errors import RegistryError
from abair_registry import admission, candidates, catalogue, store
from abair_registry.admission import LIMITS, Limits
from abair_registry.catalogue import Catalogue
from abair_registry.models import Adapter, Deployment, Estimator, Plugin, Release
from abair_registry.store import NewAdapter, NewRelease, Who


@dataclass(frozen=True)
class Outcome:
    """What became of a plugin: its state now, and the number of the live deployment."""

    name: str
    state: str
    version: str
    deployment: int


def add(opened: Catalogue, name: str, who: Who, limits: Limits = LIMITS) -> Outcome:
    """Find and probe an installed plugin, keep its adapters as blobs, and record it as a candidate.

    Raises:
        AdmissionError: it is not installed, or the probe refuses it; the registry stays exactly as it was.
        RegistryError: its version was recorded with other files.
    """
    candidate = candidates.find(name)
    with opened.database.read() as session:
        deployment = _live(session)
        backbone_id, backbone = deployment.backbone_id, deployment.backbone.sha256
        size = deployment.backbone.size
        taken = {
            member.label: member.adapter.release.plugin.distribution
            for member in deployment.members
            if member.adapter.release.plugin.name != candidate.name
        }
    probed = admission.probe(candidate, opened.blobs.path(backbone), taken, limits)
    adapters = []
    for degradation in probed.degradations:
        for adapter in degradation.adapters:
            if adapter.backbone == size:
                opened.blobs.add(adapter.config, adapter.config_sha256)
                opened.blobs.add(adapter.weights, adapter.weights_sha256)
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
    new = NewRelease(
        name=candidate.name, distribution=candidate.distribution, version=candidate.version, module=candidate.module,
        adapters=adapters, files=candidate.files,
        declared={
            found.name: {"title": found.title, "synthesizer": found.synthesizer, "card": found.card}
            for found in probed.degradations
        },
    )  # fmt: skip
    with opened.database.write() as session:
        release = store.record(session, new, who)
        return Outcome(candidate.name, release.plugin.state, release.version, _live(session).number)


def disable(opened: Catalogue, name: str, who: Who) -> Outcome:
    """Take a plugin out of what is served; it stays recorded.

    Raises:
        RegistryError: it was never added, is disabled already, or nothing would be left.
    """
    return _leave(opened, name, who, action="disable", state="disabled")


def remove(opened: Catalogue, name: str, who: Who) -> Outcome:
    """Take a plugin out of what is served and out of the list; its history stays, older deployments keep their blobs.

    Raises:
        RegistryError: it was never added, is removed already, or nothing would be left.
    """
    return _leave(opened, name, who, action="remove", state="removed")


def enable(opened: Catalogue, name: str, who: Who) -> Outcome:
    """Serve a disabled plugin again, with the estimator of the newest deployment that knew all of the labels.

    Raises:
        RegistryError: it is not disabled, or no estimator knows these labels together.
    """
    with opened.database.write() as session:
        found = recorded(session, name)
        if found.state != "disabled":
            raise RegistryError(
                f"plugin {found.name}: found state {found.state}, expected disabled; "
                f"see: abair-registry show {found.name}"
            )
        live = _live(session)
        source, theirs = _last_with(session, found)
        wanted = {member.label: member.adapter for member in live.members} | {a.degradation: a for a in theirs}
        for deployment in _newest_first(session):
            if wanted.keys() <= set(deployment.labels) and deployment.backbone_id == live.backbone_id:
                labels = [label for label in deployment.labels if label in wanted or label == CLEAN]
                outputs = _estimator_for(opened, session, deployment, labels)
                adapters = [wanted[label] for label in outputs.labels if label != CLEAN]
                made = store.deploy(session, adapters, outputs, who, action="enable", subject=found.name)
                outcome = Outcome(found.name, "live", source.version, made.number)
                break
        else:
            raise RegistryError(
                f"plugin {found.name}: found no estimator that knows {', '.join(sorted(wanted))} together; "
                f"expected one from an earlier deployment; run: abair-registry add {found.name}"
            )
    catalogue.settle(opened)
    return outcome


def recorded(session: Session, name: str) -> Plugin:
    """A plugin that was added, by its name or its distribution.

    Raises:
        RegistryError: nothing was added under the name; suggests near misses.
    """
    everything = store.plugins(session)
    for found in everything:
        if name in {found.name, found.distribution}:
            return found
    near = get_close_matches(name, [found.name for found in everything], n=3)
    raise RegistryError(
        f"plugin {name}: never added; "
        + (f"did you mean {', '.join(near)}? " if near else "")
        + f"found {', '.join(found.name for found in everything) or 'none'}; see: abair-registry list"
    )


def _leave(opened: Catalogue, name: str, who: Who, *, action: str, state: str) -> Outcome:
    with opened.database.write() as session:
        found = recorded(session, name)
        if found.state in {state, "removed"}:
            raise RegistryError(
                f"plugin {found.name}: is {found.state} already; expected another state; see: abair-registry list"
            )
        live = _live(session)
        kept = [m.adapter for m in live.members if m.adapter.release.plugin_id != found.id]
        if len(kept) < len(live.members):
            if not kept:
                raise RegistryError(
                    f"plugin {found.name}: is the last one live; expected another to stay; add or enable one first"
                )
            labels = [*(adapter.degradation for adapter in kept), CLEAN]
            outputs = _estimator_for(opened, session, live, labels)
            number = store.deploy(session, kept, outputs, who, action=action, subject=found.name).number
        else:
            number = live.number
            store.tell(session, who, action, found.name)
        found = recorded(session, found.name)
        found.state, found.reason = state, who.reason
        release = found.releases[-1]
        outcome = Outcome(found.name, state, release.version, number)
    catalogue.settle(opened)
    return outcome


def _estimator_for(opened: Catalogue, session: Session, source: Deployment, labels: list[str]) -> Estimator:
    """The source's estimator for some of its labels: softmax over the outputs that are left, nothing trained."""
    if list(source.labels) == labels:
        return source.estimator
    from abair.estimator import load_estimator, save_estimator

    whole = load_estimator(opened.blobs.path(source.estimator.sha256), source.labels)
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "estimator.safetensors"
            save_estimator(whole.rearranged(labels), path)
            sha256 = opened.blobs.add(path)
    except OSError as error:
        raise RegistryError(
            f"the estimator for {', '.join(labels)} cannot be written ({error}); "
            f"expected a temporary folder with space; nothing was changed"
        ) from None
    return store.estimator(session, sha256, labels)


def _last_with(session: Session, plugin: Plugin) -> tuple[Release, list[Adapter]]:
    """The release of a plugin that served last, and its adapters."""
    ids = {release.id for release in plugin.releases}
    for deployment in _newest_first(session):
        adapters = [m.adapter for m in deployment.members if m.adapter.release_id in ids]
        if adapters:
            return adapters[0].release, adapters
    raise RegistryError(
        f"plugin {plugin.name}: was never live; expected one that served before; run: abair-registry add {plugin.name}"
    )


def _newest_first(session: Session) -> list[Deployment]:
    return list(session.scalars(select(Deployment).order_by(Deployment.number.desc())))


def _live(session: Session) -> Deployment:
    deployment = store.live(session)
    if deployment is None:
        raise RegistryError("registry: found no live deployment, expected one; run: abair-registry doctor")
    return deployment
