"""What the tables keep, and what they refuse to keep."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import event, func, select, text
from sqlalchemy.exc import DatabaseError, StatementError
from sqlalchemy.orm import Session

from abair.errors import RegistryError
from abair_registry.db import audit, models, queries
from abair_registry.db.audit import Actor
from abair_registry.db.models import (
    APPEND_ONLY,
    Base,
    DeploymentRow,
    EstimatorRow,
    EventRow,
    LiveRow,
    MemberRow,
    OperationRow,
    PluginRow,
    now,
)
from abair_registry.db.queries import NewAdapter, NewRelease
from abair_registry.maintenance import status
from abair_registry.registry import Registry

ME = Actor("me", "because")


def release(session: Session, name: str = "snow", version: str = "1.0", **changes: Any) -> NewRelease:
    live = queries.live(session)
    assert live is not None
    adapter = NewAdapter(
        degradation=name, title=name, backbone_id=live.backbone_id, rank=4, parameters=10,
        config_sha256="a" * 64, weights_sha256="b" * 64,
    )  # fmt: skip
    values: dict[str, Any] = {
        "name": name, "distribution": f"abair-{name}", "version": version, "module": name, "adapters": [adapter],
        "files": {"a.py": "c" * 64},
    }  # fmt: skip
    return NewRelease(**(values | changes))


def test_a_new_registry_starts_with_the_factory_deployment(registry: Registry) -> None:
    with registry.database.read() as session:
        live = queries.live(session)
        assert live is not None
        assert (live.number, live.labels) == (1, ["noise", "rain", "low-light", "clean"])
        assert [member.label for member in live.members] == ["noise", "rain", "low-light"]
        assert {found.name: found.state for found in queries.plugins(session)} == {
            "low-light": "live", "noise": "live", "rain": "live",
        }  # fmt: skip
        assert all(a.rank == 4 and a.parameters > 100 for a in (m.adapter for m in live.members))


def test_a_moment_keeps_its_zone(registry: Registry) -> None:
    with registry.database.read() as session:
        created = session.scalars(select(DeploymentRow.created)).one()
    assert created.tzinfo is not None
    assert abs((now() - created).total_seconds()) < 600


def test_a_moment_without_a_zone_is_refused(registry: Registry) -> None:
    wrong = EstimatorRow(sha256="e" * 64, labels=[], created=datetime(2026, 1, 1))
    with pytest.raises(StatementError, match="without a time zone"), registry.database.write() as session:
        session.add(wrong)


def test_a_recorded_release_is_a_candidate_with_an_event(registry: Registry) -> None:
    with registry.database.write() as session:
        queries.record_release(session, release(session), ME)
    with registry.database.read() as session:
        found = queries.plugin(session, "snow")
        assert found is not None
        assert (found.state, [r.version for r in found.releases]) == ("candidate", ["1.0"])
        told = audit.events(session, "snow")
        assert [(e.actor, e.action, e.reason) for e in told] == [("me", "record", "because")]


def test_recording_the_same_release_again_adds_none(registry: Registry) -> None:
    for _ in range(2):
        with registry.database.write() as session:
            queries.record_release(session, release(session), ME)
    with registry.database.read() as session:
        found = queries.plugin(session, "snow")
        assert found is not None
        assert len(found.releases) == 1


@pytest.mark.slow
def test_a_list_asks_as_many_questions_for_sixty_plugins_as_for_three(registry: Registry) -> None:
    asked: list[str] = []
    event.listen(registry.database.engine, "before_cursor_execute", lambda *given: asked.append(given[2]))

    def statements() -> int:
        asked.clear()
        assert status.plugin_statuses(registry)
        return len(asked)

    few = statements()
    with registry.database.write() as session:
        for index in range(60):
            queries.record_release(session, release(session, f"snow-{index}"), ME)
            for _ in range(5):
                audit.record_event(session, ME, "look", f"snow-{index}")
    assert len(status.plugin_statuses(registry)) >= 63
    assert statements() == few
    assert few <= 15
    assert not any("FROM event" in statement for statement in asked)


def test_a_version_with_other_files_is_refused_and_nothing_is_stored(registry: Registry) -> None:
    with registry.database.write() as session:
        queries.record_release(session, release(session), ME)
    with (
        pytest.raises(RegistryError, match=r"snow: version 1\.0 was recorded with other files; .*raise the version"),
        registry.database.write() as session,
    ):
        queries.record_release(session, release(session, files={"a.py": "d" * 64}), ME)
    with registry.database.read() as session:
        assert len(audit.events(session, "snow")) == 1


def test_a_name_that_belongs_to_another_distribution_is_refused(registry: Registry) -> None:
    with (
        pytest.raises(RegistryError, match="found distribution evil, but the name belongs to abair-noise"),
        registry.database.write() as session,
    ):
        queries.record_release(session, release(session, "noise", distribution="evil"), ME)


def test_a_newer_release_of_a_live_plugin_leaves_it_live(registry: Registry) -> None:
    with registry.database.write() as session:
        queries.record_release(session, release(session, "noise", "9.0"), ME)
    with registry.database.read() as session:
        found = queries.plugin(session, "noise")
        assert found is not None
        assert (found.state, len(found.releases)) == ("live", 2)


def test_a_deployment_whose_labels_are_not_the_estimators_is_refused(registry: Registry) -> None:
    with registry.database.write() as session:
        live = queries.live(session)
        assert live is not None
        adapters = [member.adapter for member in live.members]
        with pytest.raises(RegistryError, match="expected equal labels and one backbone"):
            queries.propose(session, adapters[::-1], live.estimator, ME, action="propose", subject="x")
    with registry.database.read() as session:
        assert session.scalar(select(func.count(DeploymentRow.number))) == 1


def test_pointing_back_changes_the_plugins_states(registry: Registry) -> None:
    with registry.database.write() as session:
        live = queries.live(session)
        assert live is not None
        two = queries.ensure_estimator(session, "2" * 64, ["noise", "rain", "clean"])
        adapters = [member.adapter for member in live.members[:2]]
        made = queries.propose(session, adapters, two, ME, action="propose", subject="low-light")
        assert (made.number, queries.was_live(session, 2)) == (2, False)
        queries.publish(session, made, ME, action="disable", subject="low-light")
        assert (queries.was_live(session, 2), queries.predecessor(session, 2), queries.predecessor(session, 1)) == (
            True,
            1,
            None,
        )
    with registry.database.read() as session:
        assert {p.name: p.state for p in queries.plugins(session)}["low-light"] == "disabled"
    with registry.database.write() as session:
        first = session.get(DeploymentRow, 1)
        assert first is not None
        queries.publish(session, first, ME, action="rollback", subject="deployment 1")
        assert (
            queries.predecessor(session, 1) is None
        )  # where a deployment came from stays, wherever it is brought back from
    with registry.database.read() as session:
        assert {p.name: p.state for p in queries.plugins(session)}["low-light"] == "live"
        assert [(d.number, is_live) for d, is_live in queries.history(session)] == [(2, False), (1, True)]


def wrong_rows() -> dict[str, Any]:
    """Rows that no registry may hold, each made for the session of a new registry."""
    moment = now()

    def operation(**changes: Any) -> OperationRow:
        values: dict[str, Any] = {
            "kind": "add", "subject": "x", "state": "running", "actor": "me", "host": "h", "process": 1,
            "started": moment, "heartbeat": moment,
        }  # fmt: skip
        return OperationRow(**(values | changes))

    def plugin(**changes: Any) -> PluginRow:
        values: dict[str, Any] = {"name": "x", "distribution": "x", "state": "live", "created": moment}
        return PluginRow(**(values | changes))

    def adapter(**changes: Any) -> models.AdapterRow:
        values: dict[str, Any] = {
            "release_id": 1, "backbone_id": 1, "degradation": "x", "title": "x", "rank": 4, "parameters": 4,
            "config_sha256": "a" * 64, "weights_sha256": "b" * 64,
        }  # fmt: skip
        return models.AdapterRow(**(values | changes))

    return {
        "a second live row": [LiveRow(id=2, deployment_number=1, since=moment)],
        "live, pointing nowhere": [LiveRow(id=1, deployment_number=99, since=moment)],
        "a plugin's name twice": [plugin(name="noise")],
        "a plugin without a name": [plugin(name="")],
        "a plugin in an unknown state": [plugin(state="perhaps")],
        "a version twice": [
            models.ReleaseRow(plugin_id=1, version="0.1.0", module="m", files={}, declared={}, created=moment)
        ],
        "a release of no plugin": [
            models.ReleaseRow(plugin_id=99, version="1", module="m", files={}, declared={}, created=moment)
        ],
        "an adapter of rank 0": [adapter(rank=0)],
        "an adapter for clean": [adapter(degradation="clean")],
        "an adapter with half a hash": [adapter(weights_sha256="b" * 32)],
        "an adapter twice": [adapter(degradation="y"), adapter(degradation="y")],
        "an adapter of no release": [adapter(release_id=99)],
        "an estimator twice": [EstimatorRow(sha256="e" * 64, labels=[], created=moment) for _ in range(2)],
        "a backbone's fingerprint twice": [
            models.BackboneRow(size="x", fingerprint="f" * 64, sha256=sha * 64, created=moment) for sha in "ab"
        ],
        "a deployment 0": [
            DeploymentRow(number=0, backbone_id=1, estimator_id=1, created=moment, actor="a", reason="")
        ],
        "a deployment twice": [
            DeploymentRow(number=1, backbone_id=1, estimator_id=1, created=moment, actor="a", reason="")
        ],
        "a member at a place that is taken": [MemberRow(deployment_number=1, position=0, adapter_id=2, label="z")],
        "a member's label twice": [MemberRow(deployment_number=1, position=7, adapter_id=1, label="noise")],
        "a member called clean": [MemberRow(deployment_number=1, position=7, adapter_id=1, label="clean")],
        "two running operations": [operation(), operation()],
        "a running operation that is finished": [operation(finished=moment)],
        "a finished operation without an end": [operation(state="done")],
        "an operation of an unknown kind": [operation(kind="dance")],
        "an event of nobody": [EventRow(at=moment, actor="", action="x", subject="x", reason="", detail={})],
        "an event about no deployment": [
            EventRow(at=moment, actor="a", action="x", subject="x", reason="", detail={}, deployment_number=99)
        ],
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", wrong_rows())
def test_a_wrong_state_cannot_be_stored(registry: Registry, name: str) -> None:
    with pytest.raises(DatabaseError), registry.database.write() as session:
        session.add_all(wrong_rows()[name])


def test_there_are_25_wrong_states() -> None:
    assert len(wrong_rows()) == 25


@pytest.mark.slow
@pytest.mark.parametrize("table", APPEND_ONLY)
@pytest.mark.parametrize("statement", ["UPDATE {table} SET {column} = {column}", "DELETE FROM {table}"])
def test_what_was_told_once_is_never_changed(registry: Registry, table: str, statement: str) -> None:
    column = Base.metadata.tables[table].primary_key.columns.values()[0].name
    with pytest.raises(DatabaseError, match=f"{table} is append-only"), registry.database.write() as session:
        session.execute(text(statement.format(table=table, column=column)))


def test_finished_operations_do_not_keep_others_from_running(registry: Registry) -> None:
    moment = now()
    with registry.database.write() as session:
        for state, finished in (("done", moment), ("failed", moment), ("running", None)):
            session.add(
                OperationRow(
                    kind="add",
                    subject="x",
                    state=state,
                    actor="me",
                    host="h",
                    process=1,
                    started=moment,
                    heartbeat=moment,
                    finished=finished,
                )
            )


def test_a_database_that_may_only_be_read_is_one_line(registry: Registry) -> None:
    dialect = registry.database.engine.dialect.name

    def write() -> None:
        with registry.database.write() as session:
            session.execute(text("PRAGMA query_only=ON" if dialect == "sqlite" else "SET TRANSACTION READ ONLY"))
            audit.record_event(session, ME, "look", "snow")

    with pytest.raises(RegistryError, match=r"cannot be used \(.*read.?only.*\); expected a database that can be"):
        write()
