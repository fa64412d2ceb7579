"""What the estimator is taught of mixed damage is the blend that restores best."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from abair.lora import Adapter
from abair.synthesis import Sample
from abair.training.targets import RESTORED, BestBlend, part, shares

LABELS = ("dark", "grain", "clean")


class BestAt:
    """Stands for a blender: the further from `best`, the worse what it restores."""

    adapters = (Adapter("dark", 1, 1.0, {"x": (torch.ones(1, 2), torch.ones(2, 1))}),)

    def __init__(self, best: Sequence[float]) -> None:
        self.best, self.tried = best, 0

    def blend(self, weights: Sequence[float], keep: float = 0.0):
        self.tried += 1
        wrong = sum(abs(one - other) for one, other in zip((*weights, keep), self.best, strict=True))
        return lambda image, view: image + wrong


def sample(*types: float) -> Sample:
    """A grey picture whose pixels have this distribution over the labels."""
    grey = torch.full((3, 40, 300), 0.3)
    return Sample(grey, grey, torch.tensor(types)[:, None, None].expand(3, 40, 300))


@pytest.mark.parametrize("best", [(0.8, 0.2, 0.0), (0.0, 1.0, 0.0)])
def test_between_two_labels_the_blend_that_restores_best_is_taught(best: tuple[float, ...]) -> None:
    target = BestBlend(BestAt(best))(sample(0.5, 0.5, 0.0))
    assert target.tolist() == pytest.approx(list(best), abs=0.02)


def test_a_region_left_undamaged_is_weighed_against_the_label_by_what_it_costs() -> None:
    target = BestBlend(BestAt((0.0, 0.6, 0.4)))(sample(0.0, 0.5, 0.5))
    assert target.tolist() == pytest.approx([0.0, 0.6, 0.4], abs=0.02)


def test_blends_that_restore_alike_are_taught_in_equal_parts() -> None:
    class Indifferent(BestAt):
        def blend(self, weights: Sequence[float], keep: float = 0.0):
            return lambda image, view: image + 0.1

    assert BestBlend(Indifferent((0, 0, 0)))(sample(0.5, 0.5, 0.0)).tolist() == pytest.approx([0.5, 0.5, 0.0])


def test_one_label_alone_is_itself_and_nothing_is_restored_for_it() -> None:
    blender = BestAt((0.0, 1.0, 0.0))
    assert BestBlend(blender)(sample(1.0, 0.0, 0.0)).tolist() == [1.0, 0.0, 0.0]
    assert blender.tried == 0


def test_what_is_restored_is_a_part_and_what_is_seen_is_the_whole() -> None:
    damaged = sample(0.5, 0.5, 0.0)
    degraded, clean, view = part(damaged)
    assert degraded.shape == clean.shape == (3, 40, RESTORED)
    assert view.shape == (1, 3, 64, 64)
    assert shares(damaged).tolist() == pytest.approx([0.5, 0.5, 0.0])


def test_other_adapters_are_other_targets() -> None:
    class Other(BestAt):
        adapters = (Adapter("dark", 1, 1.0, {"x": (torch.ones(1, 2), torch.zeros(2, 1))}),)

    best = (1.0, 0.0, 0.0)
    assert BestBlend(BestAt(best)).mark == BestBlend(BestAt(best)).mark != BestBlend(Other(best)).mark
