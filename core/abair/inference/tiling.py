"""The network on photos of any size: panels of columns, each strip by strip from top to bottom.

A strip is a few rows that go through all layers before the next ones, without an overlap, see
`abair.model.strips`. A photo that is wider than a panel is cut into panels, each computed with as
many more columns as the network reaches. So every pixel is that of the whole photo at once, there
is no seam, and memory beside the photo and its result is bounded by the panel's width.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from abair.model import views
from abair.model.backbone import Backbone, pad_to_stride
from abair.model.strips import Strip, stream_residual
from abair.model.views import Pixels
from abair.physics import reflect_pad

SMALLEST_PANEL: Final = 64
"""Width of a panel in pixels; of narrower ones nearly all work would go into the overlap."""
STRIP_BYTES: Final = 1 << 19
"""Pixels of a strip at most, times the bytes of a number, if one row of the coarsest level has no
more. Smaller ones stay in the processor's cache, but cost more calls."""
WHOLE_PIXELS: Final = 1 << 19
"""Pixels of a photo that is one strip: what the libraries prepare for each new size of work would
take longer than what the cache spares."""
LARGE_STRIP_PIXELS: Final = 1 << 22
"""Pixels of a strip on other devices, which need larger pieces of work."""


class Panel(NamedTuple):
    """The columns that are computed, and those of them that are the panel's own."""

    columns: slice
    core: slice


class Part(NamedTuple):
    """A part of the restored photo: where it lies, and its values (h, w, 3), not clipped."""

    rows: slice
    columns: slice
    values: NDArray[np.float32]


def restore_parts(
    network: Backbone,
    pixels: Pixels,
    context: Tensor,
    panel: int,
    dtype: torch.dtype = torch.float32,
    before_strip: Callable[[], object] | None = None,
    strip: int | None = None,
) -> Iterator[Part]:
    """Yield the restored photo in parts that cover each pixel once.

    Args:
        network: the network, blended for this photo.
        pixels: the photo (H, W, 3) of uint8, uint16 or float32.
        context: (1, K) on the network's device.
        panel: width of a panel in pixels, without its overlap.
        dtype: of the arithmetic. Rows that come back with a NaN are computed again in float32.
        before_strip: is called before each strip; what it raises ends the work.
        strip: pixels of a strip at most, see `STRIP_BYTES`; None chooses for the photo and device.
    """
    size = network.size
    for columns, core in panels(pixels.shape[1], panel, size.stride, size.reach):
        part = pixels[:, columns]
        inside = slice(core.start - columns.start, core.stop - columns.start)
        top = 0
        for residual in _residual_rows(network, part, context, dtype, before_strip, strip):
            rows = slice(top, top + len(residual))
            if dtype != torch.float32 and not bool(residual.isfinite().all()):
                residual = _residual_again(network, part, context, rows)  # noqa: PLW2901
            values = views.to_tensor(part[rows, inside])[0].permute(1, 2, 0).numpy()
            values += residual[:, inside].float().cpu().numpy()
            yield Part(rows, core, values)
            top = rows.stop


def panels(width: int, core: int, stride: int, halo: int) -> list[Panel]:
    """Divide columns into panels of about `core` pixels, at least one.

    They meet at multiples of `stride`, and at least `halo` more columns on each side are computed
    with them: as many that all panels are equally wide, padded to the stride. For another width
    oneDNN would make other kernels, and keep them beside the first.
    """
    count = max(1, math.ceil(width / max(core, SMALLEST_PANEL)))
    edges = sorted({0, *(round(width * i / count / stride) * stride for i in range(1, count)), width})
    padded = width + -width % stride
    around = [(max(0, first - halo), min(padded, last + halo)) for first, last in itertools.pairwise(edges)]
    widest = max(stop - start for start, stop in around)
    starts = [min(start, padded - widest) for start, _ in around]
    return [
        Panel(slice(start, min(width, start + widest)), slice(first, last))
        for start, (first, last) in zip(starts, itertools.pairwise(edges), strict=True)
    ]


def _residual_rows(
    network: Backbone,
    pixels: Pixels,
    context: Tensor,
    dtype: torch.dtype,
    before_strip: Callable[[], object] | None = None,
    strip: int | None = None,
) -> Iterator[Tensor]:
    """Yield the residual (h, W, 3) of pixels (H, W, 3) from top to bottom, H rows in all."""
    height, width = pixels.shape[:2]
    left = height
    area = _strip_area(pixels, context.device, dtype) if strip is None else strip
    strips = _strips(network, pixels, context.device, before_strip, area)
    for residual in stream_residual(network, strips, context, dtype):
        if left:
            yield residual[:left, :width]
        left -= min(left, len(residual))


def _strip_area(pixels: Pixels, device: torch.device, dtype: torch.dtype) -> int:
    """Return the pixels of a strip at most."""
    if pixels.size <= 3 * WHOLE_PIXELS:
        return WHOLE_PIXELS
    return STRIP_BYTES // dtype.itemsize if device.type == "cpu" else LARGE_STRIP_PIXELS


def _strips(
    network: Backbone,
    pixels: Pixels,
    device: torch.device,
    before_strip: Callable[[], object] | None,
    area: int,
) -> Iterator[Strip]:
    """Yield pixels (H, W, 3), padded to the stride by reflection, as strips of float32."""
    stride = network.size.stride
    height, width = pixels.shape[:2]
    order = reflect_pad(torch.arange(height)[:, None], 0, 0, 0, -height % stride)[:, 0].numpy()
    rows = max(1, area // (stride * (width + -width % stride))) * stride
    for top in range(0, len(order), rows):
        if before_strip is not None:
            before_strip()
        values = views.to_tensor(pixels[order[top : top + rows]]).to(device)
        yield Strip(pad_to_stride(values, stride)[0].permute(1, 2, 0).contiguous(), top + rows >= len(order))


def _residual_again(network: Backbone, pixels: Pixels, context: Tensor, rows: slice) -> Tensor:
    """Return the residual of some rows of pixels (H, W, 3), in float32, from those around them."""
    size = network.size
    start = max(0, rows.start - size.reach) // size.stride * size.stride
    stop = min(len(pixels), -(-(rows.stop + size.reach) // size.stride) * size.stride)
    around = torch.cat(list(_residual_rows(network, pixels[start:stop], context, torch.float32)))
    return around[rows.start - start : rows.stop - start]
