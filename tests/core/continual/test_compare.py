"""Held-out samples restored by challenger and champion: scores are cached, few are renewed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from abair.continual import compare
from abair.continual.compare import Contender, evaluate
from abair.continual.replay import HeldOut, Replay
from abair.continual.score_cache import ScoreCache, open_score_cache
from abair.deployment import read_deployment
from abair.model.backbone import load_backbone
from abair.model.estimator import Estimator, load_estimator
from abair.model.lora import read_adapter_files
from abair.report import Report

pytestmark = pytest.mark.slow

LABELS = ("noise", "rain", "low-light", "clean")


class Counting(Contender):
    """Counts what it restores."""

    restored = 0

    def restore(self, sample: HeldOut, weights: compare.Weights) -> compare.Picture:
        self.restored += 1
        return super().restore(sample, weights)


@pytest.fixture(scope="module")
def samples(bundle: Path) -> list[HeldOut]:
    deployment = read_deployment(bundle)
    assert deployment.replay is not None
    return [s for s in Replay.load(deployment.find(deployment.replay)).held_out if len(s.labels) == 1]


def contender(bundle: Path, known: ScoreCache, turn: float = 0.0) -> Counting:
    """Load the bundle's contender, its estimator's parameters scaled by 1 - `turn`."""
    deployment = read_deployment(bundle)
    backbone = load_backbone(bundle / "backbone.safetensors")
    estimator: Estimator = load_estimator(bundle / "estimator.safetensors", LABELS, backbone.size)
    with torch.no_grad():
        for parameter in estimator.parameters():
            parameter.mul_(1 - turn)
    adapters = {
        entry.degradation: read_adapter_files(
            deployment.find(entry.config), deployment.find(entry.weights), backbone,
            deployment.backbone.fingerprint, entry.degradation,
        )
        for entry in deployment.adapters
    }  # fmt: skip
    return Counting(backbone, estimator, adapters, {label: label for label in LABELS}, known)


def test_what_was_measured_is_not_restored_again(bundle: Path, samples: list[HeldOut]) -> None:
    known = ScoreCache()
    first = contender(bundle, known)
    report = evaluate(first, contender(bundle, known), samples, ()).report
    assert first.restored > len(samples)
    again = contender(bundle, known)
    assert evaluate(again, contender(bundle, known), samples, ()).report == report
    assert again.restored == 0


def test_of_old_samples_those_that_moved_most_are_restored_and_the_rest_counts_as_it_was(
    bundle: Path, samples: list[HeldOut]
) -> None:
    known = ScoreCache()
    champion = contender(bundle, known)
    before = evaluate(champion, None, samples, ())
    challenger = contender(bundle, known, turn=0.7)
    drifts = {
        sample.digest: challenger.drift(said, champion, before)
        for sample, said, before in zip(samples, challenger.weights(samples), champion.weights(samples), strict=True)
    }
    assert min(drifts.values()) > 0.02
    after = evaluate(challenger, champion, samples, (), budget=3, further=0)
    moved = []
    for group in after.report.groups:
        old = before.report.group(group.name)
        for sample, now, then, as_champion in zip(
            after.samples[group.name], group.psnr["SW"], old.psnr["SW"], group.psnr["champion"], strict=True
        ):
            assert as_champion == then
            if now != then:
                moved.append(sample.digest)
    assert sorted(moved) == sorted(sorted(drifts, key=lambda mark: -drifts[mark])[:3])
    # and however often it is proposed: what was refused once may not look like what is live
    again = evaluate(contender(bundle, known, turn=0.7), champion, samples, (), budget=3, further=0).report
    assert again == after.report


def test_old_samples_that_moved_beyond_the_budget_are_restored_from_what_is_left_for_more(
    bundle: Path, samples: list[HeldOut]
) -> None:
    known = ScoreCache()
    champion = contender(bundle, known)
    before = evaluate(champion, None, samples, ()).report
    after = evaluate(contender(bundle, known, turn=0.7), champion, samples, (), budget=0, further=5).report
    pairs = [
        (now, then)
        for group in after.groups
        for now, then in zip(group.psnr["SW"], before.group(group.name).psnr["SW"], strict=True)
    ]
    assert sum(now != then for now, then in pairs) == 5


def test_samples_of_a_new_label_are_restored_whatever_the_budget(bundle: Path, samples: list[HeldOut]) -> None:
    known = ScoreCache()
    champion = contender(bundle, known)
    before = evaluate(champion, None, samples, ()).report.group("rain")
    after = evaluate(contender(bundle, known, turn=0.7), champion, samples, ("rain",), budget=0, further=0).report
    assert all(a != b for a, b in zip(after.group("rain").psnr["SW"], before.psnr["SW"], strict=True))
    assert after.group("noise").psnr["SW"] == after.group("noise").psnr["champion"]


def test_more_of_a_kind_is_restored_while_it_is_open_and_all_are_looked_at(
    bundle: Path, samples: list[HeldOut]
) -> None:
    known, asked = ScoreCache(), []
    looks = {"noise": 2, "rain": 1}  # how often each is open

    def find_open(report: Report) -> list[str]:
        asked.append({group.name: group.count for group in report.groups})
        return [name for name, count in looks.items() if len(asked) <= count]

    champion = contender(bundle, known)
    found = evaluate(contender(bundle, known), champion, samples, (), find_open=find_open, first=1)
    assert asked == [
        {"noise": 1, "rain": 1, "low-light": 1, "clean": 1},
        {"noise": 2, "rain": 2, "low-light": 1, "clean": 1},
        {"noise": 4, "rain": 2, "low-light": 1, "clean": 1},
    ]
    assert {group.name: len(group.top) for group in found.report.groups} == dict.fromkeys(asked[0], 4)
    assert {name: len(kept) for name, kept in found.samples.items()} == asked[-1]
    asked.clear()
    evaluate(contender(bundle, known), champion, samples, (), find_open=find_open, first=1, further=2)
    assert sum(asked[-1].values()) == 4 + 2


def test_old_samples_whose_weights_moved_are_restored_though_the_first_did_not_move(
    bundle: Path, samples: list[HeldOut]
) -> None:
    known = ScoreCache()
    champion = contender(bundle, known)
    same = evaluate(contender(bundle, known), champion, samples, (), first=1)
    assert {group.count for group in same.report.groups} == {1}
    moved = evaluate(contender(bundle, known, turn=0.7), champion, samples, (), first=1, near=0.0)
    assert {group.count for group in moved.report.groups} == {4}


def test_the_strength_of_damage_is_told_of_new_labels(bundle: Path, samples: list[HeldOut]) -> None:
    known = ScoreCache()
    report = evaluate(contender(bundle, known), contender(bundle, known), samples, ("rain",), first=1).report
    assert len(report.group("rain").strength) == 4
    assert report.group("rain").strength[0] == report.group("rain").psnr["input"][0]
    assert report.group("noise").strength == ()


def test_what_is_new_is_also_restored_by_a_champion_that_does_not_know_it(bundle: Path, samples: list[HeldOut]) -> None:
    known = ScoreCache()
    (rain, *_), (noise, *_) = ([s for s in samples if s.labels == (label,)] for label in ("rain", "noise"))
    samples = [*samples, replace(rain, labels=("noise", "rain")), replace(noise, labels=("noise", "rain"))]
    champion, challenger = contender(bundle, known), contender(bundle, known)
    knows = [label for label in champion.estimator.labels if label != "rain"]
    champion.estimator = champion.estimator.with_labels(knows)
    said = champion.weights(samples)
    assert all("rain" not in weights for weights in said)
    report = evaluate(challenger, champion, samples, ("rain",)).report
    over = [group for group in report.groups if "rain" in group.labels]
    assert [group.name for group in over] == ["rain", "noise + rain"]
    for group in over:
        expected = [
            champion.score(sample, weights)[0]
            for sample, weights in zip(samples, said, strict=True)
            if sample.labels == group.labels
        ]
        assert list(group.psnr["champion"]) == expected


def test_another_adapter_of_the_same_label_is_another_weight(bundle: Path, samples: list[HeldOut]) -> None:
    known = ScoreCache()
    champion, other = contender(bundle, known), contender(bundle, known)
    said = {"noise": 1.0}
    (before,) = champion.weights([next(sample for sample in samples if sample.labels == ("noise",))])
    same = other.drift(said, champion, before)
    other._digests = {**other._digests, "noise": "another"}
    assert other.drift(said, champion, before) > same


def test_what_hardly_moved_is_not_restored_again_by_either(bundle: Path, samples: list[HeldOut]) -> None:
    known = ScoreCache()
    before = evaluate(contender(bundle, known), None, samples, ()).report
    champion, challenger = contender(bundle, known, turn=0.02), contender(bundle, known, turn=0.03)
    said, then = champion.weights(samples), contender(bundle, known).weights(samples)
    moved = [champion.drift(a, champion, b) for a, b in zip(said, then, strict=True)]
    assert 0 < max(moved) < compare.NEAR
    after = evaluate(challenger, champion, samples, (), budget=0).report
    assert (champion.restored, challenger.restored) == (0, 0)
    for group in after.groups:
        assert group.psnr["SW"] == group.psnr["champion"]
        nearest = [*before.group(group.name).psnr.values()]
        assert all(psnr in [way[place] for way in nearest] for place, psnr in enumerate(group.psnr["SW"]))


def test_levels_that_are_far_from_what_was_measured_are_measured_again_the_farthest_first(
    bundle: Path, samples: list[HeldOut]
) -> None:
    known = ScoreCache()
    evaluate(contender(bundle, known), None, samples, ())
    champion, challenger = contender(bundle, known, turn=0.7), contender(bundle, known, turn=0.75)
    before = {
        sample.digest: champion.nearest_score(sample, said)[0]
        for sample, said in zip(samples, champion.weights(samples), strict=True)
    }
    assert min(before.values()) > 0.01
    evaluate(challenger, champion, samples, (), budget=2, near=0.01, further=0)
    assert champion.restored == 4  # two that moved most, and two levels
    now = {
        sample.digest: champion.nearest_score(sample, said)[0]
        for sample, said in zip(samples, champion.weights(samples), strict=True)
    }
    measured_again = [mark for mark in before if before[mark] > now[mark] == 0.0]
    assert len(measured_again) == 4
    assert max(before, key=before.__getitem__) in measured_again
    for _ in range(len(samples)):
        evaluate(challenger, champion, samples, (), budget=2, near=0.01, further=0)
    assert all(champion.nearest_score(s, w)[0] <= 0.01 for s, w in zip(samples, champion.weights(samples), strict=True))


def test_the_cache_finds_what_is_exact_and_what_is_near() -> None:
    known = ScoreCache()
    known.add("sample", {"a": 0.6, "b": 0.4}, (30.0, 0.9))
    known.add("sample", {"a": 1.0}, (20.0, 0.5))
    assert known.find("sample", {"a": 0.6, "b": 0.4}) == (30.0, 0.9)
    assert known.find("sample", {"a": 0.61, "b": 0.39}) is None
    assert known.find("another", {"a": 1.0}) is None
    away, nearest = known.nearest("sample", {"a": 0.61, "b": 0.39}) or (9.0, {})
    assert (away, nearest) == (pytest.approx(0.02), {"a": 0.6, "b": 0.4})
    assert known.nearest("sample", {"a": 0.9, "b": 0.1}) == (pytest.approx(0.2), {"a": 1.0})
    assert known.nearest("another", {"a": 1.0}) is None


def test_what_was_asked_for_is_kept_and_the_rest_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "measured.json"
    with open_score_cache(path) as known:
        assert known.find("nobody restored it", {}) is None
        known.add("sample", {"a": 0.6, "b": 0.4}, (30.0, 0.9))
        known.add("old", {}, (10.0, 0.1))
    with open_score_cache(path) as known:
        assert known.nearest("sample", {"a": 0.6, "b": 0.4}) == (0.0, {"a": 0.6, "b": 0.4})
        assert known.find("sample", {"a": 0.6, "b": 0.4}) == (30.0, 0.9)
    with open_score_cache(path) as known:
        assert known.find("sample", {"a": 0.6, "b": 0.4}) == (30.0, 0.9)
        assert known.find("old", {}) is None
    path.write_text('{"scores": {"of another release": [1, 2]}}')
    with open_score_cache(path) as known:
        assert known.nearest("sample", {}) is None
