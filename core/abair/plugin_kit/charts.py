"""Charts of a training: its course, and held-out samples before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from matplotlib.figure import Figure

from abair.metrics import psnr
from abair.plugin_kit.efficacy import Efficacy

_COLUMNS: Final = ("damaged", "bare backbone", "with the adapter", "undamaged")
_INK: Final = "#1c1e22"


def training_curves(name: str, history: Sequence[Mapping[str, float]]) -> Figure:
    """Draw loss and held-out PSNR over the steps, and the PSNR of bare backbone and input."""
    figure = Figure(figsize=(9.0, 3.4), layout="constrained")
    axes: Any = figure.subplots(1, 2)
    steps, losses = [entry["step"] for entry in history], [entry["loss"] for entry in history]
    axes[0].plot(steps, losses, color="#7c8896", marker="o", markersize=3)
    axes[0].set_title("loss (log10 of the squared error)", loc="left", size=10, color=_INK)
    for key, label, colour, style in (
        ("psnr", "with the adapter", "#2e6eb4", "-"),
        ("bare", "bare backbone", "#7c8896", "--"),
        ("input", "damaged photo", "#c9ced6", "--"),
        ("real_psnr", "real pairs, with the adapter", "#117a4b", "-"),
        ("real_bare", "real pairs, bare backbone", "#88bfa2", "--"),
        ("mixed_psnr", "with a second damage, with the adapter", "#a8571f", "-"),
        ("blend_halves", "with a second damage, halves of both adapters", "#e08b3f", "-"),
        ("blend_alone", "with a second damage, the better of both adapters", "#eccaa4", "--"),
        ("mixed_bare", "with a second damage, bare backbone", "#d9ae8a", "--"),
        ("scene_psnr", "whole scenes, with the adapter", "#6a4fa3", "-"),
        ("scene_bare", "whole scenes, bare backbone", "#b9abd9", "--"),
    ):
        points = [(entry["step"], entry[key]) for entry in history if key in entry]
        if points:
            marker = "o" if style == "-" else ""
            axes[1].plot(*zip(*points, strict=True), style, marker=marker, markersize=3, color=colour, label=label)
    axes[1].set_title("held-out PSNR in dB", loc="left", size=10, color=_INK)
    axes[1].legend(frameon=False, fontsize=8)
    for one in axes:
        one.set_xlabel("step")
        one.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"Training of adapter {name}", x=0.01, ha="left", color=_INK)
    return figure


def before_after(efficacy: Efficacy) -> Figure:
    """Draw the first held-out samples before and after, a row each, with their PSNR."""
    rows = efficacy.pictures
    figure = Figure(figsize=(2.3 * len(_COLUMNS), 2.45 * len(rows)), layout="constrained")
    grid: Any = figure.subplots(len(rows), len(_COLUMNS), squeeze=False)
    for axes_row, pictures in zip(grid, rows, strict=True):
        clean = pictures[-1]
        for axes, picture in zip(axes_row, pictures, strict=True):
            axes.imshow(picture.clip(0, 1), interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
            if picture is not clean:
                axes.set_xlabel(f"{psnr(picture, clean):.1f} dB", size=8, labelpad=1)
    for axes, title in zip(grid[0], _COLUMNS, strict=True):
        axes.set_title(title, size=10, color=_INK)
    return figure
