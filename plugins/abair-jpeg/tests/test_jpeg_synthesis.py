"""The JPEG synthesiser: exactly what libjpeg does at the qualities it promises."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from abair import compress_jpeg
from abair_jpeg import synthesis
from abair_jpeg.synthesis import QUALITY, degrade


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scene(height: int = 96, width: int = 112) -> torch.Tensor:
    """A smooth picture (3, H, W) of 8-bit values with a little texture, in [0.1, 0.9]."""
    rows, columns = torch.linspace(0, 3, height)[:, None], torch.linspace(0, 4, width)[None, :]
    smooth = torch.stack([(rows + columns).sin(), (rows * columns).cos(), (columns - rows).sin()]) * 0.35 + 0.5
    return ((smooth + 0.03 * torch.randn(smooth.shape, generator=seeded(1))).clamp(0.1, 0.9) * 255).round() / 255


def psnr(one: torch.Tensor, other: torch.Tensor) -> float:
    return -10 * math.log10(float((one - other).square().mean()))


def jumps(image: torch.Tensor) -> torch.Tensor:
    """Mean difference of neighbouring columns, by the left one's column modulo 8."""
    step = image.diff(dim=2).abs().mean(dim=(0, 1))
    return torch.stack([step[phase::8].mean() for phase in range(8)])


@pytest.fixture
def qualities(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of every file that is written."""
    written: list[int] = []

    def watched(image: torch.Tensor, quality: int) -> torch.Tensor:
        written.append(quality)
        return compress_jpeg(image, quality)

    monkeypatch.setattr(synthesis, "compress_jpeg", watched)
    return written


def test_qualities_fill_the_range_evenly(qualities: list[int]) -> None:
    for seed in range(450):
        degrade(torch.full((3, 1, 1), 0.5), seeded(seed))
    assert (min(qualities), max(qualities)) == QUALITY
    assert min(np.histogram(qualities, bins=3)[0]) > 110


def test_half_of_the_samples_are_the_file_that_pillow_writes_and_the_others_a_crop_of_one(qualities: list[int]) -> None:
    clean = scene()
    pixels = (clean * 255).round().byte().permute(1, 2, 0).numpy()
    same = 0
    for seed in range(60):
        degraded = degrade(clean, seeded(seed))
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, format="JPEG", quality=qualities[-1], subsampling=2)
        reference = np.asarray(Image.open(file)).astype(np.float32) / 255
        same += np.array_equal(degraded.permute(1, 2, 0).numpy(), reference)
    assert 18 <= same <= 42


def test_blocks_of_eight_show_and_in_crops_they_begin_anywhere() -> None:
    clean = scene()
    flat = jumps(clean)
    assert flat.max() < 1.2 * flat.median()
    phases = []
    for seed in range(40):
        found = jumps(degrade(clean, seeded(seed)))
        assert found.max() > 1.5 * found.median()
        phases.append(int(found.argmax()))
    assert 14 <= phases.count(7) <= 30, "between columns 7 and 8 where the photo was not cropped"
    assert len(set(phases)) >= 5


def test_colour_has_half_the_resolution_and_brightness_all_of_it() -> None:
    stripes = (torch.arange(64) % 2).float().expand(1, 64, 64)
    # Red and green of one brightness against each other, and light against dark.
    colour = torch.cat([0.2 + 0.587 * stripes, 0.7 - 0.299 * stripes, torch.full_like(stripes, 0.4)])
    light = (0.1 + 0.8 * stripes).expand(3, 64, 64)
    for seed in range(10):
        assert degrade(light, seeded(seed))[0].diff(dim=1).abs().mean() > 0.6
        assert degrade(colour, seeded(seed))[0].diff(dim=1).abs().mean() < 0.1


def test_a_lower_quality_loses_more() -> None:
    figures = [psnr(compress_jpeg(scene(), quality), scene()) for quality in (10, 20, 30, 40)]
    assert figures == sorted(figures)
    assert 24 < figures[0] < figures[-1] < 40


def test_values_are_those_of_an_8_bit_file() -> None:
    degraded = degrade(scene(), seeded(3)) * 255
    assert torch.allclose(degraded, degraded.round(), atol=1e-3)
