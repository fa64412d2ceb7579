"""A tiny frozen backbone, and adapters for it in PEFT's format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save_file

from abair.contract import CONFIG_FILE, WEIGHTS_FILE
from abair.model.backbone import SIZES, Backbone, freeze
from abair.model.lora import PREFIX, adaptable_layers, backbone_reference

LAYER: Final = "middle.0.project"
"""A layer that the adapters of the tests adapt."""


def tiny_backbone() -> Backbone:
    """Return a frozen backbone of the size `tiny`, the same each time."""
    torch.manual_seed(1)
    backbone = Backbone(SIZES["tiny"])
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    freeze(backbone)
    return backbone


def write_adapter(folder: Path, backbone: Backbone, mark: str, layers: Mapping[str, int], scale: float = 0.2) -> Path:
    """Write an adapter over some layers, as PEFT would; each layer has its own seed."""
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
