"""What replays are made of: the same scenes for each label, in mixtures, and undamaged."""

from __future__ import annotations

import pytest
import torch
from tests.core.continual.conftest import darker, red

from abair.continual.collect import add_damage, compute_features, cut_parts
from abair.continual.replay import Replay
from abair.data.degrade import Degrader, Recipe
from abair.data.photos import CleanPhotos
from abair.model.backbone import Backbone

pytestmark = pytest.mark.slow


def test_a_replay_holds_each_label_and_a_mixture_on_the_same_scenes(replay: Replay) -> None:
    kinds = [sample.labels for sample in replay.held_out]
    assert kinds == [("dark",), ("red",)] * 2 + [("clean",)] * 2 + [("dark", "red")] * 2
    first, second = ([replay.held_out[place] for place in places] for places in ((0, 1, 4, 6), (2, 3, 5, 7)))
    assert all(torch.equal(sample.clean, first[0].clean) for sample in first)
    assert not torch.equal(first[0].clean, second[0].clean)
    assert torch.equal(first[2].degraded, first[2].clean)
    assert first[0].degraded.shape == (3, 96, 96)  # the scenes are 70 pixels high: mirrored outwards
    assert float(first[0].degraded.mean()) < 0.5 * float(first[0].clean.mean())
    assert len({sample.digest for sample in replay.held_out}) == 8


def test_undamaged_scenes_follow_those_that_are_damaged(backbone: Backbone, three_photos: CleanPhotos) -> None:
    recipe = Recipe(cutmix=0, mixture=0, clean=0)
    made = compute_features(backbone, Degrader({"dark": darker}, recipe), three_photos, 4, 0, undamaged=2)
    other = compute_features(backbone, Degrader({"red": red}, recipe), three_photos, 4, 0, undamaged=2)
    assert made.targets.tolist() == [[1, 0]] * 4 + [[0, 1]] * 2
    assert torch.equal(made.values[4:], other.values[4:])  # one seed, the same scenes for any label
    assert not torch.equal(made.values[:4], other.values[:4])
    assert made.pairs.tolist() == [[0, 4], [1, 5]]


def test_only_scenes_that_are_damaged_as_a_whole_are_kept_undamaged(
    backbone: Backbone, three_photos: CleanPhotos
) -> None:
    recipe = Recipe(cutmix=0.5, mixture=0, clean=0)
    made = compute_features(backbone, Degrader({"dark": darker}, recipe), three_photos, 12, 0, undamaged=12)
    assert 0 < len(made.pairs) < 12
    assert len(made.values) == 12 + len(made.pairs)
    assert bool((made.targets[made.pairs[:, 0], 0] == 1).all())
    assert bool((made.targets[made.pairs[:, 1], 1] == 1).all())


def test_samples_of_one_label_are_damaged_by_another(backbone: Backbone, replay: Replay) -> None:
    dark = [sample for sample in replay.held_out if sample.labels == ("dark",)]
    both = add_damage(backbone, Degrader({"red": red}), "red", dark, 0)
    assert [sample.labels for sample in both] == [("dark", "red")] * 2
    assert torch.equal(both[0].clean, dark[0].clean)
    assert not torch.equal(both[0].degraded, dark[0].degraded)


@pytest.mark.parametrize(("top", "left"), [(0, 0), (0, 160), (96, 64), (160, 160)])
def test_the_part_that_is_kept_is_where_the_damage_shows_most(top: int, left: int) -> None:
    clean = torch.rand(3, 256, 256, generator=torch.Generator().manual_seed(0))
    degraded = clean.clone()
    degraded[:, top : top + 96, left : left + 96] *= 0.5
    degraded[:, 120:130, 120:130] *= 0.9  # fainter damage elsewhere
    parts = cut_parts(degraded, clean)
    assert torch.equal(parts[0], degraded[:, top : top + 96, left : left + 96])
    assert torch.equal(parts[1], clean[:, top : top + 96, left : left + 96])


def test_the_part_of_an_undamaged_image_is_its_middle() -> None:
    clean = torch.rand(3, 200, 300, generator=torch.Generator().manual_seed(0))
    for part in cut_parts(clean.clone(), clean):
        assert torch.equal(part, clean[:, 52:148, 102:198])
