"""What the synthesiser alone promises of snow."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from abair_snow.synthesis import OPACITY, RADII, Fall, _flakes, _veil, degrade


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _photo(height: int = 96, width: int = 96) -> Tensor:
    """A ramp with texture, (3, H, W), far from black and white."""
    ramp = torch.linspace(0.1, 0.6, width).expand(3, height, width)
    return (ramp + 0.05 * torch.rand((3, height, width), generator=_generator(99))).clone()


def _psnr(a: Tensor, b: Tensor) -> float:
    return float(-10.0 * torch.log10((a - b).square().mean()))


def _orientation(image: Tensor) -> tuple[float, float]:
    """Return the direction of least change in degrees from vertical, and its clarity (0 to 1)."""
    # Averaged across, so that both derivatives are those at the corners between the pixels.
    dx, dy = (image[:-1] + image[1:]).diff(dim=1), (image[:, :-1] + image[:, 1:]).diff(dim=0)
    xx, yy, xy = float(dx.square().mean()), float(dy.square().mean()), float((dx * dy).mean())
    return math.degrees(0.5 * math.atan2(-2.0 * xy, xx - yy)), math.hypot(xx - yy, 2.0 * xy) / (xx + yy)


def _count(mask: Tensor) -> int:
    """Count the spots of a mask (H, W) by Euler's formula: pixels less edges plus faces."""
    down, right = mask[1:] & mask[:-1], mask[:, 1:] & mask[:, :-1]
    return int(mask.sum() - down.sum() - right.sum() + (down[:, 1:] & down[:, :-1]).sum())


def test_severity_spans_light_and_heavy_snow() -> None:
    clean = _photo()
    generator = _generator(0)
    psnr = torch.tensor([_psnr(degrade(clean, generator), clean) for _ in range(120)])
    low, middle, high = torch.quantile(psnr, torch.tensor([0.05, 0.5, 0.95])).tolist()
    assert 14.0 < low < 18.5
    assert 19.0 < middle < 23.0
    assert 24.0 < high < 30.0


def test_a_dark_scene_becomes_brighter_everywhere_or_stays() -> None:
    clean = (_photo() * 255).round() / 255
    generator = _generator(3)
    for _ in range(40):
        light = degrade(clean, generator) - clean
        assert float(light.min()) >= 0.0
        assert float(light.max()) > 0.1


def test_before_a_white_sky_flakes_are_darker() -> None:
    generator = _generator(4)
    assert all(float(degrade(torch.ones(3, 48, 48), generator).mean()) < 1.0 for _ in range(20))


@pytest.mark.parametrize("radii", RADII)
@pytest.mark.parametrize("angle", [-40.0, 0.0, 65.0])
def test_fast_snow_streaks_along_the_wind_at_every_depth(radii: tuple[float, float], angle: float) -> None:
    fall = Fall(math.radians(angle), path=3.0, blur=0.3)
    found, clear = _orientation(_flakes(192, 192, radii, 0.06, fall, _generator(1)))
    assert clear > 0.3
    assert abs(found - angle) < 8.0


def test_snow_that_stands_still_has_no_direction_and_hides_more() -> None:
    still, fast = (_flakes(192, 192, RADII[1], 0.05, Fall(0.5, path, 0.3), _generator(2)) for path in (0.1, 3.0))
    assert _orientation(still)[1] < 0.2
    assert float(still.quantile(0.01)) < 0.3
    assert float(fast.quantile(0.01)) > 0.4


def test_far_flakes_are_sharp_and_many_near_ones_soft_and_few() -> None:
    fall = Fall(0.0, path=0.1, blur=0.6)
    far, near = (1.0 - _flakes(256, 256, radii, 0.04, fall, _generator(3)) for radii in (RADII[0], RADII[2]))
    assert float(far.diff(dim=1).abs().amax()) > 2.0 * float(near.diff(dim=1).abs().amax())
    assert _count(far > 0.3) > 20 * _count(near > 0.3) > 0


@pytest.mark.parametrize("radii", RADII)
def test_flakes_cover_what_was_asked_for_up_to_the_border(radii: tuple[float, float]) -> None:
    fall = Fall(0.4, path=0.5, blur=0.2)
    hidden = torch.stack([1.0 - _flakes(64, 64, radii, 0.04, fall, _generator(seed)) for seed in range(100)]).mean(0)
    assert float(hidden.mean()) == pytest.approx(0.04 * sum(OPACITY) / 2, rel=0.25)
    border = torch.cat([hidden[:3].flatten(), hidden[-3:].flatten(), hidden[:, :3].flatten(), hidden[:, -3:].flatten()])
    assert float(border.mean()) == pytest.approx(float(hidden.mean()), rel=0.25)


def test_the_veil_thickens_with_the_distance_and_is_smooth() -> None:
    veils = torch.stack([_veil(64, 64, _generator(seed)) for seed in range(60)])
    rows = veils.mean(dim=(0, 2))
    assert float(rows[:16].mean()) > 1.2 * float(rows[-16:].mean())
    assert float(veils.diff(dim=1).abs().amax()) < 0.02


def test_values_are_those_of_an_8_bit_file() -> None:
    snowy = degrade(_photo(), _generator(3)) * 255
    assert torch.allclose(snowy, snowy.round(), atol=1e-3)
