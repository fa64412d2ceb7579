"""What follows a commit: the file that serves, MLflow's aliases, the plugins' notices."""

from __future__ import annotations

from functools import partial

from abair.errors import RegistryError
from abair_registry.operations.progress import Terminal
from abair_registry.plugins import calls
from abair_registry.plugins.calls import VerifiedPlugins
from abair_registry.registry import Registry, sync_live_file
from abair_registry.storage import publish
from abair_registry.tracking import outbox, sync
from abair_registry.tracking.mlflow_client import Runs


def follow(registry: Registry, runs: Runs, plugins: VerifiedPlugins | None, terminal: Terminal, operation: int) -> None:
    """Write the file that serves, bring MLflow up to date, and notify `plugins`, if any.

    The notices are given when the terminal has told what happened, so that nobody waits for them.
    The commit of the `operation` stands whatever fails here: MLflow's and the plugins' failures are
    warnings.

    Raises:
        RegistryError: The file that serves cannot be written; the next writing command does.
    """
    sync_live_file(registry)
    if runs.away is None:  # otherwise it was told, and the operation's run is kept
        _mirror(registry, runs, terminal, operation)
    if plugins is not None:
        terminal.later(partial(_notify, registry, plugins, terminal))


def _notify(registry: Registry, plugins: VerifiedPlugins, terminal: Terminal) -> None:
    """Tell plugins of what is live; what a plugin does wrong is a warning."""
    if publish.read_published(registry.settings.home) is not None:
        for problem in calls.send_notices(plugins, registry.settings.home):
            terminal.warn(problem)


def _mirror(registry: Registry, runs: Runs, terminal: Terminal, operation: int) -> None:
    """Bring MLflow up to date, also with what earlier commands could not tell it."""
    late = outbox.is_pending(registry.settings.home)
    try:
        changes = sync.reconcile(registry, runs, operation)
    except (RegistryError, OSError) as error:
        outbox.put_off(registry.settings.home)
        terminal.warn(f"{error}; what is live is live; the next command that reaches MLflow mirrors it")
        return
    if late:
        terminal.note(f"MLflow has caught up: {'; '.join(changes) or 'it knew everything'}")
