"""What is live, recorded and tracked after commands, for tests of operations."""

from __future__ import annotations

from typing import Any

import pytest
from mlflow import MlflowClient
from tests.registry.conftest import Run

from abair_registry.settings import Settings

sqlite = pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
"""For a test that need not run on PostgreSQL, too."""


def client(settings: Settings) -> MlflowClient:
    """A client of the home's own store."""
    uri = f"sqlite:///{settings.home / 'mlflow.db'}"
    return MlflowClient(uri, uri)


def aliases(settings: Settings) -> dict[str, str]:
    """Alias to the number of the deployment that it names."""
    found = client(settings)
    versions = {v.version: v.tags["abair.deployment"] for v in found.search_model_versions("name='abair'")}
    return {alias: versions[number] for alias, number in found.get_registered_model("abair").aliases.items()}


def state(run: Run, name: str) -> str:
    """A plugin's state."""
    return next(row["state"] for row in run("list")[1] if row["name"] == name)


def live(run: Run) -> int:
    """The number of the live deployment."""
    return next(row["deployment"] for row in run("history")[1] if row["live"])


def refused(result: dict[str, Any]) -> list[str]:
    """The names of the gates that refuse, of an operation's JSON."""
    return [gate["name"] for gate in result["gates"] if not gate["passed"]]
