"""What the installed package offers: another factory than the one whose backbone is live."""

from __future__ import annotations

from dataclasses import dataclass

from abair.deployment import read_deployment
from abair.locations import factory_folder
from abair_registry.db import queries
from abair_registry.plugins import installed
from abair_registry.registry import Registry


@dataclass(frozen=True)
class FactoryOffer:
    """Another backbone that the package brings, and which live plugins have adapters for it.

    The fields are those of the JSON.
    """

    live: str
    backbone: str
    fingerprint: str
    plugins: dict[str, bool]

    def __str__(self) -> str:
        with_adapter = [name for name, there in self.plugins.items() if there]
        without = [name for name, there in self.plugins.items() if not there]
        return (
            f"the package brings another factory: backbone {self.backbone}, live is {self.live}; adapter for "
            f"{self.backbone}: yes: {', '.join(with_adapter) or 'none'}; no: {', '.join(without) or 'none'}; to move, "
            "run: abair-registry upgrade"
        )


def offered_factory(registry: Registry) -> FactoryOffer | None:
    """Return what `abair-registry upgrade` would move to, or None if that is live already.

    Files are looked at, and no plugin is imported.

    Raises:
        DeploymentError: `ABAIR_FACTORY` names no bundle.
    """
    source = read_deployment(factory_folder())
    shipped = {ref.degradation for ref in source.adapters}
    with registry.database.read() as session:
        deployment = queries.live(session)
        if deployment is None or deployment.backbone.fingerprint == source.backbone.fingerprint:
            return None
        labels: dict[str, set[str]] = {}
        for member in deployment.members:
            labels.setdefault(member.adapter.release.plugin.name, set()).add(member.label)
        live = deployment.backbone.size
    found = {plugin.name: plugin for plugin in installed.installed_plugins()}
    size = source.backbone.size
    plugins = {
        name: own <= shipped or (name in found and installed.has_adapter(found[name], size))
        for name, own in sorted(labels.items())
    }
    return FactoryOffer(live, size, source.backbone.fingerprint, plugins)
