"""The report of an operation as one HTML page that needs no other file.

What refuses comes first. Its numbers are those of the gates and their report.
"""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from abair.continual.compare import Contender, Evaluation, Picture, to_picture
from abair.continual.separation import HARD, Separation
from abair.labels import CLEAN
from abair.report import Group, Report
from abair_registry.operations.gates import REGISTRY, GateKind, GateResult
from abair_registry.operations.progress import Stage

PAGE: Final = "0 report.html"
"""The artifact's name, by which it is the first of a run."""
SAMPLES_OF_GATE: Final = 3
SAMPLES: Final = 12
"""Samples on a page, and of one gate: a page of twelve takes about a megabyte."""
MOST_PASSED: Final = 16
"""More gates that passed are folded, so that the samples are not far below."""
TEMPLATES: Final = Path(__file__).parent / "templates"
LEFT, RIGHT = 4.0, 216.0
"""Where a scale begins and ends, in the units of its drawing."""
_SCALES: Final[dict[GateKind, str]] = {
    GateKind.ADAPTER_GAIN: "gain",
    GateKind.ORACLE_GAP: "gap to the Oracle",
    GateKind.RECALL: "recall",
    GateKind.LOSS: "loss",
    GateKind.CLEAN_LOSS: "loss",
    GateKind.CLEAN: "clean photos",
}


@dataclass(frozen=True)
class Judged:
    """A proposal as the gates judged it: what a page shows.

    `challenger` and `champion` restore the samples that are shown; without an evaluation there are
    none. `unasked` are the live plugins whose gates were not asked, and why. `separations` say how
    well features tell new labels from others, `stages` what the operation took until now.
    """

    title: str
    outcome: str
    deployment: int
    results: Sequence[GateResult]
    evaluation: Evaluation | None
    challenger: Contender
    champion: Contender
    origin: Mapping[str, str]
    unasked: Mapping[str, str]
    separations: Sequence[Separation] = ()
    stages: Sequence[Stage] = ()


@dataclass(frozen=True)
class Scale:
    """A range of values, drawn from `LEFT` to `RIGHT`; what lies outside is drawn at its end."""

    low: float
    high: float

    @classmethod
    def over(cls, values: Iterable[float]) -> Scale:
        """Return the scale that holds these values, with some room."""
        found = [value for value in values if np.isfinite(value)] or [0.0]
        room = 0.05 * (max(found) - min(found)) or 0.5
        return cls(min(found) - room, max(found) + room)

    def at(self, value: float) -> float:
        """Return where a value is drawn."""
        share = min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))
        return round(LEFT + share * (RIGHT - LEFT), 1)


def render_page(judged: Judged) -> str:
    """Return the page as HTML."""
    scales = _gate_scales(judged.results)
    rows = [_gate_row(result, scales) for result in judged.results]
    refused = [row for row in rows if not row["passed"]]
    report = judged.evaluation.report if judged.evaluation else None
    values = [group.mean(way) for group in (report.groups if report else ()) for way in group.psnr]
    decibels = Scale.over([min(value, 60.0) for value in values])
    verdict = (
        f"refused by {len(refused)} of {len(rows)} gates" if refused else f"{len(rows)} of {len(rows)} gates passed"
    )
    page: str = _template().render(
        title=judged.title,
        outcome=judged.outcome,
        verdict=verdict if rows else "no gate was asked",
        compared=f"Compared with deployment {judged.deployment} on the same held-out samples." if report else "",
        unasked=judged.unasked,
        refused=refused,
        passed=[row for row in rows if row["passed"]],
        most_passed=MOST_PASSED,
        scales="; ".join(f"{name} {scale.low:.2f} to {scale.high:.2f}" for name, scale in scales.items()),
        samples=list(_samples(judged)),
        groups=[_group_row(group, report, decibels) for group in _ordered(report)] if report else [],
        champion=judged.deployment,
        low=f"{decibels.low:.1f}",
        high=f"{decibels.high:.1f}",
        separations=judged.separations,
        good=f"{HARD:g}",
        stages=list(judged.stages),
        took=Stage("in all", sum(one.seconds for one in judged.stages), sum(one.cpu_seconds for one in judged.stages)),
        origin=judged.origin,
    )
    return page


@cache
def _template() -> Any:  # noqa: ANN401 - jinja2's
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, autoescape=True, trim_blocks=True
    )
    return environment.get_template("run.html.jinja")


def _gate_scales(results: Sequence[GateResult]) -> dict[str, Scale]:
    """Return the scale of each kind of gates of the registry.

    One far off must not press all others together, so losses end at ten times their threshold.
    """
    values: dict[str, list[float]] = {}
    for result in results:
        if (name := _SCALES.get(result.kind)) is not None:
            measured, threshold = result.verdict.measured, result.verdict.threshold
            if name == "loss":
                measured = float(np.clip(measured, -10 * threshold, 10 * threshold))
            values.setdefault(name, []).extend((measured, threshold))
    return {name: Scale(0.0, 1.0) if name == "recall" else Scale.over(found) for name, found in values.items()}


def _gate_row(result: GateResult, scales: Mapping[str, Scale]) -> dict[str, Any]:
    verdict, scale = result.verdict, scales.get(_SCALES.get(result.kind, ""))
    dot = None
    if scale is not None:
        dot = {
            "at": scale.at(verdict.measured),
            "threshold": scale.at(verdict.threshold),
            "passed": verdict.passed,
            "says": f"{result.found}, threshold {result.asked}",
        }
    return {
        "name": verdict.name,
        "passed": verdict.passed,
        "measured": result.found,
        "threshold": result.asked,
        "detail": verdict.detail,
        "advice": "" if verdict.passed else verdict.advice,
        "dot": dot,
    }


def _ordered(report: Report) -> list[Group]:
    """Return the groups: new labels first, then those that lost most."""

    def rank(group: Group) -> tuple[bool, float]:
        return not (set(group.labels) & set(report.new)), -_loss(group)

    return sorted(report.groups, key=rank)


def _loss(group: Group) -> float:
    return group.mean("champion") - group.mean("SW") if "champion" in group.psnr else 0.0


def _group_row(group: Group, report: Report, scale: Scale) -> dict[str, Any]:
    others = Counter(label for label in group.top if label not in group.labels)
    there = "champion" in group.psnr
    at = {"input": scale.at(group.mean("input")), "oracle": scale.at(group.mean("Oracle"))}
    at |= {"challenger": scale.at(group.mean("SW"))} | ({"champion": scale.at(group.mean("champion"))} if there else {})
    return {
        "name": group.name,
        "new": bool(set(group.labels) & set(report.new)),
        "count": group.count,
        "input": f"{group.mean('input'):.2f}",
        "before": f"{group.mean('champion'):.2f}" if there else "",
        "challenger": f"{group.mean('SW'):.2f}",
        "change": f"{-_loss(group):+.2f}" if there else "",
        "oracle": f"{group.mean('Oracle'):.2f}",
        "recall": f"{sum(label in group.labels for label in group.top)} of {len(group.top)}",
        "confused": ", ".join(f"{label} {count}" for label, count in others.most_common(4)),
        "at": at,
    }


def _samples(judged: Judged) -> Iterable[dict[str, Any]]:
    """Yield the samples that decided: the worst of each gate that refuses, else of new labels."""
    evaluation = judged.evaluation
    if evaluation is None or not evaluation.samples:
        return
    shown: dict[tuple[str, int], str] = {}
    for group, kind in _deciding(judged.results, evaluation.report):
        why, badness = _worst_by(kind)
        places = sorted(range(group.count), key=lambda place: -badness(group, place))
        for rank, place in enumerate(places[:SAMPLES_OF_GATE], 1):
            shown.setdefault((group.name, place), f"{why}, {rank} of {len(places)}")
    for (name, place), why in list(shown.items())[:SAMPLES]:
        group, sample = evaluation.report.group(name), evaluation.samples[name][place]
        weights = evaluation.weights[name][place]
        before = judged.champion.weights([sample])[0]
        pictures: list[tuple[str, Picture, float | None]] = [
            ("damaged", to_picture(sample.degraded), group.psnr["input"][place])
        ]
        if "champion" in group.psnr:
            restored = judged.champion.restore(sample, before)
            pictures.append((f"before, deployment {judged.deployment}", restored, group.psnr["champion"][place]))
        pictures.append(("challenger", judged.challenger.restore(sample, weights), group.psnr["SW"][place]))
        pictures.append(("undamaged", to_picture(sample.clean), None))
        seen = sorted(((weight, label) for label, weight in weights.items() if weight >= 0.01), reverse=True)[:4]
        yield {
            "group": name,
            "why": why,
            "weights": ", ".join(f"{label} {weight:.2f}" for weight, label in seen),
            "pictures": [
                {"title": title, "says": f"{value:.2f} dB" if value is not None else "", "data": _png(picture)}
                for title, picture, value in pictures
            ],
        }


def _deciding(results: Sequence[GateResult], report: Report) -> list[tuple[Group, GateKind | None]]:
    """Return the groups whose samples decided, each with the kind of gate that refused, if any."""
    by_name = sorted(report.groups, key=lambda group: -len(group.name))
    refused: list[tuple[Group, GateKind | None]] = []
    for result in results:
        if result.passed or result.source != REGISTRY:
            continue
        clean = result.kind in {GateKind.CLEAN, GateKind.CLEAN_LOSS}
        named = (g for g in by_name if (g.labels == (CLEAN,) if clean else result.name.startswith(f"{g.name}: ")))
        refused += [(group, result.kind) for group in [next(named, None)] if group is not None]
    if refused:
        return refused
    groups = [report.group(label) for label in report.new] or _ordered(report)[:2]
    return [(group, None) for group in groups]


def _worst_by(kind: GateKind | None) -> tuple[str, Callable[[Group, int], float]]:
    """Return what is worst about a sample for a kind of gate, in words and as a number."""

    def loss(group: Group, place: int) -> float:
        return group.psnr.get("champion", group.psnr["backbone"])[place] - group.psnr["SW"][place]

    def gap(group: Group, place: int) -> float:
        return group.psnr["Oracle"][place] - group.psnr["SW"][place]

    def no_gain(group: Group, place: int) -> float:
        return group.psnr["backbone"][place] - group.psnr["Oracle"][place]

    def mistaken(group: Group, place: int) -> float:
        return 1000.0 * (group.top[place] not in group.labels) + gap(group, place)

    def dark(group: Group, place: int) -> float:
        return -group.psnr["SW"][place]

    kinds: dict[GateKind | None, tuple[str, Callable[[Group, int], float]]] = {
        GateKind.ADAPTER_GAIN: ("smallest gain of the adapter", no_gain),
        GateKind.ORACLE_GAP: ("largest gap to the Oracle", gap),
        GateKind.RECALL: ("worst recognised", mistaken),
        GateKind.CLEAN: ("changed most", dark),
        None: ("improved least", loss),
    }
    return kinds.get(kind, ("largest loss", loss))


def _png(picture: Picture) -> str:
    with io.BytesIO() as file:
        Image.fromarray(np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)).save(file, format="png")
        return base64.b64encode(file.getvalue()).decode("ascii")
