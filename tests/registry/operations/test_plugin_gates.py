"""Gates of live plugins that give no verdict: what they cost an operation, and who is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Open
from tests.registry.conftest import FROST, Run, complaints
from tests.support.outcomes import client, refused, sqlite
from tests.support.plugin_package import CHANGED_LATER, Plugin, Tiny

from abair_registry.db import audit
from abair_registry.operations import routes
from abair_registry.settings import Settings

pytestmark = pytest.mark.slow
ADD = ("add", "frost", "--route", "features", "--force", "--reason", "ours")
GATE = "\n@hookimpl\ndef abair_gates(report):\n    {body}\n"


@pytest.fixture
def later(run: Run, site: Path, trained: Tiny) -> Path:
    """The file with what the module of `frost`, which is live, does from now on."""
    Plugin(module=CHANGED_LATER, synthesis=FROST).make(site, trained)
    code, (result,), err = run(*ADD)
    assert (code, result["outcome"]) == (0, "live"), err
    return site / "frost-later.py"


@sqlite
def test_a_live_plugin_that_cannot_be_loaded_stops_an_operation_and_doctor_tells(
    run: Run, later: Path, settings: Settings
) -> None:
    later.write_text("import no_such_module")

    code, told, err = run("disable", "rain", "--yes")

    assert (code, told) == (1, [])
    line = complaints(err)[-1]
    assert line.startswith("abair-registry: plugin frost: cannot be loaded (cannot be imported: ModuleNotFoundError")
    assert "--force --reason WHY" in line
    (health,) = run("doctor")[1]
    assert any(note.startswith("plugin frost: cannot be loaded") for note in health["notes"])

    code, (result,), _ = run("disable", "rain", "--yes", "--force", "--reason", "frost is mended tomorrow")

    assert (code, result["outcome"]) == (0, "live")
    assert "plugin frost: its gate" in refused(result)
    tags = client(settings).get_run(result["run_id"]).data.tags
    assert "- **plugin frost: its gate:** no verdict: the gate of plugin frost" in tags["mlflow.note.content"]


@sqlite
def test_a_gate_that_dies_ends_the_operation_without_another_training(
    run: Run, later: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later.write_text(GATE.format(body="os._exit(0)"))

    def train(*_: Any) -> None:
        raise AssertionError("trained in full")

    monkeypatch.setattr(routes.Trainer, "train_full", train)

    code, (result,), err = run("disable", "rain", "--yes", "--gate", "clean=100", "--reason", "to refuse")

    assert (code, result["outcome"]) == (1, "rejected")
    assert refused(result)[-1] == "plugin frost: its gate"
    (row,) = [line for line in err.splitlines() if line.startswith("refused  plugin frost: its gate")]
    assert " its gate no verdict the gate of plugin frost could not be asked " in " ".join(row.split())


@sqlite
@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("METADATA", "version 1.1 is installed, 1.0 is recorded"),
        ("__init__.py", "its files are not those of version 1.0"),
    ],
)
def test_a_gate_that_is_not_asked_is_told_in_the_run_and_the_audit(
    change: str, why: str, run: Run, later: Path, settings: Settings, open_registry: Open
) -> None:
    path = next(later.parent.glob(f"abair_frost*/{change}"))
    path.write_text(path.read_text().replace("Version: 1.0", "Version: 1.1") + "\n")

    code, (result,), err = run("disable", "rain", "--yes", "--force", "--reason", "smears")

    assert (code, result["outcome"]) == (0, "live")
    assert f"warning: plugin frost: {why}" in err
    tags = client(settings).get_run(result["run_id"]).data.tags
    assert tags["abair.gates.not_asked"] == "frost"
    assert " Not asked: frost." in tags["mlflow.note.content"].splitlines()[0]
    assert f"frost ({why}" in tags["mlflow.note.content"]
    with open_registry() as registry, registry.database.read() as session:
        (event,) = [event for event in audit.events(session, "rain") if event.action == "disable"]
    assert event.detail["gates not asked"]["frost"].startswith(why)
