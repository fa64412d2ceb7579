"""The paper's radar plot: one axis a set, one polygon a policy, each axis from the input's PSNR to the Oracle's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from abair.errors import MissingExtraError
from abair.evaluation.policies import Policy, Score
from abair.evaluation.reports.markdown import HEADINGS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BEYOND: Final = 1.12
"""As far as a polygon may go past the Oracle; the input's PSNR, and all below it, is the centre."""
_RINGS: Final = (0.25, 0.5, 0.75, 1.0)
_INK, _FAINT, _RAIL = "#1c1e22", "#787d85", "#dfe2e7"


class _Look(NamedTuple):
    colour: str
    width: float
    marker: str
    size: float
    fill: float


_LOOKS: Final[dict[Policy, _Look]] = {
    "Oracle": _Look("#f3cf8f", 7.0, "", 0, 0.06),
    "backbone": _Look("#7c8896", 1.6, "o", 4, 0.16),
    "OH": _Look("#117a4b", 1.6, "s", 7.5, 0.0),
    "SW": _Look("#2e6eb4", 2.2, "o", 4.5, 0.12),
}
"""From the one that is drawn first to the one on top."""


def scaled(mean: Mapping[Policy, Score], policy: Policy) -> float:
    """Where a policy lies on its axis: 0 the input's PSNR or less, 1 the Oracle's, at most `BEYOND`.

    Where not even the Oracle betters the input, 0.
    """
    low, high = mean["input"].psnr, mean["Oracle"].psnr
    return min(BEYOND, max(0.0, (mean[policy].psnr - low) / (high - low))) if high > low else 0.0


def check_drawing() -> None:
    """Ask before the long work whether there is something to draw with.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise MissingExtraError("radar plot: matplotlib is not installed; pip install 'abair[bench]'")


def draw_radar(axes: Sequence[tuple[str, Mapping[Policy, Score]]], mean: Mapping[Policy, Score], note: str) -> Figure:
    """The plot of three or more axes (title, mean scores); `mean` over all of them, if any, stands in the legend.

    Raises:
        MissingExtraError: matplotlib is not installed.
        ValueError: fewer than three axes, or one without input or Oracle.
    """
    check_drawing()
    if len(axes) < 3 or any(not {"input", "Oracle"} <= scores.keys() for _, scores in axes):
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
    for policy, look in _LOOKS.items():
        ends = [scaled(scores, policy) for _, scores in axes]
        xs = [end * x for end, (x, _) in zip(ends, spokes, strict=True)]
        ys = [end * y for end, (_, y) in zip(ends, spokes, strict=True)]
        if look.fill:
            panel.fill(xs, ys, color=look.colour, alpha=look.fill, linewidth=0)
        panel.plot(
            [*xs, xs[0]], [*ys, ys[0]], color=look.colour, linewidth=look.width,
            marker=look.marker, markersize=look.size, markerfacecolor="white" if policy == "OH" else look.colour,
            label=HEADINGS[policy] + (f"  {mean[policy].psnr:.2f} dB" if policy in mean else ""),
        )  # fmt: skip
    _words(figure, panel, bool(mean), note)
    return figure


def _web(panel: Axes, spokes: Sequence[tuple[float, float]]) -> None:
    """Rings with straight sides, so that a policy that is equally good everywhere has their form."""
    for ring in _RINGS:
        xs, ys = zip(*((ring * x, ring * y) for x, y in [*spokes, spokes[0]]), strict=True)
        panel.plot(xs, ys, color=_RAIL, linewidth=1.4 if ring == 1 else 0.9, zorder=0)
    for x, y in spokes:
        panel.plot([0, x], [0, y], color=_RAIL, linewidth=0.9, zorder=0)


def _axis_label(panel: Axes, title: str, scores: Mapping[Policy, Score], x: float, y: float) -> None:
    """The set's name and its range in dB, beyond the end of its axis and on the side away from the centre."""
    across = "center" if abs(x) < 0.2 else "left" if x > 0 else "right"
    at = (1.2 * x, 1.2 * y)
    span = f"{scores['input'].psnr:.2f} to {scores['Oracle'].psnr:.2f} dB"
    panel.annotate(title, at, (0, 2), textcoords="offset points", ha=across, va="bottom", color=_INK,
                   fontsize=12.5, fontweight="bold")  # fmt: skip
    panel.annotate(span, at, (0, -1), textcoords="offset points", ha=across, va="top", color=_FAINT, fontsize=11)


def _words(figure: Figure, panel: Axes, with_means: bool, note: str) -> None:
    """Title, what the axes mean, and the legend in the order of the tables."""
    figure.text(0.04, 0.955, "PSNR on the five tasks, restored blind", color=_INK, fontsize=16, fontweight="bold")
    figure.text(
        0.04, 0.922, "each axis from the damaged input (centre) to the Oracle (outer ring)", color=_FAINT, fontsize=11.5
    )
    handles, labels = panel.get_legend_handles_labels()
    order = [labels.index(label) for heading in HEADINGS.values() for label in labels if label.startswith(heading)]
    figure.legend(
        [handles[i] for i in order], [labels[i] for i in order], loc="lower center", ncols=4, frameon=False,
        fontsize=11, labelcolor=_INK, bbox_to_anchor=(0.5, 0.035),
    )  # fmt: skip
    means = "numbers: mean PSNR; " if with_means else ""
    figure.text(0.5, 0.018, means + note, color=_FAINT, fontsize=9.5, ha="center")
