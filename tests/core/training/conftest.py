"""A folder of photos, and what phases I and II make of it, for all tests of training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.support.phases import DEGRADATIONS, QUICK, train_named_adapter

from abair.training.run import train_backbone


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for index in range(4):
        coarse = generator.integers(0, 256, (12, 16, 3)).astype(np.uint8)
        Image.fromarray(coarse).resize((256, 224), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    return folder


@pytest.fixture(scope="session")
def backbone(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_backbone(
        data=photos, size="tiny", out=tmp_path_factory.mktemp("one"), steps=4, labels=DEGRADATIONS, **QUICK
    )


@pytest.fixture(scope="session")
def adapters(photos: Path, backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("two")
    for name in DEGRADATIONS:
        train_named_adapter(
            name=name, data=photos, backbone=backbone, out=root / name, run=root / f"run-{name}", steps=2, rank=3,
            **QUICK,
        )  # fmt: skip
    return root
