"""What is said of a refusal: which samples were called what, what to do, and where to see what was refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.registry.conftest import FROST, Run
from tests.support.outcomes import client, sqlite
from tests.support.plugin_package import GOOD, Plugin, Tiny

from abair import Restorer
from abair.errors import DeploymentError
from abair.report import Group, Report
from abair_registry.cli.results import _show_gates
from abair_registry.operations.gates import GateResult, evaluate_gates
from abair_registry.operations.requests import OperationOptions
from abair_registry.operations.routes import _FULL, _advise
from abair_registry.settings import Settings, Thresholds

COUNT = 20


def group(*labels: str, called: dict[str, int] | None = None, **means: float) -> Group:
    """Samples, `called` by these labels, the others by their own."""
    given = {"input": 20.0, "backbone": 24.0, "OH": 26.0, "SW": 26.0, "Oracle": 26.1} | means
    wrong = [label for label, count in (called or {}).items() for _ in range(count)]
    top = (*wrong, *(labels[0],) * (COUNT - len(wrong)))
    return Group(labels=labels, psnr={way: (value,) * COUNT for way, value in given.items()}, top=top)


def results(**changed: Group) -> dict[str, GateResult]:
    groups = {
        "snow": group("snow"),
        "noise": group("noise", champion=26.0),
        "clean": group("clean", SW=45.0, champion=45.0),
    }
    report = Report(new=("snow",), groups=tuple((groups | changed).values()))
    return {result.name: result for result in evaluate_gates(report, Thresholds())}


def test_a_new_label_that_is_confused_is_told_with_what() -> None:
    recall = results(snow=group("snow", called={"noise": 3, "clean": 2}))["snow: recall"].verdict
    assert (recall.passed, recall.detail) == (False, "15 of 20 right")
    assert recall.advice == (
        "the others were called noise (3) and clean (2): show more of snow that does not look like noise, or leave out "
        "the strengths at which the two look alike"
    )
    mild = results(snow=group("snow", called={"clean": 4}))["snow: recall"].verdict
    assert mild.advice == (
        "the others were called clean (4): let the mildest damage of snow be stronger, so that it can be seen"
    )


def test_a_live_label_and_clean_photos_that_would_lose_are_told_to_what() -> None:
    lost = results(noise=group("noise", called={"snow": 5}, champion=27.0))
    assert lost["noise: loss against the champion"].verdict.advice == (
        "5 of 20 were called snow (5): leave out the strengths at which snow looks like noise, or make it more distinct"
    )
    changed = results(clean=group("clean", called={"snow": 3}, SW=37.0, champion=37.0))
    assert changed["clean photos"].verdict.advice == (
        "3 of 20 undamaged photos were called snow (3): let the mildest damage of snow be stronger"
    )
    kept = results(noise=group("noise", champion=27.0))["noise: loss against the champion"].verdict
    assert kept.advice.startswith("it is still recognised, but blended with less of its own adapters")


def test_a_gain_is_called_a_gain_and_numbers_have_units() -> None:
    better = results(noise=group("noise", champion=25.5))["noise: loss against the champion"]
    assert (better.found, better.asked) == ("gain 0.50 dB", "0.1 dB")
    assert better.verdict.detail == f"gain 0.50 to 0.50, n={COUNT}"
    worse = results(noise=group("noise", champion=26.5))["noise: loss against the champion"]
    assert (worse.found, worse.verdict.detail) == ("0.50 dB", f"0.50 to 0.50, n={COUNT}")
    even = results()["noise: loss against the champion"]
    assert (even.found, even.verdict.detail) == ("0.00 dB", f"0.00 to 0.00, n={COUNT}")
    assert (results()["snow: recall"].found, results()["snow: recall"].asked) == ("1.00", "0.8")


def test_the_refused_come_first_with_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    judged = list(results(noise=group("noise", called={"snow": 5}, champion=27.0)).values())
    _show_gates(judged)
    heading, first, *others = capsys.readouterr().err.splitlines()
    assert heading.split("  ")[-1] == "what to do"
    assert first.startswith("refused  noise: loss against the champion")
    assert first.endswith("or make it more distinct")
    assert all(line.startswith("passed ") for line in others)
    _show_gates([result for result in judged if result.passed])
    assert "what to do" not in capsys.readouterr().err


def test_the_full_route_is_offered_only_to_what_an_estimator_can_mend() -> None:
    judged = results(snow=group("snow", called={"noise": 9}, Oracle=24.0), clean=group("clean", SW=30.0))
    offered = {
        result.name for result in _advise(list(judged.values()), _FULL) if "--route full" in result.verdict.advice
    }
    assert offered == {"snow: recall"}
    assert not any("--route full" in result.verdict.advice for result in judged.values())


def test_the_route_that_earlier_builds_wrote_is_by_features() -> None:
    assert [OperationOptions.from_json({"route": name}).route for name in ("auto", "features", "full")] == [
        "features",
        "features",
        "full",
    ]
    assert OperationOptions.from_json(OperationOptions(route="full").as_json()) == OperationOptions(route="full")


@pytest.mark.slow
@sqlite
def test_what_was_refused_is_in_its_run_and_the_audit_keeps_why(
    run: Run, site: Path, trained: Tiny, settings: Settings, photo: np.ndarray
) -> None:
    gate = (
        f"{GOOD}\nfrom abair import Verdict\n@hookimpl\ndef abair_gates(report):\n"
        "    return [Verdict(name='taste', passed=False, measured=1, threshold=2, unit='stars', advice='try again')]\n"
    )
    Plugin(module=gate, synthesis=FROST).make(site, trained)
    code, (result,), err = run(
        "add", "frost", "--route", "features", "--gate", "mixed_loss=30", "--gate", "loss=30", "--reason", "a try"
    )
    assert (code, result["outcome"]) == (1, "rejected"), err
    told = err.splitlines()
    fits = [line for line in told if line.startswith("fitted ")]
    assert len(fits) == 2  # each as it comes
    assert all("refused by plugin frost: taste 1.00 stars (threshold 2 stars)" in line for line in fits)
    assert "publish" not in told
    rows = told[next(place for place, line in enumerate(told) if line.startswith("verdict ")) :]
    assert rows[1].startswith("refused  plugin frost: taste")
    assert rows[1].endswith("try again")
    assert "--route full" not in err
    name = f"runs:/{result['run_id']}"
    assert f"abair-registry: to look at what was refused: abair restore PHOTO --deployment {name}" in told

    refused = Restorer.load(name)
    assert refused.deployment.labels == ("noise", "rain", "low-light", "frost", "clean")
    assert refused(photo).image.shape == photo.shape
    assert client(settings).search_model_versions("name='abair'") != []  # what is live, and nothing else
    with pytest.raises(DeploymentError, match="found no such run"):
        Restorer.load(f"runs:/{'0' * 32}")

    (story,) = run("show", "frost")[1]
    event = next(event for event in story["events"] if event["action"] == "reject")
    assert event["gates"].endswith("; refused by plugin frost: taste")
    assert event["refusals"] == [
        {"gate": "plugin frost: taste", "found": "1.00 stars", "threshold": "2 stars", "detail": "",
         "advice": "try again"},
    ]  # fmt: skip
