"""Replays: what labels leave behind, in one file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from abair.continual.replay import Chains, Features, Replay, damaged_further, features_of, replay_of
from abair.data.degrade import CleanPhotos, Degrader, Recipe
from abair.errors import TrainingError
from abair.model.backbone import SIZES, Backbone


def darker(clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return clean * (0.2 + 0.1 * torch.rand((), generator=generator))


def red(clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return clean * torch.tensor([1.0, 0.6, 0.4])[:, None, None] * (0.9 + 0.1 * torch.rand((), generator=generator))


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    torch.manual_seed(0)
    return Backbone(SIZES["tiny"])


@pytest.fixture(scope="module")
def photos() -> CleanPhotos:
    generator = np.random.default_rng(0)
    coarse = [generator.integers(60, 256, (6, 8, 3), dtype=np.uint8) for _ in range(3)]
    return CleanPhotos(
        [np.asarray(Image.fromarray(c).resize((160, 70), Image.Resampling.BICUBIC)) for c in coarse], "three"
    )


@pytest.fixture(scope="module")
def replay(backbone: Backbone, photos: CleanPhotos) -> Replay:
    return replay_of(backbone, Degrader({"dark": darker, "red": red}), [photos, photos], photos, 2, 0)


def test_a_replay_holds_each_label_and_a_chain_on_the_same_scenes(replay: Replay) -> None:
    kinds = [sample.labels for sample in replay.held_out]
    assert kinds == [("dark",), ("red",), ("clean",)] * 2 + [("dark", "red")] * 2
    singles, chains = replay.held_out[:6], replay.held_out[6:]
    first, second = ((*singles[i : i + 3], chains[i // 3]) for i in (0, 3))
    assert all(torch.equal(sample.clean, first[0].clean) for sample in first)
    assert not torch.equal(first[0].clean, second[0].clean)
    assert torch.equal(first[2].degraded, first[2].clean)
    assert first[0].degraded.shape == (3, 96, 96)  # the scenes are 70 pixels high: mirrored outwards
    assert float(first[0].degraded.mean()) < 0.5 * float(first[0].clean.mean())
    assert len({sample.mark for sample in replay.held_out}) == 8


def test_a_replay_is_a_file_in_which_shared_parts_lie_once(replay: Replay, tmp_path: Path) -> None:
    path = tmp_path / "replay.safetensors"
    replay.save(path)
    again = Replay.load(path)
    assert again.features.labels == ("dark", "red", "clean")
    assert torch.allclose(again.features.values, replay.features.values, rtol=2e-3, atol=1e-3)
    assert [sample.labels for sample in again.held_out] == [sample.labels for sample in replay.held_out]
    for one, other in zip(replay.held_out, again.held_out, strict=True):
        assert one.mark == other.mark
        assert torch.equal(one.degraded, other.degraded)
        assert torch.allclose(one.view, other.view, atol=1 / 255)
    pixels = 3 * 96 * 96
    features = 2 * replay.features.values.numel() + 2 * replay.features.targets.numel()
    assert path.stat().st_size < features + (8 + 2) * pixels + 8 * (3 * 64 * 64 + 400) + 4000


def test_chains_are_kept_with_the_rest(replay: Replay, tmp_path: Path) -> None:
    path = tmp_path / "replay.safetensors"
    replay.save(path)
    assert Replay.load(path).chains is None
    of = replay.features
    targets = torch.tensor([[0.25, 0.75, 0.0]] * 5)
    chains = Chains(Features(of.backbone, ("dark", "red", "clean"), of.values[:5], targets), torch.arange(5.0))
    Replay(of, replay.held_out, chains).save(path)
    again = Replay.load(path)
    assert again.chains is not None
    assert again.chains.features.labels == ("dark", "red", "clean")
    assert again.chains.features.backbone == of.backbone
    assert again.chains.stakes.tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(again.chains.features.targets, targets)
    Replay(of, replay.held_out, Chains(chains.features, torch.arange(4.0))).save(path)
    with pytest.raises(TrainingError, match=r"tensor chain_targets: found shape|chain_values: found shape"):
        Replay.load(path)


def test_pairs_are_the_same_scenes_damaged_and_not(backbone: Backbone, photos: CleanPhotos) -> None:
    recipe = Recipe(cutmix=0, double=0, clean=0)
    paired = features_of(backbone, Degrader({"dark": darker}, recipe), photos, 4, 0, paired=True)
    other = features_of(backbone, Degrader({"red": red}, recipe), photos, 4, 0, paired=True)
    assert paired.targets.tolist() == [[1, 0]] * 4 + [[0, 1]] * 4
    assert torch.equal(paired.values[4:], other.values[4:])  # one seed, the same scenes for any label
    assert not torch.equal(paired.values[:4], other.values[:4])


def test_samples_of_one_label_are_damaged_by_another(backbone: Backbone, replay: Replay) -> None:
    dark = [sample for sample in replay.held_out if sample.labels == ("dark",)]
    both = damaged_further(backbone, Degrader({"red": red}), "red", dark, 0)
    assert [sample.labels for sample in both] == [("dark", "red")] * 2
    assert torch.equal(both[0].clean, dark[0].clean)
    assert not torch.equal(both[0].degraded, dark[0].degraded)


def test_a_file_that_is_no_replay_is_refused(replay: Replay, tmp_path: Path) -> None:
    path = tmp_path / "replay.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(TrainingError, match="not a safetensors file"):
        Replay.load(path)
    replay.save(path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"abair.replay", b"abair.rebate"))
    with pytest.raises(TrainingError, match="found no replay"):
        Replay.load(path)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(TrainingError, match=r"replay\.safetensors"):
        Replay.load(path)
