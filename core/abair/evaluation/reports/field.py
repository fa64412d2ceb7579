"""Write the judgement on real photographs as JSON and as a Markdown page."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Final

from abair.errors import ImageError
from abair.evaluation.field import DAMAGED, TRICKY, FieldPhoto, FieldReport
from abair.files import write_text
from abair.labels import CLEAN
from abair.text import markdown_table

RESULTS_FILE, PAGE_FILE, PICTURES_FILE = "field.json", "field.md", "field.html"
"""Names of the files in the output folder."""
LISTED: Final = 10
"""Undamaged photos that are listed, those that changed most first."""


def write_field(report: FieldReport, folder: Path) -> list[Path]:
    """Write `field.json` and `field.md`, and return their paths.

    Raises:
        ImageError: a file cannot be written.
    """
    paths = [folder / RESULTS_FILE, folder / PAGE_FILE]
    try:
        for path, text in zip(paths, (report.model_dump_json(indent=1) + "\n", field_page(report)), strict=True):
            write_text(path, text)
    except OSError as error:
        raise ImageError(
            f"{folder}: the report cannot be written ({error.strerror or error}); choose another --out"
        ) from None
    return paths


def field_page(report: FieldReport) -> str:
    """Return the judgement as a Markdown page: figures, kinds, and the worst changes."""
    lines = ["# Real photographs", "", markdown_table(["figure", "value"], _figures(report)), ""]
    rows = []
    for group in (DAMAGED, TRICKY):
        for kind in sorted({photo.kind for photo in report.of(group)}):
            photos = [photo for photo in report.of(group) if photo.kind == kind]
            seen = Counter(photo.top for photo in photos).most_common()
            right = [photo for photo in photos if photo.expected is not None and photo.top == photo.expected]
            known = any(photo.expected is not None for photo in photos)
            rows.append(
                [f"{group}/{kind}", str(len(photos)), str(len(right)) if known else "-",
                 ", ".join(f"{label} {count}" for label, count in seen)]
            )  # fmt: skip
    if rows:
        lines += ["## Labels by kind", "", markdown_table(["kind", "photos", "right", "seen as"], rows, (0, 3)), ""]
    changed = sorted((photo for photo in report.of(TRICKY) if not photo.kept), key=lambda photo: photo.psnr)
    if changed:
        lines += ["## Undamaged photos that changed most", "", markdown_table(*_changes(changed[:LISTED])), ""]
    lines += [f"- deployment {report.deployment}, labels {', '.join(report.labels)}"]
    lines += [f"- left out: {problem}" for problem in report.problems]
    return "\n".join(lines) + "\n"


def _figures(report: FieldReport) -> list[list[str]]:
    damaged, undamaged = report.of(DAMAGED), report.of(TRICKY)
    rows = []
    if damaged:
        right, known = report.recognised()
        rows.append(["damaged photos of known kinds, largest weight right", f"{right} of {known}"])
        called_clean = sum(photo.top == CLEAN for photo in damaged)
        rows.append(["damaged photos called clean", f"{called_clean} of {len(damaged)}"])
    if (area := report.unknown_auroc()) is not None:
        rows.append(["damage without a label told from all other photos by `unknown`, AUROC", f"{area:.2f}"])
    if undamaged:
        kept, count = report.kept()
        rows.append(["undamaged photos within 10 levels and 38 dB, or the same", f"{kept} of {count}"])
    if (shift := report.largest_shift()) is not None:
        rows.append(["plain undamaged photos: largest shift of a channel's mean, levels", f"{shift:.1f}"])
    if (shift := report.small_weight_shift()) is not None:
        rows.append(["the same by any label with a weight of 0.1", f"{shift:.1f}"])
    rows += [[f"label changes by {change}", f"{100 * share:.1f} %"] for change, share in report.flips().items()]
    rows += [
        [f"burst {name}: spread of means beyond that of the frames, levels", f"{spread:.1f}"]
        for name, spread in report.burst_spreads().items()
    ]
    rows += [
        [
            f"damage inside a border of {width} pixels: PSNR to the same without it, dB, mean and least",
            f"{mean:.1f}, {least:.1f}",
        ]
        for width, (mean, least) in report.in_borders().items()
    ]
    return rows


def _changes(photos: list[FieldPhoto]) -> tuple[list[str], list[list[str]]]:
    rows = [
        [photo.file, f"{photo.top} {photo.weights[photo.top]:.2f}", f"{photo.shift:.1f}", f"{photo.psnr:.1f}"]
        for photo in photos
    ]
    return ["photo", "seen as", "shift of the mean, levels", "PSNR to itself, dB"], rows
