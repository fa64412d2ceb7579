"""What tests of replays share: two kinds of damage, three photos, a small replay."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from abair.continual.collect import ReplayCounts, build_replay
from abair.continual.replay import Replay
from abair.data.degrade import Degrader
from abair.data.photos import CleanPhotos
from abair.model.backbone import SIZES, Backbone


def darker(clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return clean * (0.2 + 0.1 * torch.rand((), generator=generator))


def red(clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return clean * torch.tensor([1.0, 0.6, 0.4])[:, None, None] * (0.9 + 0.1 * torch.rand((), generator=generator))


@pytest.fixture(scope="package")
def backbone() -> Backbone:
    torch.manual_seed(0)
    return Backbone(SIZES["tiny"])


def smooth_photos(count: int, height: int) -> CleanPhotos:
    """Return bright photos (height, 160, 3) without texture."""
    generator = np.random.default_rng(0)
    coarse = [generator.integers(60, 256, (6, 8, 3), dtype=np.uint8) for _ in range(count)]
    return CleanPhotos(
        [np.asarray(Image.fromarray(c).resize((160, height), Image.Resampling.BICUBIC)) for c in coarse], "smooth"
    )


@pytest.fixture(scope="package")
def three_photos() -> CleanPhotos:
    return smooth_photos(3, 70)


@pytest.fixture(scope="package")
def replay(backbone: Backbone, three_photos: CleanPhotos) -> Replay:
    counts = ReplayCounts(features=6, held_out=2, held_out_mixtures=2)
    degrader = Degrader({"dark": darker, "red": red})
    return build_replay(backbone, degrader, [three_photos, three_photos], three_photos, counts, 0)
