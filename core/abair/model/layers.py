"""How the network's layers are applied: to whole images here, strip by strip in `strips`.

`Backbone.walk` says in which order the layers come. What a layer is applied to, and how, is said by
an object with one method for each kind of layer.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

from torch import Tensor, nn
from torch.nn import functional as F

from abair.model.block import Block

Features = TypeVar("Features")


class Layers(Protocol[Features]):
    """How `Backbone.walk` applies the layers to features, whatever form these have."""

    def stem(self, layer: nn.Conv2d, x: Features) -> Features:
        """Apply the 2x pixel-unshuffle and the stem."""

    def block(self, block: Block, x: Features) -> Features:
        """Apply a `Block`."""

    def fork(self, x: Features) -> tuple[Features, Features]:
        """Return the features twice: for the next layer, and for the decoder."""

    def down(self, layer: nn.Conv2d, x: Features) -> Features:
        """Apply the convolution that halves both sides."""

    def join(self, layer: nn.Conv2d, x: Features, skip: Features) -> Features:
        """Double both sides by the convolution and a pixel-shuffle; add the encoder's features."""


class WholeImage:
    """The layers on tensors (B, C, H, W)."""

    def __init__(self, context: Tensor, encoder_maps: list[Tensor] | None) -> None:
        self._context, self._encoder_maps = context, encoder_maps

    def stem(self, layer: nn.Module, x: Tensor) -> Tensor:
        """Return (B, C, H / 2, W / 2) for an image (B, 3, H, W)."""
        y: Tensor = layer(F.pixel_unshuffle(x, 2))
        return y

    def block(self, block: nn.Module, x: Tensor) -> Tensor:
        """Return features of the same shape."""
        y: Tensor = block(x, self._context)
        return y

    def fork(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the same features twice."""
        if self._encoder_maps is not None:
            self._encoder_maps.append(x)
        return x, x

    def down(self, layer: nn.Module, x: Tensor) -> Tensor:
        """Return (B, 2 C, H / 2, W / 2)."""
        y: Tensor = layer(x)
        return y

    def join(self, layer: nn.Module, x: Tensor, skip: Tensor) -> Tensor:
        """Return (B, C / 2, 2 H, 2 W)."""
        return F.pixel_shuffle(layer(x), 2) + skip
