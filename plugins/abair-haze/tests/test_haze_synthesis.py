"""What the synthesiser alone promises of haze."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from abair_haze import synthesis
from abair_haze.synthesis import degrade


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _photo(height: int = 96, width: int = 96) -> Tensor:
    """A ramp with texture and a dark half, (3, H, W)."""
    ramp = torch.linspace(0.05, 0.7, width).expand(3, height, width)
    photo = ramp + 0.05 * torch.rand((3, height, width), generator=_generator(99))
    photo[:, height // 2 :] *= 0.4
    return photo


def _psnr(a: Tensor, b: Tensor) -> float:
    return float(-10.0 * torch.log10((a - b).square().mean()))


def test_severity_spans_mist_and_fog_with_a_third_below_14_db() -> None:
    clean = _photo(128, 128)
    generator = _generator(0)
    psnr = torch.tensor([_psnr(degrade(clean, generator), clean) for _ in range(150)])
    assert float((psnr < 14.0).float().mean()) > 0.33
    assert float((psnr > 18.0).float().mean()) > 0.15
    assert float((psnr > 24.0).float().mean()) > 0.03


def test_one_transmission_explains_all_channels() -> None:
    # Two flat pictures of one luminance and one seed share depth and airlight: they differ by t
    # times their difference.
    generator_of = [_generator(seed) for seed in range(20)]
    states = [generator.get_state() for generator in generator_of]
    for generator, state in zip(generator_of, states, strict=True):
        grey = degrade(torch.full((3, 24, 24), 0.4), generator)
        generator.set_state(state)
        coloured = torch.full((3, 24, 24), 0.4)
        coloured[0], coloured[1] = 0.3, 0.5  # the same luminance, so the same depth
        tinted = degrade(coloured, generator)
        change = (tinted - grey) / torch.tensor([-0.1, 0.1, 1.0]).view(3, 1, 1)
        torch.testing.assert_close(change[0], change[1], atol=1e-4, rtol=0.0)
        assert float(change[0].min()) >= 0.05
        assert float(change[0].max()) < 1.0
        assert float((tinted[2] - grey[2]).abs().max()) < 1e-4


def test_haze_lowers_contrast() -> None:
    clean = torch.rand((3, 8, 8), generator=_generator(1))
    generator = _generator(2)
    for _ in range(20):
        assert float(degrade(clean, generator).std()) < float(clean.std())


def test_box_mean_is_right_inside_and_at_the_border() -> None:
    image = torch.arange(20.0).reshape(4, 5)
    mean = synthesis._box_mean(image, 1)
    assert float(mean[1, 1]) == pytest.approx(float(image[:3, :3].mean()), abs=1e-5)
    assert float(mean[0, 0]) == pytest.approx(float(image[:2, :2].mean()), abs=1e-5)
    assert float(mean[3, 4]) == pytest.approx(float(image[2:, 3:].mean()), abs=1e-5)
    torch.testing.assert_close(synthesis._box_mean(image, 9), image.mean().expand(4, 5))
