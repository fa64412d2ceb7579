"""Gates: what a challenger must fulfil before it goes live, as pure functions of a report.

A live degradation must not lose, and a new one must not be restored worse than before it had a
label, alone or over damage that is live. A few samples scatter, so a mean loss above the threshold
counts only if its interval lies wholly above zero. The pairs are the same samples restored by
champion and challenger, and more are restored while the interval leaves it open (`find_open`). The
intervals hold however often one looks, and for all groups together (see `sequential`). Where the
samples end before it is decided, a mean loss of `CERTAIN_FACTOR` times the threshold counts if it
is as large without the sample that loses most: a few ruined samples are no scatter, and no single
one decides.

Recall is a count over all held-out samples. What soft weights cost is measured where the label is
recognised: what a miss costs is for the recall and the losses to judge.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from abair.labels import CLEAN
from abair.report import Group, Report, Verdict
from abair.text import format_measured
from abair_registry.operations.sequential import Answer, Interval, answer, holds, interval_of
from abair_registry.settings import Thresholds, describe_lowered

CERTAIN_FACTOR: Final = 5.0
PSNR_CAP: Final = 50.0
"""dB above which no difference is visible; clean photos are capped here."""
QUARTERS: Final = ("strongest", "stronger", "fainter", "faintest")
"""Quarters of a new label's samples by the strength of their damage."""
REGISTRY: Final = "registry"
"""The source of the platform's own gates; any other source is a plugin's name."""


class GateKind(StrEnum):
    """What a gate measures. Decisions read this, never texts, which plugins write, too."""

    ADAPTER_GAIN = "adapter gain"
    ORACLE_GAP = "gap to the Oracle"
    RECALL = "recall"
    LOSS = "loss"
    CLEAN = "clean photos"
    CLEAN_LOSS = "loss on clean photos"
    PLUGIN = "a plugin's own"
    NO_VERDICT = "a plugin's own, which gave no verdict"


_LOSSES: Final = frozenset({GateKind.LOSS, GateKind.CLEAN_LOSS})
"""Kinds that measure a loss."""
AT_LEAST: Final = frozenset({GateKind.ADAPTER_GAIN, GateKind.RECALL, GateKind.CLEAN})
"""The kinds whose threshold is the least that passes; of the registry's others it is the most."""


@dataclass(frozen=True)
class GateResult:
    """A verdict with what was measured and who judged: the registry, or the plugin of this name."""

    verdict: Verdict
    kind: GateKind
    source: str = REGISTRY

    @property
    def name(self) -> str:
        """The verdict's name, to be shown."""
        return self.verdict.name

    @property
    def bound(self) -> str:
        """What the threshold is: `at least`, `at most`, or of a plugin's own gate `threshold`."""
        if self.kind in AT_LEAST:
            return "at least"
        return "at most" if self.source == REGISTRY else "threshold"

    @property
    def passed(self) -> bool:
        """Whether the gate lets the challenger pass."""
        return self.verdict.passed

    @property
    def found(self) -> str:
        """What was measured, with its unit; a loss below zero is a gain."""
        if self.kind is GateKind.NO_VERDICT:
            return "no verdict"
        verdict = self.verdict
        gained = self.kind in _LOSSES and round(verdict.measured, 2) < 0
        text = f"{format_measured(abs(verdict.measured) if self.kind in _LOSSES else verdict.measured)} {verdict.unit}"
        return f"gain {text}".strip() if gained else text.strip()

    @property
    def asked(self) -> str:
        """The threshold with its unit; empty where no verdict has one."""
        if self.kind is GateKind.NO_VERDICT:
            return ""
        return f"{self.verdict.threshold:g} {self.verdict.unit}".strip()


def evaluate_gates(report: Report, thresholds: Thresholds) -> list[GateResult]:
    """Return the results of all gates, on new and live labels, mixtures, and clean photos."""
    results = []
    for label in report.new:
        results += _new_label_gates(report.group(label), report, thresholds)
    compared = _compared(report)
    for group in compared:
        if CLEAN not in group.labels:
            results.append(_loss_gate(group, _threshold(group, report, thresholds), len(compared), report.new))
    results += _clean_gates(report.group(CLEAN), thresholds, len(compared))
    return results


def find_open(report: Report, thresholds: Thresholds) -> set[str]:
    """Return the names of the groups of which more samples may change a verdict."""
    found = set()
    compared = _compared(report)
    for group in compared:
        losses = loss_interval(*_pairs(group), len(compared))
        if answer(losses, _threshold(group, report, thresholds)) is Answer.OPEN:
            found.add(group.name)
    for label in report.new:
        group = report.group(label)
        gaps = _gaps(group)
        if holds(interval_of(_gains(group)), thresholds.gain) or (
            gaps and holds(interval_of(gaps), thresholds.oracle_gap)
        ):
            found.add(label)
    if holds(interval_of(_pairs(report.group(CLEAN))[1]), thresholds.clean):
        found.add(CLEAN)
    return found


def plugin_results(verdicts: Sequence[Verdict], plugin: str, *, failed: bool = False) -> list[GateResult]:
    """Return a plugin's verdicts as results; whatever they are called, they are that plugin's.

    If its gate `failed`, they stand for the verdicts that it did not give.
    """
    kind = GateKind.NO_VERDICT if failed else GateKind.PLUGIN
    return [GateResult(verdict, kind, plugin) for verdict in verdicts]


def summarize(verdicts: Sequence[Verdict], thresholds: Thresholds, *, forced: bool = False) -> str:
    """Return in words how many gates passed, and which were lowered, as the history shows it."""
    passed = f"{sum(verdict.passed for verdict in verdicts)} of {len(verdicts)} passed"
    return ", ".join(filter(None, [passed, "forced" if forced else "", describe_lowered(thresholds.lowered())]))


def loss_interval(champion: Sequence[float], challenger: Sequence[float], comparisons: int = 1) -> Interval:
    """Return the challenger's mean loss in dB on the same samples, and its interval."""
    return interval_of([before - after for before, after in zip(champion, challenger, strict=True)], comparisons)


def is_loss(champion: Sequence[float], challenger: Sequence[float], threshold: float, comparisons: int = 1) -> bool:
    """Tell whether the challenger loses more than `threshold` dB on the mean, and not by chance."""
    found = loss_interval(champion, challenger, comparisons)
    if (said := answer(found, threshold)) is not Answer.OPEN:
        return said is Answer.LOST
    losses = sorted(before - after for before, after in zip(champion, challenger, strict=True))
    others = sum(losses[:-1]) / max(1, len(losses) - 1)
    return min(found.mean, others) > CERTAIN_FACTOR * threshold


def _compared(report: Report) -> list[Group]:
    """Return the groups that the champion restored, too."""
    return [group for group in report.groups if "champion" in group.psnr]


def _threshold(group: Group, report: Report, thresholds: Thresholds) -> float:
    """Return the loss that a group may have at most."""
    if CLEAN in group.labels:
        return thresholds.clean_loss
    over_another = len(group.labels) > 1 and not set(report.new).isdisjoint(group.labels)
    return thresholds.mixed_loss if over_another else thresholds.loss


def _pairs(group: Group) -> tuple[Sequence[float], Sequence[float]]:
    """Return the PSNR of a group by champion, if there is one, and by challenger."""
    before, after = group.psnr.get("champion", ()), group.psnr["SW"]
    if CLEAN not in group.labels:
        return before, after
    return [min(value, PSNR_CAP) for value in before], [min(value, PSNR_CAP) for value in after]


def _gains(group: Group) -> list[float]:
    """Return what the adapter gains in dB on each sample."""
    return [own - bare for own, bare in zip(group.psnr["Oracle"], group.psnr["backbone"], strict=True)]


def _gaps(group: Group) -> list[float]:
    """Return what soft weights cost in dB on each restored sample whose label is recognised."""
    ways = zip(group.top, group.psnr["Oracle"], group.psnr["SW"], strict=False)  # not all were restored
    return [own - soft for top, own, soft in ways if top in group.labels]


def _new_label_gates(group: Group, report: Report, thresholds: Thresholds) -> list[GateResult]:
    gain, gaps = float(np.mean(_gains(group))), _gaps(group)
    gap = float(np.mean(gaps)) if gaps else 0.0
    confused = _confusion_advice(group) or "look at the pictures: abair-registry ui"
    return [
        GateResult(
            Verdict(
                name=f"{group.name}: gain of the adapter", passed=gain >= thresholds.gain, measured=gain,
                threshold=thresholds.gain, unit="dB",
                advice=f"train the adapter longer, or on samples like these: abair train adapter {group.name}",
            ),
            GateKind.ADAPTER_GAIN,
        ),
        GateResult(
            Verdict(
                name=f"{group.name}: soft weights below Oracle", passed=gap <= thresholds.oracle_gap, measured=gap,
                threshold=thresholds.oracle_gap, unit="dB", detail=f"where recognised, n={len(gaps)}",
                advice="it is recognised, but shares its weight with others: show it alone more often, or "
                "look at the pictures: abair-registry ui",
            ),
            GateKind.ORACLE_GAP,
        ),
        GateResult(
            Verdict(
                name=f"{group.name}: recall", passed=group.recall >= thresholds.recall, measured=group.recall,
                threshold=thresholds.recall, detail=_count_right(group, report), advice=confused,
            ),
            GateKind.RECALL,
        ),
    ]  # fmt: skip


def _count_right(group: Group, report: Report) -> str:
    """Return how many samples were recognised, in the worst quarter and over the worst label, too.

    Quarters are by the strength of the damage; they and labels are told if worse than the whole.
    """
    right = [top in group.labels for top in group.top]
    texts = [f"{sum(right)} of {len(right)} right"]
    if len(group.strength) >= 2 * len(QUARTERS):
        order = np.argsort(group.strength, kind="stable")
        parts = [[right[place] for place in part] for part in np.array_split(order, len(QUARTERS))]
        name, worst = min(zip(QUARTERS, parts, strict=True), key=lambda pair: np.mean(pair[1]))
        if np.mean(worst) < group.recall:
            texts.append(f"the {name} quarter {sum(worst)} of {len(worst)}")
    over = [other for other in report.groups if len(other.labels) > 1 and group.name in other.labels]
    if over and (least := min(over, key=lambda other: other.recall)).recall < group.recall:
        others = " and ".join(label for label in least.labels if label != group.name)
        texts.append(f"with {others} {round(least.recall * len(least.top))} of {len(least.top)}")
    return "; ".join(texts)


def count_wrong(group: Group) -> Counter[str]:
    """Return by label how many of the samples it was given to, though it is none of theirs."""
    return Counter(top for top in group.top if top not in group.labels)


def _name_wrong(group: Group) -> str:
    """Return the wrong labels in words, the most frequent first: `noise (2) and clean (1)`."""
    return " and ".join(f"{label} ({count})" for label, count in count_wrong(group).most_common())


def _confusion_advice(group: Group) -> str:
    """Return what to do for a new label that was taken for others; empty if it was not."""
    if not (wrong := count_wrong(group)):
        return ""
    ((worst, _),) = wrong.most_common(1)
    told = f"the others were called {_name_wrong(group)}"
    if worst == CLEAN:
        return f"{told}: let the mildest damage of {group.name} be stronger, so that it can be seen"
    return (
        f"{told}: show more of {group.name} that does not look like {worst}, or leave out the strengths at which the "
        "two look alike"
    )


def _loss_advice(group: Group, new: Sequence[str]) -> str:
    """Return what to do for damage that is live and would be restored worse."""
    if not (wrong := count_wrong(group)):
        return (
            "it is still recognised, but blended with less of its own adapters; look at the pictures: abair-registry ui"
        )
    ((worst, _),) = wrong.most_common(1)
    told = f"{wrong.total()} of {len(group.top)} were called {_name_wrong(group)}"
    if worst in new:
        return f"{told}: leave out the strengths at which {worst} looks like {group.name}, or make it more distinct"
    return f"{told}; look at the pictures: abair-registry ui"


def _clean_advice(group: Group) -> str:
    """Return what to do for undamaged photos that would be changed."""
    if not (wrong := count_wrong(group)):
        return "undamaged photos would be changed; the new samples may be too close to undamaged ones"
    ((worst, _),) = wrong.most_common(1)
    told = f"{wrong.total()} of {len(group.top)} undamaged photos were called {_name_wrong(group)}"
    return f"{told}: let the mildest damage of {worst} be stronger"


def _loss_gate(group: Group, threshold: float, comparisons: int, new: Sequence[str]) -> GateResult:
    before, after = _pairs(group)
    found, lost = loss_interval(before, after, comparisons), is_loss(before, after, threshold, comparisons)
    verdict = Verdict(
        name=f"{group.name}: loss against the champion", passed=not lost, measured=found.mean,
        threshold=threshold, unit="dB", detail=_interval_text(found, group.count, threshold, lost=lost),
        advice=_loss_advice(group, new),
    )  # fmt: skip
    return GateResult(verdict, GateKind.LOSS)


def _clean_gates(group: Group, thresholds: Thresholds, comparisons: int) -> list[GateResult]:
    mean = group.mean("SW")
    advice = _clean_advice(group)
    absolute = Verdict(
        name="clean photos", passed=mean >= thresholds.clean, measured=mean, threshold=thresholds.clean, unit="dB",
        advice=advice,
    )  # fmt: skip
    results = [GateResult(absolute, GateKind.CLEAN)]
    if "champion" in group.psnr:
        before, after = _pairs(group)
        found, threshold = loss_interval(before, after, comparisons), thresholds.clean_loss
        lost = is_loss(before, after, threshold, comparisons)
        relative = Verdict(
            name="clean photos: loss against the champion", passed=not lost, measured=found.mean,
            threshold=threshold, unit="dB", detail=_interval_text(found, group.count, threshold, lost=lost),
            advice=advice,
        )  # fmt: skip
        results.append(GateResult(relative, GateKind.CLEAN_LOSS))
    return results


def _interval_text(found: Interval, count: int, threshold: float, *, lost: bool) -> str:
    """Return the interval of a loss, or where the mean is a gain, that of the gain.

    A mean above the threshold that is not `lost` may be chance, which is said.
    """
    if round(found.mean, 2) < 0:
        return f"gain {-found.high:.2f} to {-found.low:.2f}, n={count}"
    chance = ", may be chance" if found.mean > threshold and not lost else ""
    return f"{found.low:.2f} to {found.high:.2f}, n={count}{chance}"
