"""A quality report as Markdown: the overview for a terminal, and a page with the paper's tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from abair.evaluation.policies import HEADINGS, POLICIES, Policy, Score, oracle_gap
from abair.evaluation.results import QualityReport, SetResult
from abair.labels import CLEAN
from abair.text import markdown_paragraph, markdown_table

UNCHANGED_PSNR: Final = 38.0
"""In dB: an undamaged picture that comes back below this counts as changed."""
_COLUMNS: Final = ("set", "n", *(HEADINGS[policy] for policy in POLICIES), "top-1", "gap")


def overview(report: QualityReport) -> str:
    """Return one table of all sets with means below it, the estimator's answers, the protocol."""
    rows = [_set_row(result) for result in report.sets]
    if not report.tables and (five := report.five_task_mean()):
        rows.append(_mean_row("five tasks", five))
    rows += [_mean_row(table.title, table.mean) for table in report.tables if table.mean and len(table.sets) > 1]
    lines = ["PSNR in dB / SSIM", "", markdown_table(_COLUMNS, rows)]
    if on_y := _luma_table(report):
        lines += ["", "On Y, as the sets' papers measure", "", on_y]
    lines += _changed_clean_pictures(report)
    lines += ["", "The estimator's mean weights", "", _weights_table(report)]
    if report.confusion:
        lines += ["", "The label with the largest weight, by true label (pictures)", "", _confusion_table(report)]
    lines += ["", "Protocol", "", *(f"- {line}" for line in report.protocol)]
    if report.weights_sha256:
        lines.append(f"- weights' hash: {report.weights_sha256}")
    for result in report.sets:
        data_hash = f"; data hash {result.data_sha256}" if result.data_sha256 else ""
        lines.append(f"- {result.title}: {result.note}{data_hash}")
    return "\n".join(lines + _not_measured(report)) + "\n"


def results_page(report: QualityReport, command: str, radar: str | None = None) -> str:
    """Return a page with the command that made it and one section for each table of the paper.

    `radar` is the path of the radar plot relative to the page.
    """
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    lines = ["# Results", "", "This page was written by", "", "```sh", command, "```", ""]
    lines += [
        markdown_paragraph(
            f"on {report.created:%Y-%m-%d}, in {report.seconds / 60:.0f} minutes, with {versions}. It measures the "
            f"deployment `{report.deployment}`: backbone `{report.backbone}`, labels {', '.join(report.labels)}"
            + (f", weights' hash `{report.weights_sha256}`." if report.weights_sha256 else ".")
        ),
        "",
        markdown_paragraph(
            "PSNR in dB / SSIM, means over the pictures. *Input* is the damaged picture, *bare backbone* the network "
            "without adapters, *OH* the adapter of the likeliest label alone, *SW* the blend by the estimator's "
            "weights, *Oracle* the blend by the true labels. *top-1* is the share of pictures whose likeliest label "
            "is a true one, *gap* the PSNR of the Oracle minus that of SW, in dB."
        ),
    ]
    for table in report.tables:
        rows = [_set_row(result) for result in report.table_sets(table)]
        if table.mean and len(rows) > 1:
            rows.append(_mean_row(table.title, table.mean))
        lines += ["", f"## {_capitalise(table.title)}", "", markdown_table(_COLUMNS, rows)]
        if table.missing:
            lines += ["", f"No mean, because these sets were not found: {', '.join(table.missing)}."]
        if radar and table.key == "five_tasks":
            lines += ["", f"![PSNR on the sets of the five tasks, from the input's to the Oracle's]({radar})"]
    if on_y := _luma_table(report):
        lines += ["", "## On Y", "", "The papers of these sets measure on the Y channel.", "", on_y]
    lines += _changed_clean_pictures(report)
    lines += ["", "## The estimator", ""]
    if report.confusion:
        lines += ["Pictures of sets with one damage, by true label (rows) and likeliest label (columns)", ""]
        lines += [_confusion_table(report), ""]
    lines += ["Mean weights", "", _weights_table(report), "", "## Protocol", ""]
    lines += [*(f"- {line}" for line in report.protocol), "", _provenance_table(report)]
    if missing := _not_measured(report):
        lines += ["", "## Not measured", "", *missing]
    return "\n".join(lines) + "\n"


def photo_table(report: QualityReport) -> str:
    """Return a table with one row for each photo of each set."""
    rows = [
        [image.name, result.title, *_score_cells(image.scores)] for result in report.sets for image in result.images
    ]
    table = markdown_table(["photo", "degradation", *HEADINGS.values()], rows, left=(0, 1))
    return f"Every photo (PSNR in dB / SSIM)\n\n{table}\n"


def score_text(score: Score | None) -> str:
    """Return a score as the text of a table's cell."""
    if score is None:
        return "-"
    return f"{score.psnr:.2f}" + ("" if score.ssim is None else f" / {score.ssim:.3f}".replace("0.", ".", 1))


def _set_row(result: SetResult) -> list[str]:
    top1 = "-" if result.top1 is None else f"{result.top1:.2f}"
    return [result.title, str(result.count), *_score_cells(result.mean), top1, _gap_text(result.mean)]


def _mean_row(title: str, mean: Mapping[Policy, Score]) -> list[str]:
    return [f"**mean of the {title}**", "", *_score_cells(mean), "", _gap_text(mean)]


def _score_cells(scores: Mapping[Policy, Score]) -> Iterable[str]:
    return [score_text(scores.get(policy)) for policy in POLICIES]


def _gap_text(mean: Mapping[Policy, Score]) -> str:
    gap = oracle_gap(mean)
    return "-" if gap is None else f"{round(gap, 2) + 0.0:.2f}"  # no -0.00


def _changed_clean_pictures(report: QualityReport) -> list[str]:
    """Count changed pictures, which the mean hides because an untouched picture counts 100 dB."""
    lines = []
    for result in report.sets:
        scores = {image.name: image.scores["SW"].psnr for image in result.images if "SW" in image.scores}
        if result.labels == (CLEAN,) and scores:
            worst = min(scores, key=scores.__getitem__)
            changed = sum(score < UNCHANGED_PSNR for score in scores.values())
            lines += [
                "",
                f"{result.title} by SW: {changed} of {len(scores)} come back below {UNCHANGED_PSNR:g} dB; the worst, "
                f"{worst}, at {scores[worst]:.1f} dB.",
            ]
    return lines


def _luma_table(report: QualityReport) -> str:
    rows = [
        [result.title, str(result.count), *_score_cells(result.mean_y), _gap_text(result.mean_y)]
        for result in report.sets
        if result.mean_y
    ]
    columns = [column for column in _COLUMNS if column != "top-1"]
    return markdown_table(columns, rows) if rows else ""


def _weights_table(report: QualityReport) -> str:
    rows = [[s.title, *(f"{s.weights.get(label, 0):.2f}" for label in report.labels)] for s in report.sets]
    return markdown_table(["set", *report.labels], rows)


def _confusion_table(report: QualityReport) -> str:
    rows = [[truth, *map(str, counts.values())] for truth, counts in report.confusion.items()]
    return markdown_table(["true label", *report.labels], rows)


def _provenance_table(report: QualityReport) -> str:
    rows = [[s.title, s.note, f"`{s.data_sha256 or '-'}`", f"`{(s.weights_sha256 or '-')[:16]}`"] for s in report.sets]
    return markdown_table(["set", "how it was made", "data hash", "weights' hash"], rows, left=range(4))


def _not_measured(report: QualityReport) -> list[str]:
    lines = [f"- not measured: {key}: {reason}" for key, reason in report.missing.items()]
    return lines + [f"- left out: {problem}" for problem in report.problems]


def _capitalise(title: str) -> str:
    return title[:1].upper() + title[1:]
