"""Products and norms of features, without gradients by the fastest of what torch brings for a CPU.

For products in float32 torch calls MKL, which uses half of an AMD processor's vector width. oneDNN
uses all of it, and is as fast as MKL on others: on an AMD EPYC with AVX-512 a layer takes half the
time. In bfloat16 torch's product copies the bias to each row first. torch reaches oneDNN's product
only through an operator that its compiler uses, so where that is missing or wrong, the product is
torch's own.

torch's layer norm over few channels takes longer than its parts, each over all rows, and without
weight and bias it is slower still (findings/torch_layer_norm_few_channels.sh). So here it is two
reductions and one multiplication, but in float32 for many channels. In bfloat16 torch's reductions
to float32 are slow (findings/torch_bf16_sums_over_channels.sh), so the mean is a product, and both
are rounded to bfloat16, as the factor that follows from them is. Features of a network that
normalises have means far below their deviation, so nothing cancels.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

MANY_CHANNELS: Final = 64
"""From which on torch's layer norm is faster than its parts in float32, if it has a weight."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Map features (..., C) by a weight (D, C) and a bias (D,) to (..., D)."""
    if x.device.type == "cpu" and _runs_plainly() and _has_onednn(x.dtype):
        return _onednn_linear(x, weight, bias)
    return F.linear(x, weight, bias)


def linear_add(x: Tensor, weight: Tensor, bias: Tensor | None, other: Tensor) -> Tensor:
    """Map features (..., C) as `linear` and add others (..., D), without a pass of its own."""
    if x.device.type == "cpu" and _runs_plainly() and _has_onednn(x.dtype):
        return _onednn_linear_add(x, weight, bias, other)
    return F.linear(x, weight, bias) + other


def centre(weight: Tensor) -> Tensor:
    """Return a weight (D, C) that maps features without their mean over the channels as before.

    Of features with a mean it maps what is left without it.
    """
    return weight - weight.mean(1, keepdim=True)


def standardize(x: Tensor, epsilon: float) -> Tensor:
    """Divide features (..., C) by their standard deviation over the channels.

    The mean over the channels may stay: a weight from `centre` takes it away. `epsilon` is added to
    the variance. Together they are a layer norm without scale and shift.
    """
    channels = x.shape[-1]
    if x.device.type != "cpu" or not _runs_plainly():
        return F.layer_norm(x, (channels,), eps=epsilon)
    if x.dtype == torch.float32 and channels >= MANY_CHANNELS:
        return F.layer_norm(x, (channels,), x.new_ones(channels), x.new_zeros(channels), epsilon)
    dtype = torch.promote_types(x.dtype, torch.float32)
    if x.dtype == torch.bfloat16:
        mean = linear(x, x.new_full((1, channels), 1 / channels)).to(dtype)
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True).to(dtype)
    else:
        mean = x.mean(-1, keepdim=True, dtype=dtype)
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=dtype)
    variance = norm.square_().mul_(1 / channels).addcmul_(mean, mean, value=-1).clamp_min_(0)
    factor: Tensor = variance.add_(epsilon).rsqrt_().to(x.dtype)
    return x * factor


def _runs_plainly() -> bool:
    """Return whether nothing follows what is computed: no gradient, lower precision or graph."""
    return not (torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling())


def _onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return y


def _onednn_linear_add(x: Tensor, weight: Tensor, bias: Tensor | None, other: Tensor) -> Tensor:
    y: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, other, weight, bias, "add")
    return y


@cache
def _has_onednn(dtype: torch.dtype) -> bool:
    """Return whether oneDNN's products are there for this processor, and right."""
    sizes = ((6, (3, 2)), (8, (4, 2)), (4, (4,)))
    x, weight, bias = (torch.linspace(-1, 1, count).view(shape).to(dtype) for count, shape in sizes)
    try:
        expected = F.linear(x, weight, bias)
        found = _onednn_linear(x, weight, bias), _onednn_linear_add(x, weight, bias, expected)
        return all(torch.allclose(one, times * expected, atol=1e-6) for times, one in enumerate(found, start=1))
    except (AttributeError, RuntimeError, TypeError):
        return False
