"""The marks of rounding and of block coding: plain where they are, absent where they are not, never NaN."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from abair.data.sample_photos import sample_photos
from abair.model import compression_features

USED, EQUAL, ZEROS, ZEROS_ABOVE, *_, LINES = range(compression_features.STATISTICS)


def photo() -> Tensor:
    """One that was never coded in blocks, or is no longer: averaged down to half its size, (3, H, W)."""
    pixels = torch.from_numpy(sample_photos()["coffee"].copy()).permute(2, 0, 1).float() / 255
    return F.avg_pool2d(pixels, 2).mul(255).round() / 255


def crops_of(image: Tensor, top: int = 0, left: int = 0) -> Tensor:
    """All crops of 64 x 64 side by side, (N, 3, 64, 64), from an offset on."""
    cut = image[:, top:, left:].unfold(1, 64, 64).unfold(2, 64, 64)
    return cut.permute(1, 2, 0, 3, 4).reshape(-1, 3, 64, 64)


def as_jpeg(image: Tensor, quality: int) -> Tensor:
    file = io.BytesIO()
    Image.fromarray((image * 255).byte().permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1).float() / 255


def mean(crops: Tensor) -> list[float]:
    return compression_features.statistics(crops).mean(0).tolist()


@pytest.mark.parametrize("quality", [10, 25, 40])
@pytest.mark.parametrize(("top", "left"), [(0, 0), (3, 5)])
def test_blocks_show_wherever_a_crop_begins(quality: int, top: int, left: int) -> None:
    coded, clean = (mean(crops_of(image, top, left)) for image in (as_jpeg(photo(), quality), photo()))
    assert coded[ZEROS_ABOVE] > 4 * clean[ZEROS_ABOVE]
    assert coded[ZEROS] > clean[ZEROS] + 0.2
    assert coded[LINES] > clean[LINES]


def test_a_stronger_compression_leaves_a_stronger_mark() -> None:
    marks = [mean(crops_of(as_jpeg(photo(), quality)))[ZEROS] for quality in (95, 60, 20)]
    assert marks == sorted(marks)


@pytest.mark.parametrize(("bits", "most"), [(4, 0.12), (5, 0.2)])
def test_missing_levels_show(bits: int, most: float) -> None:
    step = 1 << (8 - bits)
    reduced = (photo() * 255 / step).floor() * step / 255
    few, all_of_them = mean(crops_of(reduced)), mean(crops_of(photo()))
    assert few[USED] < most < 0.8 < all_of_them[USED]
    assert few[EQUAL] > 2 * all_of_them[EQUAL]


def test_what_is_no_coding_leaves_no_mark() -> None:
    generator = torch.Generator().manual_seed(0)
    noisy = (photo() + 0.1 * torch.randn(photo().shape, generator=generator)).clamp(0, 1)
    dark = photo() * 0.2  # not rounded: as a file of 16 bits holds it
    for image in (noisy, dark):
        found = mean(crops_of(image))
        assert found[ZEROS_ABOVE] < 1
        assert found[USED] > 0.8


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_flat_crop_tells_nothing_and_is_finite(value: float) -> None:
    found = compression_features.statistics(torch.full((2, 3, 64, 64), value))
    assert found.shape == (2, compression_features.STATISTICS)
    assert bool(found.isfinite().all())
    assert found[0, USED] == 1
    assert found[0, ZEROS_ABOVE] == 0
