"""The noise synthesiser: seeded, in range, and its levels those of the standard tests."""

import numpy as np
import pytest
import torch

from abair_noise import synthesis
from abair_noise.synthesis import SIGMA, degrade


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 1), (33, 20)])
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_any_size_and_value_is_changed_in_range_and_repeatable(size: tuple[int, int], value: float) -> None:
    clean = torch.full((3, *size), value)
    for seed in range(30):
        first, second = degrade(clean, seeded(seed)), degrade(clean, seeded(seed))
        assert torch.equal(first, second)
        assert first.shape == clean.shape
        assert first.dtype == torch.float32
        assert first.min() >= 0
        assert first.max() <= 1
        assert not torch.equal(first, clean)
    assert torch.all(clean == value)


def test_levels_fill_the_range_evenly() -> None:
    clean = torch.full((3, 48, 48), 0.5)
    sigmas = [float((degrade(clean, seeded(seed)) - clean).std()) for seed in range(300)]
    shares = np.histogram(sigmas, bins=5, range=SIGMA)[0] / len(sigmas)
    assert min(sigmas) > 0.9 * SIGMA[0]
    assert max(sigmas) < 1.08 * SIGMA[1]
    assert np.all(shares > 0.1)


def test_most_samples_are_white_and_independent() -> None:
    clean = torch.full((3, 64, 64), 0.5)
    white = 0
    for seed in range(200):
        noise = degrade(clean, seeded(seed)) - clean
        neighbours = np.corrcoef(noise[:, :, 1:].flatten().numpy(), noise[:, :, :-1].flatten().numpy())[0, 1]
        channels = np.corrcoef(noise[0].flatten().numpy(), noise[1].flatten().numpy())[0, 1]
        white += abs(neighbours) < 0.06 and abs(channels) < 0.08
    assert 0.7 < white / 200 < 0.95


@pytest.mark.parametrize("kind", ["_grey", "_correlated", "_signal_dependent"])
def test_other_kinds_keep_the_level_at_mid_grey(kind: str) -> None:
    clean = torch.full((3, 200, 200), 0.5)
    noise = getattr(synthesis, kind)(clean, 0.1, seeded(4))
    assert float(noise.std()) == pytest.approx(0.1, rel=0.03)


def test_signal_dependent_noise_is_stronger_in_the_light() -> None:
    clean = torch.cat([torch.full((3, 64, 64), 0.05), torch.full((3, 64, 64), 0.95)], dim=2)
    noise = synthesis._signal_dependent(clean, 0.1, seeded(1))
    assert noise[..., 64:].std() > 1.1 * noise[..., :64].std()


def test_randomness_comes_from_the_generator_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    degrade(torch.rand((3, 8, 8), generator=seeded(0)), seeded(1))
    assert torch.equal(before, torch.get_rng_state())
