"""What follows a commit: the file that serves, MLflow's aliases, the plugins' notices."""

from __future__ import annotations

from collections.abc import Callable

from abair.errors import RegistryError
from abair_registry.plugins import calls
from abair_registry.plugins.calls import VerifiedPlugins
from abair_registry.registry import Registry, sync_live_file
from abair_registry.storage import publish
from abair_registry.tracking import sync
from abair_registry.tracking.mlflow_client import Runs


def follow(registry: Registry, runs: Runs, plugins: VerifiedPlugins | None, warn: Callable[[str], None]) -> None:
    """Write the file that serves, bring MLflow up to date, and notify `plugins`, if any.

    The commit stands whatever fails here: MLflow's and the plugins' failures are warnings.

    Raises:
        RegistryError: The file that serves cannot be written; the next writing command does.
    """
    sync_live_file(registry)
    try:
        sync.reconcile(registry, runs)
    except (RegistryError, OSError) as error:
        warn(f"{error}; what is live is live; later run: abair-registry doctor")
    if plugins is not None and publish.read_published(registry.settings.home) is not None:
        for problem in calls.send_notices(plugins, registry.settings.home):
            warn(problem)
