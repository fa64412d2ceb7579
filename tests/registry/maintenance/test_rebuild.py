"""`abair-registry init`: a lost catalogue is rebuilt from what serves and from the bundles of MLflow's runs."""

from __future__ import annotations

import json
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Open
from tests.registry.conftest import Run
from tests.registry.maintenance.conftest import Call, make_second
from tests.support.outcomes import aliases, live, sqlite, state

from abair.deployment import read_deployment
from abair_registry.db import audit
from abair_registry.registry import sync_live_file
from abair_registry.settings import Settings


def lose_database(home: Path) -> None:
    for file in (*home.glob("registry.db*"), *home.glob("backups/*")):
        file.unlink()


def rows(found: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in found.out.splitlines()]


def listed(call: Call) -> list[dict[str, Any]]:
    """What `list` says of recorded plugins, without what only the lost database knew."""
    return [{**row, "problem": None} for row in rows(call("list", "--json")) if row["state"] != "available"]


@sqlite
@pytest.mark.parametrize("how", ["lost", "empty", "damaged"])
def test_what_serves_is_recorded_again_with_its_number_and_its_replays(
    call: Call, home: Path, open_registry: Open, how: str
) -> None:
    with open_registry() as registry:
        make_second(registry)
        sync_live_file(registry)
    before, served = listed(call), (home / "deployment.json").read_bytes()
    lose_database(home)
    if how != "lost":
        (home / "registry.db").write_bytes(b"" if how == "empty" else b"not a database")
    assert "init --from-home" in call("list").err
    found = call("init", "--from-home", "--reason", "it was lost", "--json")
    (told,) = rows(found)
    assert (found.code, told["deployment"], told["earlier"]) == (0, 2, [])
    assert told["lost"] == ["the audit trail: who made these deployments, why, and what the gates measured"]
    assert ("the damaged database is now" in found.err) == (how == "damaged")
    assert (home / "deployment.json").read_bytes() == served
    assert listed(call) == before
    assert call("verify").out == "9 files, all as recorded\n"  # the replay as well
    (row,) = rows(call("history", "--json"))
    assert (row["deployment"], row["live"], row["reason"]) == (2, True, "rebuilt from what served")
    with open_registry() as registry, registry.database.read() as session:
        (event,) = (event for event in audit.events(session, "registry") if "rebuilt" in event.detail)
        assert (event.action, event.reason, event.detail["rebuilt"]) == ("rebuild", "it was lost", [2])
        assert event.detail["lost"] == told["lost"]
    assert "deployment 2 is the first" in call("rollback").err
    assert len(list((home / "backups").iterdir())) == 1


@sqlite
def test_lost_blobs_of_what_serves_are_put_back_first(call: Call, home: Path) -> None:
    lose_database(home)
    shutil.rmtree(home / "blobs")
    assert call("init", "--from-home").code == 0
    assert call("verify").code == 0


@sqlite
def test_nothing_is_rebuilt_over_a_registry_or_from_nothing(
    call: Call, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for command in (("init",), ("init", "--from-home")):
        found = call(*command)
        assert (found.code, len(found.err.splitlines())) == (1, 1)
        assert "abair-registry history" in found.err
    lose_database(home)
    assert "registry.db, but" in call("init").err  # what serves is not begun anew over
    (home / "deployment.json").write_text("{}")
    assert "nothing serves from which it could be rebuilt" in call("init", "--from-home").err
    (home / "deployment.json").unlink()
    assert "nothing serves from which it could be rebuilt" in call("init", "--from-home").err
    assert not (home / "registry.db").exists()
    shutil.rmtree(home)
    assert call("init").out == "deployment 1 is live: the one that comes with ABAIR\n"
    assert read_deployment(home).name == "1"
    assert call("verify").code == 0


@sqlite
def test_a_file_that_nothing_holds_stops_it_before_anything_is_written(
    call: Call, home: Path, open_registry: Open
) -> None:
    with open_registry() as registry:
        make_second(registry, b"estimator")
        sync_live_file(registry)
        registry.blobs.path(sha256(b"estimator").hexdigest()).unlink()
    lose_database(home)
    found = call("init", "--from-home")
    assert (found.code, "and nothing on this host holds it" in found.err) == (1, True)
    assert not (home / "registry.db").exists()


@pytest.mark.rare
@sqlite
@pytest.mark.exhaustive
def test_earlier_deployments_come_from_mlflow_and_operations_go_on(
    run: Run, team: Path, settings: Settings, photo: object
) -> None:
    home = settings.home
    assert run("add", "frost")[1][0]["deployment"] == 2
    assert run("disable", "rain", "--yes", "--force", "--reason", "test")[1][0]["deployment"] == 3
    assert run("enable", "rain", "--force", "--reason", "test", "--review")[1][0]["deployment"] == 4
    served = (home / "deployment.json").read_bytes()
    lose_database(home)
    code, (told,), err = run("init", "--from-home")
    assert (code, told["deployment"], told["earlier"]) == (0, 3, [2, 4]), err
    assert (home / "deployment.json").read_bytes() == served
    assert [line for line in told["lost"] if "replay" in line] == []
    assert run("verify")[0] == 0
    assert (live(run), state(run, "frost"), state(run, "rain")) == (3, "live", "disabled")
    assert run("doctor")[1][0]["problems"] == []
    assert aliases(settings) == {"champion": "3", "challenger": "4"}
    assert run("promote")[1][0]["deployment"] == 4
    assert run("rollback")[1][0]["deployment"] == 3
    assert run("rollback", "--to", "2")[1][0]["deployment"] == 2
    assert run("disable", "noise", "--yes", "--force", "--reason", "test")[1][0]["deployment"] == 5  # by its replays


@pytest.mark.rare
@sqlite
@pytest.mark.exhaustive
def test_a_lost_replay_is_made_again_by_adding_its_plugin_again(run: Run, team: Path, settings: Settings) -> None:
    blobs = settings.home / "blobs"
    run("doctor")
    before = set(blobs.glob("??/*"))
    assert run("add", "frost")[1][0]["outcome"] == "live"
    replay = max(set(blobs.glob("??/*")) - before, key=lambda path: path.stat().st_size)
    whole = replay.read_bytes()
    replay.unlink()
    code, (told,), _ = run("verify")
    assert (code, len(told["problems"])) == (1, 1)
    assert told["problems"][0].startswith(f"replay of frost: {replay} is missing")
    assert told["problems"][0].endswith("or let the plugin make it again: abair-registry add frost")
    code, (result,), err = run("add", "frost")
    assert (code, result["deployment"], replay.read_bytes() == whole) == (0, 2, True), err
    assert run("verify")[0] == 0
    assert [event["action"] for event in run("show", "frost")[1][0]["events"]][-2:] == ["mend", "add done"]
