"""Replays: what labels leave behind, in one file."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from abair.continual.replay import Features, Mixtures, Replay, read_source
from abair.deployment import read_deployment
from abair.errors import TrainingError
from abair.locations import FACTORY


def test_a_replay_is_a_file_in_which_shared_parts_lie_once(replay: Replay, tmp_path: Path) -> None:
    path = tmp_path / "replay.safetensors"
    replay.save(path)
    again = Replay.load(path)
    assert again.features.labels == ("dark", "red", "clean")
    assert torch.allclose(again.features.values, replay.features.values, rtol=2e-3, atol=1e-3)
    assert [sample.labels for sample in again.held_out] == [sample.labels for sample in replay.held_out]
    for one, other in zip(replay.held_out, again.held_out, strict=True):
        assert one.digest == other.digest
        assert torch.equal(one.degraded, other.degraded)
        assert torch.allclose(one.view, other.view, atol=1 / 255)
    pixels = 3 * 96 * 96
    features = 2 * replay.features.values.numel() + 2 * replay.features.targets.numel()
    assert path.stat().st_size < features + (8 + 2) * pixels + 8 * (3 * 64 * 64 + 400) + 4000


def test_pairs_are_kept_with_the_rest(replay: Replay, tmp_path: Path) -> None:
    path = tmp_path / "replay.safetensors"
    pairs = torch.tensor([[0, 3], [2, 4]])
    Replay(dataclasses.replace(replay.features, pairs=pairs), replay.held_out).save(path)
    assert torch.equal(Replay.load(path).features.pairs, pairs)
    beyond = torch.tensor([[0, len(replay.features.values)]])
    Replay(dataclasses.replace(replay.features, pairs=beyond), replay.held_out).save(path)
    with pytest.raises(TrainingError, match="found no replay"):
        Replay.load(path)


def test_what_samples_were_made_of_is_kept_with_them(replay: Replay, tmp_path: Path) -> None:
    path = tmp_path / "replay.safetensors"
    replay.save(path)
    assert (Replay.load(path).source, read_source(path)) == ("", "")
    dataclasses.replace(replay, source="these photos").save(path)
    assert (Replay.load(path).source, read_source(path)) == ("these photos", "these photos")


def test_mixtures_are_kept_with_the_rest(replay: Replay, tmp_path: Path) -> None:
    path = tmp_path / "replay.safetensors"
    replay.save(path)
    assert Replay.load(path).mixtures is None
    features = replay.features
    targets = torch.tensor([[0.25, 0.75, 0.0]] * 5)
    mixtures = Mixtures(
        Features(features.backbone, ("dark", "red", "clean"), features.values[:5], targets), torch.arange(5.0)
    )
    Replay(features, replay.held_out, mixtures).save(path)
    again = Replay.load(path)
    assert again.mixtures is not None
    assert again.mixtures.features.labels == ("dark", "red", "clean")
    assert again.mixtures.features.backbone == features.backbone
    assert again.mixtures.stakes.tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(again.mixtures.features.targets, targets)
    Replay(features, replay.held_out, Mixtures(mixtures.features, torch.arange(4.0))).save(path)
    with pytest.raises(TrainingError, match=r"tensor chain_targets: found shape|chain_values: found shape"):
        Replay.load(path)


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


def test_the_shipped_replay_is_read_and_written_byte_for_byte(tmp_path: Path) -> None:
    deployment = read_deployment(FACTORY)
    assert deployment.replay is not None
    shipped = deployment.find(deployment.replay)
    replay = Replay.load(shipped)
    assert replay.features.labels == deployment.labels
    assert len(replay.held_out) > 10 * len(deployment.labels)
    replay.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == shipped.read_bytes()
