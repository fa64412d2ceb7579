"""Notices to plugins come after the answer: nobody waits for them who asked for a rollback."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.outcomes import sqlite

from abair_registry.cli import app
from abair_registry.operations import lock
from abair_registry.plugins import calls
from abair_registry.registry import open_registry
from abair_registry.settings import Settings

pytestmark = pytest.mark.slow


@sqlite
@pytest.mark.parametrize("command", ["disable rain --yes --force --reason tiny", "rollback", "promote 2"])
def test_plugins_are_told_when_the_answer_is_out_and_the_next_operation_may_begin(
    command: str, environment: dict[str, str], bundle: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("ABAIR_FACTORY", str(bundle))
    told: list[str] = []

    def send_notices(plugins: calls.VerifiedPlugins, deployment: Path) -> list[str]:
        told.append(capsys.readouterr().out)
        with open_registry(settings, bundle) as registry:
            lock.expect_nobody(registry.database)
        return ["plugin rain: its notice of the deployment took 20 s"]

    monkeypatch.setattr(calls, "send_notices", send_notices)
    if not command.startswith("disable"):
        assert app.run(["disable", "rain", "--yes", "--force", "--reason", "tiny"]) == 0
    if command.startswith("promote"):
        assert app.run(["rollback"]) == 0
    told.clear()
    capsys.readouterr()
    assert app.run(command.split()) == 0
    (out,) = told
    assert out.startswith(f"deployment {1 if command == 'rollback' else 2} is live")
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "abair-registry: warning: plugin rain: its notice of the deployment took 20 s\n"
