"""The paper's radar plot: one axis per set, one polygon per policy.

Each axis runs from the input's PSNR to the Oracle's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from abair.evaluation.policies import HEADINGS, Policy, Score
from abair.evaluation.reports.drawing import FAINT, INK, RAIL, require_matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SMALLEST_AXIS_COUNT: Final = 3
LONGEST_AXIS: Final = 1.12
"""How far a polygon may go past the Oracle, which is at 1; the input's PSNR is at 0, the centre."""
_RINGS: Final = (0.25, 0.5, 0.75, 1.0)


class _Style(NamedTuple):
    colour: str
    width: float
    marker: str
    size: float
    fill: float


_STYLES: Final[dict[Policy, _Style]] = {
    "Oracle": _Style("#f3cf8f", 7.0, "", 0, 0.06),
    "backbone": _Style("#7c8896", 1.6, "o", 4, 0.16),
    "OH": _Style("#117a4b", 1.6, "s", 7.5, 0.0),
    "SW": _Style("#2e6eb4", 2.2, "o", 4.5, 0.12),
}
"""In drawing order: the last one is on top."""


def axis_position(mean: Mapping[Policy, Score], policy: Policy) -> float:
    """Return where a policy lies on its axis: 0 at the input's PSNR or below, 1 at the Oracle's.

    At most `LONGEST_AXIS`. 0 if the Oracle is no better than the input.
    """
    low, high = mean["input"].psnr, mean["Oracle"].psnr
    return min(LONGEST_AXIS, max(0.0, (mean[policy].psnr - low) / (high - low))) if high > low else 0.0


def draw_radar(axes: Sequence[tuple[str, Mapping[Policy, Score]]], mean: Mapping[Policy, Score], note: str) -> Figure:
    """Draw the plot; each of the three or more `axes` is a title with mean scores.

    `mean` is over all axes; its PSNRs stand in the legend. It may be empty. `note` stands below.

    Raises:
        MissingExtraError: matplotlib is not installed.
        ValueError: fewer than three axes, or one without input or Oracle.
    """
    require_matplotlib("radar plot")
    if len(axes) < SMALLEST_AXIS_COUNT or any(not {"input", "Oracle"} <= scores.keys() for _, scores in axes):
        raise ValueError(f"radar plot: found {len(axes)} axes, expected three or more, each with input and Oracle")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 7.6))
    panel = figure.add_axes((0.05, 0.09, 0.9, 0.8))
    panel.set_aspect("equal")
    panel.set_axis_off()
    panel.set_xlim(-1.55, 1.55)
    panel.set_ylim(-1.12, 1.36)
    spokes = [(math.sin(2 * math.pi * i / len(axes)), math.cos(2 * math.pi * i / len(axes))) for i in range(len(axes))]
    _web(panel, spokes)
    for (title, scores), (x, y) in zip(axes, spokes, strict=True):
        _axis_label(panel, title, scores, x, y)
    for policy, style in _STYLES.items():
        ends = [axis_position(scores, policy) for _, scores in axes]
        xs = [end * x for end, (x, _) in zip(ends, spokes, strict=True)]
        ys = [end * y for end, (_, y) in zip(ends, spokes, strict=True)]
        if style.fill:
            panel.fill(xs, ys, color=style.colour, alpha=style.fill, linewidth=0)
        panel.plot(
            [*xs, xs[0]], [*ys, ys[0]], color=style.colour, linewidth=style.width,
            marker=style.marker, markersize=style.size, markerfacecolor="white" if policy == "OH" else style.colour,
            label=HEADINGS[policy] + (f"  {mean[policy].psnr:.2f} dB" if policy in mean else ""),
        )  # fmt: skip
    _annotate(figure, panel, bool(mean), note)
    return figure


def _web(panel: Axes, spokes: Sequence[tuple[float, float]]) -> None:
    """Draw rings with straight sides: a policy that is equally good on all sets has their shape."""
    for ring in _RINGS:
        xs, ys = zip(*((ring * x, ring * y) for x, y in [*spokes, spokes[0]]), strict=True)
        panel.plot(xs, ys, color=RAIL, linewidth=1.4 if ring == 1 else 0.9, zorder=0)
    for x, y in spokes:
        panel.plot([0, x], [0, y], color=RAIL, linewidth=0.9, zorder=0)


def _axis_label(panel: Axes, title: str, scores: Mapping[Policy, Score], x: float, y: float) -> None:
    """Write the set's name and its range in dB beyond the end of its axis."""
    across = "center" if abs(x) < 0.2 else "left" if x > 0 else "right"
    at = (1.2 * x, 1.2 * y)
    span = f"{scores['input'].psnr:.2f} to {scores['Oracle'].psnr:.2f} dB"
    panel.annotate(title, at, (0, 2), textcoords="offset points", ha=across, va="bottom", color=INK,
                   fontsize=12.5, fontweight="bold")  # fmt: skip
    panel.annotate(span, at, (0, -1), textcoords="offset points", ha=across, va="top", color=FAINT, fontsize=11)


def _annotate(figure: Figure, panel: Axes, with_means: bool, note: str) -> None:
    """Add the title, what the axes mean, and the legend in the order of the tables."""
    figure.text(0.04, 0.955, "PSNR on the five tasks, restored blind", color=INK, fontsize=16, fontweight="bold")
    figure.text(
        0.04, 0.922, "each axis from the damaged input (centre) to the Oracle (outer ring)", color=FAINT, fontsize=11.5
    )
    handles, labels = panel.get_legend_handles_labels()
    order = [labels.index(label) for heading in HEADINGS.values() for label in labels if label.startswith(heading)]
    figure.legend(
        [handles[i] for i in order], [labels[i] for i in order], loc="lower center", ncols=4, frameon=False,
        fontsize=11, labelcolor=INK, bbox_to_anchor=(0.5, 0.035),
    )  # fmt: skip
    means = "numbers: mean PSNR; " if with_means else ""
    figure.text(0.5, 0.018, means + note, color=FAINT, fontsize=9.5, ha="center")
