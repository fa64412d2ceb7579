"""The page on speed: plots of time and memory against size and of blends, with their tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from abair.evaluation.reports.drawing import FAINT, INK, RAIL, require_matplotlib
from abair.text import markdown_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from abair.evaluation.speed_profile import Point, SpeedProfile

_COLOURS: Final = ("#2e6eb4", "#117a4b", "#b4532e", "#7c8896")
_MARKERS: Final = ("o", "s", "^", "D")


def write_page(profile: SpeedProfile, command: str, picture: str) -> str:
    """Return the page as Markdown; `picture` is the plots' file name."""
    points = [
        [
            f"{point.megapixels:g}",
            str(point.threads),
            point.precision,
            f"{point.seconds:.2f}",
            f"{point.cpu_seconds:.2f}",
            f"{point.megapixels / point.seconds:.2f}",
            f"{point.peak_bytes / 1e6:.0f}",
        ]
        for point in profile.points
    ]
    blends = [
        [
            str(cost.adapters),
            f"{cost.network_ms:.0f}",
            *(f"{part:.1f} ({part / cost.network_ms:.1%})" for part in (cost.two_ms, cost.all_ms)),
            *("-" if part is None else f"{part:.0f}" for part in (cost.peft_forward_ms, cost.peft_cat_ms)),
        ]
        for cost in profile.blends
    ]
    return "\n\n".join(
        [
            "# Speed",
            f"This page was written by\n\n```sh\n{command}\n```",
            f"It measures the deployment `{profile.deployment}` on {profile.machine}, torch {profile.torch}.\n"
            f"Figures are medians of {profile.rounds} rounds over all rows.",
            f"![Throughput and memory against megapixels, and blends against adapters]({picture})",
            "## Time and memory",
            "An estimate and a restoration of a photo in memory, in a process of its own. `auto` is what\n"
            "`abair restore` does by default. Memory is the process's largest, Python and torch included.",
            markdown_table(
                ["megapixels", "threads", "precision", "seconds", "processor seconds", "MP/s", "peak memory, MB"],
                points, left=(2,),
            ),
            "## Blends",
            "Milliseconds, with as many adapters in the deployment, to blend two of them, as photos mostly\n"
            "need, or all. In brackets: the part of the network's time on a photo of 0.25 megapixels. PEFT's\n"
            "ways to use all adapters at once are a forward pass with all active, and their merge by `cat`.",
            markdown_table(
                ["adapters", "network", "blend of two", "blend of all", "PEFT, forward", "PEFT, cat"], blends,
            ),
            "",
        ]
    )  # fmt: skip


def draw(profile: SpeedProfile) -> Figure:
    """Draw throughput and memory against megapixels, and the blends' part against adapters.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require_matplotlib("plots of speed")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.8), layout="constrained")
    speed, memory, blends = figure.subplots(1, 3)
    kinds = list(dict.fromkeys((point.precision, point.threads) for point in profile.points))
    for index, kind in enumerate(kinds):
        points = [point for point in profile.points if (point.precision, point.threads) == kind]
        name = f"{kind[0]}, {kind[1]} thread{'s' if kind[1] > 1 else ''}"
        _line(speed, points, [point.megapixels / point.seconds for point in points], index, name)
        _line(memory, points, [point.peak_bytes / 1e6 for point in points], index, name)
    _finish(speed, "Throughput", "megapixels", "megapixels per second")
    _finish(memory, "Peak memory", "megapixels", "MB")
    counts = [cost.adapters for cost in profile.blends]
    for index, (name, parts) in enumerate(
        {
            "blend of two": [cost.two_ms / cost.network_ms for cost in profile.blends],
            "blend of all": [cost.all_ms / cost.network_ms for cost in profile.blends],
        }.items()
    ):
        blends.plot(counts, [100 * part for part in parts], color=_COLOURS[index], marker=_MARKERS[index], label=name)
    _finish(blends, "Blending, of the network's time at 0.25 MP", "adapters", "%")
    return figure


def _line(axes: Axes, points: list[Point], values: list[float], index: int, name: str) -> None:
    sizes = [point.megapixels for point in points]
    style = {"color": _COLOURS[index % 4], "marker": _MARKERS[index % 4]}
    axes.plot(sizes, values, label=name, linewidth=1.6, markersize=4.5, **style)  # type: ignore[arg-type]


def _finish(axes: Axes, title: str, across: str, up: str) -> None:
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_title(title, color=INK, fontsize=11)
    axes.set_xlabel(across, color=FAINT)
    axes.set_ylabel(up, color=FAINT)
    axes.grid(color=RAIL, linewidth=0.7)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
