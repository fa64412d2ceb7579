"""The restoration network: a NAFNet-style U-Net that restores each tile of a photo on its own.

Written from the paper (Chen, Chu, Zhang, Sun, "Simple Baselines for Image Restoration", ECCV 2022):
layer norm, 1x1 and depthwise 3x3 convolutions, simple gates instead of activations. Two things
differ, both for tiles and speed:

- NAFNet's channel attention pools over the crop that it is given, so a tile would be restored
  differently from the whole photo. Here the channel factors come from a *context*: one small global
  view of the photo (64x64, which shows haze and darkness), encoded once and shared by all strips.
  The rest of the network is purely local.
- The image enters through a 2x pixel-unshuffle (Zhang et al., FFDNet, 2018), because layers at full
  resolution dominate the time on a CPU.

The network predicts a residual f. The restored image is x + (1 - w_clean) f(x), with w_clean = 0
unless adapters are blended.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from abair.errors import DeploymentError
from abair.model.block import Block
from abair.model.layers import Features, Layers, WholeImage
from abair.model.safetensors_io import read_header, read_tensors, write_tensors
from abair.physics import reflect_pad

GLOBAL_VIEW: Final = 64
"""Side of the global view in pixels."""


@dataclass(frozen=True)
class BackboneSize:
    """Widths and depths of a network.

    It has `encoder[i]` blocks at width `width * 2**i`, then `middle` blocks, then `decoder` back
    up.
    """

    name: str
    width: int
    encoder: tuple[int, ...]
    middle: int
    decoder: tuple[int, ...]
    context: int = 96

    @property
    def stride(self) -> int:
        """Sides are padded to a multiple of this many pixels."""
        return 2 << len(self.encoder)

    @property
    def reach(self) -> int:
        """No pixel further away than this decides on a pixel, beside the context.

        A multiple of the stride. It is counted from a cell of the coarsest grid, from the output
        back to the image: one cell of its level for each 3x3 convolution.
        """
        scales = [2 << level for level in range(len(self.encoder))]
        pixels = 2
        for scale, blocks in zip(scales, reversed(self.decoder), strict=True):
            pixels = -(-(pixels + blocks * scale) // (2 * scale)) * 2 * scale  # whole cells of the level below
        pixels += self.middle * self.stride
        pixels += sum(blocks * scale for scale, blocks in zip(scales, self.encoder, strict=True)) + 2
        return -(-pixels // self.stride) * self.stride


SIZES: Final[dict[str, BackboneSize]] = {
    size.name: size
    for size in (
        BackboneSize("tiny", width=8, encoder=(1,), middle=1, decoder=(1,), context=16),
        BackboneSize("nano", width=32, encoder=(2, 2, 4), middle=3, decoder=(2, 2, 2)),
        BackboneSize("nano-2", width=32, encoder=(2, 2, 4), middle=3, decoder=(2, 2, 2)),
        BackboneSize("small", width=64, encoder=(2, 2, 4), middle=4, decoder=(2, 2, 2)),
        BackboneSize("base", width=96, encoder=(2, 2, 4), middle=8, decoder=(2, 2, 2)),
    )
}
"""`nano-2` suits two CPU cores and ships in the wheel; `base` is for a GPU; `tiny` is for tests.

`nano` is the network of the first release, of the same form: a backbone that is trained anew gets a
new name, because adapters belong to the weights of one."""


class ContextEncoder(nn.Module):
    """Encodes a global view (B, 3, 64, 64) as a context (B, K): convolutions, mean and maximum."""

    def __init__(self, context: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(3, 32, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(32, 48, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(48, 64, 3, stride=2, padding=1),
            nn.GELU(),
        )
        self.mix = nn.Linear(128, context)

    def forward(self, view: Tensor) -> Tensor:
        """Return one context per image, (B, K)."""
        features = self.convolutions(view - 0.5)
        return F.gelu(self.mix(torch.cat([features.mean((2, 3)), features.amax((2, 3))], dim=1)))


class Backbone(nn.Module):
    """The network of one `BackboneSize`; `features` is all of it but the output layer."""

    def __init__(self, size: BackboneSize) -> None:
        super().__init__()
        self.size = size
        widths = [size.width * 2**level for level in range(len(size.encoder) + 1)]
        self.encode_context = ContextEncoder(size.context)
        self.stem = nn.Conv2d(12, size.width, 3, padding=1)
        self.encoder = nn.ModuleList(_blocks(n, c, size.context) for n, c in zip(size.encoder, widths, strict=False))
        self.down = nn.ModuleList(nn.Conv2d(c, 2 * c, 2, stride=2) for c in widths[:-1])
        self.middle = _blocks(size.middle, widths[-1], size.context)
        self.up = nn.ModuleList(nn.Conv2d(2 * c, 4 * c, 1, bias=False) for c in reversed(widths[:-1]))
        self.decoder = nn.ModuleList(
            _blocks(n, c, size.context) for n, c in zip(size.decoder, reversed(widths[:-1]), strict=True)
        )
        self.output = nn.Conv2d(size.width, 12, 3, padding=1)
        # training starts from the identity
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)  # type: ignore[arg-type]

    def context(self, view: Tensor) -> Tensor:
        """Encode a global view (B, 3, 64, 64) as a context (B, K), once for all strips."""
        return self.encode_context(view)  # type: ignore[no-any-return]

    def features(self, x: Tensor, context: Tensor, encoder_maps: list[Tensor] | None = None) -> Tensor:
        """Return the decoder's last features (B, width, H/2, W/2) for an image (B, 3, H, W).

        Args:
            x: the image; its sides are multiples of the stride.
            context: (B, K), from `context`.
            encoder_maps: a list to which the encoder's features are appended, those of level i of
                shape (B, width * 2**i, H / 2**(i+1), W / 2**(i+1)).
        """
        return self.walk(WholeImage(context, encoder_maps), x)

    def walk(self, layers: Layers[Features], x: Features) -> Features:
        """Take an image through all layers but the output, each applied by `layers`."""
        x = layers.stem(self.stem, x)
        skips = []
        for blocks, down in zip(self.encoder, self.down, strict=True):
            for block in blocks:  # type: ignore[attr-defined]
                x = layers.block(block, x)
            x, skip = layers.fork(x)
            skips.append(skip)
            x = layers.down(down, x)  # type: ignore[arg-type]
        for block in self.middle:
            x = layers.block(block, x)  # type: ignore[arg-type]
        for blocks, up in zip(self.decoder, self.up, strict=True):
            x = layers.join(up, x, skips.pop())  # type: ignore[arg-type]
            for block in blocks:  # type: ignore[attr-defined]
                x = layers.block(block, x)
        return x

    def residual(self, features: Tensor) -> Tensor:
        """Apply the output layer to `features`; returns the residual f(x), (B, 3, H, W)."""
        return F.pixel_shuffle(self.output(features), 2)

    def forward(self, x: Tensor, view: Tensor | None = None) -> Tensor:
        """Restore images (B, 3, H, W) in [0, 1] of any size; the result is not clipped.

        `view` (B, 3, 64, 64) defaults to the global view of `x`.
        """
        height, width = x.shape[-2:]
        context = self.context(pool_global_view(x) if view is None else view)
        padded = pad_to_stride(x, self.size.stride)
        return x + self.residual(self.features(padded, context))[..., :height, :width]


def _blocks(count: int, channels: int, context: int) -> nn.ModuleList:
    return nn.ModuleList(Block(channels, context) for _ in range(count))


def pool_global_view(x: Tensor) -> Tensor:
    """Average images (B, 3, H, W) down to (B, 3, 64, 64); smaller ones are interpolated up."""
    if min(x.shape[-2:]) >= GLOBAL_VIEW:
        return F.adaptive_avg_pool2d(x, GLOBAL_VIEW)
    return F.interpolate(x, size=(GLOBAL_VIEW, GLOBAL_VIEW), mode="bilinear", align_corners=False)


def pad_to_stride(x: Tensor, stride: int) -> Tensor:
    """Pad (B, 3, H, W) at the right and bottom by reflection to multiples of `stride`."""
    height, width = x.shape[-2:]
    return reflect_pad(x, 0, -width % stride, 0, -height % stride)


def freeze(module: nn.Module) -> None:
    """Switch gradients off and evaluation mode on."""
    module.eval().requires_grad_(False)


def fingerprint(module: nn.Module) -> str:
    """Return the SHA-256 of a module's tensors: names, shapes and float32 bytes, ordered by name.

    A file that stores them in 16 bits has the fingerprint of the network that is read from it.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        values = tensor.detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{name} float32 {tuple(values.shape)}\n".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()


def save_backbone(backbone: Backbone, path: Path) -> str:
    """Write the network in 16 bits; return the fingerprint of what a reader will get.

    The network in memory is rounded as well, so that it and its file stay the same network.

    Raises:
        OSError: the file cannot be written.
    """
    backbone.load_state_dict({name: tensor.half().float() for name, tensor in backbone.state_dict().items()})
    tensors = {name: tensor.half() for name, tensor in backbone.state_dict().items()}
    write_tensors(path, tensors, {"abair.backbone": json.dumps(asdict(backbone.size))})
    return fingerprint(backbone)


def load_backbone(path: Path) -> Backbone:
    """Read a network written by `save_backbone`; float32, frozen.

    Raises:
        DeploymentError: not a safetensors file, no backbone in it, or keys, shapes or values that
            do not fit.
    """
    header = read_header(path)
    description = header.metadata.get("abair.backbone")
    if description is None:
        raise DeploymentError(
            f"{path}: no backbone in this file: found no 'abair.backbone' in its metadata; "
            f"expected a file written by `abair train backbone`"
        )
    try:
        size = _read_size(json.loads(description))
        with torch.device("meta"):
            backbone = Backbone(size)
    except (ValueError, TypeError, RecursionError) as error:
        raise DeploymentError(f"{path}: the backbone's description cannot be used ({error}): {description}") from None
    expected = {name: tuple(tensor.shape) for name, tensor in backbone.state_dict().items()}
    tensors = read_tensors(path, expected)
    backbone.load_state_dict(tensors, assign=True)
    freeze(backbone)
    return backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _read_size(fields: dict[str, Any]) -> BackboneSize:
    """Return the size that a file's metadata describe, checked before a network is built from it.

    Raises:
        TypeError: a field is missing or unknown, or a number is not whole.
        ValueError: a name or number is out of range.
    """
    if not isinstance(fields, dict):
        raise TypeError("expected a JSON object")
    given: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    size = BackboneSize(**given)
    blocks = (*size.encoder, size.middle, *size.decoder)
    numbers: tuple[Any, ...] = (size.width, size.context, *blocks)
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,39}", str(size.name)):
        raise ValueError(f"found the name {size.name!r}, expected lower-case letters, digits and hyphens")
    if any(type(number) is not int for number in numbers):
        raise TypeError(f"found {numbers}, expected whole numbers")
    if min(numbers) < 0 or min(size.width, size.context) < 1 or max(numbers) > 4096:
        raise ValueError(f"found {numbers}, expected widths from 1 to 4096 and no negative depth")
    if len(blocks) > 16 or sum(blocks) > 512:
        raise ValueError(f"found {len(blocks)} levels with {sum(blocks)} blocks, expected at most 16 with 512")
    return size
