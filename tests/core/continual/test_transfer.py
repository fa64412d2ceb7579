"""A new label's damage on kept undamaged photos: what the fit learns where photos differ."""

from __future__ import annotations

import pytest
import torch

from abair.continual.refit import RefitConfig, refit
from abair.continual.replay import Features
from abair.continual.transfer import transfer_damage
from abair.model.estimator import Estimator

SIZE, COUNT = 12, 60
DAMAGE, OTHER_PHOTOS = 4 * torch.eye(SIZE)[3], 6 * torch.eye(SIZE)[0]


def scenes(seed: int) -> torch.Tensor:
    return torch.randn((COUNT, SIZE), generator=torch.Generator().manual_seed(seed))


def one_hot(*counts: int) -> torch.Tensor:
    return torch.eye(len(counts)).repeat_interleave(torch.tensor(counts), 0)


@pytest.fixture
def known() -> Features:
    dark = scenes(1) + 4 * torch.eye(SIZE)[7]
    return Features("x", ("dark", "clean"), torch.cat([dark, scenes(2)]), one_hot(COUNT, COUNT))


@pytest.fixture
def new() -> Features:
    """A label shown on photos that look like each other."""
    photos = scenes(3) + OTHER_PHOTOS
    pairs = torch.stack([torch.arange(COUNT), torch.arange(COUNT) + COUNT], 1)
    return Features("x", ("red", "clean"), torch.cat([photos + DAMAGE, photos]), one_hot(COUNT, COUNT), pairs)


def test_the_damage_alone_is_added_to_undamaged_samples_each_used_once(known: Features, new: Features) -> None:
    found = transfer_damage(new, [known], 1000)
    assert found is not None
    moved = found.values[len(new.values) :]
    undamaged = known.values[COUNT:]
    nearest = torch.cdist(moved - DAMAGE, undamaged, compute_mode="donot_use_mm_for_euclid_dist")
    assert nearest.min(1).values.max() < 1e-4
    assert sorted(nearest.argmin(1).tolist()) == list(range(COUNT))
    assert torch.equal(found.targets[len(new.targets) :], one_hot(COUNT, 0))
    assert torch.equal(found.values[: len(new.values)], new.values)


def test_no_more_are_made_than_asked_for(known: Features, new: Features) -> None:
    found = transfer_damage(new, [known], 7)
    assert found is not None
    assert len(found.values) == len(new.values) + 7


def test_nothing_is_made_without_pairs_or_without_undamaged_samples(known: Features, new: Features) -> None:
    alone = Features("x", new.labels, new.values, new.targets)
    damaged = Features("x", ("dark",), known.values[:COUNT], torch.ones(COUNT, 1))
    assert transfer_damage(alone, [known], 10) is None
    assert transfer_damage(new, [], 10) is None
    assert transfer_damage(new, [damaged], 10) is None


def test_a_label_shown_on_unusual_photos_is_recognised_on_others(known: Features, new: Features) -> None:
    champion = refit(Estimator(("dark", "clean"), SIZE), "x", ("dark", "clean"), [], [known])
    recalls = []
    for count in (0, 320):
        config = RefitConfig(transferred=count)
        fitted = refit(champion, "x", ("dark", "red", "clean"), [known], [new], config=config)
        with torch.inference_mode():
            recalls.append(float((fitted(scenes(4) + DAMAGE).argmax(1) == 1).float().mean()))
            assert float((fitted(scenes(5)).argmax(1) == 1).float().mean()) < 0.15
    assert recalls[1] > recalls[0] + 0.2
