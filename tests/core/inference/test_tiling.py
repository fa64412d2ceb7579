"""Tiles cover every pixel with weights that sum to one, whatever the sizes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abair.inference.tiling import SMALLEST_TILE, tiles

pytestmark = pytest.mark.slow

SIDES = st.integers(1, 700)
CORES = st.integers(1, 600)
STRIDES = st.sampled_from([2, 4, 8, 16])


@given(SIDES, SIDES, CORES, STRIDES)
@settings(deadline=None, max_examples=60, derandomize=True)
def test_weights_sum_to_one_at_every_pixel(height: int, width: int, core: int, stride: int) -> None:
    total = np.zeros((height, width))
    for tile in tiles(height, width, core, stride):
        assert tile.window.shape == total[tile.rows, tile.columns].shape
        assert tile.window.min() >= 0
        assert tile.window.max() <= 1
        total[tile.rows, tile.columns] += tile.window
    assert np.abs(total - 1).max() < 1e-5


@given(SIDES, SIDES, CORES, STRIDES)
@settings(deadline=None, max_examples=60, derandomize=True)
def test_tiles_lie_inside_the_photo_on_the_strides_grid(height: int, width: int, core: int, stride: int) -> None:
    found = list(tiles(height, width, core, stride))
    assert found
    for tile in found:
        for span, side in ((tile.rows, height), (tile.columns, width)):
            assert 0 <= span.start < span.stop <= side
            assert span.start % stride == 0
    if max(height, width) <= max(core, SMALLEST_TILE):
        assert [(tile.rows, tile.columns) for tile in found] == [(slice(0, height), slice(0, width))]
