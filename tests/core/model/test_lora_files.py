"""Adapter files in PEFT's format are refused unless right: with the file, what was found and what was expected."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.tiny_adapter import LAYER, tiny_backbone, write_adapter
from torch import Tensor

from abair.contract import CONFIG_FILE, WEIGHTS_FILE
from abair.errors import AdapterError
from abair.model.backbone import Backbone, fingerprint
from abair.model.lora import PREFIX, adaptable_layers, read_adapter


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return tiny_backbone()


@pytest.fixture(scope="module")
def mark(backbone: Backbone) -> str:
    return fingerprint(backbone)


@pytest.fixture
def folder(tmp_path: Path, backbone: Backbone, mark: str) -> Path:
    return write_adapter(tmp_path / "adapter", backbone, mark, {LAYER: 1, "stem": 2, "encode_context.mix": 3})


def _tensors(folder: Path) -> dict[str, Tensor]:
    """Copies: safetensors maps the file, which the tests overwrite."""
    return {name: tensor.clone() for name, tensor in load_file(folder / WEIGHTS_FILE).items()}


def _configure(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    (folder / CONFIG_FILE).write_text(json.dumps(config | changes), encoding="utf-8")


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
