"""Pictures of results, drawn by matplotlib: the contact sheet, and before/after comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from abair.evaluation.policies import ImageResult, Policy
from abair.evaluation.reports.drawing import FAINT, INK, RAIL, require_matplotlib
from abair.labels import CLEAN

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

CELL: Final = (288, 216)
"""Width and height in pixels. Pictures are cropped, because reducing them hides noise and blur."""
MARGIN: Final = 16
HEAD_WIDTH: Final = 178
HEADING_HEIGHT: Final = 30
GAP: Final = 6
"""Pixels between two cells."""

_COLUMNS: Final[tuple[tuple[str, Policy | None], ...]] = (
    ("clean", None),
    ("input", "input"),
    ("bare backbone", "backbone"),
    ("restored, soft weights", "SW"),
    ("restored, Oracle", "Oracle"),
)
_DPI: Final = 100
_BEST: Final = "#117a4b"
_CLEAN_COLOUR: Final = "#969ba3"
_PALETTE: Final = ("#2e6eb4", "#e48228", "#3c965f", "#c43e48", "#825cb2", "#8c6450", "#cd6ea5")

Pixels = NDArray[np.float32]


@dataclass(frozen=True)
class SheetRow:
    """One row of the contact sheet: a picture's versions (H, W, 3) in [0, 1] and its result.

    The names of the true labels `truth` are black, the others grey. Cells are cropped around
    `focus`, (x, y) in [0, 1].
    """

    title: str
    subtitle: str
    clean: Pixels
    pictures: Mapping[Policy, Pixels]
    result: ImageResult
    truth: tuple[str, ...] = ()
    focus: tuple[float, float] = (0.5, 0.5)


@dataclass(frozen=True)
class Comparison:
    """A picture before and after (H, W, 3) in [0, 1], with a caption."""

    caption: str
    before: Pixels
    after: Pixels
    focus: tuple[float, float] = (0.5, 0.5)


def contact_sheet(rows: Sequence[SheetRow], labels: Sequence[str], *, cell: tuple[int, int] = CELL) -> Figure:
    """Draw one row per picture: clean, input, bare backbone, soft weights, Oracle, with PSNRs.

    On the left stand the damage, the photo, and the estimator's weights as bars over `labels`. The
    best PSNR of the restored versions is green.

    Raises:
        ValueError: no rows.
        MissingExtraError: matplotlib is not installed.
    """
    if not rows:
        raise ValueError("contact sheet: found no rows, expected at least one")
    figure, grid = _grid(
        "contact sheet", [HEAD_WIDTH, *[cell[0]] * len(_COLUMNS)], [cell[1]] * len(rows),
        gap=(GAP, GAP), margins=(MARGIN, MARGIN, MARGIN + HEADING_HEIGHT, MARGIN),
    )  # fmt: skip
    for axes, (heading, _) in zip(grid[0][1:], _COLUMNS, strict=True):
        axes.set_title(heading, loc="left", size=11.5, color=INK)
    colours = _label_colours(labels)
    for (head, *cells), row in zip(grid, rows, strict=True):
        _draw_head(head, row, colours, cell[1])
        scores = {policy: score.psnr for policy, score in row.result.scores.items()}
        best = max((scores[policy] for policy in ("backbone", "SW", "Oracle") if policy in scores), default=0.0)
        for axes, (_, policy) in zip(cells, _COLUMNS, strict=True):
            if policy is None:
                _show(axes, row.clean, cell, row.focus)
            elif policy in row.pictures:
                _show(axes, row.pictures[policy], cell, row.focus)
                is_best = policy != "input" and round(scores[policy], 1) == round(best, 1)
                _chip(axes, f"{scores[policy]:.1f} dB", _BEST if is_best else INK)
            else:
                axes.set_facecolor(RAIL)
                axes.text(0.5, 0.5, "no adapter", size=10, color=FAINT, ha="center", va="center")
    return figure


def before_after(comparisons: Sequence[Comparison], *, side: int = 300, columns: int = 4) -> Figure:
    """Draw square panels of `side` pixels, the input left of a slanted line, the output right.

    Raises:
        ValueError: no comparisons.
        MissingExtraError: matplotlib is not installed.
    """
    if not comparisons:
        raise ValueError("before/after picture: found no comparisons, expected at least one")
    across = min(columns, len(comparisons))
    down = -(-len(comparisons) // across)
    caption = 26
    figure, grid = _grid(
        "before/after picture", [side] * across, [side] * down, gap=(GAP, caption + GAP), margins=(0, 0, 0, caption)
    )
    from matplotlib.patches import Polygon

    panels = [axes for line in grid for axes in line]
    for axes, shown in zip(panels, comparisons, strict=False):
        _show(axes, shown.before, (side, side), shown.focus)
        right_part = Polygon([(0.62, 1), (1, 1), (1, 0), (0.38, 0)], transform=axes.transAxes)
        _show(axes, shown.after, (side, side), shown.focus, clip=right_part)
        axes.plot([0.62, 0.38], [1, 0], transform=axes.transAxes, color="white", linewidth=2)
        _chip(axes, "before", INK, at_top_left=True)
        _chip(axes, "after", INK)
        axes.set_xlabel(shown.caption, loc="left", size=10.5, color=INK, labelpad=5)
    for axes in panels[len(comparisons) :]:
        axes.set_visible(False)
    return figure


def _grid(
    picture: str,
    widths: Sequence[int],
    heights: Sequence[int],
    *,
    gap: tuple[int, int],
    margins: tuple[int, int, int, int],
) -> tuple[Figure, list[list[Axes]]]:
    """Make a figure of cells, all sizes in pixels; margins are left, right, top, bottom."""
    require_matplotlib(picture)
    from matplotlib.figure import Figure

    left, right, top, bottom = margins
    width = left + sum(widths) + gap[0] * (len(widths) - 1) + right
    height = top + sum(heights) + gap[1] * (len(heights) - 1) + bottom
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    grid = figure.subplots(
        len(heights), len(widths), squeeze=False, width_ratios=widths, height_ratios=heights,
        gridspec_kw={
            "left": left / width, "right": 1 - right / width, "top": 1 - top / height, "bottom": bottom / height,
            "wspace": gap[0] * len(widths) / sum(widths), "hspace": gap[1] * len(heights) / sum(heights),
        },
    )  # fmt: skip
    cells = [list(line) for line in grid]
    for axes in (axes for line in cells for axes in line):
        axes.set(xlim=(0, 1), ylim=(0, 1), xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    return figure, cells


def _show(
    axes: Axes, picture: Pixels, cell: tuple[int, int], focus: tuple[float, float], *, clip: Patch | None = None
) -> None:
    """Show a crop around the focus, pixel by pixel; enlarge a picture smaller than the cell."""
    height, width = picture.shape[:2]
    scale = max(1.0, cell[0] / width, cell[1] / height)
    size = (min(width, round(cell[0] / scale)), min(height, round(cell[1] / scale)))
    left, top = (
        round(min(max(at * whole - part / 2, 0), whole - part))
        for at, whole, part in zip(focus, (width, height), size, strict=True)
    )
    crop = np.clip(picture[top : top + size[1], left : left + size[0]], 0, 1)
    image = axes.imshow(
        np.rint(crop * 255).astype(np.uint8), extent=(0, 1, 0, 1), aspect="auto",
        interpolation="none" if scale == 1 else "bicubic",
    )  # fmt: skip
    if clip is not None:
        image.set_clip_path(clip)


def _draw_head(axes: Axes, row: SheetRow, colours: Mapping[str, str], height: int) -> None:
    """Write title and photo, and draw one bar per label, the likeliest if there is no room."""
    room = HEAD_WIDTH - 18
    axes.text(0, 1, row.title, size=_fit(row.title, 12.5, room), color=INK, va="top")
    axes.text(0, 1 - 23 / height, row.subtitle, size=_fit(row.subtitle, 9.5, room), color=FAINT, va="top")
    axes.text(0, 1 - 47 / height, "estimated weights", size=8, color=FAINT, va="top")
    top, step = 64, 21
    slots = max(1, (height - top) // step)
    weights = {label: row.result.weights[label] for label in colours if label in row.result.weights}
    likeliest = sorted(weights, key=weights.__getitem__, reverse=True)[:slots]
    shown = [label for label in weights if label in likeliest]
    bars = axes.inset_axes((68 / HEAD_WIDTH, 1 - (top + slots * step) / height, 64 / HEAD_WIDTH, slots * step / height))
    bars.set(xlim=(0, 1), ylim=(slots - 0.5, -0.5), xticks=[], yticks=range(len(shown)))
    bars.set_yticklabels([_elide(label) for label in shown])
    bars.spines[:].set_visible(False)
    bars.tick_params(length=0, pad=4)
    bars.barh(range(len(shown)), 1, height=0.5, color=RAIL)
    bars.barh(range(len(shown)), [weights[label] for label in shown], height=0.5, color=[colours[s] for s in shown])
    for place, (label, name) in enumerate(zip(shown, bars.get_yticklabels(), strict=True)):
        ink = INK if label in row.truth else FAINT
        name.set(color=ink, size=_fit(name.get_text(), 9.5, 64))
        bars.text(1.08, place, f"{weights[label]:.2f}", size=8.5, color=ink, va="center_baseline")


def _chip(axes: Axes, text: str, colour: str, *, at_top_left: bool = False) -> None:
    """Write white text on a rounded plate, in the bottom right corner if not at the top left."""
    axes.annotate(
        text, (0, 1) if at_top_left else (1, 0), (9, -9) if at_top_left else (-9, 9), textcoords="offset points",
        ha="left" if at_top_left else "right", va="top" if at_top_left else "bottom", color="white", size=9.5,
        bbox={"boxstyle": "round,pad=0.35,rounding_size=0.35", "facecolor": colour, "edgecolor": "none"},
    )  # fmt: skip


def _label_colours(labels: Sequence[str]) -> dict[str, str]:
    degradations = [label for label in labels if label != CLEAN]
    colours = {label: _PALETTE[i % len(_PALETTE)] for i, label in enumerate(degradations)}
    return {label: colours.get(label, _CLEAN_COLOUR) for label in labels}


def _elide(label: str, longest: int = 15) -> str:
    """Return a label of at most `longest` characters, without its middle if it is longer."""
    half = longest // 2
    return label if len(label) <= longest else f"{label[:half]}…{label[-half:]}"


def _fit(text: str, size: float, width: int) -> float:
    """Return the font size in points, reduced for text that is wider than `width` pixels."""
    return min(size, max(5.0, width * 72 / _DPI / (0.6 * max(1, len(text)))))
