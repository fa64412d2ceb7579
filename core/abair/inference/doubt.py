"""How far an estimate is followed that is not sure of itself, or of damage that it does not know.

A wrong adapter does harm, and a photo that is left as it is can be restored by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from abair.labels import CLEAN, UNKNOWN

UNSURE: Final = (1 / 3, 1 / 2)
"""Confidences between which the strength rises from none to all of it: where twice as much of the
weights is expected on wrong labels as on true ones, and where it is as much."""
LITTLE: Final = 0.9
"""Weight of `clean` from which on hardly anything is restored."""
STRANGE: Final = (UNKNOWN, (1 + UNKNOWN) / 2)
"""Between which the strength falls from all of it to none: where one known photo in twenty, and one
in forty, is as unlike all that was learnt."""


def judge_strength(
    weights: Mapping[str, float], confidence: float | None, unknown: float | None = None
) -> tuple[float, list[str]]:
    """Return the strength, in [0, 1], at which estimated weights are followed, and what to warn of.

    None, of an estimator that cannot tell, counts as sure and as known. So does an estimate that
    there is hardly any damage.
    """
    if weights[CLEAN] >= LITTLE:
        return 1.0, []
    likeliest = likeliest_damage(weights)
    none, full = UNSURE
    sure = 1.0 if confidence is None else _between(confidence, none, full)
    known = 1.0 if unknown is None else 1 - _between(unknown, *STRANGE)
    strength = min(sure, known)
    if strength == 1:
        return strength, []
    why = f"not sure ({confidence:.2f})" if sure <= known else f"but unlike what was learnt ({unknown:.2f})"
    done = f"restored at a strength of {strength:.2f}" if strength else "left as it is"
    return strength, [f"{likeliest}, {why}: {done}; --weights {likeliest}=1 for all of it"]


def likeliest_damage(weights: Mapping[str, float]) -> str:
    """Return the label with the largest weight but for `clean`."""
    return max(weights.keys() - {CLEAN}, key=weights.__getitem__)


def _between(value: float, low: float, high: float) -> float:
    return min(1.0, max(0.0, (value - low) / (high - low)))
