"""The figures of an operation's run, and of the continual-addition benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure

from abair.continual.compare import Contender, Evaluation, to_picture
from abair.labels import CLEAN
from abair.metrics import psnr
from abair.report import Group, Report, Way
from abair_registry.operations.gates import PSNR_CAP

_BARS: Final[tuple[tuple[Way, str, str], ...]] = (
    ("backbone", "bare backbone", "#c9ced6"),
    ("champion", "champion", "#7c8896"),
    ("SW", "challenger", "#2e6eb4"),
    ("Oracle", "Oracle", "#e4a13c"),
)
_INK: Final = "#1c1e22"
MOST_GROUPS: Final = 18
"""Groups in a figure: the new ones first, then those that changed most."""
SHEET_GROUPS: Final = 6
"""Groups in the contact sheet."""


def select_groups(report: Report, most: int = MOST_GROUPS) -> list[Group]:
    """Return the groups that a figure shows, in the report's order."""

    def rank(group: Group) -> tuple[bool, bool, float]:
        new = len(group.labels) == 1 and group.labels[0] in report.new
        moved = abs(group.mean("SW") - group.mean("champion")) if "champion" in group.psnr else 0.0
        return not new, group.labels != (CLEAN,), -moved

    kept = {group.name for group in sorted(report.groups, key=rank)[:most]}
    return [group for group in report.groups if group.name in kept]


def bars(report: Report) -> Figure:
    """Draw the PSNR of each group, restored in four ways; new labels are marked."""
    groups = select_groups(report)
    figure = Figure(figsize=(max(7.0, 0.95 * len(groups) + 2), 4.6), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(_BARS)
    for place, (way, name, colour) in enumerate(_BARS):
        shown = [(i, min(PSNR_CAP, g.mean(way))) for i, g in enumerate(groups) if way in g.psnr]
        axes.bar([i + (place - 1.5) * width for i, _ in shown], [v for _, v in shown], width, label=name, color=colour)
    for i, group in enumerate(groups):
        if "champion" in group.psnr:
            gain = group.mean("SW") - group.mean("champion")
            top = min(PSNR_CAP, max(group.mean("SW"), group.mean("champion")))
            colour = "#117a4b" if gain > 0.05 else "#c43e48" if gain < -0.05 else "#787d85"
            axes.annotate(
                f"{gain:+.2f}", (i, top), (0, 3), textcoords="offset points", ha="center", color=colour, size=8
            )
    names = [f"{g.name}\n(new)" if not set(g.labels).isdisjoint(report.new) else g.name for g in groups]
    axes.set_xticks(range(len(groups)), names, rotation=30, ha="right")
    low = min(min(g.mean(way) for way, _, _ in _BARS if way in g.psnr) for g in groups)
    axes.set_ylim(max(0, low - 3), None)
    axes.set_ylabel(f"PSNR in dB (bars end at {PSNR_CAP:g})")
    title = "Champion and challenger on the same held-out samples"
    if len(groups) < len(report.groups):
        title += f" ({len(groups)} of {len(report.groups)} kinds: what is new, and what changed most)"
    axes.set_title(title, loc="left", color=_INK)
    axes.legend(ncols=len(_BARS), frameon=False, loc="upper left")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def confusion(report: Report) -> Figure:
    """Draw the confusion matrix of single degradations: true labels (rows), likeliest (columns)."""
    singles = [group for group in select_groups(report) if len(group.labels) == 1]
    labels = [group.name for group in singles]
    columns = [*labels, *sorted({top for group in singles for top in group.top} - set(labels))]
    shares = np.array([[group.top.count(label) / len(group.top) for label in columns] for group in singles])
    side = 0.62 * len(columns) + 2
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, values in enumerate(shares):
        for column, value in enumerate(values):
            if value:
                colour = "white" if value > 0.5 else _INK
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour, size=9)
    axes.set_xticks(range(len(columns)), columns, rotation=40, ha="right")
    axes.set_yticks(range(len(labels)), [f"{group.name} ({len(group.top)})" for group in singles])
    axes.set_xlabel("likeliest label")
    axes.set_ylabel("true label (samples)")
    axes.set_title("What the challenger sees", loc="left", color=_INK)
    return figure


def histograms(evaluation: Evaluation) -> Figure:
    """Draw histograms of the true label's weight; an estimator that is right and sure is at 1."""
    singles = [group for group in select_groups(evaluation.report) if len(group.labels) == 1]
    across = min(4, len(singles))
    down = -(-len(singles) // across)
    figure = Figure(figsize=(2.6 * across, 2.0 * down + 0.5), layout="constrained")
    all_axes: Any = figure.subplots(down, across, squeeze=False, sharex=True).ravel()
    for axes, group in zip(all_axes, singles, strict=False):
        weights = [one[group.labels[0]] for one in evaluation.weights[group.name]]
        axes.hist(weights, bins=10, range=(0, 1), color="#2e6eb4")
        axes.set_title(group.name, size=10, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        axes.yaxis.get_major_locator().set_params(integer=True)
    for axes in all_axes[len(singles) :]:
        axes.set_visible(False)
    figure.supxlabel("weight of the true label", size=9)
    figure.suptitle("How sure the challenger is", x=0.02, ha="left", color=_INK)
    return figure


def sheet(evaluation: Evaluation, contender: Contender, new: Sequence[str]) -> Figure:
    """Draw samples before and after: three of each new label, one of groups that changed most."""
    rows = []
    for place, group in enumerate(select_groups(evaluation.report, SHEET_GROUPS)):
        samples, weights = evaluation.samples[group.name], evaluation.weights[group.name]
        count = 3 if len(group.labels) == 1 and group.labels[0] in new else 1
        # groups share their scenes: each row is to show another one
        for turn in range(place, place + count):
            rows.append((group.name, samples[turn % len(samples)], weights[turn % len(samples)]))
    columns = ("damaged", "bare backbone", "restored", "Oracle", "undamaged")
    figure = Figure(figsize=(1.75 * len(columns) + 1.2, 1.75 * len(rows) + 0.4), layout="constrained")
    grid: Any = figure.subplots(len(rows), len(columns), squeeze=False)
    for axes_row, (name, sample, blend) in zip(grid, rows, strict=True):
        clean = to_picture(sample.clean)
        oracle = {label: 1 / len(sample.labels) for label in sample.labels}
        pictures = [
            to_picture(sample.degraded),
            contender.restore(sample, {}),
            contender.restore(sample, blend),
            contender.restore(sample, oracle),
            clean,
        ]
        for axes, picture in zip(axes_row, pictures, strict=True):
            axes.imshow(np.clip(picture, 0, 1), interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
            if picture is not clean:
                axes.set_xlabel(f"{psnr(picture, clean):.1f} dB", size=8, labelpad=1)
        top = max(blend, key=blend.__getitem__)
        axes_row[0].set_ylabel(f"{name}\n{top} {blend[top]:.2f}", size=8)
    for axes, title in zip(grid[0], columns, strict=True):
        axes.set_title(title, size=9)
    return figure


def psnr_by_stage(stages: Sequence[str], lines: Mapping[str, Sequence[float | None]]) -> Figure:
    """Draw the change of PSNR in dB since the first stage, a line a test set.

    Old degradations should stay at zero, new ones should rise.
    """
    figure = Figure(figsize=(8.4, 4.8), layout="constrained")
    axes = figure.subplots()
    axes.axhline(0, color="#c9ced6", linewidth=1)
    for place, (name, values) in enumerate(lines.items()):
        first = values[0]
        if first is None:
            continue
        change = [None if value is None else value - first for value in values]
        style = ("-", "--", ":")[place // 10 % 3]
        axes.plot(range(len(stages)), change, style, color=f"C{place % 10}", marker="o", markersize=4, label=name)  # type: ignore[arg-type]
    axes.set_xticks(range(len(stages)), stages)
    axes.set_ylabel("PSNR less that of the first stage, in dB (SW)")
    axes.set_title("Plugins added one after the other", loc="left", color=_INK)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    return figure
