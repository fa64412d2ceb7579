"""Muon: what it does to matrices, and that everything else is AdamW's."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from tests.support.toy_task import EVERY_STEP, KilledError, Toy, make_module, make_settings, same_weights, train_toy
from torch import nn

from abair.training.optimizer import MOMENTUM, UPDATE_RMS, Muon, make_optimizer, orthogonalise


@pytest.mark.parametrize(("products", "tolerance"), [(torch.float32, 1e-3), (torch.bfloat16, 0.1)])
@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 16, 64), (3, 64, 16)])
def test_orthogonalising_keeps_singular_vectors_and_evens_out_the_values(
    shape: tuple[int, int, int], products: torch.dtype, tolerance: float
) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(shape) * torch.tensor([1e-3, 1.0, 1e3])[: shape[0], None, None]
    left, values, right = torch.linalg.svd(matrices, full_matrices=False)
    found = left.mT @ orthogonalise(matrices, products) @ right.mT
    diagonal = found.diagonal(dim1=1, dim2=2)
    assert torch.allclose(found, torch.diag_embed(diagonal), atol=tolerance)
    large = values > 0.02 * values.amax(dim=1, keepdim=True)
    assert diagonal[large].min() > 0.5
    assert diagonal.max() < 1.3


def test_a_matrix_that_is_zero_stays_so() -> None:
    assert torch.equal(orthogonalise(torch.zeros(2, 16, 20)), torch.zeros(2, 16, 20))


def test_muon_updates_matrices_and_adamw_the_rest() -> None:
    torch.manual_seed(0)
    network = nn.ModuleDict(
        {
            "pointwise": nn.Conv2d(32, 16, 1),
            "filters": nn.Conv2d(4, 20, 3),  # 20 rows of 36
            "depthwise": nn.Conv2d(32, 32, 3, groups=32),
            "few": nn.Linear(64, 12),
        }
    )
    reference = {name: parameter.detach().clone().requires_grad_() for name, parameter in network.named_parameters()}
    matrices = {"pointwise.weight", "filters.weight"}
    optimizer = Muon(network.parameters(), weight_decay=0.1)
    adamw = torch.optim.AdamW(reference.values(), lr=0.01, betas=(0.9, 0.99), weight_decay=0.1)
    momentum = {name: torch.zeros_like(reference[name]) for name in matrices}
    for _ in range(3):
        for name, parameter in network.named_parameters():
            parameter.grad = torch.randn_like(parameter)
            reference[name].grad = parameter.grad.clone()
        before = {name: dict(network.named_parameters())[name].detach().clone() for name in matrices}
        optimizer.param_groups[0]["lr"] = 0.01
        optimizer.step()
        adamw.step()
        for name, parameter in network.named_parameters():
            if name not in matrices:
                assert torch.allclose(parameter, reference[name], atol=1e-6), name
                continue
            gradient = reference[name].grad
            assert gradient is not None
            momentum[name] = torch.lerp(gradient, momentum[name], MOMENTUM)
            update = orthogonalise(torch.lerp(gradient, momentum[name], MOMENTUM).flatten(1)[None])[0]
            scale = 0.01 * UPDATE_RMS * math.sqrt(max(update.shape))
            expected = before[name] * (1 - 0.01 * 0.1) - scale * update.view(parameter.shape)
            assert torch.allclose(parameter, expected, atol=1e-6), name


def test_the_update_of_a_matrix_is_as_large_as_adamws_would_be() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(64, 256, bias=False)
    before = layer.weight.detach().clone()
    layer.weight.grad = torch.randn_like(layer.weight)
    optimizer = Muon(layer.parameters(), weight_decay=0.0)
    optimizer.param_groups[0]["lr"] = 1.0
    optimizer.step()
    assert float((layer.weight.detach() - before).square().mean().sqrt()) == pytest.approx(UPDATE_RMS, rel=0.2)


def test_the_settings_name_the_optimiser() -> None:
    parameters = list(nn.Linear(32, 32).parameters())
    assert isinstance(make_optimizer(parameters, make_settings(optimizer="muon")), Muon)
    assert isinstance(make_optimizer(parameters, make_settings()), torch.optim.AdamW)


def test_a_run_with_muon_that_was_killed_ends_where_an_uninterrupted_one_does(tmp_path: Path) -> None:
    settings = make_settings(optimizer="muon", checkpoint_minutes=EVERY_STEP)
    whole = train_toy(tmp_path / "whole", settings, module=make_module(width=24))
    with pytest.raises(KilledError):
        train_toy(tmp_path / "cut", settings, module=make_module(width=24), stop=5)
    rest = train_toy(tmp_path / "cut", settings, module=make_module(width=24))
    assert same_weights(rest.module, whole.module)
    assert not same_weights(whole.module, Toy(module=make_module(width=24)).module)
