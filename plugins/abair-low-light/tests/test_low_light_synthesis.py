"""The low-light synthesiser: darker, with levels and noise like those of measured pairs."""

import math

import torch

from abair_low_light import synthesis
from abair_low_light.synthesis import degrade


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scene(side: int = 64) -> torch.Tensor:
    """A smooth picture with the mean of an ordinary photograph, in [0.1, 0.85]."""
    ramp = torch.linspace(0.1, 0.85, side)
    return torch.stack([ramp.expand(side, side), ramp[:, None].expand(side, side), ramp.flip(0).expand(side, side)])


def test_every_sample_is_darker_and_severity_spans_the_known_range() -> None:
    clean = scene()
    errors, means = [], []
    for seed in range(300):
        dark = degrade(clean, seeded(seed))
        assert dark.mean() < clean.mean()
        errors.append(-10 * math.log10(float(((dark - clean) ** 2).mean())))
        means.append(float(dark.mean()))
    errors.sort()
    means.sort()
    assert errors[15] < 6.5
    assert 6 < errors[150] < 9.5
    assert errors[-15] > 12
    assert 0.025 < means[150] < 0.1
    assert means[0] > 0.001


def test_values_are_those_of_an_8_bit_file() -> None:
    dark = degrade(scene(), seeded(3)) * 255
    assert torch.allclose(dark, dark.round(), atol=1e-3)


def test_noise_has_the_measured_level_order_and_correlation() -> None:
    dark = torch.full((3, 96, 96), 0.05)
    samples = torch.stack([synthesis._noise(dark, seeded(seed)) for seed in range(60)])
    red, green, blue = (float(samples[:, channel].std(dim=(1, 2)).median()) * 255 for channel in range(3))
    assert 1.2 < red < 3
    assert red > blue > green > 0.6
    mixed = torch.corrcoef(samples.transpose(0, 1).flatten(1))
    assert 0.1 < float(mixed[0, 1]) < 0.5


def test_a_black_room_is_not_exposed_to_nothing() -> None:
    clean = torch.full((3, 32, 32), 0.15)
    means = [float(degrade(clean, seeded(seed)).mean()) for seed in range(60)]
    assert sum(mean > 0.002 for mean in means) > 50
