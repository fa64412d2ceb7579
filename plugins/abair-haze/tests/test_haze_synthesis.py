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


def _coordinates(height: int, width: int) -> tuple[Tensor, Tensor]:
    return torch.linspace(0, 1, width)[None], torch.linspace(0, 1, height)[:, None]


def test_a_room_is_farthest_at_its_back_wall_and_nearer_towards_the_borders() -> None:
    for seed in range(20):
        depth = synthesis._room(*_coordinates(60, 80), _generator(seed))
        assert depth.shape == (60, 80)
        assert float(depth.amax()) == pytest.approx(1.0)
        assert float(depth.amin()) >= 0
        wall = depth == depth.amax()
        assert 0 < float(wall.float().mean()) < 1
        rows, columns = wall.any(1).nonzero().flatten(), wall.any(0).nonzero().flatten()
        assert wall[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all(), "the wall is one rectangle"
        middle = int(rows[len(rows) // 2])
        to_the_right = depth[middle, columns[-1] :]
        assert (to_the_right.diff() <= 0).all()


def test_regions_have_constant_depths_with_hard_edges() -> None:
    counts = set()
    for seed in range(20):
        depth = synthesis._regions(*_coordinates(60, 80), _generator(seed))
        assert depth.shape == (60, 80)
        counts.add(len(depth.unique()))
        assert 0 <= float(depth.amin()) <= float(depth.amax()) <= 1
    assert counts <= set(range(1, 7))
    assert max(counts) > 2


def test_airlight_is_never_white_and_sometimes_coloured_or_uneven() -> None:
    drawn = [synthesis._airlight(0.95, 24, 32, _generator(seed)) for seed in range(200)]
    assert all(float(one.amax()) < 0.999 for one in drawn)
    uneven = sum(one.shape[1:] == (24, 32) for one in drawn) / 200
    coloured = sum(float(one.mean((1, 2)).amax() - one.mean((1, 2)).amin()) > 0.085 for one in drawn) / 200
    assert uneven == pytest.approx(synthesis.UNEVEN, abs=0.1)
    assert 0.02 < coloured < 0.15
