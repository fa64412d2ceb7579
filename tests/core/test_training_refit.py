"""A new label by features alone: the old labels stay, and no old sample is needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from abair.backbone import SIZES, Backbone, fingerprint
from abair.errors import TrainingError
from abair.estimator import Estimator, feature_count
from abair.synthesis import CleanPhotos, Degrader, Recipe
from abair.training.refit import Features, features_of, refit

COUNT = 60


def darker(clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return clean * (0.2 + 0.1 * torch.rand((), generator=generator))


def noisy(clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return (clean + 0.15 * torch.randn(clean.shape, generator=generator)).clamp(0, 1)


def red(clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return clean * torch.tensor([1.0, 0.6, 0.4])[:, None, None] * (0.9 + 0.1 * torch.rand((), generator=generator))


@pytest.fixture(scope="module")
def photos() -> CleanPhotos:
    generator = np.random.default_rng(0)
    coarse = [generator.integers(60, 256, (6, 8, 3), dtype=np.uint8) for _ in range(6)]
    return CleanPhotos(
        [np.asarray(Image.fromarray(c).resize((160, 120), Image.Resampling.BICUBIC)) for c in coarse], "six"
    )


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    torch.manual_seed(0)
    return Backbone(SIZES["tiny"])


def made(backbone: Backbone, photos: CleanPhotos, seed: int, clean: float = 0.0, **synthesizers) -> Features:
    recipe = Recipe(cutmix=0, double=0, clean=clean)
    return features_of(backbone, Degrader(synthesizers, recipe), photos, COUNT, seed)


@pytest.fixture(scope="module")
def old(backbone: Backbone, photos: CleanPhotos) -> Features:
    return made(backbone, photos, 1, clean=0.33, dark=darker, noise=noisy)


@pytest.fixture(scope="module")
def champion(backbone: Backbone, old: Features) -> Estimator:
    start = Estimator(("dark", "noise", "clean"), feature_count(backbone.size))
    return refit(start, fingerprint(backbone), [], [old], seed=0)


def right(estimator: Estimator, features: Features) -> float:
    with torch.inference_mode():
        found = estimator(features.values).argmax(1)
    targets = [estimator.labels.index(features.labels[int(position)]) for position in features.targets.argmax(1)]
    return float((found == torch.tensor(targets)).float().mean())


def test_a_new_label_is_learnt_from_features_and_the_old_ones_stay(
    backbone: Backbone, photos: CleanPhotos, old: Features, champion: Estimator
) -> None:
    challenger = refit(champion, fingerprint(backbone), ["red"], [old, made(backbone, photos, 2, red=red)], seed=0)
    assert challenger.labels == ("dark", "noise", "red", "clean")
    assert not any(parameter.requires_grad for parameter in challenger.parameters())
    held_old = made(backbone, photos, 3, clean=0.33, dark=darker, noise=noisy)
    assert right(champion, held_old) >= 0.95
    assert right(challenger, held_old) >= 0.95
    assert right(challenger, made(backbone, photos, 4, red=red)) >= 0.95


def test_the_same_arguments_give_the_same_estimator_and_another_seed_another(
    backbone: Backbone, photos: CleanPhotos, old: Features, champion: Estimator
) -> None:
    new = made(backbone, photos, 2, red=red)
    marks = [fingerprint(refit(champion, fingerprint(backbone), ["red"], [old, new], seed=seed)) for seed in (0, 0, 1)]
    assert marks[0] == marks[1] != marks[2]


def test_features_are_a_file_of_numbers(old: Features, tmp_path: Path) -> None:
    path = tmp_path / "features.safetensors"
    old.save(path)
    again = Features.load(path)
    assert (again.backbone, again.labels) == (old.backbone, old.labels)
    assert torch.allclose(again.values, old.values, rtol=2e-3, atol=1e-3)
    assert torch.equal(again.targets, old.targets)
    assert path.stat().st_size < COUNT * 1200


def test_features_that_do_not_fit_are_refused(
    backbone: Backbone, old: Features, champion: Estimator, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match="features of dark, noise, clean: made by backbone 000000000000, expected"):
        refit(champion, fingerprint(backbone), [], [Features("0" * 64, old.labels, old.values, old.targets)], seed=0)
    with pytest.raises(TrainingError, match="label red: found no features"):
        refit(champion, fingerprint(backbone), ["red"], [old], seed=0)
    path = tmp_path / "features.safetensors"
    path.write_bytes(b"no features")
    with pytest.raises(TrainingError, match="not a safetensors file"):
        Features.load(path)
