"""The network's block: NAFNet's (Chen et al., ECCV 2022), with factors from a context."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from abair.model.kernels import centre, linear, standardize

EPSILON: Final = 1e-6
"""What layer normalisation adds to the variance."""


class LayerNorm(nn.Module):
    """Scale and shift of a layer normalisation over the channels, as NAFNet's LayerNorm2d."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))


class Block(nn.Module):
    """A NAFNet block: gated depthwise, then gated channel mixing, each with a learnt scale."""

    def __init__(self, channels: int, context: int) -> None:
        super().__init__()
        self.norm1 = LayerNorm(channels)
        self.expand = nn.Conv2d(channels, 2 * channels, 1)
        self.spatial = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.attend = nn.Linear(context, channels)
        self.project = nn.Conv2d(channels, channels, 1)
        self.norm2 = LayerNorm(channels)
        self.widen = nn.Conv2d(channels, 2 * channels, 1)
        self.narrow = nn.Conv2d(channels, channels, 1)
        self.beta = nn.Parameter(torch.full((1, channels, 1, 1), 0.1))
        self.gamma = nn.Parameter(torch.full((1, channels, 1, 1), 0.1))
        nn.init.zeros_(self.attend.weight)
        nn.init.ones_(self.attend.bias)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Map (B, C, H, W) and a context (B, K) to (B, C, H, W)."""
        x = x.permute(0, 2, 3, 1)  # (B, H, W, C): a view of features in channels-last order
        a, b = self._filter(_apply_normalised(self.expand, self.norm1, x)).chunk(2, dim=-1)
        gated = a * b * self.attend(context)[:, None, None, :]
        mixed = x + _apply_scaled(self.project, self.beta, gated)
        a, b = _apply_normalised(self.widen, self.norm2, mixed).chunk(2, dim=-1)
        y: Tensor = mixed + _apply_scaled(self.narrow, self.gamma, a * b)
        return y.permute(0, 3, 1, 2)

    def _filter(self, x: Tensor) -> Tensor:
        """Apply the depthwise convolution to (B, H, W, 2 C)."""
        return _channels_last(self.spatial, x)


def _apply_normalised(layer: nn.Module, norm: LayerNorm, x: Tensor) -> Tensor:
    """Apply the layer norm and then the 1x1 convolution to (B, H, W, C).

    The norm's scale and shift are folded into the convolution's few weights, which spares a pass
    over the features. A linear layer on channels-last features is the same product as a 1x1
    convolution, without the copy that one makes on a CPU.
    """
    if not isinstance(layer, nn.Conv2d):  # PEFT wrapped it, and has the bare weight (findings/peft_weight_property.sh)
        return _channels_last(layer, F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, EPSILON))
    return linear(standardize(x, EPSILON), *fold_norm(layer, norm))


def fold_norm(layer: nn.Conv2d, norm: LayerNorm) -> tuple[Tensor, Tensor]:
    """Return weight (D, C) and bias (D,) of the 1x1 convolution for features from `standardize`."""
    weight = layer.weight[:, :, 0, 0]
    return centre(weight * norm.weight), torch.addmv(layer.bias, weight, norm.bias)  # type: ignore[arg-type]


def _apply_scaled(layer: nn.Module, scale: Tensor, x: Tensor) -> Tensor:
    """Apply the 1x1 convolution and the scale (1, C, 1, 1), folded into it, to (B, H, W, C)."""
    factor = scale.flatten()
    if not isinstance(layer, nn.Conv2d):
        return factor * _channels_last(layer, x)
    return linear(x, layer.weight[:, :, 0, 0] * factor[:, None], layer.bias * factor)  # type: ignore[operator]


def _channels_last(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply a layer that expects (B, C, H, W) to (B, H, W, C); nothing is copied."""
    y: Tensor = layer(x.permute(0, 3, 1, 2))
    return y.permute(0, 2, 3, 1)
