"""Verifies and repairs the files of the live deployment. Imports no plugin."""

from __future__ import annotations

from typing import Final

from sqlalchemy.orm import Session

from abair.errors import AdmissionError, RegistryError
from abair.files import file_sha256
from abair_registry.db import queries
from abair_registry.db.models import DeploymentRow, PluginRow
from abair_registry.plugins import installed
from abair_registry.registry import Registry
from abair_registry.storage import publish

REPLAY: Final = "replay"
"""What a file is called that a label left behind: operations need it, serving does not."""


def verify(registry: Registry) -> tuple[int, list[str]]:
    """Hash again all files of what is live; how many there are, and what changed."""
    with registry.database.read() as session:
        deployment = queries.live(session)
        if deployment is None:
            return 0, ["registry: found no live deployment, expected one; run: abair-registry doctor"]
        named = named_files(deployment)
        problems = []
        for what, sha256 in named:
            problem = registry.blobs.problem(sha256)
            if problem:
                problems.append(f"{what}: {problem}; expected SHA-256 {sha256}; run: abair-registry doctor (or pull)")
        home = registry.settings.home
        if not problems and not publish.is_published(publish.bundle(deployment, registry.blobs), home):
            problems.append(
                f"{home / 'deployment.json'}: is not deployment {deployment.number}; expected the live one; "
                "run: abair-registry doctor"
            )
    return len(named), problems


def installed_changes(registry: Registry) -> list[str]:
    """Where the installed files of live plugins differ from the recorded ones; nothing served depends on them."""
    notes = []
    with registry.database.read() as session:
        deployment = queries.live(session)
        for found in _live_plugins(session, deployment):
            release = queries.release_of(found, [m.adapter for m in deployment.members] if deployment else [])
            points = [
                p
                for p in installed.installed_plugins()
                if p.name == found.name and p.distribution == found.distribution
            ]
            if release is None or not points:
                notes.append(f"plugin {found.name}: not installed; what is served does not need it")
                continue
            if points[0].version != release.version:
                notes.append(
                    f"plugin {found.name}: version {points[0].version} is installed, {release.version} is live; "
                    f"to use it, run: abair-registry add {found.name}"
                )
            elif release.files and (changed := _changed(release.files, points[0])):
                notes.append(
                    f"plugin {found.name}: {len(changed)} installed files differ from the record ({changed[0]})"
                )
    return notes


def _changed(recorded: dict[str, str], point: installed.Installed) -> list[str]:
    try:
        now = installed.find(point.name).files
    except AdmissionError as error:  # changed since it was installed, or installed twice: nothing that serves needs it
        return [str(error)]
    return sorted(name for name in recorded.keys() | now.keys() if recorded.get(name) != now.get(name))


def _live_plugins(session: Session, deployment: DeploymentRow | None) -> list[PluginRow]:
    serving = {m.adapter.release.plugin_id for m in deployment.members} if deployment else set()
    return [found for found in queries.plugins(session) if found.id in serving]


def named_files(deployment: DeploymentRow) -> list[tuple[str, str]]:
    """The files of a deployment: what each is, and its SHA-256."""
    files = [("backbone", deployment.backbone.sha256), ("estimator", deployment.estimator.sha256)]
    for member in deployment.members:
        files.append((f"adapter {member.label}, config", member.adapter.config_sha256))
        files.append((f"adapter {member.label}, weights", member.adapter.weights_sha256))
    return files


def mend(registry: Registry) -> list[str]:
    """Put back the live blobs that the package holds, too; says what was done."""
    from abair.deployment import FACTORY, read_deployment

    done = []
    with registry.database.read() as session:
        deployment = queries.live(session)
        named = named_files(deployment) if deployment else []
    broken = [(what, sha256) for what, sha256 in named if registry.blobs.problem(sha256)]
    if broken:
        factory = read_deployment(FACTORY)
        spare = {file.sha256: factory.folder / file.path for file in factory.files()}
        for what, sha256 in broken:
            path = spare.get(sha256)
            if path is not None and file_sha256(path) == sha256:
                registry.blobs.path(sha256).unlink(missing_ok=True)
                registry.blobs.add(path, sha256)
                done.append(f"{what}: put back from the package")
    return done


def live_files(registry: Registry) -> tuple[int, list[tuple[str, str]]]:
    """The live deployment's number and its files, and what its labels left behind: what each is, and its SHA-256.

    Raises:
        RegistryError: nothing is live.
    """
    with registry.database.read() as session:
        deployment = queries.live(session)
        if deployment is None:
            raise RegistryError("registry: found no live deployment, expected one; run: abair-registry doctor")
        kept = queries.replays(session, deployment.backbone_id, [None, *(m.adapter_id for m in deployment.members)])
        replays = [(REPLAY, sha256) for sha256 in dict.fromkeys(kept.values())]
        return deployment.number, [*named_files(deployment), *replays]
