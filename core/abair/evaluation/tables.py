"""The quality table: every policy on every test set, as a report that is written as JSON and as Markdown."""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

import abair
from abair.errors import AbairError, ImageError
from abair.evaluation.metrics import PSNR_CAP
from abair.evaluation.policies import POLICIES, ImageResult, Policy, Score, run_policies
from abair.evaluation.testsets import FIVE_TASKS, SEED, EvaluationSet, Item
from abair.wholefile import write_text

if TYPE_CHECKING:
    from abair.restore import Restorer

Progress = Callable[[int, int, str], None]
"""Called with pictures done, pictures in all, and the name of what was done last."""
Pictures = Callable[[EvaluationSet, Item, ImageResult, Mapping[Policy, NDArray[np.float32]]], None]
"""Called with each picture's restored versions, before they are dropped."""

HEADINGS: Final[dict[Policy, str]] = {
    "input": "input",
    "backbone": "bare backbone",
    "OH": "OH",
    "SW": "SW",
    "Oracle": "Oracle",
}


class SetResult(BaseModel):
    """One set: mean scores a policy, the estimator's mean weights, and every picture.

    `top1` is the share of pictures whose largest weight lies on a true label; `seen` counts the labels it lay on.
    """

    model_config = ConfigDict(frozen=True)

    key: str
    title: str
    labels: tuple[str, ...]
    note: str
    count: int
    mean: dict[Policy, Score]
    weights: dict[str, float]
    top1: float
    seen: dict[str, int]
    images: tuple[ImageResult, ...]


class QualityReport(BaseModel):
    """What was measured, of which deployment, how; `missing` and `problems` say what was not."""

    model_config = ConfigDict(frozen=True)

    deployment: str
    backbone: str
    fingerprint: str
    labels: tuple[str, ...]
    protocol: tuple[str, ...]
    created: datetime
    seconds: float
    versions: dict[str, str]
    sets: tuple[SetResult, ...]
    missing: dict[str, str]
    problems: tuple[str, ...]

    def five_task_mean(self) -> dict[Policy, Score]:
        """The mean over the five tasks' means, for the policies that all of them have; empty unless all are there."""
        five = [found for found in self.sets if found.key in FIVE_TASKS]
        return _mean([found.mean for found in five]) if len(five) == len(FIVE_TASKS) else {}

    def markdown(self) -> str:
        """The tables and, below them, the protocol."""
        rows = [_row(found.title, found.count, found.mean, f"{found.top1:.2f}") for found in self.sets]
        if five := self.five_task_mean():
            rows.append(_row("**mean of the five tasks**", None, five, ""))
        heading = ["set", "n", *(HEADINGS[policy] for policy in POLICIES), "top-1"]
        lines = ["PSNR in dB / SSIM", "", *_table(heading, rows, left=1), "", "The estimator's mean weights", ""]
        weights = [[s.title, *(f"{s.weights.get(label, 0):.2f}" for label in self.labels)] for s in self.sets]
        lines += [*_table(["set", *self.labels], weights, left=1), "", "Protocol", ""]
        lines += [f"- {line}" for line in self.protocol]
        lines += [f"- {found.title}: {found.note}" for found in self.sets]
        lines += [f"- not measured: {key}: {reason}" for key, reason in self.missing.items()]
        lines += [f"- left out: {problem}" for problem in self.problems]
        return "\n".join(lines) + "\n"

    def write(self, folder: Path, more: str = "") -> tuple[Path, Path]:
        """Write `results.json` and `table.md` (with `more` below it) into `folder`, which is made; returns their paths.

        Raises:
            ImageError: the folder or a file cannot be written.
        """
        paths = folder / "results.json", folder / "table.md"
        try:
            write_text(paths[0], self.model_dump_json(indent=1) + "\n")
            write_text(paths[1], self.markdown() + more)
        except OSError as error:
            raise ImageError(
                f"{folder}: the report cannot be written ({error.strerror or error}); choose another --out"
            ) from None
        return paths


def evaluate(
    restorer: Restorer,
    sets: Sequence[EvaluationSet],
    *,
    missing: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    pictures: Pictures | None = None,
) -> QualityReport:
    """Measure every policy on every set, picture by picture.

    Raises:
        ImageError: not one picture of any set could be used; each problem is named.
    """
    started, problems, results = time.perf_counter(), list[AbairError](), list[SetResult]()
    done, total = 0, sum(map(len, sets))
    for found in sets:
        measured: list[ImageResult] = []
        for item in found.iterate(problems.append):
            result, restored = run_policies(restorer, item, found.labels)
            measured.append(result)
            if pictures:
                pictures(found, item, result, restored)
            if progress:
                progress(done + len(measured), total, f"{found.title}: {item.name}")
        done += len(found)
        if measured:
            results.append(_set_result(found, measured))
    if not results:
        raise ImageError("test sets: no picture could be used" + "".join(f"; {problem}" for problem in problems))
    deployment = restorer.deployment
    return QualityReport(
        deployment=deployment.name,
        backbone=deployment.backbone.size,
        fingerprint=deployment.backbone.fingerprint,
        labels=tuple(restorer.labels),
        protocol=_protocol(restorer),
        created=datetime.now(UTC).replace(microsecond=0),
        seconds=round(time.perf_counter() - started, 1),
        versions={"abair": abair.__version__, "torch": torch.__version__, "numpy": np.__version__,
                  "python": platform.python_version()},
        sets=tuple(results),
        missing=dict(missing or {}),
        problems=tuple(map(str, problems)),
    )  # fmt: skip


def _protocol(restorer: Restorer) -> tuple[str, ...]:
    backbone = restorer.deployment.backbone
    return (
        f"deployment {restorer.deployment.name}, backbone {backbone.size}, fingerprint {backbone.fingerprint}",
        "RGB, whole pictures, no crop of borders; the mean over pictures of each picture's PSNR and SSIM",
        "SSIM: Gaussian window of sigma 1.5, biased covariance, range 1, mean over channels (scikit-image)",
        f"outputs are clipped and rounded to 8 bits before measuring; identical pictures count as {PSNR_CAP:g} dB",
        "noise is added on the fly and handed over as floating point, not clipped and not rounded, unless the set says "
        "so; the input is measured as it is",
        f"seeds: SHA-256 of set and picture name, with {SEED}",
        "blind: OH and SW see the picture alone; the Oracle is given the true labels, in equal parts that sum to 1",
        "top-1: share of pictures whose largest weight lies on a true label",
    )


def _set_result(found: EvaluationSet, measured: Sequence[ImageResult]) -> SetResult:
    labels = measured[0].weights
    return SetResult(
        key=found.key,
        title=found.title,
        labels=found.labels,
        note=found.note,
        count=len(measured),
        mean=_mean([result.scores for result in measured]),
        weights={label: sum(result.weights[label] for result in measured) / len(measured) for label in labels},
        top1=sum(result.top in found.labels for result in measured) / len(measured),
        seen=dict(Counter(result.top for result in measured).most_common()),
        images=tuple(measured),
    )


def _mean(scores: Sequence[Mapping[Policy, Score]]) -> dict[Policy, Score]:
    """The mean a policy, over scores that all have it; a picture too small for SSIM does not count for it."""
    means = {}
    for policy in POLICIES:
        if all(policy in score for score in scores):
            similarities = [s for score in scores if (s := score[policy].ssim) is not None]
            similarity = sum(similarities) / len(similarities) if similarities else None
            means[policy] = Score(psnr=sum(score[policy].psnr for score in scores) / len(scores), ssim=similarity)
    return means


def _row(title: str, count: int | None, scores: Mapping[Policy, Score], last: str) -> list[str]:
    cells = [score_text(scores.get(policy)) for policy in POLICIES]
    return [title, "" if count is None else str(count), *cells, last]


def score_text(score: Score | None) -> str:
    """A score as a table's cell."""
    if score is None:
        return "-"
    return f"{score.psnr:.2f}" + ("" if score.ssim is None else f" / {score.ssim:.3f}".replace("0.", ".", 1))


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """A Markdown table with padded cells, so that it reads as plain text too; `left` columns are flush left."""
    widths = [max(3, *(len(row[i]) for row in [heading, *rows])) for i in range(len(heading))]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(
            c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))
        ) + " |"  # fmt: skip

    rule = "|" + "|".join("-" * (w + 2) if i < left else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|"
    return [line(heading), rule, *map(line, rows)]
