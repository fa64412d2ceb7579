"""Phase III's task: its samples, its loss, its average with another estimator."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch

from abair.data.degrade import Degrader, Recipe, Sample, SampleKind
from abair.data.labelled_photos import LabelledPhotos
from abair.data.photos import CleanPhotos
from abair.model.backbone import SIZES, Backbone
from abair.model.blend_cost import BlendCosts
from abair.model.estimator import Estimator, feature_count
from abair.training import estimator
from abair.training.settings import EstimatorSettings


def test_phase_three_makes_each_sample_once_and_learns_from_it_anew(
    tmp_path: Path,
) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    made = []

    def darker(clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        made.append(generator.initial_seed())
        return clean * 0.5

    photos, degrader = CleanPhotos([photo], "one"), Degrader({"darker": darker}, Recipe(cutmix=0, mixture=0, clean=0))
    settings = EstimatorSettings(steps=9, batch=2, crop=128, learning_rate=1e-3)
    torch.manual_seed(0)
    network = Backbone(SIZES["tiny"])

    def task(folder: str) -> estimator.EstimatorTask:
        return estimator.EstimatorTask(network, degrader, photos, photos, settings, tmp_path / folder, samples=6)

    first = task("a")
    made.clear()  # what says which damage it is
    batches = [first.batch(index) for index in range(9)]  # three epochs
    assert len(made) == len(set(made)) == 6
    features, masks, target, costs, chains = batches[0]
    assert masks.shape == (2, first.module.hidden)
    assert set(masks.unique().tolist()) == {0.0, 2.0}  # half are left out, and the others count twice
    assert (features.shape, target.tolist()) == ((2, feature_count(network.size)), [[1, 0], [1, 0]])
    assert costs.shape == (2, 2, 2)
    assert chains.tolist() == [False, False]
    # any of them can be had again, from the same file and from an empty one, whatever was asked for
    # before
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
    settings = EstimatorSettings(steps=1, batch=2, crop=64, learning_rate=1e-3, label_smoothing=0)
    task = estimator.EstimatorTask(Backbone(SIZES["tiny"]), degrader, photos, photos, settings, tmp_path, samples=2)
    called = torch.tensor([[0.7, 0.3 - 1e-6, 1e-6]])
    entropy = float(-(called * called.log()).sum())
    for chain, best in ((True, estimator.BLEND_TEMPERATURE), (False, 1.0)):
        losses = {}
        for scale in (estimator.BLEND_TEMPERATURE, 0.6, 1.0):
            monkeypatch.setattr(task, "module", lambda *_, scale=scale: scale * called.log())
            losses[scale] = float(
                task.loss((torch.zeros(1, 1), torch.ones(1, 1), called, torch.zeros(1, 3, 3), torch.tensor([chain])))[0]
            )
        assert min(losses, key=losses.__getitem__) == best
        assert losses[best] == pytest.approx(entropy, abs=1e-4)


def test_what_costs_call_a_chain_is_kept_with_the_sample(tmp_path: Path) -> None:
    class Telling:
        digest = "what it says"

        def __call__(self, sample: Sample) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.tensor([0.25, 0.75, 0.0]), torch.eye(3)

    photos = CleanPhotos([np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)], "one")
    damage = {"darker": lambda clean, _: clean * 0.5, "paler": lambda clean, _: clean * 0.5 + 0.5}
    degrader = Degrader(damage, Recipe(cutmix=0, mixture=1, clean=0))
    settings, costs = EstimatorSettings(steps=1, batch=2, crop=64, learning_rate=1e-3), cast("BlendCosts", Telling())
    task = estimator.EstimatorTask(
        Backbone(SIZES["tiny"]), degrader, photos, photos, settings, tmp_path, samples=2, costs=costs
    )
    made = task.batch(0)
    task.degrader = cast("Degrader", None)  # whoever makes a sample once more fails
    for batch in (made, task.batch(0)):
        assert batch[2].tolist() == [[0.25, 0.75, 0.0]] * 2
        assert batch[3].tolist() == [torch.eye(3).tolist()] * 2
        assert batch[4].tolist() == [True, True]


def test_a_trained_estimator_can_be_averaged_with_another(tmp_path: Path) -> None:
    photos = CleanPhotos([np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)], "one")
    settings = EstimatorSettings(steps=1, batch=2, crop=64, learning_rate=1e-3, average_weight=0.25)
    degrader = Degrader({"darker": lambda clean, _: clean * 0.5})
    task = estimator.EstimatorTask(Backbone(SIZES["tiny"]), degrader, photos, photos, settings, tmp_path, samples=2)
    torch.manual_seed(1)
    other = Estimator(task.module.labels, task.module.features)
    features = torch.randn(3, task.module.features)
    before = {name: p.detach().clone() for name, p in task.module.named_parameters()}
    task.average_weights(other)
    for name, parameter in task.module.named_parameters():
        torch.testing.assert_close(parameter, 0.25 * before[name] + 0.75 * other.get_parameter(name))
    assert not torch.allclose(task.module(features), other(features))


def test_a_region_of_exactly_half_the_area_is_not_learnt_as_a_mixture(tmp_path: Path) -> None:
    class Halves(Degrader):
        def sample(self, clean: torch.Tensor, generator: torch.Generator) -> Sample:
            sample = self.mixture(clean, ("darker", "paler"), generator)
            return replace(sample, kind=kind)

    photos = CleanPhotos([np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)], "one")
    degrader = Halves({"darker": lambda clean, _: clean * 0.5, "paler": lambda clean, _: clean * 0.5 + 0.5})
    settings = EstimatorSettings(steps=1, batch=2, crop=64, learning_rate=1e-3)
    network = Backbone(SIZES["tiny"])
    for kind in (SampleKind.MIXTURE, SampleKind.REGIONS):
        task = estimator.EstimatorTask(network, degrader, photos, photos, settings, tmp_path / kind, samples=2)
        _, _, target, _, mixtures = task.batch(0)
        assert target.tolist() == [[0.5, 0.5, 0.0]] * 2
        assert mixtures.tolist() == [kind is SampleKind.MIXTURE] * 2


def test_inputs_are_brought_to_one_scale_by_the_pool(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    photos = CleanPhotos([random.integers(0, 256, (90, 120, 3), dtype=np.uint8) for _ in range(8)], "some")
    settings = EstimatorSettings(steps=1, batch=2, crop=64, learning_rate=1e-3, workers=0)
    degrader = Degrader({"darker": lambda clean, _: clean * 0.5}, Recipe(clean=0.5))
    task = estimator.EstimatorTask(Backbone(SIZES["tiny"]), degrader, photos, photos, settings, tmp_path, samples=30)
    task.standardize_inputs()
    features = torch.stack([task._pool.get(place).features.mean(0) for place in range(30)])  # type: ignore[union-attr]
    given = task.module.head[0](features)
    varying = given.std(0) > 0.5
    assert float(varying.float().mean()) > 0.7
    torch.testing.assert_close(given.mean(0), torch.zeros(len(varying)), atol=0.02, rtol=0)
    torch.testing.assert_close(given.std(0)[varying], torch.ones(int(varying.sum())), atol=0.01, rtol=0)


def test_labelled_photos_teach_their_label_and_cost_nothing(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    photos = CleanPhotos([random.integers(0, 256, (90, 120, 3), dtype=np.uint8)], "one")
    real = LabelledPhotos({"paler": [[random.integers(0, 256, (70, 90, 3), dtype=np.uint8)]]})
    degrader = Degrader({"darker": lambda clean, _: clean * 0.5, "paler": lambda clean, _: clean}, Recipe(clean=1))
    network = Backbone(SIZES["tiny"])

    def task(share: float, labelled: LabelledPhotos | None) -> estimator.EstimatorTask:
        settings = EstimatorSettings(steps=1, batch=40, crop=64, learning_rate=1e-3, labelled_probability=share)
        both = None if labelled is None else (labelled, labelled)
        return estimator.EstimatorTask(
            network, degrader, photos, photos, settings, tmp_path, samples=40, labelled=both, validation_samples=2
        )

    without, some = task(0.5, None), task(0.5, real)
    _, _, plain, _, _ = without.batch(0)
    _, _, targets, costs, mixtures = some.batch(0)
    assert plain.tolist() == [[0, 0, 1]] * 40
    of_photos = targets[:, 1] == 1
    assert int(of_photos.sum()) == pytest.approx(20, abs=9)
    assert float(costs[of_photos].abs().sum()) == 0
    assert not mixtures.any()
    assert "labelled" not in without.depends
    assert some.depends["labelled"] != task(0.25, real).depends["labelled"]
    assert "labelled" in some.validate()
    assert "labelled" not in without.validate()
    assert len(list(tmp_path.glob("pool-*.dat"))) == 3


def test_some_samples_are_small_parts_of_their_scenes(tmp_path: Path) -> None:
    photos = CleanPhotos([np.random.default_rng(0).integers(0, 256, (900, 900, 3), dtype=np.uint8)], "one")
    degrader = Degrader({"darker": lambda clean, _: clean * 0.5, "paler": lambda clean, _: clean * 0.5 + 0.5})
    seen: list[Sample] = []

    class Looking:
        digest = "it looks"

        def __call__(self, sample: Sample) -> tuple[torch.Tensor, torch.Tensor]:
            seen.append(sample)
            return torch.tensor([0.5, 0.5, 0.0]), torch.eye(3)

    settings = EstimatorSettings(steps=1, batch=40, crop=800, learning_rate=1e-3)
    costs = cast("BlendCosts", Looking())
    task = estimator.EstimatorTask(
        Backbone(SIZES["tiny"]), degrader, photos, photos, settings, tmp_path, samples=40, costs=costs
    )
    task.batch(0)
    assert all(one.degraded.shape == one.clean.shape and one.types.shape[1:] == one.clean.shape[1:] for one in seen)
    small = sum(max(one.clean.shape[1:]) <= estimator.SMALL_SIDES[1] for one in seen)
    assert small == pytest.approx(estimator.SMALL_PARTS * 40, abs=5)
    assert small > 0
