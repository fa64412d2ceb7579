"""A complete bundle around an untrained `tiny` backbone: everything is real but the quality."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from abair.backbone import SIZES, Backbone, fingerprint, load_backbone, save_backbone
from abair.bundle import assemble
from abair.contract import Card, Degradation
from abair.discovery import Found
from abair.estimator import Estimator, save_estimator
from abair.lora import CONFIG_FILE, PREFIX, WEIGHTS_FILE, adaptable_layers, backbone_reference

LABELS = ("noise", "rain", "low-light")


def write_adapter(folder: Path, backbone: Backbone, seed: int, rank: int = 4) -> None:
    """A random adapter in PEFT's format."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, layer in adaptable_layers(backbone).items():
        weight = layer.weight
        down, up = (rank, *weight.shape[1:]), (weight.shape[0], rank, *(1 for _ in weight.shape[2:]))
        tensors[f"{PREFIX}{name}.lora_A.weight"] = torch.randn(down, generator=generator) * 0.2
        tensors[f"{PREFIX}{name}.lora_B.weight"] = torch.randn(up, generator=generator) * 0.05
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / WEIGHTS_FILE)
    config = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": 2 * rank,
        "bias": "none",
        "base_model_name_or_path": backbone_reference(backbone.size.name, fingerprint(backbone)),
    }
    (folder / CONFIG_FILE).write_text(json.dumps(config))


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the bundle; its labels are noise, rain, low-light, clean. Do not change it: copy it."""
    root = tmp_path_factory.mktemp("bundle")
    torch.manual_seed(0)
    backbone = Backbone(SIZES["tiny"])
    torch.nn.init.normal_(backbone.output.weight, std=0.05)
    save_backbone(backbone, root / "parts" / "backbone.safetensors")
    backbone = load_backbone(root / "parts" / "backbone.safetensors")
    found = []
    for seed, name in enumerate(LABELS):
        write_adapter(root / "parts" / name / "tiny", backbone, seed)
        card = Card(authors=("test",), licence="Apache-2.0", training_data="none")
        degradation = Degradation(
            name=name, title=name, synthesizer="nowhere.at_all:degrade", adapters=root / "parts" / name, card=card
        )
        found.append(Found(degradation, f"abair-{name}", "0.1.0"))
    estimator = Estimator((*LABELS, "clean"))
    save_estimator(estimator, root / "parts" / "estimator.safetensors")
    assemble(
        root / "bundle",
        name="tiny-bundle",
        created=datetime(2026, 1, 1, tzinfo=UTC),
        backbone=root / "parts" / "backbone.safetensors",
        estimator=root / "parts" / "estimator.safetensors",
        adapters=found,
    )
    return root / "bundle"


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """A smooth photo-like picture (150, 210, 3) uint8."""
    generator = np.random.default_rng(3)
    coarse = generator.random((6, 8, 3))
    rows, columns = np.linspace(0, 4.99, 150), np.linspace(0, 6.99, 210)
    top, left = rows.astype(int), columns.astype(int)
    down, across = (rows - top)[:, None, None], (columns - left)[None, :, None]
    upper = coarse[top][:, left] * (1 - across) + coarse[top][:, left + 1] * across
    lower = coarse[top + 1][:, left] * (1 - across) + coarse[top + 1][:, left + 1] * across
    return ((upper * (1 - down) + lower * down) * 255).astype(np.uint8)
