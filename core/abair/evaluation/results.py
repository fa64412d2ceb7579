"""The results of the quality benchmark, as `results.json` holds them."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict

from abair.evaluation.datasets.paper import FIVE_TASKS, TABLES
from abair.evaluation.policies import ImageResult, Policy, Score, mean_score


class SetResult(BaseModel):
    """One test set: the mean scores of each policy, the estimator's mean weights, every picture.

    `top1` is the share of pictures whose largest weight lies on a true label; None where no true
    label is known. `seen` counts the labels with the largest weight. `mean_y` is measured on Y, and
    only for sets whose papers do so. `gap` is the PSNR of the Oracle minus that of SW, in dB.
    `data_sha256` covers names and bytes of the files that were read, `weights_sha256` the files of
    the deployment that restored them.
    """

    model_config = ConfigDict(frozen=True)

    key: str
    title: str
    labels: tuple[str, ...]
    note: str
    count: int
    mean: dict[Policy, Score]
    mean_y: dict[Policy, Score] = {}
    gap: float | None = None
    weights: dict[str, float]
    top1: float | None
    seen: dict[str, int]
    data_sha256: str | None = None
    weights_sha256: str | None = None
    images: tuple[ImageResult, ...]


class TableResult(BaseModel):
    """A table of the paper: the keys of the sets that were measured, and of those that were not.

    `mean` and `gap` are there only if no set is missing.
    """

    model_config = ConfigDict(frozen=True)

    key: str
    title: str
    sets: tuple[str, ...]
    missing: tuple[str, ...]
    mean: dict[Policy, Score]
    gap: float | None


class QualityReport(BaseModel):
    """One run of the quality benchmark: the deployment, the protocol, and the results.

    `confusion` counts, for each true label of sets with a single damage, how often each label got
    the largest weight. `missing` maps sets that were not found to the reason; `problems` are the
    pictures that could not be used.
    """

    model_config = ConfigDict(frozen=True)

    deployment: str
    backbone: str
    fingerprint: str
    weights_sha256: str | None = None
    labels: tuple[str, ...]
    protocol: tuple[str, ...]
    created: datetime
    seconds: float
    versions: dict[str, str]
    tables: tuple[TableResult, ...] = ()
    confusion: dict[str, dict[str, int]] = {}
    sets: tuple[SetResult, ...]
    missing: dict[str, str]
    problems: tuple[str, ...]

    def five_task_mean(self) -> dict[Policy, Score]:
        """Return the five-task mean of every policy that all have; empty if a task is missing."""
        five = TABLES[0].members([result.key for result in self.sets])
        means = [result.mean for result in self.sets if result.key in five]
        return mean_score(means) if len(means) == len(FIVE_TASKS) else {}

    def table_sets(self, table: TableResult) -> list[SetResult]:
        """Return the measured sets of a table in the table's order."""
        by_key = {result.key: result for result in self.sets}
        return [by_key[key] for key in table.sets]
