"""What tests of lost and damaged files share: a home that serves, and the commands an administrator types."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.conftest import Open

from abair.cli import app as restoring
from abair_registry.cli import app
from abair_registry.db import audit, queries
from abair_registry.db.models import DeploymentRow
from abair_registry.registry import Registry, sync_live_file
from abair_registry.settings import Settings

Call = Callable[..., SimpleNamespace]
Opened = Callable[[], AbstractContextManager[Registry]]


@pytest.fixture
def call(
    environment: dict[str, str], bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Call:
    """Calls `abair-registry` (or with `abair=True` the other command line) in this process."""
    monkeypatch.setenv("ABAIR_FACTORY", str(bundle))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("ABAIR_SHARED_URL", raising=False)

    def run(*arguments: str, abair: bool = False) -> SimpleNamespace:
        code = (restoring if abair else app).run(arguments)
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        assert "unexpected" not in said.err
        return SimpleNamespace(code=code, out=said.out, err=said.err)

    return run


@pytest.fixture
def home(open_registry: Open, settings: Settings) -> Path:
    """A home that serves deployment 1, without a store of MLflow's, which costs seconds."""
    settings.home.mkdir(parents=True, exist_ok=True)
    (settings.home / "mlflow.db").unlink(missing_ok=True)
    with open_registry() as registry:
        sync_live_file(registry)
    return settings.home


def make_second(registry: Registry, data: bytes = b"another estimator") -> DeploymentRow:
    """Make a deployment live, with the first one's adapters and another estimator, without training it."""
    with registry.blobs.writing() as path:
        path.write_bytes(data)
        sha256 = registry.blobs.add(path)
    with registry.database.write() as session:
        live = queries.live(session)
        assert live is not None
        outputs = queries.ensure_estimator(session, sha256, live.labels)
        adapters = [member.adapter for member in live.members]
        actor = audit.Actor("me", "a second one")
        made = queries.propose(session, adapters, outputs, actor, action="propose", subject="test")
        queries.publish(session, made, actor, action="add", subject="test")
    return made


def object_of(found: SimpleNamespace) -> dict[str, list[str]]:
    """The one JSON object that a command printed."""
    (line,) = found.out.splitlines()
    document: dict[str, list[str]] = json.loads(line)
    return document
