"""Verify and repair the files of the live deployment. Imports no plugin."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session

from abair.deployment import factory_folder, read_deployment
from abair.errors import AdmissionError, RegistryError
from abair.files import file_sha256
from abair_registry.db import queries
from abair_registry.db.models import DeploymentRow, PluginRow
from abair_registry.plugins import installed
from abair_registry.registry import Registry
from abair_registry.storage import publish


@dataclass(frozen=True)
class StoredFile:
    """A file that a deployment names.

    `description` says for people what it is. `serves` is false for replays, which only operations
    need.
    """

    description: str
    sha256: str
    serves: bool = True


def verify(registry: Registry) -> tuple[int, list[str]]:
    """Hash all files of the live deployment again.

    Returns their count and a line for each problem.
    """
    with registry.database.read() as session:
        deployment = queries.live(session)
        if deployment is None:
            return 0, ["registry: found no live deployment, expected one; run: abair-registry doctor"]
        files = deployment_files(deployment)
        problems = [
            f"{file.description}: {problem}; expected SHA-256 {file.sha256}; run: abair-registry doctor (or pull)"
            for file in files
            if (problem := registry.blobs.problem(file.sha256))
        ]
        home = registry.settings.home
        if problems or not registry.recorded:
            return len(files), problems
        if not publish.is_published(publish.make_bundle(deployment, registry.blobs), home):
            problems.append(
                f"{home / 'deployment.json'}: is not deployment {deployment.number}; expected the live one; "
                "run: abair-registry doctor"
            )
    return len(files), problems


def installed_changes(registry: Registry) -> list[str]:
    """Return a line for each live plugin that is not installed as it is recorded.

    Before them is a line for each distribution whose entry points cannot be read. Serving depends
    on none of this.
    """
    notes = installed.unreadable_distributions()
    plugins = installed.installed_plugins()
    with registry.database.read() as session:
        deployment = queries.live(session)
        for found in _live_plugins(session, deployment):
            release = queries.release_of(found, [m.adapter for m in deployment.members] if deployment else [])
            same = [p for p in plugins if p.name == found.name and p.distribution == found.distribution]
            if release is None or not same:
                notes.append(f"plugin {found.name}: not installed; what is served does not need it")
                continue
            if same[0].version != release.version:
                notes.append(
                    f"plugin {found.name}: version {same[0].version} is installed, {release.version} is live; "
                    f"to use it, run: abair-registry add {found.name}"
                )
            elif release.files and (changed := _changed_files(release.files, same[0])):
                notes.append(
                    f"plugin {found.name}: {len(changed)} installed files differ from the record ({changed[0]})"
                )
    return notes


def _changed_files(recorded: dict[str, str], plugin: installed.InstalledPlugin) -> list[str]:
    try:
        now = installed.find(plugin.name).files
    except AdmissionError as error:  # changed after the installation, or installed twice
        return [str(error)]
    return sorted(name for name in recorded.keys() | now.keys() if recorded.get(name) != now.get(name))


def _live_plugins(session: Session, deployment: DeploymentRow | None) -> list[PluginRow]:
    serving = {m.adapter.release.plugin_id for m in deployment.members} if deployment else set()
    return [found for found in queries.plugins(session) if found.id in serving]


def deployment_files(deployment: DeploymentRow) -> list[StoredFile]:
    """Return the files that a deployment serves with: backbone, estimator, two of each adapter."""
    files = [
        StoredFile("backbone", deployment.backbone.sha256), StoredFile("estimator", deployment.estimator.sha256)
    ]  # fmt: skip
    for member in deployment.members:
        files.append(StoredFile(f"adapter {member.label}, config", member.adapter.config_sha256))
        files.append(StoredFile(f"adapter {member.label}, weights", member.adapter.weights_sha256))
    return files


def repair(registry: Registry) -> list[str]:
    """Restore missing or changed live blobs that the package ships too.

    Returns one line for each.
    """
    done = []
    with registry.database.read() as session:
        deployment = queries.live(session)
        files = deployment_files(deployment) if deployment else []
    broken = [file for file in files if registry.blobs.problem(file.sha256)]
    if broken:
        factory = read_deployment(factory_folder())
        shipped = {file.sha256: factory.folder / file.path for file in factory.files()}
        for file in broken:
            path = shipped.get(file.sha256)
            if path is not None and file_sha256(path) == file.sha256:
                registry.blobs.add(path, file.sha256)
                done.append(f"{file.description}: put back from the package")
    return done


def live_files(registry: Registry) -> tuple[int, list[StoredFile]]:
    """Return the live deployment's number, and its files with the replays of its labels.

    Raises:
        RegistryError: nothing is live.
    """
    with registry.database.read() as session:
        deployment = queries.live(session)
        if deployment is None:
            raise RegistryError("registry: found no live deployment, expected one; run: abair-registry doctor")
        kept = queries.newest_replays(
            session, deployment.backbone_id, [None, *(m.adapter_id for m in deployment.members)]
        )
        replays = [StoredFile("replay", sha256, serves=False) for sha256 in dict.fromkeys(kept.values())]
        return deployment.number, [*deployment_files(deployment), *replays]
