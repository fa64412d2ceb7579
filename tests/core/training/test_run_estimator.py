"""`abair train estimator` end to end on the `tiny` backbone: it ends in a bundle that restores."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.support.phases import DEGRADATIONS, FEW_SAMPLES, QUICK

from abair import Restorer
from abair.continual.replay import Replay
from abair.errors import AdapterError, DeploymentError, TrainingError
from abair.model.backbone import SIZES, fingerprint
from abair.model.estimator import KNOWN, LATER, Estimator, feature_count, load_estimator, save_estimator
from abair.training.run import train_backbone, train_estimator

pytestmark = pytest.mark.slow


@pytest.mark.rare
@pytest.mark.exhaustive
def test_phase_three_makes_a_bundle_that_restores(photos: Path, backbone: Path, adapters: Path, tmp_path: Path) -> None:
    before = backbone.read_bytes()
    kept = {name: (adapters / name / "tiny" / "adapter_model.safetensors").read_bytes() for name in DEGRADATIONS}
    deployment = train_estimator(
        data=photos,
        out=tmp_path / "bundle",
        run=tmp_path / "run",
        backbone=backbone,
        adapters=adapters,
        labels=DEGRADATIONS,
        counts=FEW_SAMPLES,
        steps=2,
        **QUICK | {"crop": 64},
    )
    assert deployment.labels == (*DEGRADATIONS, "clean")
    assert backbone.read_bytes() == before == (tmp_path / "bundle" / "backbone.safetensors").read_bytes()
    for name, content in kept.items():
        assert (tmp_path / "bundle" / "adapters" / name / "adapter_model.safetensors").read_bytes() == content
    result = Restorer.load(tmp_path / "bundle")(np.zeros((30, 40, 3), np.uint8))
    assert result.deployment == "custom"
    replay = Replay.load(tmp_path / "bundle" / "replay.safetensors")
    assert {sample.labels for sample in replay.held_out} >= {(label,) for label in deployment.labels}
    of_each_source = 3 * len(deployment.labels)
    assert len(replay.features.values) == 2 * of_each_source + 3 * len(DEGRADATIONS)
    saved = replay.features.targets[-2 * len(DEGRADATIONS) :]
    assert float(saved[:, -1].max()) < 0.6  # all are damaged, if only in a part


def test_phase_three_ends_in_a_mean_where_it_is_asked_to(
    photos: Path, backbone: Path, adapters: Path, tmp_path: Path
) -> None:
    given = {"data": photos, "run": tmp_path / "run", "backbone": backbone, "adapters": adapters} | QUICK
    two = DEGRADATIONS[:2]
    given |= {"labels": two, "steps": 1, "crop": 64, "counts": FEW_SAMPLES}
    other, labels = tmp_path / "other.safetensors", (*two, "clean")
    torch.manual_seed(3)
    save_estimator(Estimator(labels, feature_count(SIZES["tiny"])), other)
    train_estimator(out=tmp_path / "trained", start=other, **given)
    train_estimator(out=tmp_path / "mean", start=other, average_with=other, **given)  # from the finished run
    trained, mean = (load_file(tmp_path / name / "estimator.safetensors") for name in ("trained", "mean"))
    begun = load_file(other)
    known = {name for name in mean if name.startswith(f"{KNOWN}.")}
    assert known == {f"{KNOWN}.{part}" for part in ("mean", "factor", "distances")}
    learnt = mean.keys() - {"temperature", *LATER, *known}
    for name in learnt:
        torch.testing.assert_close(mean[name], (trained[name] + begun[name]) / 2)
    assert any(not torch.equal(mean[name], trained[name]) for name in learnt)
    record = tomllib.loads((tmp_path / "mean" / "training.toml").read_text())["run"]
    assert record["start"] == record["average_with"] == fingerprint(load_estimator(other, labels))
    # a run belongs to what it began from, and what it writes is not averaged with itself
    with pytest.raises(TrainingError, match=r"another run .*start: found [0-9a-f]{64}, expected "):
        train_estimator(out=tmp_path / "not", **given)
    for written in (tmp_path / "run", tmp_path / "mean"):
        with pytest.raises(
            TrainingError, match=r"--average-with .*: found what this command writes to, expected another"
        ):
            train_estimator(out=tmp_path / "mean", start=other, average_with=written / "estimator.safetensors", **given)
    assert not (tmp_path / "not").exists()


def test_an_estimator_that_grew_is_none_to_begin_from(
    photos: Path, backbone: Path, adapters: Path, tmp_path: Path
) -> None:
    grown, features = tmp_path / "grown.safetensors", feature_count(SIZES["tiny"])
    whole = Estimator((*DEGRADATIONS, "clean"), features)
    save_estimator(whole.with_hidden_units(torch.zeros(16, features), torch.zeros(16)), grown)
    for option in ("start", "average_with"):
        with pytest.raises(TrainingError, match=r"grown.safetensors: found 112 hidden units, expected 96"):
            train_estimator(
                data=photos, out=tmp_path / "bundle", run=tmp_path / "run", backbone=backbone, adapters=adapters,
                steps=1, labels=DEGRADATIONS, **QUICK | {"crop": 64, option: grown},
            )  # fmt: skip
    assert not (tmp_path / "run").exists()


def test_an_adapter_of_another_backbone_stops_phase_three(photos: Path, adapters: Path, tmp_path: Path) -> None:
    other = train_backbone(data=photos, size="tiny", out=tmp_path / "other", steps=1, **QUICK | {"seed": 5})
    with pytest.raises(AdapterError, match="an adapter belongs to one backbone"):
        train_estimator(
            data=photos,
            out=tmp_path / "bundle",
            run=tmp_path / "run",
            backbone=other,
            adapters=adapters,
            labels=DEGRADATIONS,
            steps=1,
            **QUICK | {"crop": 64},
        )
    assert not (tmp_path / "bundle" / "deployment.json").exists()


def test_an_estimator_of_another_size_is_told_before_the_training(
    photos: Path, backbone: Path, adapters: Path, tmp_path: Path
) -> None:
    start = tmp_path / "estimator.safetensors"
    save_estimator(Estimator((*DEGRADATIONS, "clean"), 20), start)
    with pytest.raises(DeploymentError, match=r"found an estimator of 20 features, expected \d+ as the backbone tiny"):
        train_estimator(
            data=photos, out=tmp_path / "bundle", run=tmp_path / "run", backbone=backbone, adapters=adapters,
            start=start, steps=1, labels=DEGRADATIONS, **QUICK | {"crop": 64},
        )  # fmt: skip
    assert not (tmp_path / "run").exists()


def test_a_label_of_real_photos_that_is_none_of_the_estimators_is_named(
    photos: Path, backbone: Path, adapters: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        TrainingError, match=r"--labelled fog=.*: unknown label fog; expected one of blur, haze, .*clean"
    ):
        train_estimator(
            data=photos,
            out=tmp_path / "out",
            run=tmp_path / "run",
            backbone=backbone,
            adapters=adapters,
            labels=DEGRADATIONS,
            labelled=[("haze", photos), ("fog", photos)],
            **QUICK,
        )
    assert not (tmp_path / "out").exists()
