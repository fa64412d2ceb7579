"""What a blend costs a sample is known for every blend at once, from what each label restores alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from abair.data.degrade import Sample, SampleKind
from abair.model.backbone import SIZES, Backbone
from abair.model.blend_cost import ERROR_FLOOR, LARGEST_CROP, BlendCosts, centre_crop, log_blend_error
from abair.model.lora import Adapter

ONE = Adapter("dark", 1, 1.0, {"x": (torch.ones(1, 2), torch.ones(2, 1))})


class Adding:
    """Stands for a blender: its networks add to an image what its adapters add, by their weights."""

    backbone = Backbone(SIZES["tiny"])

    def __init__(self, *amounts: float, adapters: Sequence[Adapter] = (ONE, ONE)) -> None:
        self.amounts, self.adapters = amounts, adapters

    def blend(
        self, weights: Sequence[float], keep: float = 0.0
    ) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        more = sum(weight * amount for weight, amount in zip(weights, self.amounts, strict=True))
        return lambda image, view: image + more


def sample(wrong: float) -> Sample:
    """A grey picture that is darker than it was."""
    clean = torch.full((3, 40, 300), 0.5)
    types = torch.tensor([1.0, 0.0, 0.0])[:, None, None].expand(3, 40, 300)
    return Sample(clean - wrong, clean, types, ("dark",), SampleKind.SINGLE)


@pytest.mark.parametrize("blend", [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.5, 0.3, 0.2)])
def test_the_error_of_any_blend_is_that_of_what_it_would_restore(blend: tuple[float, ...]) -> None:
    blender, damaged = Adding(0.2, -0.1), sample(0.2)
    called, costs = BlendCosts(blender)(damaged)
    assert called.tolist() == [1.0, 0.0, 0.0]
    assert costs.shape == (3, 3)
    assert torch.equal(costs, costs.T)
    restored = blender.blend(blend[:2], keep=blend[2])(damaged.degraded, None)
    error = (restored - damaged.clean).square().mean()
    found = log_blend_error(torch.tensor([blend]), costs[None])
    assert found.tolist() == pytest.approx([float((error + ERROR_FLOOR).log10())], abs=1e-4)


def test_following_the_gradient_finds_the_blend_that_restores_best() -> None:
    _, costs = BlendCosts(Adding(0.4, 0.0))(sample(0.1))  # a quarter of the first is right
    logits = torch.zeros(1, 3, requires_grad=True)
    errors = []
    for _ in range(600):
        error = log_blend_error(logits.softmax(1), costs[None]).sum()
        (gradient,) = torch.autograd.grad(error, logits)
        with torch.no_grad():
            logits -= 0.03 * gradient
        errors.append(float(error.detach()))
    assert float(logits.softmax(1)[0, 0].detach()) == pytest.approx(0.25, abs=0.02)
    assert errors[-1] < errors[0] - 0.5


def mixture(wrong: float) -> Sample:
    """The same grey picture, as if it were damaged by two."""
    types = torch.tensor([0.5, 0.5, 0.0])[:, None, None].expand(3, 40, 300)
    return replace(sample(wrong), types=types, labels=("dark", "grey"), kind=SampleKind.MIXTURE)


class Blending(Adding):
    """Of which two adapters add what `added` says of the first one's weight."""

    def __init__(self, added: Callable[[float], float]) -> None:
        super().__init__(added(1.0), added(0.0))
        self.added = added

    def blend(
        self, weights: Sequence[float], keep: float = 0.0
    ) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        return lambda image, view: image + (self.added(weights[0]) if sum(weights) else 0.0)


@pytest.mark.parametrize(
    ("added", "best"),
    [
        (lambda w: 0.1 + 0.2 * w, 0.5),  # the mean of the two is right
        (lambda w: 0.05 + 0.2 * w, 0.75),
        (lambda w: 0.13 + 0.2 * w, 0.25),  # the parabola would be lowest between what was restored
        (lambda w: 0.13 + 0.2 * w if w in (0.0, 1.0) else 0.0, 0.0),  # together they do nothing
        (lambda w: 0.0 if w < 0.6 else 0.2 * w, 1.0),  # the parabola through ends and half would be lower in between
    ],
)
def test_a_mixture_is_called_by_the_restored_blend_that_is_best(added: Callable[[float], float], best: float) -> None:
    damaged = mixture(0.2)
    called, costs = BlendCosts(Blending(added))(damaged)
    assert called.tolist() == pytest.approx([best, 1 - best, 0.0])
    assert torch.equal(costs, costs.T)
    measured = {w: (added(w) - 0.2) ** 2 for w in (0.0, 0.25, 0.5, 0.75, 1.0)}
    assert costs[0, 0].item() == pytest.approx(measured[1.0], abs=1e-6)
    assert costs[1, 1].item() == pytest.approx(measured[0.0], abs=1e-6)
    # no blend is believed to be better than the best that was restored
    for step in range(101):
        w = torch.tensor([step / 100, 1 - step / 100, 0.0])
        assert float(w @ costs @ w) >= min(measured.values()) - 1e-6


def test_what_blends_restore_is_what_their_costs_say_where_the_mean_of_the_parts_is_not() -> None:
    def added(w: float) -> float:
        return 0.1 + 0.2 * w - 0.4 * w * (1 - w)

    costs, alone = (BlendCosts(Blending(added))(damaged)[1] for damaged in (mixture(0.2), sample(0.2)))
    halves = torch.tensor([0.5, 0.5, 0.0])
    true = (added(0.5) - 0.2) ** 2
    assert abs(float(halves @ costs @ halves) - true) < 0.2 * true < 0.5 * abs(float(halves @ alone @ halves) - true)


def test_a_region_of_exactly_half_the_area_is_not_taken_for_a_mixture() -> None:
    types = torch.zeros(3, 40, 300)
    types[0, :, :150] = types[1, :, 150:] = 1.0
    blending = Blending(lambda w: 0.05 + 0.2 * w)
    halves = replace(sample(0.2), types=types, labels=("dark", "grey"), kind=SampleKind.REGIONS)
    assert torch.equal(halves.types.mean((1, 2)), mixture(0.2).types.mean((1, 2)))
    assert BlendCosts(blending)(halves)[0].tolist() == [0.5, 0.5, 0.0]
    assert BlendCosts(blending)(mixture(0.2))[0].tolist() == [0.75, 0.25, 0.0]


def test_a_photo_in_a_lossy_file_is_called_by_how_much_of_it_to_leave_alone() -> None:
    class Keeping(Adding):
        def blend(self, weights: Sequence[float], keep: float = 0.0) -> Callable[[Tensor, Tensor], Tensor]:
            assert sum(weights) + keep == pytest.approx(1)
            return lambda image, view: image + (1 - keep) * 0.2

    clean = torch.full((3, 40, 40), 0.5)
    types = torch.tensor([0.5, 0.0, 0.5])[:, None, None].expand(3, 40, 40)
    for wrong, called in ((0.2, [1.0, 0.0, 0.0]), (0.05, [0.25, 0.0, 0.75]), (0.0, [0.0, 0.0, 1.0])):
        made = Sample(clean - wrong, clean, types, ("clean", "blocks"), SampleKind.MIXTURE)
        assert BlendCosts(Keeping(0.2, 0.2))(made)[0].tolist() == called


def test_what_is_restored_well_enough_is_not_improved_for_ever() -> None:
    perfect: Tensor = torch.zeros(1, 2, 2)
    assert float(log_blend_error(torch.tensor([[0.5, 0.5]]), perfect)) == pytest.approx(-4.0)


def test_what_is_restored_is_a_part_and_what_is_seen_is_the_whole() -> None:
    degraded, clean, view = centre_crop(sample(0.1), Adding.backbone)
    assert degraded.shape == clean.shape == (3, 40, LARGEST_CROP)
    assert view.shape == (1, 3, 64, 64)


@pytest.mark.parametrize(("adapters", "side"), [(1, 128), (5, 128), (8, 96), (20, 64), (49, 32)])
def test_many_labels_share_the_pixels_that_few_restore(adapters: int, side: int) -> None:
    costs = BlendCosts(Adding(*[0.1] * adapters, adapters=[ONE] * adapters))
    assert costs.side == side
    assert (adapters + 1) * costs.side**2 <= 6 * LARGEST_CROP**2
    damaged = replace(sample(0.2), types=torch.ones(adapters + 1, 40, 300) / (adapters + 1))
    assert costs(damaged)[1].shape == (adapters + 1, adapters + 1)


def test_other_adapters_are_other_costs() -> None:
    other = Adapter("dark", 1, 1.0, {"x": (torch.ones(1, 2), torch.zeros(2, 1))})
    marks = [BlendCosts(Adding(0.1, adapters=adapters)).digest for adapters in ([ONE], [ONE], [other])]
    assert marks[0] == marks[1] != marks[2]
