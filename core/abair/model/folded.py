"""The layers of one photo's network, with all that is the same at each of its pixels folded in.

A photo has one context. So the factors that it gives the channels, and the blocks' own scales, go
into the weights of the 1x1 convolutions, as do the scale, shift and mean of a layer norm, which
changes nothing but rounding. Features lie as (H, W, C) without a batch: a 1x1 convolution is then a
matrix product without a copy.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from abair.model.block import EPSILON, Block, LayerNorm, fold_norm
from abair.model.kernels import linear, linear_add, standardize


class FoldedConvolution:
    """A convolution of features (H, W, C) by the weights of a layer, in the precision `dtype`."""

    def __init__(self, layer: nn.Conv2d, dtype: torch.dtype) -> None:
        self._weight = layer.weight.to(dtype).contiguous(memory_format=torch.channels_last)
        self._bias = None if layer.bias is None else layer.bias.to(dtype)
        self._stride, self._groups = layer.stride, layer.groups
        self._padding = layer.kernel_size[1] // 2 if layer.padding != (0, 0) else 0

    def __call__(self, x: Tensor, above: int = 0) -> Tensor:
        """Map (H, W, C); padded as the layer at the sides, by `above` rows at top and bottom."""
        padding = (above, self._padding)
        y = F.conv2d(as_batch(x), self._weight, self._bias, self._stride, padding, groups=self._groups)
        return as_rows(y)


class FoldedBlock:
    """A `Block` for one context (1, K), in the two parts between which rows need neighbours."""

    def __init__(self, block: Block, context: Tensor, dtype: torch.dtype) -> None:
        factor, beta, gamma = block.attend(context)[0], block.beta.flatten(), block.gamma.flatten()
        self._expand = _normalised(block.expand, block.norm1, dtype)
        self._filter = FoldedConvolution(block.spatial, dtype)
        self._project = _matrix(block.project, dtype, beta, factor)
        self._widen = _normalised(block.widen, block.norm2, dtype)
        self._narrow = _matrix(block.narrow, dtype, gamma)

    def expand(self, x: Tensor) -> Tensor:
        """Map rows (H, W, C) to (H, W, 2 C), which `mix` reads."""
        return linear(standardize(x, EPSILON), *self._expand)

    def mix(self, *parts: Tensor, above: int = 0) -> Tensor:
        """Filter and gate parts (h, W, 2 C) of the rows to (h - 2, W, C) each, below one another.

        `above` rows of zeros are put at the top and at the bottom of each.
        """
        filtered = [self._filter(part, above) for part in parts]
        if len(filtered) == 1:
            return _gate(filtered[0])
        height, width, channels = sum(map(len, filtered)), *filtered[0].shape[1:]
        mixed = filtered[0].new_empty(height, width, channels // 2)
        for into, part in zip(torch.split(mixed, [*map(len, filtered)]), filtered, strict=True):
            torch.mul(*part.chunk(2, dim=-1), out=into)
        return mixed

    def finish(self, mixed: Tensor, *rows: Tensor) -> Tensor:
        """Return the block's output (H, W, C) from `mixed` (H, W, C).

        `rows` are the block's input, one after the other (H, W, C) in all.
        """
        x = linear(mixed, *self._project)
        top = 0
        for part in rows:
            x[top : top + len(part)] += part
            top += len(part)
        return linear_add(_gate(linear(standardize(x, EPSILON), *self._widen)), *self._narrow, x)


def double_weight(layer: nn.Conv2d, dtype: torch.dtype) -> Tensor:
    """Return the weight (4 D, C) of the convolution before a pixel-shuffle.

    Its outputs are put in the order in which they lie after the shuffle: row, column, channel.
    """
    weight = layer.weight[:, :, 0, 0].to(dtype)
    return weight.reshape(-1, 4, weight.shape[1]).transpose(0, 1).reshape(weight.shape).contiguous()


def as_batch(x: Tensor) -> Tensor:
    """Return features (H, W, C) as (1, C, H, W), a view in channels-last order."""
    return x.permute(2, 0, 1)[None]


def as_rows(x: Tensor) -> Tensor:
    """Return (1, C, H, W) as features (H, W, C); a view, if they lie in channels-last order."""
    return x[0].permute(1, 2, 0)


def _gate(x: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return a * b


def _normalised(layer: nn.Conv2d, norm: LayerNorm, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a 1x1 convolution after a layer norm, for standardised features."""
    weight, bias = fold_norm(layer, norm)
    return weight.to(dtype), bias.to(dtype)


def _matrix(
    layer: nn.Conv2d, dtype: torch.dtype, scale: Tensor | None = None, factor: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a 1x1 convolution of features times `factor`, all times `scale`."""
    weight, bias = layer.weight[:, :, 0, 0], layer.bias
    if factor is not None:
        weight = weight * factor
    if scale is not None:
        weight, bias = weight * scale[:, None], bias * scale  # type: ignore[operator]
    return weight.to(dtype), bias.to(dtype)  # type: ignore[union-attr]
