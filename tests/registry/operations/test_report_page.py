"""The page of an operation's run: what refuses comes first, with the gates' numbers and the samples that decided."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from abair.continual.compare import Evaluation, to_picture
from abair.continual.separation import Separation
from abair.report import Group, Report, Verdict
from abair_registry.db.snapshot import DeploymentSnapshot, Member
from abair_registry.operations.gates import GateKind, GateResult
from abair_registry.operations.progress import Stage, Steps
from abair_registry.operations.report_page import Judged, Scale, render_page
from abair_registry.operations.requests import Outcome, Proposal
from abair_registry.operations.run_report import conclusion, describe
from abair_registry.settings import Thresholds
from abair_registry.tracking import limits

COUNT = 5


class Copying:
    """Restores nothing, and is sure of rain."""

    def weights(self, samples: list[Any]) -> list[dict[str, float]]:
        return [{"rain": 0.9, "clean": 0.1} for _ in samples]

    def restore(self, sample: Any, _weights: dict[str, float]) -> Any:
        return to_picture(sample.degraded)


def group(label: str, change: float = 0.0, wrong: int = 0) -> Group:
    """Five samples, the last of which changed most; `wrong` ones are taken for rain."""
    before = [30.0 + place / 8 for place in range(COUNT)]
    after = [value + change * (place + 1) / COUNT for place, value in enumerate(before)]
    ways = {"input": 20.0, "backbone": 24.0, "OH": 30.0, "Oracle": 31.0}
    psnr = {way: (value,) * COUNT for way, value in ways.items()} | {"SW": after, "champion": before}
    return Group.model_validate(
        {"labels": (label,), "psnr": psnr, "top": ("rain",) * wrong + (label,) * (COUNT - wrong)}
    )


def result(name: str, kind: GateKind, measured: float, threshold: float, *, passed: bool, **texts: str) -> GateResult:
    source = "frost" if kind is GateKind.PLUGIN else "registry"
    verdict = Verdict(name=name, passed=passed, measured=measured, threshold=threshold, unit="dB", **texts)
    return GateResult(verdict, kind, source)


def judged(results: list[GateResult], *groups: Group, unasked: dict[str, str] | None = None) -> Judged:
    sample = SimpleNamespace(degraded=torch.full((3, 8, 8), 0.25), clean=torch.full((3, 8, 8), 0.5))
    evaluation = None
    if groups:
        new = ("snow",) if any(one.labels == ("snow",) for one in groups) else ()
        samples = {one.name: [cast("Any", sample)] * COUNT for one in groups}
        weights = {one.name: [{one.name: 0.75, "rain": 0.25}] * COUNT for one in groups}
        evaluation = Evaluation(Report(new=new, groups=groups), samples, weights)
    contender = cast("Any", Copying())
    return Judged(
        "add snow", "Nothing changes: deployment 7 stays live.", 7, results, evaluation, contender, contender,
        {"route": "features"}, unasked or {},
    )  # fmt: skip


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))


LOSS = "noise: loss against the champion"


def test_what_refuses_comes_first_with_what_to_do_and_the_gates_numbers() -> None:
    results = [
        result("clean photos", GateKind.CLEAN, 45.125, 38, passed=True, advice="none needed"),
        result(LOSS, GateKind.LOSS, 0.3125, 0.1, passed=False, detail="0.10 to 0.40, n=5", advice="show more of it"),
    ]
    page = render_page(judged(results, group("noise", -1.0), group("snow", 2.0, wrong=2), group("clean")))
    text = text_of(page)
    assert text.index("refused by 1 of 2 gates") < text.index(LOSS) < text.index("clean photos")
    assert f"refused {LOSS} show more of it 0.31 dB 0.10 to 0.40, n=5 0.1 dB" in text
    assert "none needed" not in text
    assert "snow (new) 5 20.00" in text
    assert "3 of 5 rain 2" in text
    assert re.search(r'class="bad"', page)
    assert "://" not in page  # nothing is fetched


def test_a_gain_is_called_a_gain_on_the_page_as_on_the_terminal() -> None:
    better = result(LOSS, GateKind.LOSS, -0.5, 0.1, passed=True, detail="gain 0.40 to 0.60, n=5")
    page = render_page(judged([better], group("noise", 0.5), group("clean")))
    assert f"passed {LOSS} gain 0.50 dB gain 0.40 to 0.60, n=5 0.1 dB" in text_of(page)
    assert 'aria-label="gain 0.50 dB, threshold 0.1 dB"' in page


def test_the_samples_that_decided_are_shown_before_and_after_the_worst_first() -> None:
    results = [result(LOSS, GateKind.LOSS, 0.6, 0.1, passed=False)]
    page = render_page(judged(results, group("noise", -1.0), group("clean")))
    text = text_of(page)
    assert page.count("<figure>") == 3
    assert page.count("data:image/png;base64,") == 3 * 4
    first = text[text.index("Samples that decided") :]
    assert "noise , largest loss, 1 of 5; seen as noise 0.75, rain 0.25" in first
    assert "damaged 20.00 dB before, deployment 7 30.50 dB challenger 29.50 dB undamaged" in first


def test_of_what_passes_the_new_labels_samples_are_shown() -> None:
    results = [result("snow: recall", GateKind.RECALL, 0.9, 0.9, passed=True)]
    text = text_of(render_page(judged(results, group("noise"), group("snow", 2.0), group("clean"))))
    assert "add snow: 1 of 1 gates passed" in text
    assert "snow , improved least, 1 of 5" in text
    assert "Samples that decided" not in text


def test_pairs_that_features_hardly_tell_apart_and_what_each_step_took_are_on_the_page() -> None:
    given = judged([], group("noise"), group("clean"))
    apart = [Separation("snow", "rain", 0.8714), Separation("snow", "clean", 0.991)]
    stages = [Stage("look at photos", 41.26, 38.0), Stage("evaluate", 9.0, 8.5)]
    text = text_of(render_page(replace(given, separations=apart, stages=stages)))
    assert "snow rain 0.871 hard to tell apart snow clean 0.991" in text
    assert "look at photos 41.3 38.0 evaluate 9.0 8.5 in all 50.3 46.5" in text
    assert "Where the time went" not in text_of(render_page(given))


def test_steps_say_what_they_took_and_those_of_one_name_are_one() -> None:
    steps = Steps(quiet=True)
    for step in ("train", "evaluate", "train"):
        steps.begin(step)
        time.sleep(0.01)
    train, evaluate = steps.stages()
    assert (train.name, evaluate.name) == ("train", "evaluate")
    assert train.seconds > evaluate.seconds > 0
    assert train.cpu_seconds >= 0


def test_texts_of_plugins_are_text_on_the_page() -> None:
    odd = "<script>alert(1)</script> & \"'"
    results = [result(f"plugin frost: {odd}", GateKind.PLUGIN, 1, 2, passed=False, detail=odd, advice=odd)]
    page = render_page(judged(results, group("clean"), unasked={"hail": odd}))
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 4


def test_many_gates_that_passed_are_folded_below_those_that_refuse() -> None:
    names = [f"degradation-{number}" for number in range(60)]
    results = [
        result(f"{name}: loss against the champion", GateKind.LOSS, 0.0, 0.1, passed=name != names[7]) for name in names
    ]
    page = render_page(judged(results, *map(group, names), group("clean")))
    assert page.index("degradation-7: loss") < page.index("<details>") < page.index("degradation-0: loss")
    assert "59 gates passed" in page
    assert page.index("</details>") < page.index("Samples that decided")


def test_a_page_without_anything_to_judge_by_says_so() -> None:
    assert "no gate was asked" in text_of(render_page(judged([])))


@pytest.mark.parametrize(("value", "place"), [(-9.0, 4.0), (0.0, 4.0), (0.5, 110.0), (1.0, 216.0), (99.0, 216.0)])
def test_a_value_beyond_its_scale_is_drawn_at_the_end(value: float, place: float) -> None:
    assert Scale(0.0, 1.0).at(value) == place


def test_a_scale_of_one_value_has_some_room() -> None:
    assert (Scale.over([2.0]), Scale.over([])) == (Scale(1.5, 2.5), Scale(-0.5, 0.5))


def of_many_labels(count: int, refused: int, new: tuple[str, ...] = ("snow",)) -> str:
    """The description of an addition of one label to `count` live ones."""
    names = [f"degradation-{number}" for number in range(count)]
    groups = tuple(group(name, -0.01 * place) for place, name in enumerate([*names, "snow", "clean"]))
    members = tuple(Member(name, 1, name, f"abair-{name}", "1.0", "0" * 64, "1" * 64, None) for name in names)
    champion = DeploymentSnapshot(7, 1, "0" * 64, "1" * 64, "2" * 64, members, None)
    results = [
        result(
            f"{name}: loss against the champion", GateKind.LOSS, 0.2, 0.1, passed=place >= refused,
            detail="x" * 100, advice="a" * 300,
        )
        for place, name in enumerate(names)
    ]  # fmt: skip
    snow = Member("snow", 2, "snow", "abair-snow", "1.0", "3" * 64, "4" * 64, None)
    proposal = Proposal("snow", champion.with_members("snow", (snow,)), new)
    evaluation = Evaluation(Report(new=new, groups=groups), {}, {})
    unasked = dict.fromkeys(names, "version 1.1 is installed, 1.0 is recorded")
    return describe(champion, proposal, "features", "fitted " * 200, evaluation, results, unasked)


def test_a_description_of_sixty_labels_shows_what_one_decides_by_and_needs_no_table() -> None:
    page = of_many_labels(60, refused=60)
    assert len(page) <= limits.NOTE
    lines = page.splitlines()
    assert not any(line.startswith("|") for line in lines)
    assert sum(": loss against the champion:**" in line for line in lines) == 6
    assert "- and 54 more" in lines
    assert any(
        line.startswith("- **snow** (new): 20.00 dB damaged, 30.25 by deployment 7, **29.89**") for line in lines
    )
    assert any("recognised on 5 of 5" in line for line in lines)
    assert any("degradation-59 changes for the worst: -0.35 dB" in line for line in lines)
    assert lines[-1].startswith("Labels: degradation-0, ")
    assert " and 50 more. Compared with deployment 7." in lines[-1]


@pytest.mark.parametrize(
    ("outcome", "passed", "forced", "name"),
    [
        ("rejected", [True, False, False], False, "add snow: refused by 2 of 3"),
        ("live", [True, True, True], False, "add snow: live, 3 of 3 passed"),
        ("challenger", [True, True], False, "add snow: challenger, 2 of 2 passed"),
        ("live", [True, False, True], True, "add snow: live, forced against 1 of 3"),
        ("live", [], False, "add snow: live"),
    ],
)
def test_the_runs_name_says_how_many_gates_refused(
    outcome: Outcome, passed: list[bool], forced: bool, name: str
) -> None:
    verdicts = [Verdict(name="a gate", passed=one, measured=0, threshold=0) for one in passed]
    tags = conclusion("add snow", outcome, 8, verdicts, Thresholds(), forced=forced).tags
    assert tags["mlflow.runName"] == name


def test_only_where_an_estimator_was_trained_the_description_says_so() -> None:
    assert "Only the estimator was trained" in of_many_labels(2, refused=0)
    assert "Nothing was trained" in of_many_labels(2, refused=0, new=())
