"""Labels: the names of degradations, and `clean` for what is undamaged."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final

from abair.errors import WeightsError

CLEAN: Final = "clean"
"""The one label that is no degradation: it has no adapter, and its weight scales the residual
down."""

LONGEST: Final = 40
"""Most characters of a degradation's name."""

TOLERANCE: Final = 1e-4
"""By how much given weights may exceed a sum of 1: they may have been rounded."""

UNKNOWN: Final = 0.95
"""Above it `unknown` of a photo counts: one known photo in twenty lies there."""

MOST_LOOKS: Final = 3
"""Looks at a photo, if each but the last one finds damage in what was restored."""

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def check_degradation_name(name: str) -> str:
    """Return the name of a degradation if it is a valid label.

    Raises:
        ValueError: the name is `clean`, too long, or not lower-case words joined by hyphens.
    """
    if name == CLEAN or not _NAME.fullmatch(name) or len(name) > LONGEST:
        raise ValueError(
            f"found {name!r}, expected up to {LONGEST} lower-case letters, digits, single hyphens, not 'clean'"
        )
    return name


def parse_weights(text: str) -> dict[str, float]:
    """Parse `noise=0.7,blur=0.3`; labels are not compared with a deployment's.

    Raises:
        WeightsError: the form is another, a number is outside [0, 1], a label comes twice, or the
            numbers sum to more than 1.
    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        label, _, number = (piece.strip() for piece in part.partition("="))
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not label or not 0 <= weight <= 1:
            raise WeightsError(
                f"found {part.strip()!r}, expected label=number with a number from 0 to 1, as in noise=0.7,blur=0.3"
            )
        if label in weights:
            raise WeightsError(f"found {label} twice, expected every label once")
        weights[label] = weight
    if (total := sum(weights.values())) > 1 + TOLERANCE:
        raise WeightsError(
            f"found a sum of {total:g}, expected at most 1: each is a part of the photo, as in noise=0.5,blur=0.5"
        )
    return weights


def round_weights(weights: Mapping[str, float]) -> dict[str, float]:
    """Return weights as JSON records show them."""
    return {label: round(float(weight), 6) for label, weight in weights.items()}


def round_confidence(confidence: float | None) -> float | None:
    """Return a confidence, or what is said to be unknown, as JSON records show it."""
    return None if confidence is None else round(confidence, 4)
