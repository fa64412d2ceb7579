"""Gates: a report in, results out; and that nothing decides by what they are called."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

import abair_registry
from abair.report import Group, Report, Verdict
from abair_registry.operations.gates import (
    REGISTRY,
    GateKind,
    evaluate_gates,
    find_open,
    is_loss,
    loss_interval,
    plugin_results,
)
from abair_registry.settings import Thresholds

COUNT = 20
SPREAD = np.random.default_rng(0).normal(0, 2, COUNT)
"""Samples differ from each other by far more than the ways differ on a sample."""


def around(mean: float, noise: float = 0.0) -> tuple[float, ...]:
    jitter = np.random.default_rng(1).normal(0, noise, COUNT)
    return tuple(mean + SPREAD - SPREAD.mean() + jitter - jitter.mean())


def group(*labels: str, right: int = COUNT, **means: float | tuple[float, ...]) -> Group:
    given = {"input": 20.0, "backbone": 24.0, "OH": 26.0, "SW": 26.0, "Oracle": 26.1} | means
    psnr = {way: values if isinstance(values, tuple) else around(values) for way, values in given.items()}
    return Group(labels=labels, psnr=psnr, top=(labels[0],) * right + ("other",) * (COUNT - right))


def report(**changed: Group) -> Report:
    groups = {
        "snow": group("snow"),
        "noise": group("noise", champion=26.05),
        "mixture": group("blur", "noise", champion=26.0),
        "clean": group("clean", SW=45.0, champion=45.1),
    }
    return Report(new=("snow",), groups=tuple((groups | changed).values()))


def refused(given: Report, thresholds: Thresholds | None = None) -> list[str]:
    return [result.name for result in evaluate_gates(given, thresholds or Thresholds()) if not result.passed]


def test_a_good_candidate_passes_seven_gates() -> None:
    verdicts = [result.verdict for result in evaluate_gates(report(), Thresholds())]
    assert [verdict.name for verdict in verdicts] == [
        "snow: gain of the adapter",
        "snow: soft weights below Oracle",
        "snow: recall",
        "noise: loss against the champion",
        "blur + noise: loss against the champion",
        "clean photos",
        "clean photos: loss against the champion",
    ]
    assert all(verdict.passed for verdict in verdicts)
    assert all(verdict.advice for verdict in verdicts)
    assert verdicts[0].measured == pytest.approx(2.1)


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"snow": group("snow", Oracle=24.2, SW=24.1)}, "snow: gain of the adapter"),
        ({"snow": group("snow", SW=25.7)}, "snow: soft weights below Oracle"),
        ({"snow": group("snow", right=15)}, "snow: recall"),
        ({"noise": group("noise", champion=26.2)}, "noise: loss against the champion"),
        ({"mixture": group("blur", "noise", champion=26.2)}, "blur + noise: loss against the champion"),
        ({"clean": group("clean", SW=37.9, champion=38.0)}, "clean photos"),
        ({"clean": group("clean", SW=44.0, champion=44.5)}, "clean photos: loss against the champion"),
    ],
)
def test_one_fault_is_refused_by_its_gate_alone(changed: dict[str, Group], name: str) -> None:
    assert refused(report(**changed)) == [name]


@pytest.mark.parametrize(
    ("before", "name"),
    [
        ({"snow": group("snow", champion=26.5)}, "snow: loss against the champion"),
        ({"both": group("noise", "snow", champion=27.2)}, "noise + snow: loss against the champion"),
    ],
)
def test_new_damage_may_not_be_restored_worse_than_before_it_had_a_label(before: dict[str, Group], name: str) -> None:
    assert refused(report(**before)) == [name]


def test_old_damage_under_a_new_one_has_a_threshold_of_its_own() -> None:
    worse = report(both=group("noise", "snow", champion=26.4))
    assert refused(worse) == []
    assert refused(worse, Thresholds(mixed_loss=0.3)) == ["noise + snow: loss against the champion"]
    assert refused(report(mixture=group("blur", "noise", champion=26.4))) == ["blur + noise: loss against the champion"]


def test_thresholds_can_be_changed() -> None:
    worse = report(noise=group("noise", champion=26.2))
    assert refused(worse, Thresholds(loss=0.25)) == []
    assert refused(report(), Thresholds(recall=1.0, clean=46)) == ["clean photos"]


def test_scatter_is_not_taken_for_a_loss_but_a_steady_one_is() -> None:
    scattered = report(noise=group("noise", champion=around(26.15, noise=2.0)))
    assert loss_interval(scattered.group("noise").psnr["champion"], scattered.group("noise").psnr["SW"])[1] < 0
    assert refused(scattered) == []
    assert refused(report(noise=group("noise", champion=around(26.15, noise=0.1)))) == [
        "noise: loss against the champion"
    ]


@pytest.mark.parametrize("losses", [(10.0, 10.0, 10.0, 0, 0, 0), (8.0, 8.0, 0, 0, 0, 0), (3.0, 3.0, 3.0, 0, 0, 0)])
def test_a_few_samples_that_are_ruined_are_no_scatter(losses: tuple[float, ...]) -> None:
    ways = dict.fromkeys(("input", "backbone", "OH", "SW", "Oracle"), (26.0,) * 6)
    ruined = Group(
        labels=("noise",), psnr=ways | {"champion": tuple(26.0 + loss for loss in losses)}, top=("noise",) * 6
    )
    others = {name: group(name, champion=26.0) for name in map(str, range(12))}  # which widen the interval
    assert refused(report(noise=ruined, **others)) == ["noise: loss against the champion"]


def test_no_single_sample_decides() -> None:
    before, after = [38.0, *[26.0] * 11], [26.0] * 12
    assert loss_interval(before, after)[0] == pytest.approx(1.0)
    assert not is_loss(before, after, threshold=0.1, comparisons=12)
    assert is_loss([38.0, 38.0, *[26.0] * 10], after, threshold=0.1, comparisons=12)


@pytest.mark.parametrize("missed", [0, 7])
def test_what_soft_weights_cost_is_asked_where_the_label_is_recognised(missed: int) -> None:
    """A recall of 0.825 is enough; what a miss costs is for recall and losses to judge."""
    shared = (20.0,) * missed + (26.0,) * (40 - missed)
    ways = dict.fromkeys(("input", "backbone"), (20.0,) * 40) | dict.fromkeys(("OH", "Oracle"), (26.1,) * 40)
    snow = Group(labels=("snow",), psnr=ways | {"SW": shared}, top=("noise",) * missed + ("snow",) * (40 - missed))
    results = {result.kind: result.verdict for result in evaluate_gates(report(snow=snow), Thresholds())}
    assert results[GateKind.ORACLE_GAP].measured == pytest.approx(0.1)
    assert results[GateKind.ORACLE_GAP].detail == f"where recognised, n={40 - missed}"
    assert all(verdict.passed for verdict in results.values())
    weak = snow.model_copy(update={"psnr": ways | {"SW": tuple(value - 0.5 for value in shared)}})
    assert refused(report(snow=weak)) == ["snow: soft weights below Oracle"]


def test_a_label_that_is_never_recognised_is_refused_by_its_recall_alone() -> None:
    assert refused(report(snow=group("snow", right=0))) == ["snow: recall"]


def test_all_samples_count_for_recall_though_few_are_restored() -> None:
    few = group("snow")
    more = few.model_copy(update={"top": few.top + ("noise",) * 10})
    (recall,) = [one for one in evaluate_gates(report(snow=more), Thresholds()) if one.kind is GateKind.RECALL]
    assert (recall.passed, recall.verdict.detail) == (False, "20 of 30 right")


def test_the_worst_quarter_by_strength_and_the_worst_mixture_are_named() -> None:
    faint_missed = group("snow").model_copy(
        update={"top": ("clean",) * 3 + ("snow",) * 17, "strength": tuple(40.0 - place for place in range(COUNT))}
    )
    over = group("haze", "snow", right=10)
    found = evaluate_gates(report(snow=faint_missed, over=over), Thresholds())
    (recall,) = [one.verdict for one in found if one.kind is GateKind.RECALL]
    assert recall.detail == "17 of 20 right; the faintest quarter 2 of 5; with haze 10 of 20"


def test_more_samples_are_asked_for_only_where_they_may_change_a_verdict() -> None:
    assert find_open(report(), Thresholds()) == set()
    scattered = report(noise=group("noise", champion=around(26.15, noise=2.0)))
    assert find_open(scattered, Thresholds()) == {"noise"}
    assert find_open(scattered, Thresholds(loss=5.0)) == set()
    unsure = report(snow=group("snow", Oracle=around(24.4, noise=1.0), SW=around(24.4, noise=1.0)))
    assert find_open(unsure, Thresholds()) == {"snow"}
    changed = report(clean=group("clean", SW=around(38.5, 3.0), champion=around(38.5, 3.0)))
    assert find_open(changed, Thresholds()) == {"clean"}


def test_a_loss_is_told_with_its_interval_and_the_count_of_samples() -> None:
    (loss,) = [result for result in evaluate_gates(report(), Thresholds()) if result.name.startswith("noise")]
    loss = loss.verdict
    assert loss.detail.endswith(f"n={COUNT}")
    assert " to " in loss.detail


def test_the_interval_holds_the_mean_and_narrows_with_agreement() -> None:
    mean, low, high = loss_interval(around(26.5, 0.3), around(26.0))
    assert mean == pytest.approx(0.5)
    assert low < mean < high
    assert loss_interval(around(26.5), around(26.0)) == pytest.approx((0.5, 0.5, 0.5))


def test_a_mixture_is_recalled_by_any_of_its_labels() -> None:
    both = group("blur", "noise").model_copy(update={"top": ("noise",) * 10 + ("blur",) * 5 + ("clean",) * 5})
    assert both.recall == 0.75


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: group("snow", SW=(26.0,)), "expected as many for each way"),
        (
            lambda: Group.model_validate(group("snow").model_dump() | {"top": ("snow",)}),
            "found 20 restored samples, expected 1 to 1",
        ),
        (lambda: Group.model_validate(group("snow").model_dump() | {"strength": (1.0,)}), "found 1 strengths"),
        (lambda: Group(labels=("snow",), psnr={"SW": (1.0,)}, top=("snow",)), "found no OH, Oracle, backbone, input"),
        (lambda: group("snow", SW=float("nan")), "finite number"),
        (lambda: Report(new=("snow",), groups=(group("clean"),)), "found no samples of snow"),
        (lambda: Report(new=(), groups=(group("noise"),)), "found no samples of clean"),
        (lambda: Report(new=(), groups=(group("clean"), group("clean"))), "clean more than once"),
        (lambda: Verdict(name="x", passed=True, measured=float("inf"), threshold=0), "finite number"),
    ],
)
def test_a_report_that_does_not_hold_together_cannot_be_made(make: Callable[[], object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        make()


def test_a_result_says_what_was_measured_and_by_whom() -> None:
    results = evaluate_gates(report(), Thresholds())
    assert [result.kind for result in results] == [
        GateKind.ADAPTER_GAIN, GateKind.ORACLE_GAP, GateKind.RECALL, GateKind.LOSS, GateKind.LOSS, GateKind.CLEAN,
        GateKind.CLEAN_LOSS,
    ]  # fmt: skip
    assert {result.source for result in results} == {REGISTRY}
    (own,) = plugin_results([results[0].verdict], "snow")
    assert (own.name, own.kind, own.source) == (results[0].name, GateKind.PLUGIN, "snow")


def compared_texts(source: str) -> list[str]:
    """The comparisons in a module with a constant text of several words, which is there to be shown."""
    found = []
    for node in ast.walk(ast.parse(source)):
        compared: list[ast.expr] = []
        if isinstance(node, ast.Compare):
            compared = [node.left, *node.comparators]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in {"startswith", "endswith", "fullmatch"}:
            compared = node.args
        constants = [part for one in compared for part in ast.walk(one) if isinstance(part, ast.Constant)]
        if any(isinstance(one.value, str) and re.search(r"\w+ |[a-z] \w", one.value) for one in constants):
            found.append(ast.unparse(node))
    return found


def test_no_decision_of_the_registry_reads_a_text_that_is_shown() -> None:
    package = Path(abair_registry.__file__).parent
    modules = sorted(package.rglob("*.py"))
    assert len(modules) > 40
    found = {str(path.relative_to(package)): compared_texts(path.read_text(encoding="utf-8")) for path in modules}
    assert {path: texts for path, texts in found.items() if texts} == {}


def test_a_comparison_with_a_shown_text_is_noticed() -> None:
    assert compared_texts("if name.endswith('gain of the adapter'): pass") == ["name.endswith('gain of the adapter')"]
    assert compared_texts("if name.startswith('plugin '): pass") == ["name.startswith('plugin ')"]
    assert compared_texts("if 'is missing' in reason: pass") == ["'is missing' in reason"]
    assert compared_texts("if state == 'live' or mark in '_-. ': pass") == []
