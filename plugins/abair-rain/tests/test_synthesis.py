"""What holds for every sample of rain."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from abair_rain.synthesis import _path, degrade


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _photo(height: int = 96, width: int = 96) -> Tensor:
    """A ramp with texture, (3, H, W), far from black and white."""
    ramp = torch.linspace(0.1, 0.6, width).expand(3, height, width)
    return (ramp + 0.05 * torch.rand((3, height, width), generator=_generator(99))).clone()


def _psnr(a: Tensor, b: Tensor) -> float:
    return float(-10.0 * torch.log10((a - b).square().mean()))


def test_same_seed_gives_same_rain_and_the_input_stays() -> None:
    clean = _photo()
    before = clean.clone()
    first, second, other = (degrade(clean, _generator(seed)) for seed in (5, 5, 6))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(clean, before)


def test_global_random_state_is_neither_used_nor_moved() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    degrade(_photo(), _generator(0))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 2), (3, 120), (17, 5), (64, 64)])
def test_every_size_gives_a_changed_finite_image_in_range(size: tuple[int, int]) -> None:
    clean = _photo(*size)
    generator = _generator(0)
    for _ in range(30):
        rainy = degrade(clean, generator)
        assert rainy.shape == clean.shape
        assert rainy.dtype == torch.float32
        assert bool(torch.isfinite(rainy).all())
        assert float(rainy.min()) >= 0.0
        assert float(rainy.max()) <= 1.0
        assert not torch.equal(rainy, clean)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_black_and_white_pictures_change_too(value: float) -> None:
    clean = torch.full((3, 32, 32), value)
    generator = _generator(0)
    assert not any(torch.equal(degrade(clean, generator), clean) for _ in range(30))


def test_severity_spans_light_and_heavy_rain() -> None:
    clean = _photo(128, 128)
    generator = _generator(0)
    psnr = torch.tensor([_psnr(degrade(clean, generator), clean) for _ in range(150)])
    low, middle, high = torch.quantile(psnr, torch.tensor([0.05, 0.5, 0.95])).tolist()
    assert low < 17.0
    assert 20.0 < middle < 28.0
    assert high > 30.0


def test_rain_adds_light_in_streaks_that_are_longer_than_wide() -> None:
    clean = torch.full((3, 128, 128), 0.3)
    generator = _generator(3)
    directed = 0
    for _ in range(40):
        light = (degrade(clean, generator) - clean).mean(0)
        assert float(light.mean()) > 0.0
        dx, dy = light[:-1].diff(dim=1), light[:, :-1].diff(dim=0)
        xx, yy, xy = dx.square().mean(), dy.square().mean(), (dx * dy).mean()
        coherence = ((xx - yy).square() + 4.0 * xy.square()).sqrt() / (xx + yy)
        directed += float(coherence) > 0.4
    assert directed >= 30


def test_path_lies_along_its_angle() -> None:
    upright, lying = _path(_generator(0), 0.0, 30.0, 1.0), _path(_generator(0), 90.0, 30.0, 1.0)
    assert upright.shape[0] > 2 * upright.shape[1]
    assert lying.shape[1] > 2 * lying.shape[0]
    assert float(upright.max()) == 1.0
    assert all(side % 2 == 1 for side in upright.shape)
