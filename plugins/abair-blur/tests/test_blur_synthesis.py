"""The blur synthesiser: no shift, no brightening, and severities from mild to strong."""

import math

import pytest
import torch

from abair_blur import synthesis
from abair_blur.synthesis import LENGTH, degrade


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scene(side: int = 96) -> torch.Tensor:
    """A textured picture: random blocks of 4 pixels, in [0.1, 0.9]."""
    blocks = torch.rand((3, side // 4, side // 4), generator=seeded(99))
    return 0.1 + 0.8 * blocks.repeat_interleave(4, dim=1).repeat_interleave(4, dim=2)


def kernels() -> list[torch.Tensor]:
    found = []
    for seed in range(40):
        generator = seeded(seed)
        path = synthesis._path(generator) * LENGTH[1]
        weights = synthesis._exposure(generator)
        found += [synthesis._splat(path, weights), synthesis._splat(synthesis._line(generator) * 9.0, weights)]
        found.append(synthesis._defocus(generator))
        relative = synthesis._relative(path, weights, generator)
        found += [] if relative is None else [relative]
    return found


def test_kernels_are_odd_normalised_non_negative_and_centred() -> None:
    for kernel in kernels():
        side = kernel.shape[0]
        assert kernel.shape == (side, side)
        assert side % 2 == 1
        assert kernel.min() >= 0
        assert float(kernel.sum()) == pytest.approx(1.0, abs=1e-4)
        offset = torch.arange(side) - side // 2
        assert abs(float((kernel.sum(dim=1) * offset).sum())) < 0.01
        assert abs(float((kernel.sum(dim=0) * offset).sum())) < 0.01


def test_paths_have_the_extent_asked_for() -> None:
    for seed in range(20):
        path = synthesis._path(seeded(seed))
        assert float((path.amax(dim=0) - path.amin(dim=0)).amax()) == pytest.approx(1.0, abs=1e-4)
        assert path.shape == (synthesis.STEPS, 2)


def test_a_flat_picture_keeps_its_level() -> None:
    clean = torch.full((3, 40, 40), 0.4)
    for seed in range(30):
        assert float((degrade(clean, seeded(seed)) - clean).mean().abs()) < 1.5 / 255


def test_severity_spans_mild_to_strong_and_detail_is_always_lost() -> None:
    clean = scene()
    errors = []
    for seed in range(150):
        blurred = degrade(clean, seeded(seed))
        errors.append(-10 * math.log10(float(((blurred - clean) ** 2).mean())))
        assert (blurred[..., 1:] - blurred[..., :-1]).square().mean() < (
            clean[..., 1:] - clean[..., :-1]
        ).square().mean()
    errors.sort()
    assert errors[-1] - errors[0] > 8
    assert errors[15] < 15.5
    assert errors[-15] > 18
