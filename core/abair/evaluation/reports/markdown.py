"""The quality report as Markdown: the overview for a terminal, and the page with the paper's tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from abair.evaluation.policies import POLICIES, Policy, Score, oracle_gap
from abair.labels import CLEAN

if TYPE_CHECKING:
    from abair.evaluation.results import QualityReport, SetResult

HEADINGS: Final[dict[Policy, str]] = {
    "input": "input",
    "backbone": "bare backbone",
    "OH": "OH",
    "SW": "SW",
    "Oracle": "Oracle",
}
SEEN: Final = 38.0
"""dB below which an undamaged picture counts as changed."""
_COLUMNS: Final = ("set", "n", *(HEADINGS[policy] for policy in POLICIES), "top-1", "gap")


def overview(report: QualityReport) -> str:
    """All sets in one table with the means below them, what the estimator saw, and the protocol."""
    rows = [_set_row(found) for found in report.sets]
    if not report.tables and (five := report.five_task_mean()):
        rows.append(_mean_row("five tasks", five))
    rows += [_mean_row(table.title, table.mean) for table in report.tables if table.mean and len(table.sets) > 1]
    lines = ["PSNR in dB / SSIM", "", *_table(_COLUMNS, rows)]
    if on_y := _luma_table(report):
        lines += ["", "On Y, as the sets' papers measure", "", *on_y]
    lines += _undamaged(report)
    lines += ["", "The estimator's mean weights", "", *_weights_table(report)]
    if report.confusion:
        lines += ["", "The label that the estimator finds likeliest, by the true one (pictures)", ""]
        lines += _confusion_table(report)
    lines += ["", "Protocol", "", *(f"- {line}" for line in report.protocol)]
    if report.weights_sha256:
        lines.append(f"- weights' hash: {report.weights_sha256}")
    hashes = {found.key: f"; data hash {found.data_sha256}" for found in report.sets if found.data_sha256}
    lines += [f"- {found.title}: {found.note}{hashes.get(found.key, '')}" for found in report.sets]
    return "\n".join(lines + _left_out(report)) + "\n"


def results_page(report: QualityReport, command: str, radar: str | None = None) -> str:
    """A page of its own: the command that made it, then one section a table; `radar` is the plot's path from it."""
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    lines = ["# Results", "", "This page was written by", "", "```sh", command, "```", ""]
    lines += [
        f"on {report.created:%Y-%m-%d}, in {report.seconds / 60:.0f} minutes, with {versions}. It measures the "
        f"deployment `{report.deployment}`: backbone `{report.backbone}`, labels {', '.join(report.labels)}"
        + (f", weights' hash `{report.weights_sha256}`." if report.weights_sha256 else "."),
        "",
        "PSNR in dB / SSIM, means over the pictures. *Input* is the damaged picture, *bare backbone* the network "
        "without adapters, *OH* the likeliest adapter alone, *SW* the blend, *Oracle* the right adapters named by "
        "hand; *top-1* is how often the likeliest label is a true one, *gap* what SW lacks to the Oracle, in dB.",
    ]
    for table in report.tables:
        rows = [_set_row(found) for found in report.table_sets(table)]
        if table.mean and len(rows) > 1:
            rows.append(_mean_row(table.title, table.mean))
        lines += ["", f"## {_capital(table.title)}", "", *_table(_COLUMNS, rows)]
        if table.missing:
            lines += ["", f"No mean, as some sets are not there: {', '.join(table.missing)}."]
        if radar and table.key == "five_tasks":
            lines += ["", f"![PSNR on the sets of the five tasks, from the input's to the Oracle's]({radar})"]
    if on_y := _luma_table(report):
        lines += ["", "## On Y", "", "The papers of these sets measure on the Y channel.", "", *on_y]
    lines += _undamaged(report)
    lines += ["", "## The estimator", ""]
    if report.confusion:
        lines += ["Pictures of sets with one damage, by its label (rows) and the likeliest label (columns)", ""]
        lines += [*_confusion_table(report), ""]
    lines += ["Mean weights", "", *_weights_table(report), "", "## Protocol", ""]
    lines += [*(f"- {line}" for line in report.protocol), ""]
    told = [[f.title, f.note, f"`{f.data_sha256 or '-'}`", f"`{(f.weights_sha256 or '-')[:16]}`"] for f in report.sets]
    lines += _table(["set", "how", "data hash", "weights' hash"], told, left=4)
    if left := _left_out(report):
        lines += ["", "## Not measured", "", *left]
    return "\n".join(lines) + "\n"


def score_text(score: Score | None) -> str:
    """A score as a table's cell."""
    if score is None:
        return "-"
    return f"{score.psnr:.2f}" + ("" if score.ssim is None else f" / {score.ssim:.3f}".replace("0.", ".", 1))


def _set_row(found: SetResult) -> list[str]:
    top1 = "-" if found.top1 is None else f"{found.top1:.2f}"
    return [found.title, str(found.count), *_scores(found.mean), top1, _gap_text(found.mean)]


def _mean_row(title: str, mean: Mapping[Policy, Score]) -> list[str]:
    return [f"**mean of the {title}**", "", *_scores(mean), "", _gap_text(mean)]


def _scores(mean: Mapping[Policy, Score]) -> Iterable[str]:
    return [score_text(mean.get(policy)) for policy in POLICIES]


def _gap_text(mean: Mapping[Policy, Score]) -> str:
    gap = oracle_gap(mean)
    return "-" if gap is None else f"{round(gap, 2) + 0.0:.2f}"  # no -0.00


def _undamaged(report: QualityReport) -> list[str]:
    """What the mean over undamaged pictures hides, because an untouched one counts 100 dB."""
    lines = []
    for found in report.sets:
        scores = {image.name: image.scores["SW"].psnr for image in found.images if "SW" in image.scores}
        if found.labels == (CLEAN,) and scores:
            worst = min(scores, key=scores.__getitem__)
            changed = sum(score < SEEN for score in scores.values())
            lines += [
                "",
                f"{found.title} by SW: {changed} of {len(scores)} come back below {SEEN:g} dB; the worst, {worst}, at "
                f"{scores[worst]:.1f} dB.",
            ]
    return lines


def _luma_table(report: QualityReport) -> list[str]:
    rows = [
        [found.title, str(found.count), *_scores(found.mean_y), _gap_text(found.mean_y)]
        for found in report.sets
        if found.mean_y
    ]
    heading = [column for column in _COLUMNS if column != "top-1"]
    return _table(heading, rows) if rows else []


def _weights_table(report: QualityReport) -> list[str]:
    rows = [[s.title, *(f"{s.weights.get(label, 0):.2f}" for label in report.labels)] for s in report.sets]
    return _table(["set", *report.labels], rows)


def _confusion_table(report: QualityReport) -> list[str]:
    rows = [[truth, *map(str, seen.values())] for truth, seen in report.confusion.items()]
    return _table(["true label", *report.labels], rows)


def _left_out(report: QualityReport) -> list[str]:
    lines = [f"- not measured: {key}: {reason}" for key, reason in report.missing.items()]
    return lines + [f"- left out: {problem}" for problem in report.problems]


def _capital(title: str) -> str:
    return title[:1].upper() + title[1:]


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """A Markdown table with padded cells, so that it reads as plain text too; `left` columns are flush left."""
    rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(3, *(len(row[i]) for row in [heading, *rows])) for i in range(len(heading))]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(
            c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))
        ) + " |"  # fmt: skip

    rule = "|" + "|".join("-" * (w + 2) if i < left else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|"
    return [line(heading), rule, *map(line, rows)]
