"""A gate that was lowered is seen: in the history, in the audit trail, and in the operation's run."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.registry.conftest import Run, complaints
from tests.support.outcomes import client, sqlite

from abair.report import Verdict
from abair_registry.operations.gates import summarize
from abair_registry.operations.report_page import PAGE
from abair_registry.settings import Settings, Thresholds, describe_lowered


def test_a_threshold_is_lowered_if_it_lets_more_pass_whichever_way_it_points() -> None:
    assert Thresholds().lowered() == {}
    assert Thresholds(recall=0.95, loss=0.05, clean=40, gain=1).lowered() == {}
    lowered = Thresholds(recall=0.7, loss=0.2, gain=0.1, oracle_gap=0.2).lowered()
    assert lowered == {"gain": (0.1, 0.3), "loss": (0.2, 0.1), "recall": (0.7, 0.8)}
    assert describe_lowered(lowered) == "three lowered: gain 0.1 (0.3), loss 0.2 (0.1), recall 0.7 (0.8)"


def test_all_thresholds_together_can_be_said_to_be_lowered() -> None:
    lowered = Thresholds(gain=0, loss=9, mixed_loss=9, clean=9, clean_loss=9, oracle_gap=9, recall=0).lowered()
    assert list(lowered) == list(Thresholds.model_fields)
    assert describe_lowered(lowered).startswith("seven lowered: ")


def test_a_summary_says_how_many_passed_whether_it_was_forced_and_what_was_lowered() -> None:
    verdicts = [Verdict(name=str(n), passed=n > 0, measured=0, threshold=0) for n in range(3)]
    assert summarize(verdicts, Thresholds()) == "2 of 3 passed"
    assert summarize(verdicts, Thresholds(recall=0.7), forced=True) == (
        "2 of 3 passed, forced, one lowered: recall 0.7 (0.8)"
    )


@pytest.mark.slow
@sqlite
@pytest.mark.parametrize("value", ["recall=1.01", "recall=-0.1", "recall=nan", "loss=-1", "loss=inf", "gain=-2"])
def test_a_threshold_that_nothing_can_have_is_refused(run: Run, value: str) -> None:
    code, told, err = run("disable", "rain", "--yes", "--gate", value, "--reason", "a try")
    assert (code, told, len(err.splitlines())) == (2, [], 1)
    name, _, number = value.partition("=")
    assert f"{name}: found '{number}', expected" in err


@pytest.mark.slow
@sqlite
def test_a_gate_is_changed_only_with_a_reason(run: Run) -> None:
    for command in (("disable", "rain", "--yes"), ("retrain",), ("upgrade",), ("enable", "rain")):
        code, told, err = run(*command, "--gate", "loss=0.2")
        assert (code, told, len(err.splitlines())) == (2, [], 1)
        assert "--gate: needs a --reason, which the audit keeps" in err
    assert len(run("history")[1]) == 1


@pytest.mark.slow
@sqlite
def test_history_audit_and_run_say_what_was_lowered(run: Run, settings: Settings) -> None:
    lowered = ("--gate", "recall=0.7", "--gate", "mixed_loss=30", "--gate", "clean=45")
    code, (result,), err = run("disable", "rain", "--yes", *lowered, "--force", "--reason", "tiny")
    assert code == 0, err
    said = "two lowered: mixed_loss 30 (0.5), recall 0.7 (0.8)"
    assert result["lowered"] == {"mixed_loss": [30, 0.5], "recall": [0.7, 0.8]}
    assert f"abair-registry: warning: of the gates, {said}" in complaints(err)
    newest, first = run("history")[1]
    assert newest["gates"].endswith(f" passed, {said}") or newest["gates"].endswith(f" passed, forced, {said}")
    assert first["gates"] is None
    (story,) = run("show", "rain")[1]
    assert {event["gates"] for event in story["events"] if event["deployment"] == 2} == {newest["gates"]}
    tags = client(settings).get_run(result["run_id"]).data.tags
    assert tags["abair.gates"] == newest["gates"]
    headline = tags["mlflow.note.content"].splitlines()[0]
    assert headline.startswith("## Deployment 2 is live. ")
    assert r"two lowered: mixed\_loss 30 (0.5), recall 0.7 (0.8)." in headline
    page = client(settings).download_artifacts(result["run_id"], PAGE)
    assert f"Of the gates, {said}." in Path(page).read_text()
