"""What is known is what all replays hold: samples, mixtures, and held-out ones to judge by."""

from __future__ import annotations

import torch

from abair.continual.known import familiarity_of
from abair.continual.replay import Features, HeldOut, Mixtures, Replay

FEATURES = 8


def features(seed: int, count: int, shift: float = 0.0) -> torch.Tensor:
    values = torch.randn((count, FEATURES), generator=torch.Generator().manual_seed(seed))
    values[:, 0] += shift * torch.rand(count, generator=torch.Generator().manual_seed(seed + 1))
    return values


def replay(seed: int, shift: float, mixed: float | None = None) -> Replay:
    targets, picture = torch.tensor([[1.0, 0.0]]), torch.zeros(3, 8, 8)
    held_out = tuple(
        HeldOut.from_images(("dark",), values, torch.zeros(1, 3, 64, 64), picture, picture)
        for values in features(seed + 5, 40, shift)
    )
    made = Features("b", ("dark", "clean"), features(seed, 200, shift), targets.expand(200, 2))
    if mixed is None:
        return Replay(made, held_out)
    both = Features("b", ("dark", "clean"), features(seed + 9, 200, mixed), targets.expand(200, 2))
    return Replay(made, held_out, Mixtures(both, torch.ones(200)))


def test_a_label_s_samples_are_known_from_when_it_leaves_a_replay() -> None:
    newcomer = features(90, 200, 30.0)
    before = familiarity_of([replay(0, 0.0)])
    after = familiarity_of([replay(0, 0.0), replay(50, 30.0)])
    assert float((before.unknown(newcomer) > 0.95).float().mean()) > 0.5
    assert float((after.unknown(newcomer) > 0.95).float().mean()) < 0.15
    assert len(after.distances) == 80


def test_mixtures_are_known_too() -> None:
    mixtures = features(90, 200, 30.0)
    with_them, without = familiarity_of([replay(0, 0.0, 30.0)]), familiarity_of([replay(0, 0.0)])
    assert float(with_them(mixtures).mean()) < float(without(mixtures).mean())
