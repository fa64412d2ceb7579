"""How far an estimate is followed that is not sure of itself.

A wrong adapter does harm, and a photo that is left as it is can be restored by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from abair.labels import CLEAN

UNSURE: Final = (1 / 3, 1 / 2)
"""Confidences between which the strength rises from none to all of it: where twice as much of the
weights is expected on wrong labels as on true ones, and where it is as much."""


def judge_strength(weights: Mapping[str, float], confidence: float | None) -> tuple[float, list[str]]:
    """Return the strength, in [0, 1], at which estimated weights are followed, and what to warn of.

    A confidence of None, of an estimator that cannot tell, counts as sure. So does `clean`.
    """
    likeliest = max(weights, key=weights.__getitem__)
    if confidence is None or likeliest == CLEAN:
        return 1.0, []
    none, full = UNSURE
    strength = min(1.0, max(0.0, (confidence - none) / (full - none)))
    if strength == 1:
        return strength, []
    done = f"restored at a strength of {strength:.2f}" if strength else "left as it is"
    return strength, [f"{likeliest}, not sure ({confidence:.2f}): {done}; --weights {likeliest}=1 for all of it"]
