"""What a candidate must hold before it goes live: a report in, verdicts out; pure functions.

A degradation that is live must not lose. Because a few samples scatter, a loss counts only where it is above the
threshold on the mean and the paired bootstrap interval lies wholly above zero: the same samples went through both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from abair.contract import CLEAN
from abair.report import Group, Report, Verdict

RESAMPLES: Final = 2000
CONFIDENCE: Final = 0.95


class Thresholds(BaseModel):
    """In dB but for `recall`, a share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gain: float = Field(default=0.3, description="a new adapter over the bare backbone, at least")
    loss: float = Field(default=0.1, ge=0, description="of any live degradation or mixture, at most")
    clean: float = Field(default=38.0, description="of undamaged photos, at least")
    clean_loss: float = Field(default=0.3, ge=0, description="of undamaged photos against the champion, at most")
    oracle_gap: float = Field(default=0.3, ge=0, description="from SW to Oracle for a new label, at most")
    recall: float = Field(default=0.9, ge=0, le=1, description="of a new label, at least")


def judge(report: Report, thresholds: Thresholds) -> list[Verdict]:
    """All verdicts: on the new labels, on what was live, on mixtures, on undamaged photos."""
    verdicts = []
    for label in report.new:
        verdicts += _new(report.group(label), thresholds)
    for group in report.groups:
        if "champion" in group.psnr and CLEAN not in group.labels:
            verdicts.append(_no_loss(group, thresholds.loss))
    verdicts += _untouched(report.group(CLEAN), thresholds)
    return verdicts


def loss_interval(champion: Sequence[float], challenger: Sequence[float]) -> tuple[float, float, float]:
    """Mean loss in dB of the challenger on the same samples, and the ends of its bootstrap interval."""
    losses = np.asarray(champion) - np.asarray(challenger)
    drawn = np.random.default_rng(0).integers(0, len(losses), (RESAMPLES, len(losses)))
    low, high = np.quantile(losses[drawn].mean(1), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(losses.mean()), float(low), float(high)


def _new(group: Group, thresholds: Thresholds) -> list[Verdict]:
    gain = group.mean("Oracle") - group.mean("backbone")
    gap = group.mean("Oracle") - group.mean("SW")
    return [
        Verdict(
            name=f"{group.name}: gain of the adapter", passed=gain >= thresholds.gain, measured=gain,
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


def _no_loss(group: Group, most: float) -> Verdict:
    mean, low, _ = loss_interval(group.psnr["champion"], group.psnr["SW"])
    return Verdict(
        name=f"{group.name}: loss against the champion", passed=not (mean > most and low > 0), measured=mean,
        threshold=most, unit="dB",
        advice="what is live would get worse; try --route full, or make the new samples more distinct",
    )  # fmt: skip


def _untouched(group: Group, thresholds: Thresholds) -> list[Verdict]:
    mean = group.mean("SW")
    verdicts = [
        Verdict(
            name="clean photos", passed=mean >= thresholds.clean, measured=mean, threshold=thresholds.clean, unit="dB",
            advice="undamaged photos would be changed; the new samples may be too close to undamaged ones",
        )
    ]  # fmt: skip
    if "champion" in group.psnr:
        loss, low, _ = loss_interval(group.psnr["champion"], group.psnr["SW"])
        verdicts.append(
            Verdict(
                name="clean photos: loss against the champion", passed=not (loss > thresholds.clean_loss and low > 0),
                measured=loss, threshold=thresholds.clean_loss, unit="dB",
                advice="undamaged photos would be changed; the new samples may be too close to undamaged ones",
            )
        )  # fmt: skip
    return verdicts
