"""What the synthesiser alone promises of rain."""

from __future__ import annotations

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
