"""`abair-registry db` where the schema was damaged, or made by an older ABAIR."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text
from tests.registry.conftest import Run, complaints

from abair_registry.cli import app
from abair_registry.db import audit, migrate
from abair_registry.db.engine import Database
from abair_registry.registry import SYSTEM
from abair_registry.settings import Settings
from abair_registry.storage.blobs import Blobs
from abair_registry.storage.factory import import_factory

pytestmark = pytest.mark.slow


def drop(settings: Settings) -> None:
    """Take away what keeps the audit trail from being emptied, and what keeps operations apart."""
    database = Database(settings)
    on = " ON event" if database.url.get_backend_name() == "postgresql" else ""
    with database.engine.begin() as connection:
        connection.execute(text(f"DROP TRIGGER tr_event_delete{on}"))
        connection.execute(text("DROP INDEX ix_operation_running"))
    database.close()


def actions(settings: Settings) -> list[str]:
    """Return what the audit trail holds."""
    database = Database(settings)
    with database.read() as session:
        found = [event.action for event in audit.events(session)]
    database.close()
    return found


def test_check_names_each_difference_and_upgrade_makes_it_again(
    run: Run, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("doctor")[0] == 0
    drop(settings)
    capsys.readouterr()
    assert app.run(["db", "check"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "abair-registry: trigger tr_event_delete of table event is missing: rows could be deleted; "
        "run: abair-registry db upgrade",
        "abair-registry: index ix_operation_running of table operation is missing: rows could be repeated; "
        "run: abair-registry db upgrade",
    ]
    assert app.run(["db", "upgrade"]) == 0
    said = capsys.readouterr()
    assert said.out == "the schema's revision is 0002\n"
    assert [line.partition(": made again")[0] for line in said.err.splitlines()] == [
        "abair-registry: trigger tr_event_delete of table event",
        "abair-registry: index ix_operation_running of table operation",
    ]
    assert app.run(["db", "check"]) == 0
    assert actions(settings)[-1] == "mend"


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
def test_check_writes_nothing_though_it_finds_something(run: Run, settings: Settings) -> None:
    assert run("doctor")[0] == 0
    drop(settings)
    before = {path: path.read_bytes() for path in settings.home.rglob("*.db")}
    assert app.run(["db", "check"]) == 1
    assert {path: path.read_bytes() for path in settings.home.rglob("*.db")} == before


def test_a_registry_of_revision_0001_works_after_an_upgrade(run: Run, settings: Settings, bundle: Path) -> None:
    database = Database(settings)
    migrate.upgrade(database.engine, "0001")
    with database.write() as session:
        import_factory(session, Blobs(settings.home), SYSTEM, bundle)
    database.close()
    code, _, err = run("disable", "rain", "--yes")
    assert code == 1
    assert "found schema revision 0001, expected 0002; run: abair-registry db upgrade" in complaints(err)[0]
    assert app.run(["db", "upgrade"]) == 0
    assert app.run(["db", "check"]) == 0
    assert app.run(["disable", "rain", "--yes"]) == 0
    assert app.run(["rollback"]) == 0
    assert {"disable", "rollback"} <= set(actions(settings))
