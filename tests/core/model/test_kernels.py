"""Products are the same by either library, and the usual one is taken where anything follows them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from abair.model import kernels
from abair.model.backbone import SIZES, Backbone
from abair.model.kernels import centre, linear, linear_add, standardize


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 0.02)])
@pytest.mark.parametrize("shape", [(5, 8), (2, 3, 8), (1, 4, 3, 8)])
@torch.no_grad()
def test_both_libraries_give_the_same_product(
    shape: tuple[int, ...], dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, weight, bias = (torch.rand(size).to(dtype) for size in (shape, (6, 8), (6,)))
    expected = F.linear(x, weight, bias)
    assert torch.allclose(linear(x, weight, bias), expected, atol=tolerance)
    assert torch.allclose(linear(x, weight), F.linear(x, weight), atol=tolerance)
    other = torch.rand(expected.shape).to(dtype)
    assert torch.allclose(linear_add(x, weight, bias, other), expected + other, atol=2 * tolerance)
    monkeypatch.setattr(kernels, "_has_onednn", lambda dtype: False)
    assert torch.equal(linear(x, weight, bias), expected)
    assert torch.equal(linear_add(x, weight, bias, other), expected + other)


@torch.no_grad()
def test_a_torch_without_onednns_product_uses_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels._has_onednn.cache_clear()

    def missing(*_: object) -> Tensor:
        raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_linear_pointwise'")

    monkeypatch.setattr(kernels, "_onednn_linear", missing)
    try:
        assert torch.equal(linear(torch.ones(1, 2), torch.ones(3, 2)), torch.full((1, 3), 2.0))
    finally:
        kernels._has_onednn.cache_clear()


def test_a_network_gives_the_same_with_and_without_gradients_and_has_them_where_they_are_asked_for() -> None:
    torch.manual_seed(0)
    backbone = Backbone(SIZES["tiny"])
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    x = torch.rand(2, 3, 32, 32)
    trained = backbone(x)
    with torch.no_grad():
        plain = backbone(x)
    with torch.inference_mode():
        served = backbone(x)
    assert torch.allclose(plain, trained, atol=1e-5)
    assert torch.equal(plain, served)
    trained.sum().backward()
    gradients = [parameter.grad for parameter in backbone.parameters()]
    assert all(gradient is not None and bool(gradient.isfinite().all()) for gradient in gradients)


@torch.no_grad()
def test_lower_precision_is_not_lost() -> None:
    x, weight = torch.rand(5, 8), torch.rand(6, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight).dtype == torch.bfloat16


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-5), (torch.bfloat16, 0.1)])
@pytest.mark.parametrize("mean", [0.0, 3.0])
@pytest.mark.parametrize("channels", [32, 64])
@torch.no_grad()
def test_a_centred_weight_on_standardised_features_is_a_layer_norm_and_a_product(
    channels: int, mean: float, dtype: torch.dtype, tolerance: float
) -> None:
    torch.manual_seed(0)
    x, weight = (mean + torch.randn(4, 5, channels)).to(dtype), torch.randn(6, channels, dtype=torch.float64)
    expected = F.linear(F.layer_norm(x.double(), (channels,), eps=1e-6), weight)
    found = linear(standardize(x, 1e-6), centre(weight).to(dtype))
    assert torch.allclose(found.double(), expected, atol=tolerance * expected.abs().max())
    with torch.enable_grad():
        trained = linear(standardize(x, 1e-6), centre(weight).to(dtype))
    assert torch.allclose(trained.double(), expected, atol=tolerance * expected.abs().max())


@torch.no_grad()
def test_features_that_are_all_alike_are_not_blown_up() -> None:
    found = linear(standardize(torch.full((3, 8), 0.7), 1e-6), centre(torch.rand(4, 8)))
    assert torch.allclose(found, torch.zeros(3, 4), atol=1e-3)
