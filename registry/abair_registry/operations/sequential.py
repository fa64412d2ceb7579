"""Intervals of means that hold however often one looks while samples are added.

Samples are restored until an interval decides. An ordinary interval that is looked at again and
again misses the mean more often than it says. These are asymptotic confidence sequences
(Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas, "Time-uniform central limit theory and asymptotic
confidence sequences", Annals of Statistics 52, 2024, theorem 2.2): with the stated confidence the
mean lies in all of them. That costs width: at 95 % and 24 samples they take 3.2 standard errors
instead of 2. They are exact for many samples; for few they are widened as Student's t is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import Final, NamedTuple

import numpy as np

CONFIDENCE: Final = 0.95
TIGHTEST: Final = 24
"""The number of samples at which the intervals are tightest."""


class Interval(NamedTuple):
    """A mean, and the bounds that it lies within."""

    mean: float
    low: float
    high: float


class Answer(StrEnum):
    """What an interval says of a loss that may not exceed a threshold."""

    LOST = "lost"
    """The mean exceeds the threshold, and the loss is no chance: the interval lies above zero."""
    KEPT = "kept"
    """The interval excludes a loss beyond the threshold."""
    OPEN = "open"


def interval_of(values: Sequence[float], comparisons: int = 1) -> Interval:
    """Return the mean of one or more values, and its interval.

    The confidence is corrected for the number of comparisons (Bonferroni). A single value counts as
    uncertain as it is large.
    """
    found, count = np.asarray(values, dtype=float), len(values)
    mean = float(found.mean())
    deviation = float(found.std(ddof=1)) if count > 1 else abs(mean)
    deviation *= math.sqrt(max(1, count - 1) / max(0.5, count - 3))  # that of Student's t
    miss = (1 - CONFIDENCE) / comparisons
    spread = count * (1 - 2 * math.log(miss) + math.log(-2 * math.log(miss))) / TIGHTEST
    width = deviation * math.sqrt(2 * (spread + 1) / (count * spread) * math.log(math.sqrt(spread + 1) / miss))
    return Interval(mean, mean - width, mean + width)


def answer(losses: Interval, threshold: float) -> Answer:
    """Return what an interval of losses says."""
    if losses.mean > threshold and losses.low > 0:
        return Answer.LOST
    return Answer.KEPT if losses.high <= threshold else Answer.OPEN


def holds(interval: Interval, value: float) -> bool:
    """Tell whether a value lies inside the interval, so that more samples may change the side."""
    return interval.low < value < interval.high
