"""A new label by features alone: the old labels stay, and no old sample is needed."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from tests.core.continual.conftest import darker, red, smooth_photos

from abair.continual.collect import compute_features
from abair.continual.refit import RefitConfig, refit
from abair.continual.replay import Features, Mixtures
from abair.data.degrade import Degrader, Recipe
from abair.data.photos import CleanPhotos
from abair.errors import TrainingError
from abair.model.backbone import Backbone, fingerprint
from abair.model.estimator import Estimator, feature_count, load_estimator, save_estimator

if TYPE_CHECKING:
    from abair.data.synthesizers import Synthesizer

pytestmark = pytest.mark.slow

COUNT = 40
FIRM = RefitConfig(false_alarms=1.0)
"""In the end no logit is lowered."""
FEW = RefitConfig().false_alarms


def blue(clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return red(clean, generator).flip(0)


def noisy(clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return (clean + 0.15 * torch.randn(clean.shape, generator=generator)).clamp(0, 1)


@pytest.fixture(scope="module")
def photos() -> CleanPhotos:
    return smooth_photos(6, 120)


@cache
def made(
    backbone: Backbone,
    photos: CleanPhotos,
    seed: int,
    clean: float = 0.0,
    undamaged: int = 0,
    **synthesizers: Synthesizer,
) -> Features:
    recipe = Recipe(cutmix=0, mixture=0, clean=clean)
    return compute_features(backbone, Degrader(synthesizers, recipe), photos, COUNT, seed, undamaged=undamaged)


@pytest.fixture(scope="module")
def old(backbone: Backbone, photos: CleanPhotos) -> Features:
    return made(backbone, photos, 1, clean=0.33, dark=darker, noise=noisy)


@pytest.fixture(scope="module")
def champion(backbone: Backbone, old: Features) -> Estimator:
    start = Estimator(("dark", "noise", "clean"), feature_count(backbone.size))
    return refit(start, fingerprint(backbone), start.labels, [], [old])


def right(estimator: Estimator, features: Features) -> float:
    with torch.inference_mode():
        found = estimator(features.values).argmax(1)
    targets = [estimator.labels.index(features.labels[int(position)]) for position in features.targets.argmax(1)]
    return float((found == torch.tensor(targets)).float().mean())


LABELS = ("dark", "noise", "red", "clean")


def test_a_new_label_is_learnt_from_features_and_the_old_ones_stay(
    backbone: Backbone, photos: CleanPhotos, old: Features, champion: Estimator
) -> None:
    new = made(backbone, photos, 2, undamaged=COUNT, red=red)
    told: list[int] = []
    challenger = refit(
        champion,
        fingerprint(backbone),
        LABELS,
        [old],
        [new],
        lambda step, _: told.append(step),
    )
    assert challenger.labels == LABELS
    assert not any(parameter.requires_grad for parameter in challenger.parameters())
    held_old = made(backbone, photos, 3, clean=0.33, dark=darker, noise=noisy)
    assert right(champion, held_old) >= 0.95
    assert right(challenger, held_old) >= 0.95
    assert right(challenger, made(backbone, photos, 4, red=red)) >= 0.95
    assert len(told) >= 3


def test_what_the_estimator_says_of_old_labels_stays_and_a_file_keeps_what_it_grew(
    backbone: Backbone, photos: CleanPhotos, old: Features, champion: Estimator, tmp_path: Path
) -> None:
    new = made(backbone, photos, 2, undamaged=COUNT, red=red)
    challenger = refit(champion, fingerprint(backbone), LABELS, [old], [new])
    assert challenger.hidden == champion.hidden + 2
    with torch.inference_mode():
        before, after = champion(old.values), challenger(old.values)
    assert torch.allclose(after[:, [0, 1, 3]], before, atol=1e-5)
    save_estimator(challenger, tmp_path / "estimator.safetensors")
    again = load_estimator(tmp_path / "estimator.safetensors", LABELS, backbone.size)
    assert torch.equal(again(old.values), challenger(old.values))


@pytest.mark.exhaustive
def test_a_label_that_comes_again_is_learnt_anew_and_the_others_stay(
    backbone: Backbone, photos: CleanPhotos, old: Features, champion: Estimator
) -> None:
    known = refit(
        champion,
        fingerprint(backbone),
        LABELS,
        [old],
        [made(backbone, photos, 2, undamaged=COUNT, red=red)],
    )
    again = made(backbone, photos, 5, undamaged=COUNT, red=blue)
    challenger = refit(known, fingerprint(backbone), LABELS, [old], [again])
    held_out = made(backbone, photos, 6, red=blue)
    assert right(known, held_out) <= 0.5
    assert right(challenger, held_out) >= 0.9
    with torch.inference_mode():
        assert torch.allclose(challenger(old.values)[:, [0, 1, 3]], champion(old.values), atol=1e-5)


def test_a_new_label_wins_few_of_the_known_samples_though_it_looks_like_them() -> None:
    labels, count = (*"abcdefg", "clean"), 60
    generator = torch.Generator().manual_seed(0)
    centres = 3 * torch.eye(len(labels), 12)
    values = (centres[:, None] + 0.5 * torch.randn(len(labels), count, 12, generator=generator)).flatten(0, 1)
    known = Features("x", labels, values, torch.eye(len(labels)).repeat_interleave(count, 0))
    champion = refit(Estimator(labels, 12), "x", labels, [], [known])
    # what is new looks exactly as `a` does: nobody can tell them apart
    twin = torch.cat([values[:count], values[-count:]])
    new = Features("x", ("twin", "clean"), twin, torch.eye(2).repeat_interleave(count, 0))
    wins = []
    for config in (RefitConfig(), FIRM):
        challenger = refit(champion, "x", (*"abcdefg", "twin", "clean"), [known], [new], config=config)
        with torch.inference_mode():
            wins.append(float((challenger(values).argmax(1) == 7).float().mean()))
    assert wins[0] <= 2 * FEW
    assert wins[1] > 3 * FEW


def test_old_features_teach_what_the_champion_says_even_where_it_is_wrong(
    backbone: Backbone, photos: CleanPhotos, old: Features, champion: Estimator
) -> None:
    swapped = champion.with_labels(("noise", "dark", "clean"))
    swapped.labels = champion.labels  # it takes dark for noise, and noise for dark
    new = made(backbone, photos, 2, undamaged=COUNT, red=red)
    challenger = refit(swapped, fingerprint(backbone), LABELS, [old], [new])
    held_old = made(backbone, photos, 3, dark=darker, noise=noisy)
    assert right(swapped, held_old) <= 0.05
    assert right(challenger, held_old) <= 0.05


def test_the_same_arguments_give_the_same_estimator(
    backbone: Backbone, photos: CleanPhotos, old: Features, champion: Estimator
) -> None:
    new = made(backbone, photos, 2, undamaged=COUNT, red=red)
    marks = [fingerprint(refit(champion, fingerprint(backbone), LABELS, [old], [new])) for _ in range(2)]
    assert marks[0] == marks[1]


def test_the_number_of_threads_does_not_change_what_comes_out(
    backbone: Backbone, photos: CleanPhotos, old: Features, champion: Estimator
) -> None:
    new = made(backbone, photos, 2, red=red)
    threads, marks = torch.get_num_threads(), []
    for count in (1, 2):
        torch.set_num_threads(count)
        marks.append(fingerprint(refit(champion, fingerprint(backbone), LABELS, [old], [new])))
        assert torch.get_num_threads() == count
    torch.set_num_threads(threads)
    assert marks[0] == marks[1]


@cache
def blended(backbone: Backbone, photos: CleanPhotos, seed: int) -> Features:
    """Make features of dark and then red scenes, whose best blend is taken to be a quarter dark."""
    degrader = Degrader({"dark": darker, "red": red}, Recipe(cutmix=0, mixture=1, clean=0))
    made = compute_features(backbone, degrader, photos, COUNT, seed)
    return Features(made.backbone, made.labels, made.values, torch.tensor([[0.25, 0.75, 0.0]] * COUNT))


def test_blends_are_learnt_from_mixtures_as_much_as_is_at_stake(
    backbone: Backbone, photos: CleanPhotos, old: Features, champion: Estimator
) -> None:
    cold = champion.with_labels(champion.labels)
    cold.temperature.fill_(0.2)
    new = made(backbone, photos, 2, undamaged=COUNT, red=red)
    both, held_out = blended(backbone, photos, 7), blended(backbone, photos, 8)

    def away(stake: float | None) -> float:
        """How far what is said of held-out mixtures is from the best blend, on the mean."""
        mixtures = [] if stake is None else [Mixtures(both, torch.full((COUNT,), stake))]
        fitted = refit(cold, fingerprint(backbone), LABELS, [old], [new], mixtures=mixtures, config=FIRM)
        assert right(fitted, made(backbone, photos, 4, red=red)) >= 0.9
        with torch.inference_mode():
            said = fitted.predict_weights(held_out.values)
        return float((said - torch.tensor([0.25, 0.0, 0.75, 0.0])).abs().sum(1).mean())

    without, much, nothing = away(None), away(10.0), away(0.0)
    assert much < 0.6 * min(without, nothing)


def test_mixtures_with_a_label_that_is_asked_for_no_more_teach_nothing(
    backbone: Backbone, photos: CleanPhotos, old: Features, champion: Estimator
) -> None:
    both, new = blended(backbone, photos, 7), made(backbone, photos, 2, undamaged=COUNT, red=red)
    gone = champion.with_labels(("noise", "clean"))
    marks = [
        fingerprint(
            refit(
                gone, fingerprint(backbone), ("noise", "red", "clean"), [old], [new],
                mixtures=[Mixtures(both, torch.full((COUNT,), stake))])
        )
        for stake in (0.0, 10.0)
    ]  # fmt: skip
    assert marks[0] == marks[1]


def test_features_that_do_not_fit_are_refused(backbone: Backbone, old: Features, champion: Estimator) -> None:
    foreign = Features("0" * 64, old.labels, old.values, old.targets)
    with pytest.raises(TrainingError, match="features of dark, noise, clean: made by backbone 000000000000, expected"):
        refit(champion, fingerprint(backbone), champion.labels, [foreign], [])
    with pytest.raises(TrainingError, match="features of dark, noise, clean: made by backbone 000000000000, expected"):
        refit(
            champion,
            fingerprint(backbone),
            champion.labels,
            [old],
            [],
            mixtures=[Mixtures(foreign, torch.ones(COUNT))],
        )
    with pytest.raises(TrainingError, match="label red: found no features"):
        refit(champion, fingerprint(backbone), LABELS, [old], [])
