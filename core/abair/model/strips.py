"""The network on a photo that comes strip by strip, exactly as on the whole photo.

A strip of rows goes through all layers before the next one comes. What lies between two layers
stays in the processor's cache, and memory does not grow with the photo's height. Each 3x3
convolution keeps its last two rows and answers one row late, so nothing is computed twice, and
there are no overlaps and no seams.

Each layer is a generator that takes strips from the one before it, top to bottom, and yields strips
of any height of at least one row, the last one marked. What was yielded is not changed any more.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import tee
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from abair.model.backbone import Backbone
from abair.model.block import Block
from abair.model.folded import FoldedBlock, FoldedConvolution, as_batch, as_rows, double_weight
from abair.model.products import linear


class Strip(NamedTuple):
    """Rows (h, W, C) of a photo or of features; `last` says that there are no more below."""

    rows: Tensor
    last: bool


Strips = Iterator[Strip]


def stream_residual(
    network: Backbone, strips: Strips, context: Tensor, dtype: torch.dtype = torch.float32
) -> Iterator[Tensor]:
    """Yield the residual f(x) of a photo in rows (h, W, 3) of `dtype`, top to bottom.

    Args:
        network: the network, blended for this photo.
        strips: the photo, (h, W, 3) float32 each. W and each h are multiples of the stride.
        context: (1, K), from `Backbone.context`.
        dtype: of the arithmetic.
    """
    layers = _StripLayers(context, dtype)
    features = network.walk(layers, (Strip(strip.rows.to(dtype), strip.last) for strip in strips))
    for strip in _convolve(features, network.output, dtype):
        yield as_rows(F.pixel_shuffle(as_batch(strip.rows), 2))


class _StripLayers:
    """The steps of `Backbone.walk` over strips, with the blocks folded for one context (1, K)."""

    def __init__(self, context: Tensor, dtype: torch.dtype) -> None:
        self._context, self._dtype = context, dtype

    def stem(self, layer: nn.Conv2d, x: Strips) -> Strips:
        return _convolve(map(_unshuffle, x), layer, self._dtype)

    def block(self, block: Block, x: Strips) -> Strips:
        return _run_block(FoldedBlock(block, self._context, self._dtype), x)

    def fork(self, x: Strips) -> tuple[Strips, Strips]:
        one, other = tee(x)
        return one, other

    def down(self, layer: nn.Conv2d, x: Strips) -> Strips:
        return _halve(x, FoldedConvolution(layer, self._dtype))

    def join(self, layer: nn.Conv2d, x: Strips, skip: Strips) -> Strips:
        return _join(x, skip, double_weight(layer, self._dtype))


def _convolve(strips: Strips, layer: nn.Conv2d, dtype: torch.dtype) -> Strips:
    """Apply a 3x3 convolution, padded by zeros; its output comes one row later than its input."""
    convolution = FoldedConvolution(layer, dtype)
    above: Tensor | None = None
    for strip in strips:
        rows = _with_neighbours(above, strip)
        above = rows[-2:].clone()
        if len(rows) > 2:
            yield Strip(convolution(rows), strip.last)


def _run_block(block: FoldedBlock, strips: Strips) -> Strips:
    """Apply a block; its output comes one row later than its input."""
    above: Tensor | None = None  # the last two rows of what the depthwise convolution reads
    waiting: Tensor | None = None  # the last row of the input
    for strip in strips:
        expanded = _with_neighbours(above, Strip(block.expand(strip.rows), strip.last))
        ready = strip.rows if strip.last else strip.rows[:-1]
        rows = (ready,) if waiting is None else (waiting, ready)
        above, waiting = expanded[-2:].clone(), strip.rows[-1:].clone()
        if len(expanded) > 2:
            yield Strip(block.finish(expanded, *rows), strip.last)


def _with_neighbours(above: Tensor | None, strip: Strip) -> Tensor:
    """Return the rows below those above them, or below zeros at the top; above zeros at the end."""
    zeros = torch.zeros_like(strip.rows[:1])
    parts = [zeros if above is None else above, strip.rows]
    return torch.cat([*parts, zeros] if strip.last else parts)


def _halve(strips: Strips, convolution: FoldedConvolution) -> Strips:
    """Apply a 2x2 convolution of stride 2; a row without its pair waits for the next strip."""
    waiting: Tensor | None = None
    for strip in strips:
        rows = strip.rows if waiting is None else torch.cat([waiting, strip.rows])
        even = len(rows) // 2 * 2
        waiting = rows[even:].clone() if even < len(rows) else None
        if even:
            yield Strip(convolution(rows[:even]), strip.last)


def _unshuffle(strip: Strip) -> Strip:
    """Map rows (h, W, C) to (h / 2, W / 2, 4 C)."""
    return Strip(as_rows(F.pixel_unshuffle(as_batch(strip.rows), 2)), strip.last)


def _join(strips: Strips, skip: Strips, weight: Tensor) -> Strips:
    """Double rows (h, W, C) to (2 h, 2 W, C / 2) and add as many of `skip`, whatever its strips."""
    rest: Tensor | None = None
    for strip in strips:
        height, width = strip.rows.shape[:2]
        added = linear(strip.rows, weight).view(height, width, 2, 2, -1).transpose(1, 2)  # (h, 2, W, 2, C / 2)
        rows = strip.rows.new_empty(height, 2, width, 2, added.shape[-1])
        top = 0
        while top < height:
            while rest is None or len(rest) < 2:
                following = next(skip).rows
                rest = following if rest is None or not len(rest) else torch.cat([rest, following])
            count = min(len(rest) // 2, height - top)
            part = rest[: 2 * count].view(count, 2, width, 2, -1)
            torch.add(part, added[top : top + count], out=rows[top : top + count])
            top, rest = top + count, rest[2 * count :]
        yield Strip(rows.view(2 * height, 2 * width, -1), strip.last)
