"""What a blend costs a sample is known for every blend at once, from what each label restores alone."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from abair.lora import Adapter
from abair.synthesis import Sample
from abair.training.costs import GOOD_ENOUGH, RESTORED, Costs, best_of_two, logarithm_of_error, part

ONE = Adapter("dark", 1, 1.0, {"x": (torch.ones(1, 2), torch.ones(2, 1))})


class Adding:
    """Stands for a blender: its networks add to an image what its adapters add, by their weights."""

    def __init__(self, *amounts: float, adapters: Sequence[Adapter] = (ONE, ONE)) -> None:
        self.amounts, self.adapters = amounts, adapters

    def blend(self, weights: Sequence[float], keep: float = 0.0):
        more = sum(weight * amount for weight, amount in zip(weights, self.amounts, strict=True))
        return lambda image, view: image + more


def sample(wrong: float) -> Sample:
    """A grey picture that is darker than it was."""
    clean = torch.full((3, 40, 300), 0.5)
    return Sample(clean - wrong, clean, torch.tensor([1.0, 0.0, 0.0])[:, None, None].expand(3, 40, 300))


@pytest.mark.parametrize("blend", [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.5, 0.3, 0.2)])
def test_the_error_of_any_blend_is_that_of_what_it_would_restore(blend: tuple[float, ...]) -> None:
    blender, damaged = Adding(0.2, -0.1), sample(0.2)
    costs = Costs(blender)(damaged)
    assert costs.shape == (3, 3)
    assert torch.equal(costs, costs.T)
    restored = blender.blend(blend[:2], keep=blend[2])(damaged.degraded, None)
    error = (restored - damaged.clean).square().mean()
    found = logarithm_of_error(torch.tensor([blend]), costs[None])
    assert found.tolist() == pytest.approx([float((error + GOOD_ENOUGH).log10())], abs=1e-4)


def test_following_the_gradient_finds_the_blend_that_restores_best() -> None:
    costs = Costs(Adding(0.4, 0.0))(sample(0.1))  # a quarter of the first is right
    logits = torch.zeros(1, 3, requires_grad=True)
    errors = []
    for _ in range(600):
        error = logarithm_of_error(logits.softmax(1), costs[None]).sum()
        (gradient,) = torch.autograd.grad(error, logits)
        with torch.no_grad():
            logits -= 0.03 * gradient
        errors.append(float(error.detach()))
    assert float(logits.softmax(1)[0, 0].detach()) == pytest.approx(0.25, abs=0.02)
    assert errors[-1] < errors[0] - 0.5


def test_a_chain_is_called_by_the_blend_that_restores_it_best() -> None:
    shares = torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.0, 0.5], [0.0, 1.0, 0.0], [0.5, 0.0, 0.5], [0.3, 0.7, 0.0]])
    errors = torch.tensor([[0.1, -0.1, 0.0], [0.3, 0.0, -0.1], [0.5, 0.1, 0.0], [0.1, 0.0, 0.4], [0.1, -0.1, 0.0]])
    costs = errors[:, :, None] * errors[:, None, :]
    called = best_of_two(shares, costs)
    # halves cancel; a quarter would (0.2 or 0.3 are as near); one label stays; the first alone is better than any blend
    assert called[0].tolist() == pytest.approx([0.5, 0.5, 0.0])
    assert called[1].tolist() in ([pytest.approx([share, 0.0, 1 - share]) for share in (0.2, 0.3)])
    assert called[2].tolist() == [0.0, 1.0, 0.0]
    assert called[3].tolist() == [1.0, 0.0, 0.0]
    # regions: what was restored may be one of them
    assert called[4].tolist() == pytest.approx([0.3, 0.7, 0.0])


def test_what_is_restored_well_enough_is_not_improved_for_ever() -> None:
    perfect: Tensor = torch.zeros(1, 2, 2)
    assert float(logarithm_of_error(torch.tensor([[0.5, 0.5]]), perfect)) == pytest.approx(-4.0)


def test_what_is_restored_is_a_part_and_what_is_seen_is_the_whole() -> None:
    degraded, clean, view = part(sample(0.1))
    assert degraded.shape == clean.shape == (3, 40, RESTORED)
    assert view.shape == (1, 3, 64, 64)


@pytest.mark.parametrize(("adapters", "side"), [(1, 128), (5, 128), (8, 96), (20, 64), (49, 32)])
def test_many_labels_share_the_pixels_that_few_restore(adapters: int, side: int) -> None:
    costs = Costs(Adding(*[0.1] * adapters, adapters=[ONE] * adapters))
    assert costs.side == side
    assert (adapters + 1) * costs.side**2 <= 6 * RESTORED**2
    assert costs(sample(0.2)).shape == (adapters + 1, adapters + 1)


def test_other_adapters_are_other_costs() -> None:
    other = Adapter("dark", 1, 1.0, {"x": (torch.ones(1, 2), torch.zeros(2, 1))})
    marks = [Costs(Adding(0.1, adapters=adapters)).mark for adapters in ([ONE], [ONE], [other])]
    assert marks[0] == marks[1] != marks[2]
