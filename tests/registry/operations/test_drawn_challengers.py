"""The promise that the gates keep, on drawn challengers: good ones go live, and nobody's label loses."""

from __future__ import annotations

import numpy as np
import pytest

from abair.report import Group, Report
from abair_registry.operations.gates import evaluate_gates, find_open
from abair_registry.settings import Thresholds

OLD = ("bitdepth", "blur", "haze", "jpeg", "low-light", "noise", "rain", "snow")
POOL, LOOKED = 24, 80
TRIALS = 60


class Drawn:
    """Held-out samples of eight old labels and a new one, as a challenger would restore them.

    A share `touched` of the old samples is restored a little otherwise than before, for better or worse. Of `victim`
    a share `ruined` loses ten decibels.
    """

    def __init__(self, seed: int, recall: float, touched: float = 0.05, victim: str = "", ruined: float = 0.0) -> None:
        draw = np.random.default_rng(seed)
        self.losses = {label: draw.normal(0, 0.5, POOL) * (draw.random(POOL) < touched) for label in OLD}
        if victim:
            self.losses[victim] = 10 * (draw.random(POOL) < ruined)
        self.right = draw.random(LOOKED) < recall
        self.gain = draw.normal(4, 2, LOOKED)
        self.gap = np.where(self.right, np.abs(draw.normal(0, 0.1, LOOKED)), self.gain)

    def group(self, label: str, count: int) -> Group:
        if label == "new":
            ways = {"input": 20, "backbone": 22, "OH": 22 + self.gain, "Oracle": 22 + self.gain}
            after, before = 22 + self.gain - self.gap, np.full(LOOKED, 22.0)
            top = tuple("new" if right else "noise" for right in self.right)
        else:
            ways = {"input": 20, "backbone": 24, "OH": 26, "Oracle": 26}
            after, before, top = 26 - self.losses[label], np.full(POOL, 26.0), (label,) * POOL
        psnr = {way: tuple(np.broadcast_to(values, len(top))[:count].tolist()) for way, values in ways.items()}
        psnr |= {"SW": tuple(after[:count].tolist()), "champion": tuple(before[:count].tolist())}
        return Group.model_validate({"labels": (label,), "psnr": psnr, "top": top})

    def refused(self) -> list[str]:
        """The gates that refuse, once all is looked at that is open or moved."""
        counts = dict.fromkeys((*OLD, "new"), 12)
        clean = Group(
            labels=("clean",), psnr=dict.fromkeys(self.group("haze", 2).psnr, (50.0,) * 12), top=("clean",) * 12
        )
        while True:
            report = Report(new=("new",), groups=(*(self.group(*pair) for pair in counts.items()), clean))
            wanted = find_open(report, Thresholds()) | {
                label for label in OLD if self.losses[label][counts[label] :].any()
            }
            grown = {
                label: min(2 * count, LOOKED if label == "new" else POOL) if label in wanted else count
                for label, count in counts.items()
            }
            if grown == counts:
                return [result.name for result in evaluate_gates(report, Thresholds()) if not result.passed]
            counts = grown


def test_a_good_newcomer_goes_live_whatever_samples_were_drawn() -> None:
    refused = [Drawn(seed, recall=0.92).refused() for seed in range(TRIALS)]
    assert sum(map(bool, refused)) <= 0.05 * TRIALS, refused


def test_a_newcomer_that_half_its_samples_do_not_show_is_refused_by_its_recall_alone() -> None:
    assert {tuple(Drawn(seed, recall=0.5).refused()) for seed in range(TRIALS)} == {("new: recall",)}


@pytest.mark.parametrize("ruined", [0.3, 0.5])
def test_a_label_that_was_live_does_not_lose_whatever_samples_were_drawn(ruined: float) -> None:
    refused = [Drawn(seed, recall=0.92, victim="haze", ruined=ruined).refused() for seed in range(TRIALS)]
    assert sum("haze: loss against the champion" in names for names in refused) >= 0.95 * TRIALS
