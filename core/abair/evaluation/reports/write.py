"""Write a quality report to files: `results.json`, `table.md` and the radar plot."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from abair.errors import ImageError
from abair.evaluation.datasets.paper import TABLES
from abair.evaluation.reports.markdown import overview
from abair.evaluation.reports.radar import SMALLEST_AXIS_COUNT, draw_radar
from abair.evaluation.results import QualityReport
from abair.files import atomic_write, write_text

RADAR_FILE: Final = "radar.png"


def write_results(report: QualityReport, folder: Path, appendix: str = "") -> list[Path]:
    """Write `results.json`, `table.md` and, where it can be drawn, `radar.png`; return their paths.

    Makes the folder. `appendix` is Markdown that follows the tables in `table.md`.

    Raises:
        ImageError: the folder or a file cannot be written.
        MissingExtraError: matplotlib, which draws the radar plot, is not installed.
    """
    results, tables = folder / "results.json", folder / "table.md"
    try:
        write_text(results, report.model_dump_json(indent=1) + "\n")
        write_text(tables, overview(report) + appendix)
        radar = write_radar(report, folder / RADAR_FILE)
    except OSError as error:
        raise ImageError(
            f"{folder}: the report cannot be written ({error.strerror or error}); choose another --out"
        ) from None
    return [results, tables, *([radar] if radar else [])]


def write_radar(report: QualityReport, path: Path) -> Path | None:
    """Draw the radar plot of the five tasks and return its path.

    Return None and write nothing if fewer than three of the tasks were measured with an Oracle.

    Raises:
        OSError: the file cannot be written.
        MissingExtraError: matplotlib is not installed.
    """
    five = [result for table in report.tables if table.key == TABLES[0].key for result in report.table_sets(table)]
    axes = [(result.title, result.mean) for result in five if "Oracle" in result.mean]
    if len(axes) < SMALLEST_AXIS_COUNT:
        return None
    note = f"deployment {report.deployment}, backbone {report.backbone}"
    figure = draw_radar(axes, report.five_task_mean(), note)
    with atomic_write(path) as aside:
        figure.savefig(aside, dpi=160)
    return path
