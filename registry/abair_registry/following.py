"""What follows a commit: the file that serves, MLflow's versions and aliases, the plugins' notices."""

from __future__ import annotations

from collections.abc import Callable

from abair.errors import RegistryError
from abair_registry import catalogue, hooks, mirror, publishing
from abair_registry.catalogue import Catalogue
from abair_registry.hooks import Trusted
from abair_registry.runs import Runs


def follow(opened: Catalogue, runs: Runs, plugins: Trusted | None, warn: Callable[[str], None]) -> None:
    """After a commit: write the file that serves, tell MLflow, tell plugins. None of them can undo what is live."""
    catalogue.settle(opened)
    try:
        mirror.agree(opened, runs)
    except (RegistryError, OSError) as error:
        warn(f"{error}; what is live is live; later run: abair-registry doctor")
    if plugins is not None and publishing.published(opened.settings.home) is not None:
        for wrong in hooks.announce(plugins, opened.settings.home):
            warn(wrong)
