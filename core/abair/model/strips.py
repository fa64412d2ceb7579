"""The network on a photo that comes strip by strip, exactly as on the whole photo.

A strip of rows goes through all layers before the next one comes. What lies between two layers
stays in the processor's cache, and memory does not grow with the photo's height. Each 3x3
convolution keeps its last two rows and answers one row late, so nothing is computed twice, and
there are no overlaps and no seams.

Each layer takes strips from the one before it, top to bottom, and gives strips of any height of at
least one row, the last one marked. What a layer gave is not changed any more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from abair.model.backbone import Backbone
from abair.model.block import Block
from abair.model.folded import FoldedBlock, FoldedConvolution, as_batch, as_rows, double_weight
from abair.model.kernels import linear

HIGH: Final = 8
"""Rows of a strip from which on one more call of a convolution costs less than a copy."""


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
    for strip in _through(_Convolution(FoldedConvolution(network.output, dtype)), features):
        yield as_rows(F.pixel_shuffle(as_batch(strip.rows), 2))


class _StripLayers:
    """The steps of `Backbone.walk` over strips, with the blocks folded for one context (1, K)."""

    def __init__(self, context: Tensor, dtype: torch.dtype) -> None:
        self._context, self._dtype = context, dtype

    def stem(self, layer: nn.Conv2d, x: Strips) -> Strips:
        return _through(_Convolution(FoldedConvolution(layer, self._dtype)), map(_unshuffle, x))

    def block(self, block: Block, x: Strips) -> Strips:
        return _through(_Block(FoldedBlock(block, self._context, self._dtype)), x)

    def fork(self, x: Strips) -> tuple[Strips, Strips]:
        waiting: deque[Strip] = deque()  # `itertools.tee` would keep 57 strips that were used

        def keep(strip: Strip) -> Strip:
            waiting.append(strip)
            return strip

        return map(keep, x), iter(waiting.popleft, None)

    def down(self, layer: nn.Conv2d, x: Strips) -> Strips:
        return _through(_Halving(FoldedConvolution(layer, self._dtype)), x)

    def join(self, layer: nn.Conv2d, x: Strips, skip: Strips) -> Strips:
        return _cut_last(_through(_Join(double_weight(layer, self._dtype), skip), x))


def _through(layer: Callable[[Strip], Strip], strips: Strips) -> Strips:
    """Yield what a layer makes of strips, without those that have no rows yet.

    No strip stays in memory while the next layers work on what was made of it.
    """
    return filter(_has_rows, map(layer, strips))


def _has_rows(strip: Strip) -> bool:
    return len(strip.rows) > 0


def _cut_last(strips: Strips) -> Strips:
    """Cut the last strip, with all the rows that had to wait, into pieces as high as the others."""
    height = 0
    for strip in strips:
        if strip.last and height:
            *pieces, last = (strip.rows[top : top + height] for top in range(0, len(strip.rows), height))
            yield from (Strip(piece, last=False) for piece in pieces)
            yield Strip(last, last=True)
        else:
            height = max(height, len(strip.rows))
            yield strip


class _Convolution:
    """A 3x3 convolution, padded by zeros; its output comes one row later than its input.

    A photo that is one strip is padded by the library, which needs no copy.
    """

    def __init__(self, convolution: FoldedConvolution) -> None:
        self._convolution = convolution
        self._above: Tensor | None = None

    def __call__(self, strip: Strip) -> Strip:
        if self._above is None and strip.last:
            return Strip(self._convolution(strip.rows, 1), last=True)
        rows = _with_neighbours(self._above, strip)
        self._above = _keep(self._above, rows[-2:])
        return Strip(self._convolution(rows) if len(rows) > 2 else strip.rows[:0], strip.last)


class _Block:
    """A block; its output comes one row later than its input, if that is not the whole photo."""

    def __init__(self, block: FoldedBlock) -> None:
        self._block = block
        self._above: Tensor | None = None  # the last two rows of what the depthwise convolution reads
        self._waiting: Tensor | None = None  # the last row of the input

    def __call__(self, strip: Strip) -> Strip:
        expanded = self._block.expand(strip.rows)
        if self._above is None and strip.last:
            return Strip(self._block.finish(self._block.mix(expanded, above=1), strip.rows), last=True)
        mixed = self._mix(Strip(expanded, strip.last))
        ready = strip.rows if strip.last else strip.rows[:-1]
        rows = (ready,) if self._waiting is None else (self._waiting, ready)
        output = self._block.finish(mixed, *rows) if len(mixed) else ready
        self._waiting = _keep(self._waiting, strip.rows[-1:])
        return Strip(output, strip.last)

    def _mix(self, expanded: Strip) -> Tensor:
        """Mix rows with those above them, and keep the last two.

        Of a high strip only the rows at its seam are copied to lie beside their neighbours.
        """
        rows = expanded.rows
        if self._above is None or expanded.last or len(rows) < HIGH:
            parts = [_with_neighbours(self._above, expanded)]
        else:
            parts = [torch.cat([self._above, rows[:2]]), rows]
        mixed = self._block.mix(*parts) if len(parts[0]) > 2 else rows[:0]
        self._above = _keep(self._above, parts[-1][-2:])
        return mixed


def _keep(kept: Tensor | None, rows: Tensor) -> Tensor:
    """Return a copy of rows, in place of those that were kept: memory would fall to pieces else."""
    return rows.clone() if kept is None else kept.copy_(rows)


def _with_neighbours(above: Tensor | None, strip: Strip) -> Tensor:
    """Return the rows below those above them, or below zeros at the top; above zeros at the end."""
    zeros = torch.zeros_like(strip.rows[:1])
    parts = [zeros if above is None else above, strip.rows]
    return torch.cat([*parts, zeros] if strip.last else parts)


class _Halving:
    """A 2x2 convolution of stride 2; a row without its pair waits for the next strip."""

    def __init__(self, convolution: FoldedConvolution) -> None:
        self._convolution = convolution
        self._waiting: Tensor | None = None

    def __call__(self, strip: Strip) -> Strip:
        rows = strip.rows if self._waiting is None else torch.cat([self._waiting, strip.rows])
        even = len(rows) // 2 * 2
        self._waiting = rows[even:].clone() if even < len(rows) else None
        return Strip(self._convolution(rows[:even]) if even else rows[:0], strip.last)


class _Join:
    """Doubles (h, W, C) to (2 h, 2 W, C / 2), and adds as many rows of `skip`."""

    def __init__(self, weight: Tensor, skip: Strips) -> None:
        self._weight, self._skip = weight, skip
        self._rest: Tensor | None = None  # rows of the skip connection that wait for theirs

    def __call__(self, strip: Strip) -> Strip:
        height, width = strip.rows.shape[:2]
        added = linear(strip.rows, self._weight).view(height, width, 2, 2, -1).transpose(1, 2)
        rows = strip.rows.new_empty(added.shape)  # (h, 2, W, 2, C / 2)
        top = 0
        while top < height:
            skipped = self._at_least_two()
            count = min(len(skipped) // 2, height - top)
            part = skipped[: 2 * count].view(count, *rows.shape[1:])
            torch.add(part, added[top : top + count], out=rows[top : top + count])
            top, self._rest = top + count, skipped[2 * count :]
        return Strip(rows.view(2 * height, 2 * width, -1), strip.last)

    def _at_least_two(self) -> Tensor:
        """Return the waiting rows of the skip connection, or those and the next ones."""
        rest = self._rest
        while rest is None or len(rest) < 2:
            following = next(self._skip).rows
            rest = following if rest is None or not len(rest) else torch.cat([rest, following])
        return rest


def _unshuffle(strip: Strip) -> Strip:
    """Map rows (h, W, C) to (h / 2, W / 2, 4 C)."""
    return Strip(as_rows(F.pixel_unshuffle(as_batch(strip.rows), 2)), strip.last)
