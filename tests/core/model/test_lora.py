"""Adapters are blended exactly, as PEFT does, and never shared between requests."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.tiny_adapter import LAYER, tiny_backbone, write_adapter
from torch import Tensor

from abair.errors import WeightsError
from abair.model.backbone import Backbone, fingerprint
from abair.model.lora import NEGLIGIBLE, Adapter, Blender, adaptable_layers, backbone_reference, read_adapter

NAMES = ("noise", "rain", "haze")


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return tiny_backbone()


@pytest.fixture(scope="module")
def mark(backbone: Backbone) -> str:
    return fingerprint(backbone)


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.rand(2, 3, 24, 30, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def adapters(tmp_path: Path, backbone: Backbone, mark: str) -> list[Adapter]:
    """Three adapters that share some layers and not others."""
    layers = ({LAYER: 1, "stem": 2}, {LAYER: 3, "up.0": 4, "middle.0.attend": 5}, {"output": 6, "stem": 7})
    folders = [write_adapter(tmp_path / n, backbone, mark, part) for n, part in zip(NAMES, layers, strict=True)]
    return [read_adapter(f, backbone, mark, f.name) for f in folders]


def _delta(adapter: Adapter, layer: str, like: Tensor) -> Tensor:
    if layer not in adapter.layers:
        return torch.zeros_like(like)
    a, b = adapter.layers[layer]
    return (adapter.scaling * (b.double() @ a.double())).float().view_as(like)


# --- against PEFT


@pytest.fixture(scope="module")
def peft_model(backbone: Backbone, mark: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, list[Adapter]]:
    """Three adapters on every adaptable layer, perturbed at random, active in PEFT and read from PEFT's own files."""
    peft = pytest.importorskip("peft")
    folder = tmp_path_factory.mktemp("peft")

    def config(alpha: int) -> Any:
        return peft.LoraConfig(r=4, lora_alpha=alpha, target_modules=list(adaptable_layers(backbone)))

    model = peft.get_peft_model(tiny_backbone(), config(4), adapter_name=NAMES[0])
    for name, alpha in zip(NAMES[1:], (8, 6), strict=True):
        model.add_adapter(name, config(alpha))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    for lora in model.peft_config.values():
        lora.base_model_name_or_path = backbone_reference("tiny", mark)
    # otherwise PEFT would look the name up on the network for a vocabulary
    model.save_pretrained(folder, save_embedding_layers=False)
    assert not list(folder.rglob("*.bin"))
    return model.eval(), [read_adapter(folder / name, backbone, mark, name) for name in NAMES]


def test_what_peft_wrote_is_read_completely(backbone: Backbone, peft_model: tuple[Any, list[Adapter]]) -> None:
    model, adapters = peft_model
    for adapter, alpha in zip(adapters, (4, 8, 6), strict=True):
        assert adapter.layers.keys() == adaptable_layers(backbone).keys()
        assert (adapter.rank, adapter.scaling) == (4, alpha / 4)
    trained = sum(p.numel() for n, p in model.named_parameters() if f".{NAMES[0]}." in n)
    assert adapters[0].parameters == trained > 0


@pytest.mark.parametrize("active", [(0,), (1,), (2,), (0, 1), (0, 2), (0, 1, 2)])
def test_the_blend_is_pefts_own_forward(
    backbone: Backbone, peft_model: tuple[Any, list[Adapter]], image: Tensor, active: tuple[int, ...]
) -> None:
    model, adapters = peft_model
    model.base_model.set_adapter([NAMES[i] for i in active])
    blended = Blender(backbone, adapters).blend([float(i in active) for i in range(len(NAMES))])
    with torch.inference_mode():
        expected, bare = model(image), backbone(image)
        error = (blended(image) - expected).abs().max()
    assert (expected - bare).abs().max() > 0.05
    assert error < 1e-4


# --- the blend


def test_weighted_blends_are_the_sums_written_in_the_paper(backbone: Backbone, adapters: list[Adapter]) -> None:
    weights = [0.6, 0.25, 0.15]
    blended = Blender(backbone, adapters).blend(weights)
    for name, parameter in backbone.named_parameters():
        layer = name.removesuffix(".weight")
        changes = [w * _delta(adapter, layer, parameter) for w, adapter in zip(weights, adapters, strict=True)]
        expected = parameter + sum(changes) if name.endswith(".weight") else parameter
        assert torch.allclose(blended.get_parameter(name), expected, atol=1e-6), name
    changed = {layer for adapter in adapters for layer in adapter.layers}
    assert changed == {LAYER, "stem", "up.0", "middle.0.attend", "output"}


def test_a_blend_shares_the_tensors_that_it_leaves_alone(backbone: Backbone, adapters: list[Adapter]) -> None:
    blended = Blender(backbone, adapters).blend([1.0, 0.0, 0.0], keep=0.5)
    own = {name for name, p in blended.named_parameters() if p.data_ptr() != backbone.get_parameter(name).data_ptr()}
    touched = {*adapters[0].layers, "output"}
    assert own == {f"{layer}.weight" for layer in touched} | {"output.bias"}


def test_blending_leaves_the_backbone_untouched(backbone: Backbone, adapters: list[Adapter], mark: str) -> None:
    tensors = {name: p.data_ptr() for name, p in backbone.named_parameters()}
    network = Blender(backbone, adapters).blend([0.5, 0.5, 0.5], keep=0.3)
    assert fingerprint(network) != mark
    assert fingerprint(backbone) == mark
    assert {name: p.data_ptr() for name, p in backbone.named_parameters()} == tensors
    assert not any(p.requires_grad for p in network.parameters())
    assert network.output is not backbone.output


def test_weights_of_zero_give_the_bare_backbone(backbone: Backbone, adapters: list[Adapter], mark: str) -> None:
    assert fingerprint(Blender(backbone, adapters).blend([0.0, 0.0, 0.0])) == mark
    assert fingerprint(Blender(backbone, []).blend([])) == mark


def test_each_adapter_is_in_memory_once(backbone: Backbone, adapters: list[Adapter]) -> None:
    kept = Blender(backbone, adapters).adapters
    assert [one.digest for one in kept] == [one.digest for one in adapters]
    assert [(one.name, one.rank, one.scaling) for one in kept] == [
        (one.name, one.rank, one.scaling) for one in adapters
    ]
    tensors = [tensor for one in kept for pair in one.layers.values() for tensor in pair]
    layers = {layer for one in kept for layer in one.layers}
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == 2 * len(layers)


def test_adapters_of_no_weight_leave_the_others_as_they_are(backbone: Backbone, adapters: list[Adapter]) -> None:
    blender = Blender(backbone, adapters)
    for chosen in range(len(adapters)):
        weights = [float(index == chosen) for index in range(len(adapters))]
        some = blender.blend(weights).state_dict()
        nearly = blender.blend([weight or NEGLIGIBLE for weight in weights]).state_dict()
        every = blender.blend([weight or 2 * NEGLIGIBLE for weight in weights]).state_dict()
        for name, tensor in some.items():
            assert torch.equal(tensor, nearly[name])
            assert torch.allclose(tensor, every[name], atol=1e-5)


@torch.inference_mode()
def test_what_is_left_alone_scales_the_residual_and_not_the_adapters(
    backbone: Backbone, adapters: list[Adapter], image: Tensor
) -> None:
    blender, weights = Blender(backbone, adapters), [0.5, 0.2, 0.3]
    residual = blender.blend(weights)(image) - image
    assert residual.abs().max() > 0.01
    for keep in (0.25, 0.9, 0.999):
        kept = blender.blend([weight * (1 - keep) for weight in weights], keep=keep)(image) - image
        assert torch.allclose(kept, (1 - keep) * residual, atol=1e-6)
    bare = backbone(image) - image
    assert torch.allclose(blender.blend([0.0] * 3, keep=0.9)(image) - image, 0.1 * bare, atol=1e-6)
    for alone in ([0.0] * 3, weights):
        assert torch.equal(blender.blend(alone, keep=1.0)(image), image)


@pytest.mark.parametrize("weights", [[], [1.0], [1.0, 0.0, 0.0, 0.0]])
def test_another_number_of_weights_is_refused(
    backbone: Backbone, adapters: list[Adapter], weights: list[float]
) -> None:
    with pytest.raises(WeightsError, match=f"found {len(weights)} weights, expected 3"):
        Blender(backbone, adapters).blend(weights)


def test_weights_of_one_request_never_reach_another(
    backbone: Backbone, adapters: list[Adapter], image: Tensor, mark: str
) -> None:
    """Many threads, each with weights of its own, get to the bit what each gets alone."""
    blender, generator = Blender(backbone, adapters), torch.Generator().manual_seed(3)
    requests = [torch.rand(4, generator=generator).tolist() for _ in range(12)]

    def serve(request: list[float]) -> Tensor:
        with torch.inference_mode():
            result: Tensor = blender.blend(request[:3], keep=request[3])(image)
            return result

    alone = [serve(request) for request in requests]
    assert len({result.sum().item() for result in alone}) == len(requests)
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(serve, requests * 4))
    for number, result in enumerate(together):
        assert torch.equal(result, alone[number % len(requests)])
    assert fingerprint(backbone) == mark
