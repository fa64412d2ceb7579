"""What `list`, `show` and `history` report: plugins and deployments. Imports no plugin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from abair.errors import RegistryError
from abair.text import near_misses, quote_foreign
from abair_registry.db import audit, queries
from abair_registry.db.models import DeploymentRow, EventRow, PluginRow
from abair_registry.plugins import installed
from abair_registry.registry import Registry
from abair_registry.storage.blobs import Blobs

MOST_AVAILABLE: Final = 20
"""Plugins of one distribution that are listed for people without having been added."""


@dataclass(frozen=True)
class AdapterStatus:
    """An adapter of a listed plugin."""

    backbone: str
    sha256: str
    parameters: int


@dataclass(frozen=True)
class PluginStatus:
    """One line of `list`; its fields are those of the JSON."""

    name: str
    distribution: str
    version: str | None
    installed_version: str | None
    state: str
    live: bool
    adapters: tuple[AdapterStatus, ...]
    problem: str | None


def plugin_statuses(registry: Registry, *, removed: bool = False) -> list[PluginStatus]:
    """Return all plugins that are recorded or installed, by name; hashes no file.

    With `removed` also those that were removed and are not installed.
    """
    plugins = installed.installed_plugins()
    by_name: dict[str, list[installed.InstalledPlugin]] = {}
    for point in plugins:
        by_name.setdefault(point.name, []).append(point)
    with registry.database.read() as session:
        deployment = queries.live(session)
        recorded = {found.name: found for found in queries.plugins(session)}
        rows = [
            _recorded_status(found, by_name.get(found.name, []), deployment, registry.blobs)
            for found in recorded.values()
            if removed or found.state != "removed" or found.name in by_name
        ]
    rows += [_available_status(plugins) for name, plugins in by_name.items() if name not in recorded]
    return sorted(rows, key=lambda row: row.name)


def without_floods(rows: Sequence[PluginStatus]) -> tuple[list[PluginStatus], dict[str, int]]:
    """Return the rows to show to people, and by distribution how many more are available.

    Of one distribution's plugins that were never added, `MOST_AVAILABLE` are shown.
    """
    shown, hidden, available = list[PluginStatus](), Counter[str](), Counter[str]()
    for row in rows:
        available[row.distribution] += row.state == "available"
        if row.state == "available" and available[row.distribution] > MOST_AVAILABLE:
            hidden[row.distribution] += 1
        else:
            shown.append(row)
    return shown, dict(hidden)


def _recorded_status(
    found: PluginRow, plugins: Sequence[installed.InstalledPlugin], deployment: DeploymentRow | None, blobs: Blobs
) -> PluginStatus:
    if found.state == "removed" and plugins:
        return _available_status(plugins)
    members = [] if deployment is None else [m.adapter for m in deployment.members]
    mine = [a for a in members if a.release.plugin_id == found.id]
    release = queries.release_of(found, mine)
    installed = next((p.version for p in plugins if p.distribution == found.distribution), None)
    adapters = mine or (release.adapters if release else [])
    missing = [a for a in mine for sha in (a.config_sha256, a.weights_sha256) if not blobs.path(sha).is_file()]
    state, problem = found.state, _difference(found, release.version if release else None, plugins, installed)
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
    found: PluginRow, version: str | None, plugins: Sequence[installed.InstalledPlugin], installed: str | None
) -> str | None:
    if installed is None and plugins:
        return f"the name is installed by distribution {plugins[0].distribution}, recorded for {found.distribution}"
    if installed is None:
        return "not installed; what is served does not need it" if found.state == "live" else "not installed"
    if others := sorted({p.distribution for p in plugins} - {found.distribution}):
        return f"installed by distribution {', '.join(others)}, too; its own gate and notice are left out; uninstall it"
    if version is not None and installed != version:
        now = quote_foreign(installed, 60)
        return f"version {now} is installed, {version} is recorded; run: abair-registry add {found.name}"
    return None


def _available_status(plugins: Sequence[installed.InstalledPlugin]) -> PluginStatus:
    first = plugins[0]
    others = sorted({p.distribution for p in plugins})
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


def deployment_history(registry: Registry) -> list[dict[str, Any]]:
    """Return all deployments as JSON objects, newest first, each with when and why it went live."""
    with registry.database.read() as session:
        gates, published = audit.gate_summaries(session), audit.publications(session)
        return [
            {
                "deployment": deployment.number,
                "created": deployment.created.isoformat(timespec="seconds"),
                "actor": deployment.actor,
                "reason": deployment.reason,
                "labels": deployment.labels,
                "live": live,
                "run_id": deployment.run_id,
                "gates": gates.get(deployment.number),
                "went_live": [
                    {
                        "event": event.id,
                        "at": event.at.isoformat(timespec="seconds"),
                        "actor": event.actor,
                        "action": event.action,
                        "reason": event.reason,
                    }
                    for event in published.get(deployment.number, ())
                ],
            }
            for deployment, live in queries.history(session)
        ]


def describe_plugin(registry: Registry, name: str) -> dict[str, Any]:
    """Return one plugin's status, cards, releases and newest events as a JSON object.

    Raises:
        RegistryError: the plugin is neither recorded nor installed; the text names near misses.
    """
    rows = {row.name: row for row in plugin_statuses(registry, removed=True)}
    row = next((r for r in rows.values() if name in {r.name, r.distribution}), None)
    if row is None:
        near = near_misses(name, rows)
        raise RegistryError(
            f"plugin {name}: neither recorded nor installed; "
            + (f"did you mean {', '.join(near)}? " if near else "")
            + "see: abair-registry list"
        )
    shown: dict[str, Any] = {key: value for key, value in asdict(row).items() if key != "adapters"}
    with registry.database.read() as session:
        found = queries.plugin(session, row.name)
        declared = found.releases[-1].declared if found and found.releases else {}
        for label, declaration in declared.items():
            if card := declaration.get("card"):
                shown[f"card {label}"] = f"{card['licence']}; trained on {card['training_data']}{_held_out(card)}"
        shown["releases"] = [
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
        shown["events"] = [
            {
                "at": event.at.isoformat(timespec="seconds"), "actor": event.actor,
                "action": event.action + (", forced" if event.detail.get("forced") else ""),
                "deployment": event.deployment_number, "reason": event.reason, "gates": _gates(event),
                "refusals": event.detail.get("why", []),
            }
            for event in audit.events(session, row.name)
        ]  # fmt: skip
    return shown


def _gates(event: EventRow) -> str | None:
    """Return what the gates said, if they were asked."""
    told, refused = event.detail.get("gates"), event.detail.get("refused")
    return f"{told}; refused by {', '.join(refused)}" if event.action == "reject" and refused else told


def _held_out(card: Mapping[str, Any]) -> str:
    """Return what the card says of held-out samples: PSNR of adapter and bare backbone."""
    figures = card.get("figures", {})
    texts = [
        f"; {measure.removesuffix('/psnr')}: {figures[measure]:.2f} dB on held-out samples, bare backbone "
        f"{figures[bare]:.2f}"
        for measure in figures
        if measure.endswith("/psnr") and (bare := measure.removesuffix("psnr") + "bare") in figures
    ]
    return "".join(texts)
