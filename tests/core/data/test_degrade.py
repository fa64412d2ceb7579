"""Training samples: seeded, in the shares of the recipe, with the types of what was done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor

from abair.data import degrade
from abair.data.degrade import Degrader, Recipe, SampleKind, to_8_bit
from abair.data.photos import CleanPhotos
from abair.data.seeds import generator_from
from abair.errors import TrainingError
from abair.physics import uniform

if TYPE_CHECKING:
    from abair.data.synthesizers import Synthesizer

CODES = {"a": 0.2, "b": 0.4, "c": 0.6}
"""Each degradation paints the image in its own grey, so a pixel tells what was done to it."""


def _paint(grey: float) -> Synthesizer:
    return lambda clean, _generator: torch.full_like(clean, grey)


def _painter(recipe: Recipe | None = None) -> Degrader:
    return Degrader({name: _paint(grey) for name, grey in CODES.items()}, recipe)


def _halve(clean: Tensor, _generator: torch.Generator) -> Tensor:
    return clean * 0.5


def _invert(clean: Tensor, _generator: torch.Generator) -> Tensor:
    return 1 - clean


def _shift(clean: Tensor, generator: torch.Generator) -> Tensor:
    return (clean + uniform(generator, -0.5, 0.5)).clamp(0, 1)


@pytest.fixture
def photos() -> CleanPhotos:
    random = np.random.default_rng(0)
    return CleanPhotos([random.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((60, 90), (40, 40))], "test")


def test_a_sample_is_a_function_of_its_key_alone(photos: CleanPhotos) -> None:
    degrader = Degrader({"shift": _shift, "halve": _halve})

    def sample(index: int) -> degrade.Sample:
        generator = generator_from(3, index)
        return degrader.sample(photos.crop(generator, 24), generator)

    first = [sample(index) for index in range(12)]
    torch.rand(5)  # the global generator plays no part
    for index in reversed(range(12)):
        again = sample(index)
        assert torch.equal(again.degraded, first[index].degraded)
        assert torch.equal(again.clean, first[index].clean)
        assert torch.equal(again.types, first[index].types)
    assert not torch.equal(first[0].clean, first[1].clean)


def test_without_degradations_there_is_nothing_to_train() -> None:
    with pytest.raises(TrainingError, match="no degradations: found no usable plugin; install one"):
        Degrader({})


def test_labels_are_the_names_in_their_order_and_clean_last() -> None:
    assert Degrader({"rain": _halve, "blur": _halve, "zoom": _halve}).labels == ("rain", "blur", "zoom", "clean")


@pytest.mark.parametrize("side", [1, 2, 9])
def test_types_are_a_distribution_at_every_pixel_and_nothing_changes_the_clean_crop(side: int) -> None:
    degrader = Degrader({"shift": _shift, "halve": _halve, "invert": _invert})
    clean = to_8_bit(torch.rand(3, side, side))
    kept = clean.clone()
    for index in range(60):
        sample = degrader.sample(clean, generator_from(index))
        assert sample.types.shape == (4, side, side)
        assert torch.allclose(sample.types.sum(0), torch.ones(side, side))
        assert sample.types.min() >= 0
        assert sample.degraded.shape == clean.shape
    assert torch.equal(clean, kept)


def test_samples_hold_the_values_of_an_8_bit_file() -> None:
    degrader = Degrader({"shift": _shift})
    degraded = degrader.single(torch.rand(3, 8, 8), "shift", generator_from(1)).degraded * 255
    assert (degraded - degraded.round()).abs().max() < 1e-4
    assert to_8_bit(torch.tensor([-0.5, 0.4999, 1.7])).tolist() == pytest.approx([0, 127 / 255, 1])


def test_the_regions_of_cutmix_have_the_type_of_what_was_done_there() -> None:
    degrader = _painter(Recipe(cutmix=1.0, mixture=0.0, clean=0.0))
    clean = torch.ones(3, 12, 20)
    codes = torch.tensor([*CODES.values(), 1.0])
    mixed, seen = 0, set()
    for index in range(80):
        sample = degrader.sample(clean, generator_from(index))
        kind = sample.types.argmax(0)
        assert torch.equal(sample.types.amax(0), torch.ones(12, 20))
        assert torch.allclose(sample.degraded, codes[kind].expand(3, -1, -1), atol=1e-6)
        present = set(kind.flatten().tolist())
        seen |= {degrader.labels[kind] for kind in present}
        mixed += len(present) == 2
    assert seen == {"a", "b", "c", "clean"}
    assert mixed > 40


def test_a_mixture_applies_one_after_the_other_and_shares_the_types() -> None:
    degrader = Degrader({"halve": _halve, "invert": _invert})
    clean = torch.full((3, 5, 6), 0.4)
    generator = generator_from(0)
    first = degrader.mixture(clean, ("halve", "invert"), generator)
    second = degrader.mixture(clean, ("invert", "halve"), generator)
    assert torch.allclose(first.degraded, torch.tensor(0.8), atol=1e-6)
    assert torch.allclose(second.degraded, to_8_bit(torch.tensor(0.3)), atol=1e-6)
    assert torch.equal(first.types, second.types)
    assert torch.equal(first.types[:, 0, 0], torch.tensor([0.5, 0.5, 0.0]))


def test_mixtures_are_of_two_different_degradations() -> None:
    degrader = Degrader({"halve": _halve, "invert": _invert, "shift": _shift}, Recipe(cutmix=0, mixture=1, clean=0))
    pairs = set()
    for index in range(40):
        types = degrader.sample(torch.rand(3, 4, 4), generator_from(index)).types[:, 0, 0]
        assert sorted(types.tolist()) == [0.0, 0.0, 0.5, 0.5]
        pairs.add(tuple(types.nonzero().flatten().tolist()))
    assert pairs == {(0, 1), (0, 2), (1, 2)}


@pytest.mark.parametrize(
    ("recipe", "kind", "count"),
    [
        (Recipe(cutmix=0, mixture=0, clean=1), SampleKind.CLEAN, 0),
        (Recipe(cutmix=0, mixture=0, clean=0), SampleKind.SINGLE, 1),
        (Recipe(cutmix=0, mixture=1, clean=0), SampleKind.MIXTURE, 2),
        (Recipe(cutmix=1, mixture=0, clean=0), SampleKind.REGIONS, 2),
    ],
)
def test_a_sample_says_how_it_was_made(recipe: Recipe, kind: SampleKind, count: int) -> None:
    degrader = Degrader({"halve": _halve, "invert": _invert, "shift": _shift}, recipe)
    counts = set()
    for index in range(30):
        sample = degrader.sample(to_8_bit(torch.rand(3, 16, 16)), generator_from(index))
        assert sample.kind is kind
        present = {degrader.labels[place] for place in sample.types.amax((1, 2)).nonzero().flatten().tolist()}
        assert present == set(sample.labels)
        assert len(sample.labels) == len(present)
        counts.add(len(present - {"clean"}))
    assert max(counts) == count


def test_half_of_the_mixtures_are_pairs_that_are_called_likely() -> None:
    damage = {"halve": _halve, "invert": _invert, "shift": _shift}
    likely = (("shift", "halve"),)
    degrader = Degrader(damage, Recipe(cutmix=0, mixture=1, clean=0, likely_mixtures=likely))
    pairs = [degrader.sample(torch.ones(3, 4, 4), generator_from(seed)).labels for seed in range(300)]
    assert pairs.count(("shift", "halve")) == pytest.approx(150 + 25, abs=35)
    assert len(set(pairs)) == 6
    for pair in (("halve", "fog"), ("halve", "halve")):
        with pytest.raises(TrainingError, match=f"likely_mixtures: found {' and '.join(pair)}, expected two different"):
            Degrader(damage, Recipe(likely_mixtures=(pair,)))


def test_a_region_of_half_the_area_is_no_mixture() -> None:
    degrader = Degrader({"halve": _halve, "invert": _invert}, Recipe(cutmix=1, mixture=0, clean=0))
    clean, halves = torch.ones(3, 6, 8), 0  # 4 x 6 of them are half
    for index in range(600):
        sample = degrader.sample(clean, generator_from(index))
        halves += sample.types.mean((1, 2)).tolist() == [0.5, 0.5, 0.0]
        assert sample.kind is SampleKind.REGIONS
    assert halves > 0
    assert degrader.mixture(clean, ("invert", "halve"), generator_from(0)).labels == ("invert", "halve")


def test_single_does_what_was_named() -> None:
    degrader, clean = _painter(), to_8_bit(torch.rand(3, 4, 4))
    for position, name in enumerate(degrader.labels):
        sample = degrader.single(clean, name, generator_from(0))
        expected = clean if name == "clean" else torch.full_like(clean, CODES[name])
        assert torch.allclose(sample.degraded, expected, atol=1e-6)
        assert torch.equal(sample.types.argmax(0), torch.full((4, 4), position))
        assert sample.labels == (name,)
        assert sample.kind is (SampleKind.CLEAN if name == "clean" else SampleKind.SINGLE)


@pytest.mark.slow
def test_the_kinds_come_in_the_shares_of_the_recipe() -> None:
    degrader, recipe, count = _painter(), Recipe(), 3000
    clean, kinds = torch.ones(3, 4, 4), {"clean": 0, "mixture": 0, "cutmix": 0, "single": 0}
    singles: dict[int, int] = {}
    for index in range(count):
        types = degrader.sample(clean, generator_from(9, index)).types
        if types.amax() < 1:
            kinds["mixture"] += 1
        elif types.flatten(1).amin(1).amax() < 1:
            kinds["cutmix"] += 1
        elif types[-1].all():
            kinds["clean"] += 1
        else:
            kinds["single"] += 1
            name = int(types[:, 0, 0].argmax())
            singles[name] = singles.get(name, 0) + 1
    # a region may be given the degradation that is there already: one in four of these labels
    visible = recipe.cutmix * 3 / 4
    expected = {"clean": recipe.clean, "mixture": recipe.mixture, "cutmix": visible}
    for kind, share in expected.items():
        assert kinds[kind] / count == pytest.approx(share, abs=0.03), kind
    assert kinds["single"] / count == pytest.approx(1 - sum(expected.values()), abs=0.03)
    assert sorted(singles) == [0, 1, 2]
    assert max(singles.values()) < 1.3 * min(singles.values())


def test_one_degradation_alone_is_enough() -> None:
    degrader = Degrader({"halve": _halve})
    for index in range(30):
        types = degrader.sample(torch.rand(3, 6, 6), generator_from(index)).types
        assert set(types.flatten().tolist()) <= {0.0, 1.0}


def test_a_weighted_degradation_is_drawn_more_often(photos: CleanPhotos) -> None:
    def drawn(**weights: float) -> float:
        recipe = Recipe(cutmix=0, mixture=0, clean=0, sampling_weights=tuple(weights.items()))
        degrader = Degrader({"halve": _halve, "shift": _shift}, recipe)
        clean = photos.crop(generator_from(0), 8)
        types = [degrader.sample(clean, generator_from(index)).types[1, 0, 0] for index in range(300)]
        return float(torch.stack(types).mean())

    assert drawn() == pytest.approx(0.5, abs=0.1)
    assert drawn(shift=3.0) == pytest.approx(0.75, abs=0.08)
    for wrong in ({"snow": 2.0}, {"shift": 0.0}, {"shift": float("inf")}):
        with pytest.raises(
            TrainingError, match=r"sampling_weights: found .*expected a number above 0 for one of halve, shift"
        ):
            drawn(**wrong)


def test_a_recipe_is_identified_by_the_text_that_checkpoints_hold() -> None:
    recipe = Recipe(cutmix=0.1, mixture=0.2, clean=0.24, file_artifacts=0.25, gamma=0.25)
    assert str(recipe) == "Recipe(cutmix=0.1, double=0.2, clean=0.24, filed=0.25, toned=0.25, emphasis=())"
    weighted = str(Recipe(sampling_weights=(("blur", 2.0),)))
    assert weighted == ("Recipe(cutmix=0.25, double=0.13, clean=0.1, filed=0.0, toned=0.0, emphasis=(('blur', 2.0),))")
