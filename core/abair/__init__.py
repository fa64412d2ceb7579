"""ABAIR: adaptive blind all-in-one image restoration, as a platform of plugins.

`import abair` imports nothing: each name is imported when it is first used. A program's first
import is of this package, and Ctrl-C is answered only after it. No import makes a library load
plugins of its own (`abair.foreign_points`).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from abair.contract import GROUP, Card, Degradation, hookimpl, recorded_figures
    from abair.errors import AbairError
    from abair.inference.restorer import Restorer
    from abair.inference.results import Restored
    from abair.labels import CLEAN
    from abair.physics import (
        chance,
        compress_jpeg,
        convolve,
        ensure_changed,
        log_uniform,
        smooth_field,
        uniform,
    )
    from abair.report import Report, Verdict

__version__ = "0.1.0"

__all__ = [
    "CLEAN",
    "GROUP",
    "AbairError",
    "Card",
    "Degradation",
    "Report",
    "Restored",
    "Restorer",
    "Verdict",
    "chance",
    "compress_jpeg",
    "convolve",
    "ensure_changed",
    "hookimpl",
    "log_uniform",
    "recorded_figures",
    "smooth_field",
    "uniform",
]

_LAZY = {
    name: module
    for module, names in {
        "abair.contract": ("GROUP", "Card", "Degradation", "hookimpl", "recorded_figures"),
        "abair.errors": ("AbairError",),
        "abair.labels": ("CLEAN",),
        "abair.physics": (
            "chance",
            "compress_jpeg",
            "convolve",
            "ensure_changed",
            "log_uniform",
            "smooth_field",
            "uniform",
        ),
        "abair.report": ("Report", "Verdict"),
        "abair.inference.restorer": ("Restorer",),
        "abair.inference.results": ("Restored",),
    }.items()
    for name in names
}


def __getattr__(name: str) -> object:
    if name in _LAZY:
        from abair.foreign_points import foreign_kept_out

        with foreign_kept_out():
            return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'abair' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
