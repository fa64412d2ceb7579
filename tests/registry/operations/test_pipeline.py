"""`add` to the end: a good plugin goes live in a tracked run, harmful and useless ones do not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import load_file, save_file
from tests.registry.conftest import FROST, Run, complaints
from tests.support.plugin_package import GOOD, Plugin, Tiny

from abair import Restorer
from abair.continual.replay import Replay
from abair.contract import WEIGHTS_FILE
from abair.deployment import read_deployment
from abair.errors import RegistryError
from abair.report import Report, Verdict
from abair_registry.db import snapshot
from abair_registry.db.snapshot import Member
from abair_registry.operations import challenger, pipeline
from abair_registry.plugins import calls
from abair_registry.registry import opened
from abair_registry.settings import Settings, Thresholds
from abair_registry.tracking import sync
from abair_registry.tracking.mlflow_client import Runs

sqlite = pytest.mark.parametrize("settings", ["sqlite"], indirect=True)


def client(settings: Settings) -> MlflowClient:
    uri = f"sqlite:///{settings.home / 'mlflow.db'}"
    return MlflowClient(uri, uri)


def aliases(settings: Settings) -> dict[str, str]:
    """Alias to the number of the deployment that it names."""
    found = client(settings)
    versions = {v.version: v.tags["abair.deployment"] for v in found.search_model_versions("name='abair'")}
    return {alias: versions[number] for alias, number in found.get_registered_model("abair").aliases.items()}


def state(run: Run, name: str) -> str:
    return next(row["state"] for row in run("list")[1] if row["name"] == name)


def live(run: Run) -> int:
    return next(row["deployment"] for row in run("history")[1] if row["live"])


def refused(told: dict[str, Any]) -> list[str]:
    return [gate["name"] for gate in told["gates"] if not gate["passed"]]


def zeroed(folder: Path) -> None:
    path = folder / "adapters" / "tiny" / WEIGHTS_FILE
    save_file({name: torch.zeros_like(tensor) for name, tensor in load_file(path).items()}, path)


@pytest.mark.figures
def test_a_good_plugin_goes_live_and_everything_that_follows_agrees(
    run: Run, team: Path, settings: Settings, photo: np.ndarray
) -> None:
    before = {row["name"]: row["adapters"] for row in run("list")[1]}
    code, (told,), err = run("add", "frost", "--actor", "ada", "--reason", "asked for")
    assert code == 0, err
    assert set(told) == {"operation", "outcome", "deployment", "run_id", "route", "gates", "seconds"}
    assert (told["outcome"], told["deployment"], told["route"], refused(told)) == ("live", 2, "features", [])
    assert all(set(gate) == {"name", "passed", "measured", "threshold"} for gate in told["gates"])
    assert state(run, "frost") == "live"
    # only the estimator is new
    after = {row["name"]: row["adapters"] for row in run("list")[1]}
    assert {name: after[name] for name in before if name != "frost"} == {
        name: adapters for name, adapters in before.items() if name != "frost"
    }
    served = read_deployment(settings.home)
    assert served.labels == ("noise", "rain", "low-light", "frost", "clean")

    # the run says it all
    found = client(settings).get_run(told["run_id"])
    assert (found.info.status, found.data.tags["abair.outcome"]) == ("FINISHED", "live")
    assert found.info.run_name == "add frost: live"
    assert found.data.tags["abair.actor"] == "ada"
    assert found.data.tags["mlflow.note.content"].startswith("## Deployment 2 is live. 15 of 15 gates passed.")
    assert found.data.params["labels"] == "noise, rain, low-light, frost, clean"
    assert len(found.data.params["SHA-256 of photos"]) == 64
    for way in ("input", "backbone", "OH", "SW", "Oracle"):
        assert {f"psnr/frost/{way}", f"ssim/frost/{way}"} <= found.data.metrics.keys()
    assert {"psnr/noise/champion", "psnr/noise_and_rain/SW", "psnr/clean/SW"} <= found.data.metrics.keys()
    assert len(client(settings).get_metric_history(told["run_id"], "train/loss")) >= 4
    figures = [file.path for file in client(settings).list_artifacts(told["run_id"], "figures")]
    assert len(figures) == 4

    # the version is the bundle, on any host
    assert aliases(settings) == {"champion": "2"}
    fetched = Restorer.load("models:/abair@champion")
    assert np.array_equal(fetched(photo).image, Restorer.load(settings.home)(photo).image)
    files = {path.suffix for path in fetched.deployment.folder.rglob("*") if path.is_file()}
    assert files == {".json", ".safetensors"}

    # disable, enable, rollback, promote: the pointer, the file, the aliases and the states go together; what the gates
    # say of a network that was never trained is not asked here
    forced = ("--force", "--reason", "where the others go")
    for command, number, label_is_there in (
        (("disable", "rain", "--yes", *forced), 3, False),
        (("enable", "rain", *forced), 4, True),
        (("rollback",), 3, False),
        (("rollback",), 2, True),
        (("promote", "4"), 4, True),
        (("rollback", "--to", "1"), 1, True),
    ):
        code, (told,), err = run(*command)
        assert (code, told["deployment"], told["outcome"]) == (0, number, "live"), err
        assert live(run) == number
        assert read_deployment(settings.home).name == str(number)
        assert aliases(settings)["champion"] == str(number)
        assert ("rain" in read_deployment(settings.home).labels) == label_is_there
        assert (state(run, "rain") == "live") == label_is_there
    assert state(run, "frost") == "disabled"
    code, (told,), _ = run("doctor")
    assert (code, told["mended"], told["problems"]) == (0, [], [])
    assert run("rollback")[2].startswith("abair-registry: rollback: deployment 1 is the first; expected")


@sqlite
def test_a_useless_plugin_is_refused_and_forced_only_with_a_reason(
    run: Run, site: Path, trained: Tiny, settings: Settings
) -> None:
    Plugin(synthesis=FROST, change=zeroed).make(site, trained)
    code, (told,), err = run("add", "frost")
    assert (code, told["outcome"], told["deployment"], told["route"]) == (1, "rejected", 1, "features")
    assert refused(told) == ["frost: gain of the adapter"]
    assert "refused by frost: gain of the adapter" in err
    assert (state(run, "frost"), live(run)) == ("rejected", 1)
    assert aliases(settings) == {"champion": "1"}
    page = client(settings).get_run(told["run_id"])
    assert page.data.tags["mlflow.note.content"].startswith("## Refused. Deployment 1 stays live. 14 of 15")
    assert (page.info.status, page.data.tags["abair.route.why"]) == (
        "FINISHED", "first choice; fitted with chains; not in full, because no estimator mends an adapter",
    )  # fmt: skip

    code, _, err = run("add", "frost", "--force")
    assert (code, "needs a --reason" in err) == (2, True)
    code, (told,), _ = run("add", "frost", "--force", "--reason", "the board wants it")
    assert (code, told["outcome"], refused(told)) == (0, "live", ["frost: gain of the adapter"])
    assert client(settings).get_run(told["run_id"]).data.tags["abair.forced"] == "true"
    (story,) = run("show", "frost")[1]
    assert ("add, forced", "the board wants it") in [(event["action"], event["reason"]) for event in story["events"]]


@sqlite
def test_a_plugin_that_would_ruin_what_is_live_is_refused(
    run: Run, site: Path, bundle: Path, spare_adapter: Path, settings: Settings
) -> None:
    """Its samples look like another label's, and its adapter is made of random numbers."""
    config = json.loads((spare_adapter / "adapter_config.json").read_text())
    ruin = Tiny(bundle / "backbone.safetensors", config, spare_adapter / WEIGHTS_FILE)
    grain = FROST.split("veil =")[0] + (
        "much = 0.1 + 0.1 * torch.rand((), generator=generator)\n"
        "    return (clean + much * torch.randn(clean.shape, generator=generator)).clamp(0, 1)\n"
    )
    Plugin(synthesis=grain).make(site, ruin)
    code, (told,), _ = run("add", "frost")
    assert (code, told["outcome"], live(run)) == (1, "rejected", 1)
    assert "frost: gain of the adapter" in refused(told)


@sqlite
def test_a_plugins_own_gate_is_asked_and_one_that_raises_refuses(
    run: Run, site: Path, trained: Tiny, settings: Settings
) -> None:
    gate = (
        "{GOOD}\nfrom abair import Verdict\n@hookimpl\ndef abair_gates(report):\n"
        "    assert report.group('frost').recall > 0.5\n    {body}\n"
        "@hookimpl\ndef abair_deployed(deployment):\n    raise RuntimeError('no mail')\n"
    )
    folder = Plugin(module=gate.format(GOOD=GOOD, body="return 1 / 0"), synthesis=FROST).make(site, trained)
    code, (told,), _ = run("add", "frost", "--route", "features")
    assert (code, refused(told)) == (1, ["plugin frost: its gate"])
    page = client(settings).get_run(told["run_id"]).data.tags["mlflow.note.content"]
    assert "the gate of plugin frost could not be asked (ZeroDivisionError: division by zero)" in page
    assert folder.is_dir()


@sqlite
def test_a_challenger_waits_for_review_and_is_promoted_only_against_its_champion(
    run: Run, team: Path, settings: Settings
) -> None:
    assert "found no challenger" in run("promote")[2]
    code, (told,), _ = run("add", "frost", "--review")
    assert (code, told["outcome"], told["deployment"], live(run)) == (0, "challenger", 2, 1)
    assert (state(run, "frost"), aliases(settings)) == ("candidate", {"champion": "1", "challenger": "2"})
    assert run("disable", "rain", "--yes")[0] == 0
    assert aliases(settings) == {"champion": "3"}  # nothing was compared with this one
    assert "was judged against deployment 1, but 3 is live now" in run("promote", "2")[2]
    assert run("rollback")[1][0]["deployment"] == 1
    assert aliases(settings) == {"champion": "1", "challenger": "2"}
    code, (told,), _ = run("promote")
    assert (code, told["deployment"], state(run, "frost"), aliases(settings)) == (0, 2, "live", {"champion": "2"})


@sqlite
@pytest.mark.parametrize(
    ("raised", "status", "ended"),
    [(KeyboardInterrupt(), "KILLED", "undone"), (MemoryError("no room"), "FAILED", "failed")],
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
    monkeypatch.setattr(pipeline, "make_replay", stop)  # what was made already is used
    code, (told,), err = run("resume")
    assert (code, told["outcome"]) == (0, "live"), err
    (story,) = run("show", "frost")[1]
    assert [event["action"] for event in story["events"]] == [
        "record", f"add {ended}", "record", "propose", "add", "add done",
    ]  # fmt: skip
    assert run("resume")[1] == [{"operation": None, "outcome": "nothing to resume"}]


@sqlite
def test_a_tracking_server_that_dies_in_the_middle_stops_the_operation_and_not_the_serving(
    run: Run, team: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("list")

    def gone(*_: object, **__: object) -> None:
        raise RegistryError("MLflow at http://x: connection refused; expected a store that can be reached")

    with monkeypatch.context() as patched:
        for name in ("metrics", "end"):
            patched.setattr(Runs, name, gone)
        code, _, err = run("add", "frost")
    assert (code, len(complaints(err)), "MLflow at http://x" in err, live(run)) == (1, 1, True, 1)
    experiment = client(settings).get_experiment_by_name("abair").experiment_id
    (left,) = client(settings).search_runs([experiment])
    assert left.info.status == "RUNNING"
    code, (told,), _ = run("doctor")
    assert any("ended as FAILED" in line for line in told["mended"])
    assert client(settings).get_run(left.info.run_id).info.status == "FAILED"
    # where it is only the mirror that fails, the pointer moves all the same
    assert run("resume")[1][0]["outcome"] == "live"
    with monkeypatch.context() as patched:
        patched.setattr(Runs, "versions", gone)
        code, (told,), err = run("rollback")
    assert (code, told["deployment"], live(run)) == (0, 1, 1)
    assert "what is live is live; later run: abair-registry doctor" in err
    assert aliases(settings)["champion"] == "2"
    assert any("champion is version" in line for line in run("doctor")[1][0]["mended"])
    assert aliases(settings)["champion"] == "1"


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
    code, (told,), err = run("doctor")
    assert (code, aliases(settings)) == (0, {"champion": "1"}), err
    assert f"run {begun} ended as KILLED" in told["mended"]
    assert Runs(settings).running() == []


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
    assert ("what is live is live" in err) == (raised == "server")
    assert (live(run), read_deployment(settings.home).name, state(run, "rain")) == (2, "2", "disabled")
    assert run("resume")[1] == [{"operation": None, "outcome": "nothing to resume"}]
    assert run("doctor")[1][0]["problems"] == []
    assert aliases(settings) == {"champion": "2"}
    # and what the run could not be told then, it says now
    (found,) = (r for r in client(settings).search_runs(["1"]) if r.data.tags["abair.kind"] == "disable")
    assert (found.info.status, found.data.tags["abair.outcome"]) == ("FINISHED", "live")
    headline, *text = found.data.tags["mlflow.note.content"].splitlines()
    assert headline.startswith("## Deployment 2 is live.")
    assert "| damage | n |" in "\n".join(text)


@sqlite
def test_the_same_seeds_make_the_same_bundle(
    run: Run, team: Path, settings: Settings, empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = []
    for home in ("one", "two"):
        (tmp_path / home).mkdir()
        shutil.copyfile(empty_store, tmp_path / home / "mlflow.db")
        monkeypatch.setenv("ABAIR_HOME", str(tmp_path / home))
        assert run("add", "frost", "--seed", "3")[0] == 0
        marks.append(sync.bundle_digest(read_deployment(tmp_path / home)))
    assert marks[0] == marks[1]


@sqlite
def test_retrain_trains_the_whole_estimator_anew_and_nothing_else(
    run: Run, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ABAIR_SAMPLES", "100")
    monkeypatch.setattr(challenger, "FULL_STEPS", 48)
    run("list")
    before = read_deployment(settings.home if (settings.home / "deployment.json").is_file() else None)
    code, (told,), err = run("retrain", "--force", "--reason", "the estimator alone is new")
    assert (code, told["outcome"], told["route"], told["deployment"]) == (0, "live", "full", 2), err
    after = read_deployment(settings.home)
    assert after.labels == ("noise", "rain", "low-light", "clean")
    assert after.estimator.sha256 != before.estimator.sha256
    assert len(client(settings).get_metric_history(told["run_id"], "train/loss")) == 12
    tags = client(settings).get_run(told["run_id"]).data.tags
    assert (tags["abair.route"], tags["abair.route.why"]) == ("full", "asked for")
    assert run("rollback")[1][0]["deployment"] == 1
    (first,) = (row for row in run("history")[1] if row["deployment"] == 1)
    assert first["live"]


@sqlite
@pytest.mark.parametrize("broken", [False, True])
def test_a_new_label_learns_how_it_blends_with_those_whose_plugins_are_there_and_work(
    broken: bool, run: Run, team: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = calls.verify_plugins

    def without_rain(parts: Iterable[Member]) -> calls.VerifiedPlugins:
        there = real(part for part in parts if part.plugin != "rain" or broken)
        points = [
            point.model_copy(update={"module": "nowhere.at_all"}) if point.name == "rain" else point
            for point in there.refs
        ]
        return calls.VerifiedPlugins(tuple(points), {})

    monkeypatch.setattr(calls, "trusted", without_rain)
    code, (told,), err = run("add", "frost")
    assert (code, told["outcome"]) == (0, "live"), err
    with opened(settings) as catalogue, catalogue.database.read() as session:
        part = snapshot.live_snapshot(session).members[-1]
        chains = Replay.load(catalogue.blobs.path(str(part.replay))).mixtures
    assert part.label == "frost"
    assert chains is not None
    assert chains.features.labels == ("noise", "low-light", "frost", "clean")
    assert len(chains.stakes) == challenger.CHAINED
    assert client(settings).get_run(told["run_id"]).data.tags["abair.route.why"] == "first choice; fitted with chains"


@sqlite
def test_where_chains_are_refused_the_label_is_learnt_without_them(
    run: Run, team: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = pipeline.judge, []

    def hard_at_first(report: Report, thresholds: Thresholds) -> list[Verdict]:
        calls.append(report)
        verdicts = real(report, thresholds)
        first = verdicts[0].model_copy(update={"name": "patience", "passed": False})
        return [first, *verdicts] if len(calls) == 1 else verdicts

    monkeypatch.setattr(pipeline, "judge", hard_at_first)
    code, (told,), err = run("add", "frost", "--gate", "mixed_loss=30")
    assert (code, told["outcome"], len(calls)) == (0, "live", 2), err
    tags = client(settings).get_run(told["run_id"]).data.tags
    assert tags["abair.route.why"] == "first choice; fitted with chains: refused by patience; fitted alone"
    (file,) = client(settings).list_artifacts(told["run_id"], "refused")
    assert file.path == "refused/features, with chains.md"


@sqlite
def test_wrong_wishes_are_told_before_anything_is_done(run: Run, team: Path) -> None:
    assert run("add", "frost", "--gate", "lose=1")[0] == 2
    code, _, err = run("add", "frost", "--gate", "loss=much")
    assert (code, "loss" in err, len(err.splitlines())) == (2, True, 1)
    code, _, err = run("promote", "7")
    assert (code, "deployment 7: there is none; expected 1 to 1" in err) == (1, True)
