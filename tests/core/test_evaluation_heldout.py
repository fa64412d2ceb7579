"""Held-out samples restored by a challenger and a champion: what was measured is looked up, at most so many anew."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from abair.backbone import load_backbone
from abair.deployment import read_deployment
from abair.estimator import Estimator, load_estimator
from abair.evaluation import heldout
from abair.evaluation.heldout import Contender, Measured, evaluate
from abair.lora import read_adapter_files
from abair.replay import HeldOut, Replay

LABELS = ("noise", "rain", "low-light", "clean")


class Counting(Contender):
    """Counts what it restores."""

    restored = 0

    def restore(self, sample: HeldOut, weights: heldout.Weights) -> heldout.Picture:
        self.restored += 1
        return super().restore(sample, weights)


@pytest.fixture(scope="module")
def samples(bundle: Path) -> list[HeldOut]:
    deployment = read_deployment(bundle)
    assert deployment.replay is not None
    return [s for s in Replay.load(deployment.find(deployment.replay)).held_out if len(s.labels) == 1]


def contender(bundle: Path, measured: Measured, turn: float = 0.0) -> Counting:
    """The bundle's, its estimator's outputs turned away by `turn`."""
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
    return Counting(backbone, estimator, adapters, {label: label for label in LABELS}, measured)


def test_what_was_measured_is_not_restored_again(bundle: Path, samples: list[HeldOut]) -> None:
    measured = Measured()
    first = contender(bundle, measured)
    report = evaluate(first, contender(bundle, measured), samples, ()).report
    assert first.restored > len(samples)
    again = contender(bundle, measured)
    assert evaluate(again, contender(bundle, measured), samples, ()).report == report
    assert again.restored == 0


def test_of_old_samples_those_that_moved_most_are_restored_and_the_rest_counts_as_it_was(
    bundle: Path, samples: list[HeldOut], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = Measured()
    champion = contender(bundle, measured)
    before = evaluate(champion, None, samples, ())
    monkeypatch.setattr(heldout, "BUDGET", 3)
    challenger = contender(bundle, measured, turn=0.7)
    drifts = {
        sample.mark: challenger.drift(said, champion, before)
        for sample, said, before in zip(samples, challenger.weights(samples), champion.weights(samples), strict=True)
    }
    assert min(drifts.values()) > 0.02
    after = evaluate(challenger, champion, samples, ())
    moved = []
    for group in after.report.groups:
        old = before.report.group(group.name)
        for sample, now, then, as_champion in zip(
            after.samples[group.name], group.psnr["SW"], old.psnr["SW"], group.psnr["champion"], strict=True
        ):
            assert as_champion == then
            if now != then:
                moved.append(sample.mark)
    assert sorted(moved) == sorted(sorted(drifts, key=lambda mark: -drifts[mark])[:3])
    # and however often it is proposed: what was refused once may not look like what is live
    again = evaluate(contender(bundle, measured, turn=0.7), champion, samples, ()).report
    assert again == after.report


def test_samples_of_a_new_label_are_restored_whatever_the_budget(
    bundle: Path, samples: list[HeldOut], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = Measured()
    champion = contender(bundle, measured)
    before = evaluate(champion, None, samples, ()).report.group("rain")
    monkeypatch.setattr(heldout, "BUDGET", 0)
    after = evaluate(contender(bundle, measured, turn=0.7), champion, samples, ("rain",)).report
    assert all(a != b for a, b in zip(after.group("rain").psnr["SW"], before.psnr["SW"], strict=True))
    assert after.group("noise").psnr["SW"] == after.group("noise").psnr["champion"]


def test_another_adapter_of_the_same_label_is_another_weight(bundle: Path, samples: list[HeldOut]) -> None:
    measured = Measured()
    champion, other = contender(bundle, measured), contender(bundle, measured)
    said = {"noise": 1.0}
    (before,) = champion.weights([next(sample for sample in samples if sample.labels == ("noise",))])
    same = other.drift(said, champion, before)
    other._marks = {**other._marks, "noise": "another"}
    assert other.drift(said, champion, before) > same
