"""Which estimator becomes the challenger: by features, with and without mixtures, or in full."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from importlib.metadata import Distribution
from pathlib import Path

import pytest
from tests.registry.conftest import FROST, Run
from tests.support.outcomes import client, refused, sqlite
from tests.support.plugin_package import GOOD, Plugin, Tiny

import abair.discovery
from abair.continual.replay import Replay
from abair.deployment import read_deployment
from abair.report import Report
from abair_registry.db import snapshot
from abair_registry.db.snapshot import Member
from abair_registry.operations import routes
from abair_registry.operations.gates import GateResult
from abair_registry.plugins import calls
from abair_registry.registry import open_registry
from abair_registry.settings import Settings, Thresholds

pytestmark = pytest.mark.slow


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
    code, (result,), _ = run("add", "frost", "--route", "features")
    assert (code, refused(result)) == (1, ["plugin frost: its gate"])
    page = client(settings).get_run(result["run_id"]).data.tags["mlflow.note.content"]
    assert "the gate of plugin frost could not be asked (ZeroDivisionError: division by zero)" in page
    assert folder.is_dir()


@sqlite
def test_a_plugins_verdict_that_is_called_like_a_gate_of_the_registry_is_the_plugins(
    run: Run, site: Path, trained: Tiny, settings: Settings
) -> None:
    """The registry's own gate of this name says that no estimator can help; a plugin's says nothing of the kind."""
    gate = (
        f"{GOOD}\nfrom abair import Verdict\n@hookimpl\ndef abair_gates(report):\n"
        "    name = 'frost: gain of the adapter'\n"
        "    return [Verdict(name=name, passed=False, measured=0, threshold=1)]\n"
    )
    Plugin(module=gate, synthesis=FROST).make(site, trained)
    code, (result,), _ = run("add", "frost", "--gate", "mixed_loss=30", "--reason", "a tiny network")
    name = "plugin frost: frost: gain of the adapter"
    assert (code, result["outcome"], refused(result)) == (1, "rejected", [name])
    tags = client(settings).get_run(result["run_id"]).data.tags
    why = tags["abair.route.why"]
    assert f"fitted alone: refused by {name}" in why  # another fit was tried
    assert why.endswith("in full would not help, because a plugin's own gate refused")


@sqlite
def test_the_installed_metadata_is_scanned_once_to_find_a_plugin_and_once_to_verify_all(
    run: Run, team: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans = []
    real = abair.discovery.installed_distributions

    def counted() -> Iterator[tuple[str, Distribution]]:
        scans.append(1)
        return real()

    run("list")
    monkeypatch.setattr(abair.discovery, "installed_distributions", counted)
    code, (result,), err = run("add", "frost")
    assert (code, result["outcome"]) == (0, "live"), err
    assert len(scans) == 2


@sqlite
def test_retrain_trains_the_whole_estimator_anew_and_nothing_else(
    run: Run, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("list")
    before = read_deployment(settings.home if (settings.home / "deployment.json").is_file() else None)
    code, (result,), err = run("retrain", "--force", "--reason", "the estimator alone is new")
    assert (code, result["outcome"], result["route"], result["deployment"]) == (0, "live", "full", 2), err
    after = read_deployment(settings.home)
    assert after.labels == ("noise", "rain", "low-light", "clean")
    assert after.estimator.sha256 != before.estimator.sha256
    assert len(client(settings).get_metric_history(result["run_id"], "train/loss")) == 12
    tags = client(settings).get_run(result["run_id"]).data.tags
    assert (tags["abair.route"], tags["abair.route.why"]) == ("full", "asked for")
    assert run("rollback")[1][0]["deployment"] == 1
    (first,) = (row for row in run("history")[1] if row["deployment"] == 1)
    assert first["live"]


@sqlite
def test_retrain_without_all_plugins_advises_what_it_has(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real = calls.verify_plugins

    def of_another_version(parts: Iterable[Member], files: Mapping[str, Mapping[str, str]]) -> calls.VerifiedPlugins:
        return replace(real(parts, files), left_out={"rain": "version 2.0 is installed, 1.0 is recorded"})

    monkeypatch.setattr(calls, "verify_plugins", of_another_version)
    code, _, err = run("retrain")
    why = "plugin rain: version 2.0 is installed, 1.0 is recorded; install what is recorded"
    assert (code, err.splitlines()[-1]) == (1, f"abair-registry: the full route: {why}")


@pytest.mark.rare
@pytest.mark.exhaustive
@sqlite
@pytest.mark.parametrize("broken", [False, True])
def test_a_new_label_learns_how_it_blends_with_those_whose_plugins_are_there_and_work(
    broken: bool, run: Run, team: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = calls.verify_plugins

    def without_rain(parts: Iterable[Member], files: Mapping[str, Mapping[str, str]]) -> calls.VerifiedPlugins:
        there = real((part for part in parts if part.plugin != "rain" or broken), files)
        points = [
            point.model_copy(update={"module": "nowhere.at_all"}) if point.name == "rain" else point
            for point in there.refs
        ]
        return calls.VerifiedPlugins(tuple(points), {})

    monkeypatch.setattr(calls, "verify_plugins", without_rain)
    code, (result,), err = run("add", "frost", "--gate", "mixed_loss=30", "--reason", "a tiny network")
    assert (code, result["outcome"]) == (0, "live"), err
    with open_registry(settings) as registry, registry.database.read() as session:
        part = snapshot.live_snapshot(session).members[-1]
        chains = Replay.load(registry.blobs.path(str(part.replay))).mixtures
    assert part.label == "frost"
    assert chains is not None
    assert chains.features.labels == ("noise", "low-light", "frost", "clean")
    assert len(chains.stakes) == settings.challenger.mixtures
    tags = client(settings).get_run(result["run_id"]).data.tags
    assert tags["abair.route.why"] == "on kept features; fitted with mixtures"


@sqlite
def test_where_chains_are_refused_the_label_is_learnt_without_them(
    run: Run, team: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = routes.evaluate_gates, []

    def hard_at_first(report: Report, thresholds: Thresholds) -> list[GateResult]:
        calls.append(report)
        results = real(report, thresholds)
        first = results[1].verdict.model_copy(update={"name": "patience", "passed": False})
        return [replace(results[1], verdict=first), *results] if len(calls) == 1 else results

    monkeypatch.setattr(routes, "evaluate_gates", hard_at_first)
    code, (result,), err = run("add", "frost", "--gate", "mixed_loss=30", "--reason", "a tiny network")
    assert (code, result["outcome"], len(calls)) == (0, "live", 2), err
    assert err.index("frost: features ") < err.index("fitted with mixtures: ")  # told before anything is fitted
    page = client(settings).download_artifacts(result["run_id"], "0 report.html")
    assert "Told apart by features alone" in Path(page).read_text(encoding="utf-8")
    assert "Where the time went" in Path(page).read_text(encoding="utf-8")
    tags = client(settings).get_run(result["run_id"]).data.tags
    assert tags["abair.route.why"] == "on kept features; fitted with mixtures: refused by patience; fitted alone"
    (file,) = client(settings).list_artifacts(result["run_id"], "refused")
    assert file.path == "refused/features, with mixtures.md"
