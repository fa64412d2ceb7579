"""What a candidate must hold before it goes live: a report in, verdicts out; pure functions.

A degradation that is live must not lose, nor may a new one be restored worse than before it came, alone or over damage
that is live. Because a few samples scatter, a loss counts only where it is above the threshold on the mean and the
paired bootstrap interval lies wholly above zero: the same samples went through both. The interval is so wide that of
all groups together one in twenty reports would be refused by chance (Bonferroni). A mean of `CERTAIN` times the
threshold is a loss whatever the interval says: a few samples that are ruined are no scatter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from abair.labels import CLEAN
from abair.report import Group, Report, Verdict
from abair_registry.settings import Thresholds

GAIN: Final = "gain of the adapter"
"""How the gate is called that no estimator can mend."""
RESAMPLES: Final = 10_000
CONFIDENCE: Final = 0.95
CERTAIN: Final = 5.0
UNSEEN: Final = 50.0
"""dB from which on nobody sees a difference, an error of less than one grey level; clean photos count up to it."""


def evaluate_gates(report: Report, thresholds: Thresholds) -> list[Verdict]:
    """All verdicts: on the new labels, on what was live, on mixtures, on undamaged photos."""
    verdicts = []
    for label in report.new:
        verdicts += _new(report.group(label), thresholds)
    compared = [group for group in report.groups if "champion" in group.psnr]
    for group in compared:
        if CLEAN not in group.labels:
            over_another = len(group.labels) > 1 and not set(report.new).isdisjoint(group.labels)
            most = thresholds.mixed_loss if over_another else thresholds.loss
            verdicts.append(_no_loss(group, most, len(compared)))
    verdicts += _untouched(report.group(CLEAN), thresholds, len(compared))
    return verdicts


def loss_interval(champion: Sequence[float], challenger: Sequence[float], among: int = 1) -> tuple[float, float, float]:
    """Mean loss in dB of the challenger on the same samples, and its bootstrap interval, one `among` so many."""
    losses = np.asarray(champion) - np.asarray(challenger)
    drawn = np.random.default_rng(0).integers(0, len(losses), (RESAMPLES, len(losses)))
    tail = (1 - CONFIDENCE) / 2 / among
    low, high = np.quantile(losses[drawn].mean(1), [tail, 1 - tail])
    return float(losses.mean()), float(low), float(high)


def _new(group: Group, thresholds: Thresholds) -> list[Verdict]:
    gain = group.mean("Oracle") - group.mean("backbone")
    gap = group.mean("Oracle") - group.mean("SW")
    return [
        Verdict(
            name=f"{group.name}: {GAIN}", passed=gain >= thresholds.gain, measured=gain,
            threshold=thresholds.gain, unit="dB",
            advice=f"train the adapter longer, or on samples like these: abair train adapter {group.name}",
        ),
        Verdict(
            name=f"{group.name}: soft weights below Oracle", passed=gap <= thresholds.oracle_gap, measured=gap,
            threshold=thresholds.oracle_gap, unit="dB",
            advice="the estimator does not tell it from another label; make its samples more distinct, or --route full",
        ),
        Verdict(
            name=f"{group.name}: recall", passed=group.recall >= thresholds.recall, measured=group.recall,
            threshold=thresholds.recall,
            advice="the estimator does not tell it from another label; make its samples more distinct, or --route full",
        ),
    ]  # fmt: skip


def _no_loss(group: Group, most: float, among: int) -> Verdict:
    mean, low, high = loss_interval(group.psnr["champion"], group.psnr["SW"], among)
    return Verdict(
        name=f"{group.name}: loss against the champion", passed=not _lost(mean, low, most), measured=mean,
        threshold=most, unit="dB", detail=_detail(low, high, len(group.top)),
        advice="what is live would get worse; try --route full, or make the new samples more distinct",
    )  # fmt: skip


def _untouched(group: Group, thresholds: Thresholds, among: int) -> list[Verdict]:
    mean = group.mean("SW")
    verdicts = [
        Verdict(
            name="clean photos", passed=mean >= thresholds.clean, measured=mean, threshold=thresholds.clean, unit="dB",
            advice="undamaged photos would be changed; the new samples may be too close to undamaged ones",
        )
    ]  # fmt: skip
    if "champion" in group.psnr:
        before, after = ([min(value, UNSEEN) for value in group.psnr[way]] for way in ("champion", "SW"))
        loss, low, high = loss_interval(before, after, among)
        verdicts.append(
            Verdict(
                name="clean photos: loss against the champion", passed=not _lost(loss, low, thresholds.clean_loss),
                measured=loss, threshold=thresholds.clean_loss, unit="dB", detail=_detail(low, high, len(group.top)),
                advice="undamaged photos would be changed; the new samples may be too close to undamaged ones",
            )
        )  # fmt: skip
    return verdicts


def _lost(mean: float, low: float, most: float) -> bool:
    return mean > most and (low > 0 or mean > CERTAIN * most)


def _detail(low: float, high: float, count: int) -> str:
    return f"{low:.2f} to {high:.2f}, n={count}"
