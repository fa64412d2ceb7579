"""What is installed beside what is recorded and live; what is wrong with it. Imports no plugin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from sqlalchemy.orm import Session

from abair.errors import AdmissionError, RegistryError
from abair.files import file_sha256
from abair.text import near_misses
from abair_registry.db import queries
from abair_registry.db.models import DeploymentRow, PluginRow
from abair_registry.plugins import installed
from abair_registry.registry import Registry
from abair_registry.storage import publish
from abair_registry.storage.blobs import Blobs

REPLAY: Final = "replay"
"""What a file is called that a label left behind: operations need it, serving does not."""


@dataclass(frozen=True)
class AdapterStatus:
    """An adapter of a listed plugin."""

    backbone: str
    sha256: str
    parameters: int


@dataclass(frozen=True)
class PluginStatus:
    """One line of the list; the field names are those of its JSON."""

    name: str
    distribution: str
    version: str | None
    installed_version: str | None
    state: str
    live: bool
    adapters: tuple[AdapterStatus, ...]
    problem: str | None


def plugin_rows(registry: Registry) -> list[PluginStatus]:
    """All plugins that are recorded or installed, by name; hashes no file."""
    points = installed.installed_plugins()
    by_name: dict[str, list[installed.Installed]] = {}
    for point in points:
        by_name.setdefault(point.name, []).append(point)
    with registry.database.read() as session:
        deployment = queries.live(session)
        recorded = {found.name: found for found in queries.plugins(session)}
        rows = [
            _recorded_row(found, by_name.get(found.name, []), deployment, registry.blobs)
            for found in recorded.values()
            if found.state != "removed" or found.name in by_name
        ]
    rows += [_available_row(points) for name, points in by_name.items() if name not in recorded]
    return sorted(rows, key=lambda row: row.name)


def _recorded_row(
    found: PluginRow, points: Sequence[installed.Installed], deployment: DeploymentRow | None, blobs: Blobs
) -> PluginStatus:
    if found.state == "removed":
        return _available_row(points)
    members = [] if deployment is None else [m.adapter for m in deployment.members]
    mine = [a for a in members if a.release.plugin_id == found.id]
    release = queries.release_of(found, mine)
    installed = next((p.version for p in points if p.distribution == found.distribution), None)
    adapters = mine or (release.adapters if release else [])
    missing = [a for a in mine for sha in (a.config_sha256, a.weights_sha256) if not blobs.path(sha).is_file()]
    state, problem = found.state, _difference(found, release.version if release else None, points, installed)
    if missing:
        state = "broken"
        problem = f"blobs of {missing[0].degradation} are missing; run: abair-registry verify"
    return PluginStatus(
        name=found.name,
        distribution=found.distribution,
        version=release.version if release else None,
        installed_version=installed,
        state=state,
        live=bool(mine),
        adapters=tuple(AdapterStatus(a.backbone.size, a.weights_sha256, a.parameters) for a in adapters),
        problem=problem or found.reason or None,
    )


def _difference(
    found: PluginRow, version: str | None, points: Sequence[installed.Installed], installed: str | None
) -> str | None:
    if installed is None and points:
        return f"the name is installed by distribution {points[0].distribution}, recorded for {found.distribution}"
    if installed is None:
        return "not installed; what is served does not need it" if found.state == "live" else "not installed"
    if version is not None and installed != version:
        return f"version {installed} is installed, {version} is recorded; run: abair-registry add {found.name}"
    return None


def _available_row(points: Sequence[installed.Installed]) -> PluginStatus:
    first = points[0]
    others = sorted({p.distribution for p in points})
    problem = f"installed by distributions {', '.join(others)}; uninstall all but one" if len(others) > 1 else None
    return PluginStatus(
        name=first.name,
        distribution=first.distribution,
        version=None,
        installed_version=first.version,
        state="broken" if problem else "available",
        live=False,
        adapters=(),
        problem=problem,
    )


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


def history_rows(registry: Registry) -> list[dict[str, Any]]:
    """All deployments as JSON objects, newest first."""
    with registry.database.read() as session:
        return [
            {
                "deployment": deployment.number,
                "created": deployment.created.isoformat(timespec="seconds"),
                "actor": deployment.actor,
                "reason": deployment.reason,
                "labels": deployment.labels,
                "live": live,
                "run_id": deployment.run_id,
            }
            for deployment, live in queries.history(session)
        ]


def plugin_story(registry: Registry, name: str) -> dict[str, Any]:
    """One plugin's row with its releases and the newest events about it.

    Raises:
        RegistryError: neither recorded nor installed; suggests near misses.
    """
    rows = {row.name: row for row in plugin_rows(registry)}
    row = next((r for r in rows.values() if name in {r.name, r.distribution}), None)
    if row is None:
        near = near_misses(name, rows)
        raise RegistryError(
            f"plugin {name}: neither recorded nor installed; "
            + (f"did you mean {', '.join(near)}? " if near else "")
            + "see: abair-registry list"
        )
    told: dict[str, Any] = {key: value for key, value in asdict(row).items() if key != "adapters"}
    with registry.database.read() as session:
        found = queries.plugin(session, row.name)
        declared = found.releases[-1].declared if found and found.releases else {}
        for label, said in declared.items():
            if card := said.get("card"):
                told[f"card {label}"] = f"{card['licence']}; trained on {card['training_data']}{_held_out(card)}"
        told["releases"] = [
            {
                "version": release.version,
                "created": release.created.isoformat(timespec="seconds"),
                "adapters": [
                    {
                        "degradation": a.degradation, "backbone": a.backbone.size, "rank": a.rank,
                        "parameters": a.parameters, "sha256": a.weights_sha256,
                    }
                    for a in release.adapters
                ],
            }
            for release in (found.releases if found else [])
        ]  # fmt: skip
        told["events"] = [
            {
                "at": event.at.isoformat(timespec="seconds"), "actor": event.actor,
                "action": event.action + (", forced" if event.detail.get("forced") else ""),
                "deployment": event.deployment_number, "reason": event.reason,
            }
            for event in queries.events(session, row.name)
        ]  # fmt: skip
    return told


def _held_out(card: Mapping[str, Any]) -> str:
    """What the card's figures say of held-out samples: the bare backbone's and the adapter's PSNR, a backbone."""
    figures = card.get("figures", {})
    told = [
        f"; {measure.removesuffix('/psnr')}: {figures[measure]:.2f} dB on held-out samples, bare backbone "
        f"{figures[bare]:.2f}"
        for measure in figures
        if measure.endswith("/psnr") and (bare := measure.removesuffix("psnr") + "bare") in figures
    ]
    return "".join(told)
