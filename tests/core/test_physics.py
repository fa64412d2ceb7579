"""The building blocks of synthesisers."""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from abair.physics import (
    chance,
    compress_jpeg,
    convolve,
    ensure_changed,
    log_uniform,
    reflect_pad,
    smooth_field,
    uniform,
)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_uniform_fills_its_range_evenly() -> None:
    generator = _generator()
    values = torch.tensor([uniform(generator, -2.0, 3.0) for _ in range(2000)])
    assert values.min() >= -2
    assert values.max() <= 3
    assert values.mean() == pytest.approx(0.5, abs=0.15)
    assert (values < -1).float().mean() == pytest.approx(0.2, abs=0.05)


def test_log_uniform_has_its_median_at_the_geometric_mean() -> None:
    generator = _generator()
    values = torch.tensor([log_uniform(generator, 0.01, 100.0) for _ in range(2000)])
    assert values.min() >= 0.01
    assert values.max() <= 100
    assert math.log10(values.median()) == pytest.approx(0.0, abs=0.2)


def test_chance_is_true_as_often_as_asked() -> None:
    generator = _generator()
    assert sum(chance(generator, 0.3) for _ in range(2000)) / 2000 == pytest.approx(0.3, abs=0.05)
    assert not any(chance(generator, 0.0) for _ in range(100))
    assert all(chance(generator, 1.0) for _ in range(100))


@pytest.mark.parametrize(
    "draw",
    [
        lambda g: uniform(g, 0.0, 1.0),
        lambda g: log_uniform(g, 1.0, 9.0),
        lambda g: [chance(g, 0.5) for _ in range(20)],
        lambda g: smooth_field(g, 9, 13, 4).tolist(),
    ],
)
def test_the_same_seed_gives_the_same_and_the_global_one_is_left_alone(
    draw: Callable[[torch.Generator], object],
) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert draw(_generator(4)) == draw(_generator(4))
    assert draw(_generator(4)) != draw(_generator(5))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (2, 3), (60, 90)])
@pytest.mark.parametrize("cells", [2, 7])
def test_a_smooth_field_has_its_shape_and_stays_in_range(shape: tuple[int, int], cells: int) -> None:
    field = smooth_field(_generator(), *shape, cells)
    assert field.shape == shape
    assert field.isfinite().all()
    assert field.min() >= 0
    assert field.max() <= 1
    if max(shape) > 1:
        assert field.min() == pytest.approx(0.0, abs=1e-6)
        assert field.max() == pytest.approx(1.0, abs=1e-6)


def test_more_cells_make_a_field_vary_faster() -> None:
    def roughness(cells: int) -> float:
        return float(smooth_field(_generator(), 100, 100, cells).diff(dim=0).abs().mean())

    assert roughness(2) < roughness(6) < roughness(20) < 0.2


def _directly(image: Tensor, kernel: Tensor) -> Tensor:
    """A convolution (the kernel turned round) written as torch's correlation, borders reflected."""
    channels, (height, width) = image.shape[0], kernel.shape[-2:]
    kernels = kernel.expand(channels, height, width).flip(-2, -1)[:, None]
    padded = F.pad(image[None], (width // 2, width // 2, height // 2, height // 2), mode="reflect")
    return F.conv2d(padded, kernels, groups=channels)[0]


@pytest.mark.parametrize("sides", [(1, 1), (3, 3), (1, 9), (9, 1), (7, 13), (41, 41)])
def test_convolution_by_fft_is_convolution(sides: tuple[int, int]) -> None:
    image, kernel = torch.rand(3, 47, 59, generator=_generator(1)), torch.rand(*sides, generator=_generator(2))
    kernel /= kernel.sum()
    assert (convolve(image, kernel) - _directly(image, kernel)).abs().max() < 1e-5


def test_each_channel_may_have_its_own_kernel() -> None:
    image, kernels = torch.rand(3, 30, 31), torch.rand(3, 5, 7)
    assert (convolve(image, kernels) - _directly(image, kernels)).abs().max() < 1e-4
    assert (convolve(image, kernels)[1] - convolve(image[1:2], kernels[1])[0]).abs().max() < 1e-4


def test_a_centred_impulse_leaves_the_image_in_place() -> None:
    kernel = torch.zeros(15, 15)
    kernel[7, 7] = 1
    image = torch.rand(3, 20, 33)
    assert torch.allclose(convolve(image, kernel), image, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (2, 2), (13, 17)])
def test_a_kernel_larger_than_the_image_keeps_its_shape_and_flat_values(shape: tuple[int, int]) -> None:
    blurred = convolve(torch.full((3, *shape), 0.7), torch.full((21, 31), 1 / (21 * 31)))
    assert blurred.shape == (3, *shape)
    assert torch.allclose(blurred, torch.tensor(0.7), atol=1e-5)


def test_reflection_is_torchs_where_torch_can() -> None:
    image = torch.rand(1, 3, 9, 7)
    assert torch.equal(reflect_pad(image, 2, 5, 8, 1), F.pad(image, (2, 5, 8, 1), mode="reflect"))
    assert torch.equal(reflect_pad(image, 0, 0, 0, 0), image)


def test_reflection_goes_to_and_fro_beyond_the_image() -> None:
    image = torch.arange(3.0).expand(1, 1, 3)
    padded = reflect_pad(image, 5, 4, 1, 2)
    assert padded.shape == (1, 4, 12)
    assert padded[0, 0].tolist() == [1, 0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2]


def test_what_changed_is_left_and_what_did_not_is_moved_one_step() -> None:
    clean = torch.tensor([0.0, 0.2, 0.5, 1.0]).expand(3, 1, 4)
    other = clean.clone()
    other[0, 0, 0] = 1.0
    assert ensure_changed(other, clean) is other
    moved = ensure_changed(clean.clone(), clean)
    assert torch.allclose((moved - clean).abs(), torch.tensor(1 / 255))
    assert moved.min() >= 0
    assert moved.max() <= 1


@pytest.mark.parametrize("chroma", ["4:2:0", "4:2:2", "4:4:4"])
def test_jpeg_is_the_file_that_pillow_writes(chroma: str) -> None:
    image = torch.rand((3, 19, 33), generator=_generator())
    pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="JPEG", quality=37, subsampling=chroma)
    expected = np.asarray(Image.open(file))
    found = compress_jpeg(image, 37, chroma)
    assert found.shape == image.shape
    assert np.array_equal((found * 255).round().byte().permute(1, 2, 0).numpy(), expected)
