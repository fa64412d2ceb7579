"""Adapters in PEFT's format: refused unless right, blended exactly, never shared between requests."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from abair.contract import CONFIG_FILE, WEIGHTS_FILE
from abair.errors import AdapterError, WeightsError
from abair.model.backbone import SIZES, Backbone, fingerprint, freeze
from abair.model.lora import NEGLIGIBLE, PREFIX, Adapter, Blender, adaptable_layers, backbone_reference, read_adapter

LAYER = "middle.0.project"
NAMES = ("noise", "rain", "haze")


def _backbone() -> Backbone:
    torch.manual_seed(1)
    backbone = Backbone(SIZES["tiny"])
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    freeze(backbone)
    return backbone


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return _backbone()


@pytest.fixture(scope="module")
def mark(backbone: Backbone) -> str:
    return fingerprint(backbone)


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.rand(2, 3, 24, 30, generator=torch.Generator().manual_seed(5))


def _write(folder: Path, backbone: Backbone, mark: str, layers: Mapping[str, int], scale: float = 0.2) -> Path:
    """An adapter over some layers, as PEFT would have written it; each layer has its own seed."""
    folder.mkdir(parents=True, exist_ok=True)
    modules, tensors = adaptable_layers(backbone), {}
    for layer, seed in layers.items():
        weight, generator = modules[layer].weight, torch.Generator().manual_seed(seed)
        up = (weight.shape[0], 4, *([1, 1] if weight.dim() == 4 else []))
        tensors[f"{PREFIX}{layer}.lora_A.weight"] = scale * torch.randn(4, *weight.shape[1:], generator=generator)
        tensors[f"{PREFIX}{layer}.lora_B.weight"] = scale * torch.randn(*up, generator=generator)
    save_file(tensors, folder / WEIGHTS_FILE)
    reference = backbone_reference("tiny", mark)
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none", "base_model_name_or_path": reference}
    (folder / CONFIG_FILE).write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture
def folder(tmp_path: Path, backbone: Backbone, mark: str) -> Path:
    return _write(tmp_path / "adapter", backbone, mark, {LAYER: 1, "stem": 2, "encode_context.mix": 3})


@pytest.fixture
def adapters(tmp_path: Path, backbone: Backbone, mark: str) -> list[Adapter]:
    """Three adapters that share some layers and not others."""
    layers = ({LAYER: 1, "stem": 2}, {LAYER: 3, "up.0": 4, "middle.0.attend": 5}, {"output": 6, "stem": 7})
    folders = [_write(tmp_path / n, backbone, mark, part) for n, part in zip(NAMES, layers, strict=True)]
    return [read_adapter(f, backbone, mark, f.name) for f in folders]


def _tensors(folder: Path) -> dict[str, Tensor]:
    """Copies: safetensors maps the file, which the tests overwrite."""
    return {name: tensor.clone() for name, tensor in load_file(folder / WEIGHTS_FILE).items()}


def _configure(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    (folder / CONFIG_FILE).write_text(json.dumps(config | changes), encoding="utf-8")


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

    model = peft.get_peft_model(_backbone(), config(4), adapter_name=NAMES[0])
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


# --- refusals: each names the file, what was found, and what was expected


def test_a_right_adapter_is_read(folder: Path, backbone: Backbone, mark: str) -> None:
    adapter = read_adapter(folder, backbone, mark, "noise")
    assert (adapter.name, adapter.rank, adapter.scaling) == ("noise", 4, 2.0)
    assert adapter.layers.keys() == {LAYER, "stem", "encode_context.mix"}
    assert adapter.layers["stem"][0].shape == (4, 12 * 9)


def test_grouped_layers_are_not_adaptable(backbone: Backbone) -> None:
    layers = adaptable_layers(backbone)
    assert {"stem", "down.0", "up.0", "output", LAYER, "middle.0.attend", "encode_context.mix"} <= layers.keys()
    assert not [name for name in layers if name.endswith("spatial")]


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".PT"])
def test_a_pickle_beside_the_weights_is_refused(folder: Path, backbone: Backbone, mark: str, suffix: str) -> None:
    (folder / f"adapter_model{suffix}").write_bytes(pickle.dumps({}))
    with pytest.raises(AdapterError, match=rf"adapter_model\{suffix}: found a pickle.*expected {WEIGHTS_FILE}"):
        read_adapter(folder, backbone, mark, "noise")


def test_a_pickle_under_the_right_name_is_refused(folder: Path, backbone: Backbone, mark: str) -> None:
    torch.save(_tensors(folder), folder / WEIGHTS_FILE)
    with pytest.raises(AdapterError, match=f"{WEIGHTS_FILE}: not a safetensors file: found .*expected safetensors"):
        read_adapter(folder, backbone, mark, "noise")


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
def test_a_missing_file_is_named(folder: Path, backbone: Backbone, mark: str, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(AdapterError, match=f"{name}: cannot be read .*expected"):
        read_adapter(folder, backbone, mark, "noise")


def test_a_missing_folder_is_refused(tmp_path: Path, backbone: Backbone, mark: str) -> None:
    with pytest.raises(AdapterError, match=r"none.*cannot be read"):
        read_adapter(tmp_path / "none", backbone, mark, "noise")


@pytest.mark.parametrize("text", ["", "{", "\x00", "[" * 100_000])
def test_a_config_that_is_no_json_is_refused(folder: Path, backbone: Backbone, mark: str, text: str) -> None:
    (folder / CONFIG_FILE).write_text(text, encoding="utf-8")
    with pytest.raises(AdapterError, match=f"{CONFIG_FILE}: cannot be read as JSON .*expected PEFT's adapter config"):
        read_adapter(folder, backbone, mark, "noise")


@pytest.mark.parametrize("text", ["[]", "3", "null", "{}", '{"peft_type": "IA3"}'])
def test_a_config_of_another_method_is_refused(folder: Path, backbone: Backbone, mark: str, text: str) -> None:
    (folder / CONFIG_FILE).write_text(text, encoding="utf-8")
    with pytest.raises(AdapterError, match=f"{CONFIG_FILE}: found peft_type .*, expected 'LORA'"):
        read_adapter(folder, backbone, mark, "noise")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("use_rslora", True),
        ("use_dora", True),
        ("rank_pattern", {"stem": 8}),
        ("alpha_pattern", {"stem": 8}),
        ("modules_to_save", ["output"]),
        ("fan_in_fan_out", True),
        ("lora_bias", True),
        ("bias", "all"),
    ],
)
def test_variants_of_lora_are_refused(folder: Path, backbone: Backbone, mark: str, key: str, value: Any) -> None:
    _configure(folder, **{key: value})
    with pytest.raises(AdapterError, match=f"{CONFIG_FILE}: found {key} switched on, expected a plain LoRA"):
        read_adapter(folder, backbone, mark, "noise")


@pytest.mark.parametrize("rank", [0, -1, 65, 4.0, True, "4", None])
def test_a_rank_that_is_none_is_refused(folder: Path, backbone: Backbone, mark: str, rank: Any) -> None:
    _configure(folder, r=rank)
    with pytest.raises(AdapterError, match=f"{CONFIG_FILE}: found rank r = .*, expected a whole number from 1 to 64"):
        read_adapter(folder, backbone, mark, "noise")


@pytest.mark.parametrize("alpha", [0, -4, "8", None, True, float("nan"), float("inf")])
def test_an_alpha_that_is_none_is_refused(folder: Path, backbone: Backbone, mark: str, alpha: Any) -> None:
    _configure(folder, lora_alpha=alpha)
    with pytest.raises(AdapterError, match=f"{CONFIG_FILE}: found lora_alpha = .*, expected a number above 0"):
        read_adapter(folder, backbone, mark, "noise")


def test_tensors_of_another_rank_are_refused(folder: Path, backbone: Backbone, mark: str) -> None:
    _configure(folder, r=8)
    with pytest.raises(AdapterError, match=rf"{WEIGHTS_FILE}: tensor .*: found shape \(4, .*\), expected \(8, "):
        read_adapter(folder, backbone, mark, "noise")


@pytest.mark.parametrize("found", ["abair/tiny@" + "0" * 64, "abair/nano@MARK", "", None])
def test_an_adapter_of_another_backbone_is_refused(
    folder: Path, backbone: Backbone, mark: str, found: str | None
) -> None:
    _configure(folder, base_model_name_or_path=found and found.replace("MARK", mark))
    with pytest.raises(AdapterError, match=f"{CONFIG_FILE}: made for backbone .*, expected 'abair/tiny@{mark}'"):
        read_adapter(folder, backbone, mark, "noise")


Change = Callable[[dict[str, Tensor]], object]
_A = f"{PREFIX}{LAYER}.lora_A.weight"
_B = f"{PREFIX}{LAYER}.lora_B.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update({_A: torch.zeros(4, 15, 1, 1)}), r"found shape \(4, 15, 1, 1\), expected \(4, 16, 1, 1\)"),
        (lambda t: t.update({_B: torch.zeros(16, 4)}), r"found shape \(16, 4\), expected \(16, 4, 1, 1\)"),
        (lambda t: t[_A].view(-1)[3:4].fill_(float("nan")), "found NaN or infinite values, expected finite"),
        (lambda t: t[_B].view(-1)[3:4].fill_(float("inf")), "found NaN or infinite values, expected finite"),
        (lambda t: t.pop(_A), "found 5 tensors, expected 6; missing .*lora_A"),
        (lambda t: t.pop(_B), "found 5 tensors, expected 6; missing .*lora_B"),
        (lambda t: t.update({f"{PREFIX}head.lora_A.weight": torch.zeros(4, 4)}), "found tensor .*head.*; expected"),
        (lambda t: t.update({_A.removeprefix(PREFIX): torch.zeros(4, 4)}), "found tensor middle.*; expected"),
        (lambda t: t.update({f"{PREFIX}stem.weight": torch.zeros(4, 4)}), "found tensor .*stem.weight; expected"),
        (lambda t: t.update({_A.replace("lora_A", "lora_A.lora_B"): torch.zeros(4)}), "found tensor .*; expected"),
        (lambda t: t.update({_A.replace("project", "spatial"): torch.zeros(4, 1, 3, 3)}), "ungrouped convolution"),
        (lambda t: t.update({_A.replace("project", "beta"): torch.zeros(4)}), "found tensor .*beta.*; expected"),
        (lambda t: t.update({_A: torch.zeros(4, 16, 1, 1, dtype=torch.float64)}), "found tensors of dtype F64"),
        (lambda t: t.clear(), "found no tensors, expected a LoRA of rank 4"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    folder: Path, backbone: Backbone, mark: str, change: Change, message: str
) -> None:
    tensors = _tensors(folder)
    change(tensors)
    save_file(tensors, folder / WEIGHTS_FILE)
    with pytest.raises(AdapterError, match=message) as caught:
        read_adapter(folder, backbone, mark, "noise")
    assert str(caught.value).startswith(str(folder / WEIGHTS_FILE))


def test_a_truncated_file_is_refused(folder: Path, backbone: Backbone, mark: str) -> None:
    data = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(data[:-5])
    with pytest.raises(AdapterError, match=f"{WEIGHTS_FILE}: damaged safetensors file"):
        read_adapter(folder, backbone, mark, "noise")
