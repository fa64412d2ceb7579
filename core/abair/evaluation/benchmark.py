"""Measure every policy on every test set: the run behind the quality tables."""

from __future__ import annotations

import hashlib
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

import abair
from abair.errors import AbairError, ImageError
from abair.evaluation.datasets.items import SEED, EvaluationSet, Item
from abair.evaluation.datasets.paper import TABLES
from abair.evaluation.policies import ImageResult, Policy, mean_score, oracle_gap, run_policies
from abair.evaluation.results import QualityReport, SetResult, TableResult
from abair.metrics import PSNR_CAP

if TYPE_CHECKING:
    from abair.deployment import Deployment
    from abair.inference.restorer import Restorer
    from abair.inference.results import Quality

Progress = Callable[[int, int, str], None]
"""Called with the number of pictures done, the number of all, and the name of the last one."""
OnPicture = Callable[[EvaluationSet, Item, ImageResult, Mapping[Policy, NDArray[np.float32]]], None]
"""Called with each picture's result and its restored versions."""


def evaluate(
    restorer: Restorer,
    sets: Sequence[EvaluationSet],
    *,
    missing: Mapping[str, str] | None = None,
    weights_sha256: str | None = None,
    quality: Quality = "standard",
    progress: Progress | None = None,
    on_picture: OnPicture | None = None,
) -> QualityReport:
    """Measure every policy on every set, one picture after the other.

    `missing` (sets that were not found, with the reason) and `weights_sha256` (see `weights_hash`)
    are recorded in the report. `quality` is the restorer's.

    Raises:
        ImageError: no picture of any set could be used; the message names each problem.
    """
    started, problems, results = time.perf_counter(), list[AbairError](), list[SetResult]()
    done, total = 0, sum(map(len, sets))
    for test_set in sets:
        measured: list[ImageResult] = []
        files: list[str] = []
        for item in test_set.iterate(problems.append):
            result, restored = run_policies(restorer, item, test_set.labels, on_luma=test_set.luma, quality=quality)
            measured.append(result)
            files += [f"{digest}  {part}/{item.name}" for part, digest in item.files.items()]
            if on_picture:
                on_picture(test_set, item, result, restored)
            if progress:
                progress(done + len(measured), total, f"{test_set.title}: {item.name}")
        done += len(test_set)
        if measured:
            results.append(_set_result(test_set, measured, files, weights_sha256))
    if not results:
        raise ImageError("test sets: no picture could be used" + "".join(f"; {problem}" for problem in problems))
    deployment = restorer.deployment
    return QualityReport(
        deployment=deployment.name,
        backbone=deployment.backbone.size,
        fingerprint=deployment.backbone.fingerprint,
        weights_sha256=weights_sha256,
        labels=tuple(restorer.labels),
        protocol=_protocol(restorer, quality),
        created=datetime.now(UTC).replace(microsecond=0),
        seconds=round(time.perf_counter() - started, 1),
        versions={"abair": abair.__version__, "torch": torch.__version__, "numpy": np.__version__,
                  "python": platform.python_version()},
        tables=_tables(results),
        confusion=_confusion(results, restorer.labels),
        sets=tuple(results),
        missing=dict(missing or {}),
        problems=tuple(map(str, problems)),
    )  # fmt: skip


def weights_hash(deployment: Deployment) -> str:
    """Return one SHA-256 over backbone, adapters with their configurations, and estimator.

    It is the hash of a text with one line `SHA-256  part` per file; `sha256sum` can reproduce it.
    """
    lines = [f"{deployment.backbone.file.sha256}  backbone"]
    for adapter in deployment.adapters:
        lines.append(f"{adapter.config.sha256}  {adapter.degradation}/config")
        lines.append(f"{adapter.weights.sha256}  {adapter.degradation}/weights")
    return _hash_of([*lines, f"{deployment.estimator.sha256}  estimator"])


def _protocol(restorer: Restorer, quality: Quality) -> tuple[str, ...]:
    backbone = restorer.deployment.backbone
    ensemble = ("quality best: every picture is restored in four orientations, and the results are averaged",)
    return (
        f"deployment {restorer.deployment.name}, backbone {backbone.size}, fingerprint {backbone.fingerprint}",
        "RGB, whole pictures, no crop of borders; the mean over pictures of each picture's PSNR and SSIM",
        "SSIM: Gaussian window of sigma 1.5, biased covariance, range 1, mean over channels (scikit-image)",
        f"outputs are clipped and rounded to 8 bits before measuring; identical pictures count as {PSNR_CAP:g} dB",
        "on Y, where a set's papers measure there: BT.601, 16 to 235, of 8-bit pictures and rounded to 8 bits, as "
        "MATLAB's rgb2ycbcr",
        "noise is added on the fly and passed on as floating point, not clipped and not rounded, unless the set says "
        "so; the input is measured as it is",
        f"seeds: SHA-256 of set and picture name, with {SEED}",
        "blind: OH (one-hot, the adapter of the likeliest label alone) and SW (a blend by soft weights) see only the "
        "picture; the Oracle is given the true labels, with equal weights that sum to 1",
        "top-1: share of pictures whose largest weight lies on a true label; gap: PSNR of the Oracle minus that of SW",
        "the haze of the five and the three tasks is SOTS outdoor, as in the paper, or SOTS indoor if there is no "
        "SOTS outdoor",
        "data hash: SHA-256 over one line `SHA-256  part/picture` per file that was read; weights' hash: the same "
        "over backbone, adapters and estimator",
        *(ensemble if quality == "best" else ()),
        *((f"precision {restorer.precision}",) if restorer.precision != "float32" else ()),
    )


def _set_result(
    test_set: EvaluationSet, measured: Sequence[ImageResult], files: Sequence[str], weights_sha256: str | None
) -> SetResult:
    labels = measured[0].weights
    mean = mean_score([result.scores for result in measured])
    return SetResult(
        key=test_set.key,
        title=test_set.title,
        labels=test_set.labels,
        note=test_set.note,
        count=len(measured),
        mean=mean,
        mean_y=mean_score([result.scores_y for result in measured]),
        gap=oracle_gap(mean),
        weights={label: sum(result.weights[label] for result in measured) / len(measured) for label in labels},
        top1=sum(result.top in test_set.labels for result in measured) / len(measured) if test_set.labels else None,
        seen=dict(Counter(result.top for result in measured).most_common()),
        data_sha256=_hash_of(files) if files else None,
        weights_sha256=weights_sha256,
        images=tuple(measured),
    )


def _tables(results: Sequence[SetResult]) -> tuple[TableResult, ...]:
    """Return the paper's tables of which at least one set was measured."""
    by_key = {result.key: result for result in results}
    unknown = [result.key for result in results if not result.labels]
    tables = []
    for table in TABLES:
        members = table.members(by_key, unknown)
        here = tuple(key for key in members if key in by_key)
        mean = mean_score([by_key[key].mean for key in members]) if len(here) == len(members) else {}
        if here:
            absent = tuple(key for key in members if key not in by_key)
            tables.append(
                TableResult(
                    key=table.key, title=table.title, sets=here, missing=absent, mean=mean, gap=oracle_gap(mean)
                )
            )
    return tuple(tables)


def _confusion(results: Sequence[SetResult], labels: Iterable[str]) -> dict[str, dict[str, int]]:
    """Count pictures by true label (first those in `labels`) and by likeliest label."""
    order = list(labels)
    singles = [result for result in results if len(result.labels) == 1]
    truths = dict.fromkeys([result.labels[0] for result in singles])
    rows = [label for label in order if label in truths] + [label for label in truths if label not in order]
    counts = {truth: Counter[str]() for truth in rows}
    for result in singles:
        counts[result.labels[0]].update(result.seen)
    return {truth: {label: counts[truth][label] for label in order} for truth in rows}


def _hash_of(lines: Iterable[str]) -> str:
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()
