"""What the deployments need, what of it is wrong, and what would help. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session, selectinload

from abair.errors import RegistryError
from abair.locations import FILE_NAME
from abair.text import quote_foreign
from abair_registry.db import queries
from abair_registry.db.models import AdapterRow, DeploymentRow, MemberRow, PluginRow
from abair_registry.db.snapshot import take_snapshot
from abair_registry.maintenance.sources import Sources
from abair_registry.plugins import calls, installed
from abair_registry.plugins.gates import find_gates
from abair_registry.registry import Registry, live_file_problem


@dataclass(frozen=True)
class StoredFile:
    """A file that a deployment names.

    `description` says for people what it is. `serves` is false for replays, which only operations
    need. `deployment` is the number of one that is not live and needs the file, or None if the live
    one does. `adds` is for a replay the plugin that makes it anew when it is added again.
    """

    description: str
    sha256: str
    serves: bool = True
    deployment: int | None = None
    adds: str | None = None


@dataclass(frozen=True)
class Finding:
    """A needed file that is missing, changed or unreadable, and how."""

    file: StoredFile
    problem: str

    def __str__(self) -> str:
        return f"{self.file.description}: {self.problem}; expected SHA-256 {self.file.sha256}"


def verify(registry: Registry) -> tuple[int, list[str]]:
    """Hash again all files that the live deployment needs, and those that one can go back to.

    Returns their count and a line for each problem, which ends with what helps.
    """
    count, findings = find_damage(registry)
    sources = Sources(registry.settings)
    problems = []
    for finding in findings:
        source, path = sources.find(finding.file.sha256), registry.blobs.path(finding.file.sha256)
        if path.is_dir():
            advice = f"move {path} away, then run: abair-registry doctor"
        elif source is not None:
            advice = f"{source.name} holds it; run: abair-registry doctor"
        elif finding.file.serves and registry.settings.tracking_uri is not None:
            advice = "MLflow's server may hold it, which is asked by: abair-registry doctor"
        else:
            advice = what_helps(registry, finding, findings)
        problems.append(f"{finding}; {advice}")
    if registry.recorded and (problem := live_file_problem(registry)):
        path = registry.settings.home / FILE_NAME
        lost = [finding.file for finding in findings if finding.file.serves and finding.file.deployment is None]
        when = " once its files are back" if lost else ""
        first = f"move {path} away, and then " if path.is_dir() else ""
        problems.append(
            f"{path}: {problem}; expected the live one as it is recorded; to write it again{when}, {first}run: "
            "abair-registry doctor"
        )
    return count, problems + sources.remarks


def find_damage(registry: Registry) -> tuple[int, list[Finding]]:
    """Hash all needed files; return their count and what is wrong, of the live deployment first."""
    with registry.database.read() as session:
        files = needed_files(session)
    problems = {sha256: registry.blobs.problem(sha256) for sha256 in dict.fromkeys(file.sha256 for file in files)}
    return len(files), [Finding(file, problem) for file in files if (problem := problems[file.sha256])]


def what_helps(registry: Registry, finding: Finding, findings: Sequence[Finding]) -> str:
    """Return what brings a file back that none of this host's sources holds."""
    file, home = finding.file, registry.settings.home
    ways = [f"put it back from a backup of {home}"]
    if file.deployment is not None:
        if registry.settings.shared_url is not None:
            ways.append("let the host that made it store it: abair-registry push")
        return f"nothing here holds it, so {' or '.join(ways)} if that deployment is to serve again"
    if file.serves or file.adds is None:
        ways.append("fetch it from a shared folder that has it: abair-registry pull --from URL")
    if file.adds is not None:
        ways.append(f"let the plugin make it again: abair-registry add {file.adds}")
    if file.serves and (number := _whole_earlier(registry, findings)) is not None:
        ways.append(f"let an earlier deployment serve: abair-registry rollback --to {number}")
    return f"nothing here holds it; {', or '.join(ways)}"


def _whole_earlier(registry: Registry, findings: Sequence[Finding]) -> int | None:
    """Return the number of the newest deployment that served and whose files are all there."""
    broken = {finding.file.sha256 for finding in findings}
    with registry.database.read() as session:
        for deployment, live in queries.history(session):
            needed = {file.sha256 for file in deployment_files(deployment)}
            if not live and not needed & broken and queries.was_live(session, deployment.number):
                return deployment.number
    return None


def needed_files(session: Session) -> list[StoredFile]:
    """Return what the live deployment needs, then what only others need, each of these once."""
    live = queries.live(session)
    files = [] if live is None else _with_replays(session, live)
    known = {file.sha256 for file in files}
    for deployment in _others(session, live):
        for file in _with_replays(session, deployment):
            if file.sha256 not in known:
                known.add(file.sha256)
                description = f"deployment {deployment.number}, which could not be gone back to: {file.description}"
                files.append(StoredFile(description, file.sha256, file.serves, deployment.number, file.adds))
    return files


def deployment_files(deployment: DeploymentRow) -> list[StoredFile]:
    """Return the files that a deployment serves with: backbone, estimator, two of each adapter."""
    files = [
        StoredFile("backbone", deployment.backbone.sha256), StoredFile("estimator", deployment.estimator.sha256)
    ]  # fmt: skip
    for member in deployment.members:
        files.append(StoredFile(f"adapter {member.label}, config", member.adapter.config_sha256))
        files.append(StoredFile(f"adapter {member.label}, weights", member.adapter.weights_sha256))
    return files


def live_files(registry: Registry) -> tuple[int, list[StoredFile]]:
    """Return the live deployment's number, and its files with the replays of its labels.

    Raises:
        RegistryError: nothing is live.
    """
    with registry.database.read() as session:
        deployment = queries.live(session)
        if deployment is None:
            raise RegistryError("registry: found no live deployment, expected one; see: abair-registry history")
        return deployment.number, _with_replays(session, deployment)


def _with_replays(session: Session, deployment: DeploymentRow) -> list[StoredFile]:
    """Return a deployment's files with the replays of its labels; one of several labels once."""
    plugins = {m.adapter_id: m.adapter.release.plugin.name for m in deployment.members}
    labels = {m.adapter_id: m.label for m in deployment.members}
    kept = queries.newest_replays(session, deployment.backbone_id, [None, *plugins])
    replays = []
    for sha256 in dict.fromkeys(kept.values()):
        of = [adapter_id for adapter_id in kept if kept[adapter_id] == sha256]
        alone = of[0] if len(of) == 1 else None
        description = f"replay of {'clean' if alone is None else labels[alone]}"
        if len(of) > 1:
            description = f"replay of {len(of)} labels"
        adds = None if alone is None else plugins[alone]
        replays.append(StoredFile(description, sha256, serves=False, adds=adds))
    return [*deployment_files(deployment), *replays]


def _others(session: Session, live: DeploymentRow | None) -> list[DeploymentRow]:
    """Return all deployments but the live one, newest first, with what their files are named by."""
    members = selectinload(DeploymentRow.members).selectinload(MemberRow.adapter).selectinload(AdapterRow.release)
    query = select(DeploymentRow).options(
        members, selectinload(DeploymentRow.backbone), selectinload(DeploymentRow.estimator)
    )
    if live is not None:
        query = query.where(DeploymentRow.number != live.number)
    return list(session.scalars(query.order_by(DeploymentRow.number.desc())))


def installed_changes(registry: Registry) -> list[str]:
    """Return a line for each live plugin that is not installed as it is recorded.

    Before them is a line for each distribution whose entry points cannot be read. Serving depends
    on none of this.
    """
    notes = installed.unreadable_distributions()
    metadata = installed.plugins_with_metadata()
    with registry.database.read() as session:
        deployment = queries.live(session)
        for found in _live_plugins(session, deployment):
            release = queries.release_of(found, [m.adapter for m in deployment.members] if deployment else [])
            same = [(p, d) for p, d in metadata if p.name == found.name and p.distribution == found.distribution]
            if release is None or not same:
                notes.append(f"plugin {found.name}: not installed; what is served does not need it")
                continue
            plugin, distribution = same[0]
            if plugin.version != release.version:
                notes.append(
                    f"plugin {found.name}: version {quote_foreign(plugin.version, 60)} is installed, "
                    f"{release.version} is live; to use it, run: abair-registry add {found.name}"
                )
            elif release.files and (changed := installed.changed_files(plugin, distribution, release.files)):
                notes.append(
                    f"plugin {found.name}: {len(changed)} installed files differ from the record ({changed[0]}), so "
                    "its code is not run; install what was added, or raise its version and add it"
                )
    return notes


def plugins_that_fail(registry: Registry) -> list[str]:
    """Return a line for each live plugin that is installed as it is recorded, but cannot be loaded.

    Each is loaded in a process of its own.
    """
    with registry.database.read() as session:
        deployment = queries.live(session)
        members = take_snapshot(session, deployment).members if deployment else ()
        files = queries.recorded_files(session, (member.adapter_id for member in members))
    try:
        broken = find_gates(calls.verify_plugins(members, files)).broken
    except RegistryError as error:  # no process can be started
        return [str(error)]
    return [
        f"plugin {name}: cannot be loaded ({why}); it may have a gate, so operations stop; mend or uninstall it"
        for name, why in broken.items()
    ]


def _live_plugins(session: Session, deployment: DeploymentRow | None) -> Iterator[PluginRow]:
    serving = {m.adapter.release.plugin_id for m in deployment.members} if deployment else set()
    return (found for found in queries.plugins(session) if found.id in serving)
