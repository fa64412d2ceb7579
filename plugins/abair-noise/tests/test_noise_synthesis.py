"""The noise synthesiser: its levels are those of the standard tests."""

import numpy as np
import pytest
import torch

from abair_noise import synthesis
from abair_noise.synthesis import CAMERA_SIGMA, SIGMA, degrade


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_levels_fill_the_range() -> None:
    clean = torch.full((3, 48, 48), 0.5)
    sigmas = [float((degrade(clean, seeded(seed)) - clean).std()) for seed in range(300)]
    shares = np.histogram(sigmas, bins=5, range=SIGMA)[0] / len(sigmas)
    assert np.quantile(sigmas, 0.05) > 0.5 * CAMERA_SIGMA[0]
    assert max(sigmas) < 1.08 * SIGMA[1]
    assert np.all(shares > 0.1)


def test_half_of_the_samples_are_white_and_independent() -> None:
    clean = torch.full((3, 64, 64), 0.5)
    white = 0
    for seed in range(200):
        noise = degrade(clean, seeded(seed)) - clean
        neighbours = np.corrcoef(noise[:, :, 1:].flatten().numpy(), noise[:, :, :-1].flatten().numpy())[0, 1]
        channels = np.corrcoef(noise[0].flatten().numpy(), noise[1].flatten().numpy())[0, 1]
        white += abs(neighbours) < 0.06 and abs(channels) < 0.08
    assert 0.45 < white / 200 < 0.75


@pytest.mark.parametrize("kind", ["_grey", "_correlated", "_signal_dependent"])
def test_other_kinds_keep_the_level_at_mid_grey(kind: str) -> None:
    clean = torch.full((3, 200, 200), 0.5)
    noise = getattr(synthesis, kind)(clean, 0.1, seeded(4))
    assert float(noise.std()) == pytest.approx(0.1, rel=0.03)


def test_signal_dependent_noise_is_stronger_in_the_light() -> None:
    clean = torch.cat([torch.full((3, 64, 64), 0.05), torch.full((3, 64, 64), 0.95)], dim=2)
    noise = synthesis._signal_dependent(clean, 0.1, seeded(1))
    assert noise[..., 64:].std() > 1.1 * noise[..., :64].std()


def test_noise_of_cameras_is_smeared_and_grows_where_white_balance_amplifies() -> None:
    clean = torch.full((3, 200, 200), 0.5)
    noise = torch.stack([synthesis._camera_noise(clean, seeded(seed)) for seed in range(12)])
    neighbours = [np.corrcoef(n[:, :, 1:].flatten(), n[:, :, :-1].flatten())[0, 1] for n in noise.numpy()]
    assert np.mean(neighbours) > 0.2
    red, green, blue = noise.square().mean((0, 2, 3)).tolist()
    assert min(red, blue) > green


def test_a_bayer_mask_has_half_its_sites_green_and_each_site_one_colour() -> None:
    mask = synthesis._bayer_mask(6, 8, 1, 0)
    assert mask.sum(0).eq(1).all()
    assert mask.sum((1, 2)).tolist() == [12, 24, 12]
    filled = synthesis._demosaic(mask)
    assert filled[:, 1:-1, 1:-1].eq(1).all()
