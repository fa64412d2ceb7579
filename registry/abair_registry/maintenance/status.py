"""What `list`, `show` and `history` report: plugins and deployments. Imports no plugin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from abair.errors import RegistryError
from abair.text import near_misses
from abair_registry.db import audit, queries
from abair_registry.db.models import DeploymentRow, PluginRow
from abair_registry.plugins import installed
from abair_registry.registry import Registry
from abair_registry.storage.blobs import Blobs


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
            for event in audit.events(session, row.name)
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
