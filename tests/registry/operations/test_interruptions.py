"""What stops an operation, or MLflow, at any step takes nothing back, and can be resumed."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import Open
from tests.registry.conftest import Run, complaints
from tests.support.outcomes import aliases, client, live, sqlite, state

from abair.deployment import read_deployment
from abair.errors import RegistryError
from abair_registry.operations import challenger, replays
from abair_registry.settings import Settings
from abair_registry.tracking import sync
from abair_registry.tracking.mlflow_client import Runs
from abair_registry.tracking.model_versions import Alias

pytestmark = pytest.mark.slow


@sqlite
@pytest.mark.parametrize(
    ("raised", "status", "ended"),
    [
        (KeyboardInterrupt(), "KILLED", "undone"),
        pytest.param(MemoryError("no room"), "FAILED", "failed", marks=pytest.mark.exhaustive),
    ],
)
def test_what_stops_in_the_training_leaves_what_served_and_is_resumed(
    raised: BaseException, status: str, ended: str, run: Run, team: Path, settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def stop(*_: object, **__: object) -> None:
        raise raised

    run("list")
    with monkeypatch.context() as patched:
        patched.setattr(challenger, "refit", stop)
        code, told, err = run("add", "frost", "--reason", "why not")
    assert (code, told, len(complaints(err))) == (130 if status == "KILLED" else 1, [], 1)
    assert "train the estimator (features)" in err
    (left,) = client(settings).search_runs([client(settings).get_experiment_by_name("abair").experiment_id])
    assert left.info.status == status
    assert (live(run), state(run, "frost")) == (1, "candidate")
    monkeypatch.setattr(replays, "make_replay", stop)  # what was made already is used
    code, (result,), err = run("resume")
    assert (code, result["outcome"]) == (0, "live"), err
    (story,) = run("show", "frost")[1]
    assert [event["action"] for event in story["events"]] == [
        "record", f"add {ended}", "record", "propose", "add", "add done",
    ]  # fmt: skip
    assert run("resume")[1] == [{"operation": None, "outcome": "nothing to resume"}]


@pytest.mark.exhaustive
@sqlite
def test_a_stop_while_a_first_deployment_is_told_leaves_no_run_running(
    run: Run, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Runs, "register", stop)
        assert run("doctor")[0] == 130
    ((begun, _),) = Runs(settings).running()
    code, (result,), err = run("doctor")
    assert (code, aliases(settings)) == (0, {"champion": "1"}), err
    assert f"run {begun} ended as KILLED" in result["mended"]
    assert Runs(settings).running() == []


class Overtaken(Runs):
    """A client that asks for an alias just when somebody else rolls back."""

    run: Run | None = None

    def version(self, alias: Alias) -> str | None:
        run, self.run = self.run, None
        if run is not None:
            assert run("rollback")[1][0]["deployment"] == 1
        return super().version(alias)


@sqlite
def test_what_another_process_makes_live_meanwhile_is_not_taken_back_in_mlflow(
    run: Run, settings: Settings, open_registry: Open
) -> None:
    assert run("doctor")[0] == 0
    assert run("disable", "rain", "--yes", "--force", "--reason", "a test")[1][0]["deployment"] == 2
    runs = Overtaken(settings)
    runs.run = run
    with open_registry() as registry:
        sync.reconcile(registry, runs)
    assert (live(run), aliases(settings)) == (1, {"champion": "1"})


@sqlite
@pytest.mark.parametrize("raised", ["server", "Ctrl-C"])
def test_what_goes_wrong_after_the_commit_takes_nothing_back(
    raised: str, run: Run, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = RegistryError("MLflow at http://x: gone") if raised == "server" else KeyboardInterrupt()

    def stop(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(Runs, "conclude", stop)
        code, told, err = run("disable", "rain", "--yes")
    assert code == (0 if raised == "server" else 130)
    assert [line["deployment"] for line in told] == ([2] if raised == "server" else [])
    assert ("the next command that reaches MLflow mirrors its run" in err) == (raised == "server")
    assert (live(run), state(run, "rain")) == (2, "disabled")
    assert run("resume")[1] == [{"operation": None, "outcome": "nothing to resume"}]
    assert run("doctor")[1][0]["problems"] == []
    assert read_deployment(settings.home).name == "2"
    assert aliases(settings) == {"champion": "2"}
    # and what the run could not be told then, it says now
    (found,) = (r for r in client(settings).search_runs(["1"]) if r.data.tags["abair.kind"] == "disable")
    assert (found.info.status, found.data.tags["abair.outcome"]) == ("FINISHED", "live")
    headline, *text = found.data.tags["mlflow.note.content"].splitlines()
    assert headline.startswith("## Deployment 2 is live.")
    assert "of 3 kinds that were live" in " ".join(text)
