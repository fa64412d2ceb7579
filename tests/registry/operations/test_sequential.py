"""Intervals that are looked at again and again: how often they miss, and what they show, on drawn data."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from abair_registry.operations.sequential import Answer, Interval, answer, holds, interval_of

LOOKS = (6, 12, 24, 48, 96, 160)
TRIALS = 400


def looked_at(losses: NDArray[np.float64], threshold: float, comparisons: int = 1) -> Answer:
    """The first answer that is not open, as samples are added.

    Features tell which samples moved: these are drawn in any case.
    """
    said = Answer.OPEN
    for count in LOOKS:
        said = answer(interval_of(losses[:count], comparisons), threshold)
        if said is Answer.LOST or (said is Answer.KEPT and not losses[count:].any()):
            break
    return said


def steady(mean: float, deviation: float = 1.0) -> NDArray[np.float64]:
    return np.random.default_rng(0).normal(mean, deviation, (TRIALS, LOOKS[-1]))


def ruined(share: float, loss: float = 10.0) -> NDArray[np.float64]:
    """Most samples stay as they are, a few are restored by the wrong adapter."""
    return loss * (np.random.default_rng(1).random((TRIALS, LOOKS[-1])) < share)


def share(trials: NDArray[np.float64], said: Answer, threshold: float = 0.1, comparisons: int = 1) -> float:
    return float(np.mean([looked_at(losses, threshold, comparisons) is said for losses in trials]))


def test_the_mean_lies_within_all_intervals_as_often_as_they_say() -> None:
    missed = 0
    for losses in steady(0.3):
        found = [interval_of(losses[:count]) for count in range(6, LOOKS[-1] + 1, 3)]
        missed += not all(one.low <= 0.3 <= one.high for one in found)
    assert missed / TRIALS <= 0.05


@pytest.mark.parametrize("trials", [steady(0.0), steady(0.0, 5.0), ruined(0.0), ruined(0.005, 20.0)])
def test_what_loses_nothing_is_hardly_ever_said_to_lose(trials: NDArray[np.float64]) -> None:
    assert share(trials, Answer.LOST) <= 0.05
    assert share(trials, Answer.LOST, comparisons=20) <= 0.005


def test_a_loss_is_shown_be_it_small_and_steady_or_rare_and_large() -> None:
    assert share(steady(0.3, 0.5), Answer.LOST) >= 0.95
    assert share(ruined(0.2), Answer.LOST) >= 0.95
    assert share(steady(0.3, 0.3), Answer.LOST, comparisons=20) >= 0.95


def test_a_loss_is_hardly_ever_excluded_where_there_is_one() -> None:
    assert share(steady(0.2, 0.5), Answer.KEPT) <= 0.05
    assert share(ruined(0.25), Answer.KEPT) <= 0.05


def test_more_samples_are_drawn_only_while_it_is_open() -> None:
    assert interval_of([0.0] * 12) == (0, 0, 0)
    assert answer(interval_of([0.0] * 12), 0.1) is Answer.KEPT
    assert answer(interval_of([0.3] * 12), 0.1) is Answer.LOST
    assert answer(interval_of([12.0, *[0.0] * 11]), 0.1) is Answer.OPEN
    assert holds(Interval(0.2, 0.1, 0.3), 0.25)
    assert not holds(Interval(0.2, 0.2, 0.2), 0.2)


def test_one_sample_alone_decides_nothing_and_more_comparisons_widen_the_interval() -> None:
    assert answer(interval_of([5.0]), 0.1) is Answer.OPEN
    values = list(np.random.default_rng(2).normal(0, 1, 24))
    (_, low, high), (_, wide_low, wide_high) = interval_of(values), interval_of(values, comparisons=20)
    assert wide_low < low < high < wide_high
    assert high - low == pytest.approx(2 * 3.18 * np.std(values, ddof=1) / 24**0.5, rel=0.01)
