"""Panels cover every column once, and a photo's result does not depend on how it is divided."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from abair.inference import tiling
from abair.inference.tiling import SMALLEST_PANEL, panels, restore_parts
from abair.model.backbone import Backbone, BackboneSize, freeze
from abair.model.views import Pixels, to_tensor

SIZE = BackboneSize("deep", width=8, encoder=(1, 1), middle=1, decoder=(1, 1), context=16)


@pytest.fixture(scope="module")
def network() -> Backbone:
    """A network of random weights, whose context is drawn for each test."""
    torch.manual_seed(0)
    backbone = Backbone(SIZE)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    freeze(backbone)
    return backbone


@torch.inference_mode()
def restored(
    network: Backbone, pixels: Pixels, panel: int = 4096, dtype: torch.dtype = torch.float32, strip: int = 1
) -> Pixels:
    result = np.full(pixels.shape, np.nan, np.float32)
    for rows, columns, values in restore_parts(network, pixels, torch.ones(1, 16), panel, dtype, strip=strip):
        assert np.isnan(result[rows, columns]).all()
        result[rows, columns] = values
    return result


@given(st.integers(1, 700), st.integers(1, 600), st.sampled_from([2, 4, 8, 16]), st.integers(1, 9))
@settings(deadline=None, max_examples=60, derandomize=True)
def test_panels_cover_each_column_once_and_begin_on_the_strides_grid(
    width: int, core: int, stride: int, halo: int
) -> None:
    found = panels(width, core, stride, halo * stride)
    assert [column for panel in found for column in range(width)[panel.core]] == list(range(width))
    for panel in found:
        assert panel.columns.start % stride == panel.core.start % stride == 0
        assert panel.columns.start <= max(0, panel.core.start - halo * stride)
        assert panel.columns.stop >= min(width, panel.core.stop + halo * stride)
        assert 0 <= panel.columns.start < panel.columns.stop <= width
    assert len({math.ceil((panel.columns.stop - panel.columns.start) / stride) for panel in found}) == 1
    if width <= max(core, SMALLEST_PANEL):
        assert found == [(slice(0, width), slice(0, width))]


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (7, 9), (64, 64), (133, 205)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_any_photo_is_restored_as_by_the_network_on_all_of_it(
    network: Backbone, shape: tuple[int, int], dtype: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = (np.random.default_rng(0).random((*shape, 3)) * (1 if dtype is np.float32 else 255)).astype(dtype)
    x = to_tensor(pixels)
    monkeypatch.setattr(network, "context", lambda view: torch.ones(1, 16))
    with torch.inference_mode():
        expected = network(x)[0].permute(1, 2, 0).numpy()
    assert np.abs(expected - x[0].permute(1, 2, 0).numpy()).max() > 0.05
    for area in (1, 2000, 1 << 17):
        for panel in (SMALLEST_PANEL, 100, 4096):
            assert np.abs(restored(network, pixels, panel, strip=area) - expected).max() < 1e-5


def test_rows_with_a_nan_in_low_precision_are_computed_again_in_float32(
    network: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(0).random((200, 90, 3)).astype(np.float32)
    exact, low = restored(network, pixels), restored(network, pixels, dtype=torch.bfloat16)
    assert 1e-5 < np.abs(low - exact).max() < 0.05
    real = tiling.stream_residual

    def overflowing(*arguments: object) -> object:
        for count, residual in enumerate(real(*arguments)):  # type: ignore[arg-type]
            yield residual * float("nan") if arguments[-1] == torch.bfloat16 and count == 5 else residual

    monkeypatch.setattr(tiling, "stream_residual", overflowing)
    again = restored(network, pixels, dtype=torch.bfloat16)
    rows = np.flatnonzero(np.abs(again - low).max(axis=(1, 2)) > 0)
    assert 0 < len(rows) <= 16
    assert np.abs(again - exact)[rows].max() < 1e-6


def test_what_is_called_before_each_strip_ends_the_work(network: Backbone) -> None:
    calls: list[int] = []

    def stop() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    photo = np.zeros((160, 20, 3), np.uint8)
    with pytest.raises(KeyboardInterrupt), torch.inference_mode():
        list(restore_parts(network, photo, torch.ones(1, 16), 64, before_strip=stop, strip=1))
    assert len(calls) == 3
