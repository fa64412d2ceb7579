"""What the quality bench found out, as it is written to `results.json`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from abair.errors import ImageError
from abair.evaluation.datasets.paper import FIVE_TASKS, TABLES
from abair.evaluation.policies import ImageResult, Policy, Score, mean_score
from abair.evaluation.reports.markdown import overview
from abair.evaluation.reports.radar import draw_radar
from abair.files import atomic_write, write_text

RADAR_FILE = "radar.png"


class SetResult(BaseModel):
    """One set: mean scores a policy, the estimator's mean weights, and every picture.

    `top1` is the share of pictures whose largest weight lies on a true label (None: no label is known); `seen` counts
    the labels it lay on. `mean_y` is on Y, where the set's papers measure there. `gap` is from SW to the Oracle, in dB.
    `data_sha256` is over names and bytes of the files that were read, `weights_sha256` over those that restored them.
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
    """A table of the paper: the keys of its sets that were measured; `mean` and `gap` only where none is missing."""

    model_config = ConfigDict(frozen=True)

    key: str
    title: str
    sets: tuple[str, ...]
    missing: tuple[str, ...]
    mean: dict[Policy, Score]
    gap: float | None


class QualityReport(BaseModel):
    """What was measured, of which deployment, how; `missing` and `problems` say what was not.

    `confusion` counts, by the true label of sets that have one alone, the labels that the estimator found likeliest.
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
        """The mean over the five tasks' means, for the policies that all of them have; empty unless all are there."""
        five = TABLES[0].members([found.key for found in self.sets])
        means = [found.mean for found in self.sets if found.key in five]
        return mean_score(means) if len(means) == len(FIVE_TASKS) else {}

    def table_sets(self, table: TableResult) -> list[SetResult]:
        """The sets of a table in its order."""
        by_key = {found.key: found for found in self.sets}
        return [by_key[key] for key in table.sets]

    def markdown(self) -> str:
        """The tables and, below them, the protocol."""
        return overview(self)

    def write(self, folder: Path, more: str = "") -> tuple[Path, ...]:
        """Write `results.json` and `table.md` (with `more` below it) into `folder`, which is made; returns their paths.

        Where three or more of the five tasks were measured and have an Oracle, `radar.png` too.

        Raises:
            ImageError: the folder or a file cannot be written.
            MissingExtraError: matplotlib, which draws the radar plot, is not installed.
        """
        paths = folder / "results.json", folder / "table.md"
        try:
            write_text(paths[0], self.model_dump_json(indent=1) + "\n")
            write_text(paths[1], self.markdown() + more)
            return (*paths, *self.write_radar(folder / RADAR_FILE))
        except OSError as error:
            raise ImageError(
                f"{folder}: the report cannot be written ({error.strerror or error}); choose another --out"
            ) from None

    def write_radar(self, path: Path) -> tuple[Path, ...]:
        """Draw the radar plot of the five tasks; its path, or nothing where fewer than three have an Oracle.

        Raises:
            OSError: it cannot be written.
            MissingExtraError: matplotlib is not installed.
        """
        five = [found for table in self.tables if table.key == TABLES[0].key for found in self.table_sets(table)]
        axes = [(found.title, found.mean) for found in five if "Oracle" in found.mean]
        if len(axes) < 3:
            return ()
        figure = draw_radar(axes, self.five_task_mean(), f"deployment {self.deployment}, backbone {self.backbone}")
        with atomic_write(path) as aside:
            figure.savefig(aside, dpi=160)
        return (path,)
