"""The three phases end to end on the `tiny` backbone: each trains its own part and nothing else."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from abair import Restorer
from abair.continual.collect import ReplayCounts
from abair.continual.replay import Replay
from abair.contract import WEIGHTS_FILE
from abair.data.degrade import Degrader, Recipe, Sample, SampleKind
from abair.data.photos import CleanPhotos
from abair.discovery import Problem, discover
from abair.errors import AdapterError, DeploymentError, PluginError, TrainingError
from abair.model.backbone import SIZES, Backbone, fingerprint, load_backbone
from abair.model.blend_cost import BlendCosts
from abair.model.estimator import Estimator, feature_count, load_estimator, save_estimator
from abair.model.lora import read_adapter
from abair.model.safetensors_io import read_header
from abair.training import estimator
from abair.training.adapter import AdaptTask
from abair.training.run import SampleCounts, train_adapter, train_backbone, train_estimator
from abair.training.settings import Settings

DEGRADATIONS = ("blur", "haze", "low-light", "noise", "rain")
QUICK = {"batch": 2, "crop": 32, "workers": 0, "warmup": 1, "validate_every": 100}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for index in range(4):
        coarse = generator.integers(0, 256, (12, 16, 3)).astype(np.uint8)
        Image.fromarray(coarse).resize((256, 224), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def backbone(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_backbone(
        data=photos, size="tiny", out=tmp_path_factory.mktemp("one"), steps=4, labels=DEGRADATIONS, **QUICK
    )


@pytest.fixture(scope="module")
def adapters(photos: Path, backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("two")
    for name in DEGRADATIONS:
        train_adapter(
            name=name, data=photos, backbone=backbone, out=root / name, run=root / f"run-{name}", steps=2, rank=3,
            **QUICK,
        )  # fmt: skip
    return root


def test_phase_one_writes_a_backbone_and_its_settings(backbone: Path) -> None:
    record = tomllib.loads((backbone.parent / "training.toml").read_text())
    assert record["settings"]["steps"] == 4
    assert record["run"]["labels"] == [*DEGRADATIONS, "clean"]
    assert record["run"]["fingerprint"] == fingerprint(load_backbone(backbone))


def test_phase_one_goes_on_from_a_finished_backbone(photos: Path, backbone: Path, tmp_path: Path) -> None:
    settings = {"steps": 1, "labels": DEGRADATIONS, "learning_rate": 1e-12} | QUICK
    more = train_backbone(data=photos, size="tiny", out=tmp_path / "more", start=backbone, **settings)
    assert fingerprint(load_backbone(more)) == fingerprint(load_backbone(backbone))
    with pytest.raises(TrainingError, match=r"cannot be started from .*; expected .* or a backbone of the"):
        train_backbone(data=photos, size="nano", out=tmp_path / "other", start=backbone, **settings)


def test_phase_two_trains_the_adapter_and_touches_nothing_of_the_backbone(
    photos: Path, backbone: Path, adapters: Path
) -> None:
    network = load_backbone(backbone)
    mark = fingerprint(network)
    for name in DEGRADATIONS:
        adapter = read_adapter(adapters / name / "tiny", network, mark, name)
        assert adapter.rank == 3
        assert set(read_header(adapters / name / "tiny" / WEIGHTS_FILE).dtypes.values()) == {"F16"}
        # B starts at zero: what is not zero was trained
        assert any(bool(up.any()) for _, up in adapter.layers.values())
    assert sorted(path.name for path in (adapters / "noise" / "tiny").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "training.toml",
    ]


def test_phase_two_goes_on_from_an_adapter(photos: Path, backbone: Path, adapters: Path, tmp_path: Path) -> None:
    start = adapters / "noise" / "tiny"
    given = {"name": "noise", "data": photos, "backbone": backbone, "start": start, "run": tmp_path / "run"} | QUICK
    more = train_adapter(out=tmp_path / "out", steps=1, rank=3, learning_rate=1e-12, **given)
    before, after = (load_file(folder / WEIGHTS_FILE) for folder in (start, more))
    assert all(torch.equal(before[name], after[name]) for name in before)
    network = load_backbone(backbone)
    digest = read_adapter(start, network, fingerprint(network), "noise").digest
    assert tomllib.loads((more / "training.toml").read_text())["run"]["start"] == digest
    for change, told in (
        ({"rank": 4}, r"noise/tiny, to start from: found rank 3, expected 4; give --rank 3"),
        ({"rank": 3, "start": None}, "found a checkpoint of another run"),
        ({"rank": 3, "start": start.parent}, r"noise: found no adapter_config.json, expected an adapter's folder"),
    ):
        with pytest.raises(TrainingError, match=told):
            train_adapter(out=tmp_path / "other", steps=1, learning_rate=1e-12, **given | change)
    assert not (tmp_path / "other").exists()


def test_what_is_written_can_be_a_mean_with_another_adapter(
    photos: Path, backbone: Path, adapters: Path, tmp_path: Path
) -> None:
    other = adapters / "noise" / "tiny"
    file = tmp_path / "settings.toml"
    file.write_text("[settings]\ntrained_part = 0.25\n")
    given = {"name": "noise", "data": photos, "backbone": backbone, "run": tmp_path / "run", "rank": 3} | QUICK
    trained = train_adapter(out=tmp_path / "trained", steps=2, start=adapters / "rain" / "tiny", **given)
    # the run is over, its checkpoint the same: nothing is trained again, whatever part is taken
    mean = train_adapter(
        out=tmp_path / "mean", steps=2, start=adapters / "rain" / "tiny", mean_with=other, settings_file=file, **given
    )
    one, two, both = (load_file(folder / WEIGHTS_FILE) for folder in (trained, other, mean))
    for name in both:
        torch.testing.assert_close(
            both[name].float(), 0.25 * one[name] + 0.75 * two[name].float(), atol=1e-4, rtol=1e-3
        )
    assert any(not torch.equal(both[name], one[name]) for name in both)
    record = tomllib.loads((mean / "training.toml").read_text())
    network = load_backbone(backbone)
    assert record["run"]["mean_with"] == read_adapter(other, network, fingerprint(network), "noise").digest
    assert record["settings"]["trained_part"] == 0.25
    figures = tomllib.loads((trained / "training.toml").read_text())["run"]
    assert figures["psnr"] != record["run"]["psnr"]  # those of what was written
    for change, told in (
        ({"rank": 4}, r"noise/tiny, for the mean: found rank 3, expected 4; give --rank 3"),
        ({"mean_with": other.parent}, r"noise: found no adapter_config.json, expected an adapter's folder"),
        ({"out": other.parent}, r"--mean-with .*: found what this command writes to, expected another"),
    ):
        with pytest.raises(TrainingError, match=told):  # before the training, not after it
            train_adapter(
                **given | {"out": tmp_path / "not", "steps": 1, "mean_with": other, "run": tmp_path / "new"} | change
            )
    assert not (tmp_path / "new").exists()


def test_a_degradation_beside_must_be_installed(photos: Path, backbone: Path, tmp_path: Path) -> None:
    given = {"name": "noise", "data": photos, "backbone": backbone, "run": tmp_path / "run", "steps": 1} | QUICK
    with pytest.raises(PluginError, match="frost"):
        train_adapter(out=tmp_path / "out", beside=("frost",), **given)
    for wrong in (("noise",), ("rain", "rain")):
        with pytest.raises(TrainingError, match=r"beside: found .*, expected other degradations than noise, each once"):
            train_adapter(out=tmp_path / "out", beside=wrong, **given)
    with pytest.raises(TrainingError, match=r"scene: .*expected 0, or at least twice the crop, found 63"):
        train_adapter(out=tmp_path / "out", scene=63, **given)


def test_a_degradation_beside_without_an_adapter_is_done_without_and_told(
    photos: Path, backbone: Path, tmp_path: Path
) -> None:
    told: list[str] = []
    given = {"name": "noise", "data": photos, "backbone": backbone, "run": tmp_path / "run", "steps": 1} | QUICK
    folder = train_adapter(out=tmp_path / "out", beside=("rain",), rank=2, say=told.append, **given)
    record = tomllib.loads((folder / "training.toml").read_text())
    assert record["settings"]["beside"] == ["rain"]
    assert record["run"]["mixed_input"] < record["run"]["input"]
    assert "blended_with" not in record["run"]
    assert len(told) == 1
    assert told[0].startswith("rain has no adapter for this backbone: what carries it, too, is restored without (")


def test_an_adapter_is_blended_with_those_that_are_named(
    photos: Path, backbone: Path, adapters: Path, tmp_path: Path
) -> None:
    given = {"name": "noise", "data": photos, "backbone": backbone, "run": tmp_path / "run", "steps": 1} | QUICK
    given |= {"out": tmp_path / "out", "rank": 2}
    for wrong, error, told in (
        ({"adapters": adapters}, TrainingError, "found nothing to blend with; expected --beside"),
        ({"adapters": adapters, "beside": ("rain",), "blended": False}, TrainingError, "no `blended = false`"),
        ({"adapters": adapters / "rain", "beside": ("rain",)}, AdapterError, "rain/rain/tiny"),
        ({"adapters": tmp_path / "none", "beside": ("rain",)}, AdapterError, "none/rain/tiny"),
    ):
        with pytest.raises(error, match=told):
            train_adapter(**given, **wrong)
        assert not (tmp_path / "out").exists()
    folder = train_adapter(**given, adapters=adapters, beside=("rain",))
    record = tomllib.loads((folder / "training.toml").read_text())
    network = load_backbone(backbone)
    partner = read_adapter(adapters / "rain" / "tiny", network, fingerprint(network), "whatever it is called")
    assert record["run"]["blended_with"] == {"rain": partner.digest}
    # with other partners it is another run; so it is without
    for other in ({"beside": ("haze",), "adapters": adapters}, {"beside": ("rain",), "blended": False}):
        with pytest.raises(TrainingError, match="found a checkpoint of another run"):
            train_adapter(**given, **other)


def test_a_checkpoint_of_mixed_samples_from_before_they_were_blended_is_another_run(
    photos: Path, backbone: Path, tmp_path: Path
) -> None:
    given = {"name": "noise", "data": photos, "backbone": backbone, "run": tmp_path / "run", "steps": 1, "rank": 2}
    given |= {"out": tmp_path / "out", "beside": ("rain",), "blended": False} | QUICK
    train_adapter(**given)
    checkpoint = tmp_path / "run" / "checkpoint.safetensors"
    facts = json.loads(read_header(checkpoint).metadata["abair.checkpoint"])
    for name in ("mixed", "blended", "blended_with"):
        del facts["of"][name]
    save_file(load_file(checkpoint), checkpoint, {"abair.checkpoint": json.dumps(facts)})
    with pytest.raises(TrainingError, match=r"mixed: found 0.3 by chance, expected 0.25"):
        train_adapter(**given | {"steps": 2})


def test_a_backbone_that_changed_in_phase_two_is_noticed(
    photos: Path, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = AdaptTask.loss

    def meddling(self: AdaptTask, batch: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, dict[str, float]]:
        with torch.no_grad():
            self.module.get_base_model().stem.base_layer.weight[0, 0, 0, 0] += 0.01
        return original(self, batch)

    monkeypatch.setattr(AdaptTask, "loss", meddling)
    with pytest.raises(TrainingError, match="the frozen backbone changed"):
        train_adapter(
            name="noise", data=photos, backbone=backbone, out=tmp_path / "out", run=tmp_path / "run", steps=1, **QUICK
        )
    assert not (tmp_path / "out").exists()


FEW = SampleCounts(
    validation=6,
    temperature=12,
    replay=ReplayCounts(features=3, held_out=1, held_out_mixtures=1),
    gamma=1,
    artifacts=2,
)
"""As little as has all kinds of samples."""


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
        steps=2,
        counts=FEW,
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
    given |= {"labels": DEGRADATIONS, "steps": 1, "crop": 64, "counts": FEW}
    other, labels = tmp_path / "other.safetensors", (*DEGRADATIONS, "clean")
    torch.manual_seed(3)
    save_estimator(Estimator(labels, feature_count(SIZES["tiny"])), other)
    train_estimator(out=tmp_path / "trained", start=other, **given)
    train_estimator(out=tmp_path / "mean", start=other, mean_with=other, **given)  # from the finished run
    trained, mean = (load_file(tmp_path / name / "estimator.safetensors") for name in ("trained", "mean"))
    begun = load_file(other)
    learnt = mean.keys() - {"temperature"}
    for name in learnt:
        torch.testing.assert_close(mean[name], (trained[name] + begun[name]) / 2)
    assert any(not torch.equal(mean[name], trained[name]) for name in learnt)
    record = tomllib.loads((tmp_path / "mean" / "training.toml").read_text())["run"]
    assert record["start"] == record["mean_with"] == fingerprint(load_estimator(other, labels))
    # a run belongs to what it began from, and what it writes is not averaged with itself
    with pytest.raises(TrainingError, match=r"another run .*start: found [0-9a-f]{64}, expected "):
        train_estimator(out=tmp_path / "not", **given)
    for written in (tmp_path / "run", tmp_path / "mean"):
        with pytest.raises(TrainingError, match=r"--mean-with .*: found what this command writes to, expected another"):
            train_estimator(out=tmp_path / "mean", start=other, mean_with=written / "estimator.safetensors", **given)
    assert not (tmp_path / "not").exists()


def test_phase_three_makes_each_sample_once_and_learns_from_it_anew(
    tmp_path: Path,
) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    made = []

    def darker(clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        made.append(generator.initial_seed())
        return clean * 0.5

    photos, degrader = CleanPhotos([photo], "one"), Degrader({"darker": darker}, Recipe(cutmix=0, mixture=0, clean=0))
    settings = Settings(steps=9, batch=2, crop=128, learning_rate=1e-3)
    torch.manual_seed(0)
    network = Backbone(SIZES["tiny"])

    def task(folder: str) -> estimator.EstimateTask:
        return estimator.EstimateTask(network, degrader, photos, photos, settings, tmp_path / folder, samples=6)

    first = task("a")
    made.clear()  # what says which damage it is
    batches = [first.batch(index) for index in range(9)]  # three epochs
    assert len(made) == len(set(made)) == 6
    features, target, costs, chains = batches[0]
    assert (features.shape, target.tolist()) == ((2, feature_count(network.size)), [[1, 0], [1, 0]])
    assert costs.shape == (2, 2, 2)
    assert chains.tolist() == [False, False]
    # any of them can be had again, from the same file and from an empty one, whatever was asked for before
    for folder, count in (("a", 0), ("b", 6)):
        again = task(folder)
        made.clear()
        for index in (7, 0, 4, 1, 2):
            assert all(torch.equal(one, other) for one, other in zip(again.batch(index), batches[index], strict=True))
        assert len(made) == count
    assert len({float(row.sum()) for batch in batches for row in batch[0]}) > 6
    # another network, photo or seed has a file of its own
    torch.manual_seed(1)
    network = Backbone(SIZES["tiny"])
    task("a")
    assert len(list((tmp_path / "a").glob("pool-*.dat"))) == 2


def test_what_a_chain_is_called_is_learnt_as_blends_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = CleanPhotos([np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)], "one")
    degrader = Degrader({"darker": lambda clean, _: clean * 0.5, "paler": lambda clean, _: clean * 0.5 + 0.5})
    settings = Settings(steps=1, batch=2, crop=64, learning_rate=1e-3)
    task = estimator.EstimateTask(Backbone(SIZES["tiny"]), degrader, photos, photos, settings, tmp_path, samples=2)
    called = torch.tensor([[0.7, 0.3 - 1e-6, 1e-6]])
    entropy = float(-(called * called.log()).sum())
    for chain, best in ((True, estimator.SHARP), (False, 1.0)):
        losses = {}
        for scale in (estimator.SHARP, 0.6, 1.0):
            monkeypatch.setattr(task, "module", lambda _, scale=scale: scale * called.log())
            losses[scale] = float(
                task.loss((torch.zeros(1, 1), called, torch.zeros(1, 3, 3), torch.tensor([chain])))[0]
            )
        assert min(losses, key=losses.__getitem__) == best
        assert losses[best] == pytest.approx(entropy, abs=1e-4)


def test_a_region_of_exactly_half_the_area_is_not_learnt_as_a_mixture(tmp_path: Path) -> None:
    class Halves(Degrader):
        def sample(self, clean: torch.Tensor, generator: torch.Generator) -> Sample:
            sample = self.mixture(clean, ("darker", "paler"), generator)
            return replace(sample, kind=kind)

    photos = CleanPhotos([np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)], "one")
    degrader = Halves({"darker": lambda clean, _: clean * 0.5, "paler": lambda clean, _: clean * 0.5 + 0.5})
    settings = Settings(steps=1, batch=2, crop=64, learning_rate=1e-3)
    network = Backbone(SIZES["tiny"])
    for kind in (SampleKind.MIXTURE, SampleKind.REGIONS):
        task = estimator.EstimateTask(network, degrader, photos, photos, settings, tmp_path / kind, samples=2)
        _, target, _, mixtures = task.batch(0)
        assert target.tolist() == [[0.5, 0.5, 0.0]] * 2
        assert mixtures.tolist() == [kind is SampleKind.MIXTURE] * 2


def test_what_costs_call_a_chain_is_kept_with_the_sample(tmp_path: Path) -> None:
    class Telling:
        mark = "what it says"

        def __call__(self, sample: Sample) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.tensor([0.25, 0.75, 0.0]), torch.eye(3)

    photos = CleanPhotos([np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)], "one")
    damage = {"darker": lambda clean, _: clean * 0.5, "paler": lambda clean, _: clean * 0.5 + 0.5}
    degrader = Degrader(damage, Recipe(cutmix=0, mixture=1, clean=0))
    settings, costs = Settings(steps=1, batch=2, crop=64, learning_rate=1e-3), cast("BlendCosts", Telling())
    task = estimator.EstimateTask(
        Backbone(SIZES["tiny"]), degrader, photos, photos, settings, tmp_path, samples=2, costs=costs
    )
    made = task.batch(0)
    task.degrader = cast("Degrader", None)  # whoever makes a sample once more fails
    for batch in (made, task.batch(0)):
        assert batch[1].tolist() == [[0.25, 0.75, 0.0]] * 2
        assert batch[2].tolist() == [torch.eye(3).tolist()] * 2
        assert batch[3].tolist() == [True, True]


def test_a_trained_estimator_can_be_averaged_with_another(tmp_path: Path) -> None:
    photos = CleanPhotos([np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)], "one")
    settings = Settings(steps=1, batch=2, crop=64, learning_rate=1e-3, trained_part=0.25)
    degrader = Degrader({"darker": lambda clean, _: clean * 0.5})
    task = estimator.EstimateTask(Backbone(SIZES["tiny"]), degrader, photos, photos, settings, tmp_path, samples=2)
    torch.manual_seed(1)
    other = Estimator(task.module.labels, task.module.features)
    features = torch.randn(3, task.module.features)
    before = {name: p.detach().clone() for name, p in task.module.named_parameters()}
    task.take_mean(other)
    for name, parameter in task.module.named_parameters():
        torch.testing.assert_close(parameter, 0.25 * before[name] + 0.75 * other.get_parameter(name))
    assert not torch.allclose(task.module(features), other(features))


def test_an_estimator_that_grew_is_none_to_begin_from(
    photos: Path, backbone: Path, adapters: Path, tmp_path: Path
) -> None:
    grown, features = tmp_path / "grown.safetensors", feature_count(SIZES["tiny"])
    whole = Estimator((*DEGRADATIONS, "clean"), features)
    save_estimator(whole.with_hidden_units(torch.zeros(16, features), torch.zeros(16)), grown)
    for option in ("start", "mean_with"):
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


def test_a_killed_phase_two_resumes_to_the_same_adapter(photos: Path, backbone: Path, tmp_path: Path) -> None:
    def run(folder: str, steps: int) -> dict[str, torch.Tensor]:
        out = train_adapter(
            name="noise",
            data=photos,
            backbone=backbone,
            out=tmp_path / folder,
            run=tmp_path / f"{folder}-run",
            steps=steps,
            **QUICK | {"decay": 0.0},
        )
        return load_file(out / "adapter_model.safetensors")

    run("cut", 2)
    resumed, whole = run("cut", 4), run("whole", 4)
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_real_pairs_are_used_and_checked(photos: Path, backbone: Path, tmp_path: Path) -> None:
    for part in ("clean", "degraded"):
        (tmp_path / "pairs" / part).mkdir(parents=True)
        for path in photos.iterdir():
            Image.open(path).save(tmp_path / "pairs" / part / path.name)
    arguments = {"name": "low-light", "data": photos, "backbone": backbone, "pairs": tmp_path / "pairs", "steps": 1}
    folder = train_adapter(**arguments, out=tmp_path / "out", run=tmp_path / "run", **QUICK)
    record = tomllib.loads((folder / "training.toml").read_text())
    # these pairs are equal, so their input has no error at all
    assert record["run"]["real_input"] == 100
    (tmp_path / "pairs" / "clean" / "0.png").unlink()
    with pytest.raises(TrainingError, match="found 0 without a partner"):
        train_adapter(**arguments, out=tmp_path / "out2", run=tmp_path / "run2", **QUICK)


def test_pairs_smaller_than_the_crop_are_refused(photos: Path, backbone: Path, tmp_path: Path) -> None:
    for part in ("clean", "degraded"):
        (tmp_path / part).mkdir()
        for path in photos.iterdir():
            Image.open(path).resize((40, 30)).save(tmp_path / part / path.name)
    with pytest.raises(TrainingError, match="found 40x30 pixels, expected at least 32 a side"):
        train_adapter(
            name="low-light", data=photos, backbone=backbone, pairs=tmp_path, out=tmp_path / "out",
            run=tmp_path / "run", steps=1, **QUICK,
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_a_run_folder_of_another_backbone_is_refused(photos: Path, backbone: Path, tmp_path: Path) -> None:
    other = train_backbone(data=photos, size="tiny", out=tmp_path / "one", steps=2, seed=9, **QUICK)
    arguments = {"name": "noise", "data": photos, "run": tmp_path / "run", "steps": 2, **QUICK}
    train_adapter(backbone=backbone, out=tmp_path / "a", **arguments)
    with pytest.raises(TrainingError, match="found a checkpoint of another run"):
        train_adapter(backbone=other, out=tmp_path / "b", **arguments)
    assert not (tmp_path / "b").exists()


def test_equal_runs_write_equal_files(photos: Path, backbone: Path, tmp_path: Path) -> None:
    one, two = (
        train_adapter(
            name="noise", data=photos, backbone=backbone, out=tmp_path / x, run=tmp_path / f"run-{x}", steps=2, **QUICK
        )
        for x in "ab"
    )
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_a_plugin_that_cannot_be_used_stops_the_training(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugins = discover()
    plugins.problems.append(Problem("snow", "abair-snow", "cannot be imported"))
    monkeypatch.setattr("abair.training.run.discover", lambda: plugins)
    with pytest.raises(
        PluginError, match=r"plugin snow \(distribution abair-snow\): cannot be imported; training needs"
    ):
        train_backbone(data=photos, size="tiny", out=tmp_path / "out", steps=1, **QUICK)
    assert not (tmp_path / "out").exists()


def test_two_processes_train_an_adapter_through_the_command(photos: Path, backbone: Path, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port),
        "-m", "abair", "train", "adapter", "noise", "--data", str(photos), "--backbone", str(backbone),
        "--out", str(tmp_path / "out"), "--checkpoints", str(tmp_path / "run"), "--steps", "2", "--batch", "1",
        "--crop", "32", "--workers", "0", "--rank", "2",
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    network = load_backbone(backbone)
    assert read_adapter(tmp_path / "out" / "tiny", network, fingerprint(network), "noise").rank == 2
    assert sorted(path.name for path in (tmp_path / "out").rglob("*") if path.is_file()) == [
        "adapter_config.json", "adapter_model.safetensors", "training.toml",
    ]  # fmt: skip


def test_a_label_that_is_not_installed_stops_the_training(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="degradation sleet: no usable plugin declares it"):
        train_backbone(data=photos, size="tiny", out=tmp_path / "out", labels=("noise", "sleet"), steps=1, **QUICK)
    assert not (tmp_path / "out").exists()


def test_an_unknown_degradation_names_what_there_is(photos: Path, backbone: Path, tmp_path: Path) -> None:
    there = ", ".join(sorted(discover().found))
    assert set(DEGRADATIONS) <= set(discover().found)
    with pytest.raises(PluginError, match=f"found {there}"):
        train_adapter(name="sleet", data=photos, backbone=backbone, out=tmp_path, run=tmp_path / "run", steps=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"size": "huge"}, "expected one of tiny"), ({"steps": 0}, "steps"), ({"crop": 33}, "crop")],
)
def test_wrong_settings_are_one_clear_line(
    photos: Path, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        train_backbone(**{"data": photos, "size": "tiny", "out": tmp_path, "steps": 1} | change)
