"""The network as other programs run it: an image in, the restored image out, of any size.

`abair restore` pads to the stride and averages the global view in Python, by the numbers of each
photo. A graph has one form for all sizes, so here both are computed from the size inside of it: the
padding by gathering rows and columns, the view by one matrix product for each axis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor, nn

from abair.labels import CLEAN
from abair.model.backbone import GLOBAL_VIEW, Backbone
from abair.model.lora import Blender
from abair.model.views import SAMPLED

IMAGE: Final = "image"
VIEW: Final = "view"
WEIGHTS: Final = "weights"
RESTORED: Final = "restored"
"""Names of the inputs and of the output."""


class _Residual(nn.Module):
    """What the network adds to a padded image, as a module whose tensors can be replaced."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, padded: Tensor, view: Tensor) -> Tensor:
        """Map (1, 3, H, W), sides multiples of the stride, and a view (1, 3, 64, 64) to f(x)."""
        return self.backbone.residual(self.backbone.features(padded, self.backbone.context(view)))


class PhotoNetwork(nn.Module):
    """Restores images (1, 3, H, W) in [0, 1] of any size; the result is clipped to [0, 1].

    With `weights` they are blended once, and are no input. Without, the second input `weights` (L,)
    has one weight for each label, in the deployment's order, and each call blends anew. With
    `with_view` the last input is `view` (1, 3, 64, 64), the global view of the photo that the image
    is a tile of; else it is that of the image.

    Raises:
        WeightsError: there is not one weight for each label.
    """

    def __init__(
        self,
        blender: Blender,
        labels: Sequence[str],
        weights: Mapping[str, float] | None = None,
        *,
        with_view: bool = False,
    ) -> None:
        super().__init__()
        self.labels, self.fixed, self.with_view = tuple(labels), weights, with_view
        self._blender = blender
        backbone = blender.backbone
        if weights is not None:
            backbone = blender.blend([weights[label] for label in labels if label != CLEAN], keep=weights[CLEAN])
        self.network = _Residual(backbone)
        self.stride = backbone.size.stride

    def forward(self, image: Tensor, weights: Tensor | None = None, view: Tensor | None = None) -> Tensor:
        """Restore an image; `weights` and `view` are given if the network was made so."""
        height, width = image.shape[-2:]
        if view is None:
            view = global_view(image)
        # not height + -height % stride: torch.export could not tell that a stride divides that
        rows = _reflected(height, (height + self.stride - 1) // self.stride * self.stride)
        columns = _reflected(width, (width + self.stride - 1) // self.stride * self.stride)
        padded = image.index_select(-2, rows).index_select(-1, columns)
        if weights is None:
            residual = self.network(padded, view)
        else:
            blended = self._blender.blended_tensors(weights[:-1], weights[-1])
            tensors = {f"backbone.{name}": tensor for name, tensor in blended.items()}
            residual = torch.func.functional_call(self.network, tensors, (padded, view))
        restored: Tensor = (image + residual[..., :height, :width]).clamp(0, 1)
        return restored


def global_view(image: Tensor) -> Tensor:
    """Return the global view (1, 3, 64, 64) of an image (1, 3, H, W), as `views.global_view`."""
    height, width = image.shape[-2:]
    small = torch.minimum(_length(height), _length(width)) < GLOBAL_VIEW
    down, across = _view_matrix(height, small), _view_matrix(width, small)
    return down @ image @ across.transpose(0, 1)


def _length(side: int) -> Tensor:
    """Return a side as a number (), which is computed in the graph from the image's shape."""
    return torch.arange(side)[-1] + 1


def _reflected(side: int, padded: int) -> Tensor:
    """Return the indices (padded,) that pad a side at its end by reflection, as `reflect_pad`."""
    last = _length(side) - 1
    period = (2 * last).clamp(min=1)
    phase = torch.arange(padded) % period
    return torch.where(phase > last, period - phase, phase)


def _view_matrix(side: int, small: Tensor) -> Tensor:
    """Return the matrix (64, side) that maps rows, or columns, to those of the global view.

    It averages every `step`th pixel over 64 equal ranges; of a small image, one below 64 pixels on
    either side, it interpolates linearly.
    """
    pixel, cell, length = torch.arange(side)[None], torch.arange(GLOBAL_VIEW)[:, None], _length(side)
    step = (length // SAMPLED).clamp(min=1)
    sampled, order = (length + step - 1) // step, pixel // step
    start, stop = cell * sampled // GLOBAL_VIEW, ((cell + 1) * sampled + GLOBAL_VIEW - 1) // GLOBAL_VIEW
    inside = (order >= start) & (order < stop) & (pixel % step == 0)
    mean = inside.float() / (stop - start).float()
    place = ((cell.float() + 0.5) * length.float() / GLOBAL_VIEW - 0.5).clamp(min=0)
    linear = (1 - (torch.minimum(place, (length - 1).float()) - pixel.float()).abs()).clamp(min=0)
    return torch.where(small, linear, mean)
