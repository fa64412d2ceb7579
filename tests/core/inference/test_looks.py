"""The result is looked at, too, and restored again where it shows damage of another kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from abair.inference.looks import look_and_follow, mix, scale_weights
from abair.inference.results import Judgement
from abair.model.views import Pixels

PHOTO = np.full((4, 6, 3), 100, np.uint8)
LABELS = ("blur", "haze", "noise", "rain", "clean")


def seen(kind: str, confidence: float | None = 1.0, weight: float = 0.9) -> Judgement:
    """What an estimator says that has nearly all of its weight on one label."""
    rest = (1 - weight) / (len(LABELS) - 1)
    return Judgement({label: weight if label == kind else rest for label in LABELS}, confidence, 0.0)


class Script:
    """An estimator that answers by a list, and a network that adds levels, one a run."""

    def __init__(self, *answers: Judgement, levels: int = 1) -> None:
        self.answers, self.levels = list(answers), levels
        self.runs: list[dict[str, float]] = []

    def judge(self, pixels: Pixels) -> Judgement:
        # it is shown what was restored last, not the photo again
        assert int(pixels[0, 0, 0]) == 100 + self.levels * len(self.runs)
        return self.answers.pop(0)

    def restore(self, pixels: Pixels, weights: Mapping[str, float]) -> Pixels:
        self.runs.append(dict(weights))
        return pixels + pixels.dtype.type(self.levels)


def follow(answers: Sequence[Judgement], most: int = 3) -> tuple[Script, tuple[dict[str, float], ...]]:
    script = Script(*answers)
    followed = look_and_follow(PHOTO, script.judge, script.restore, most)
    assert int(followed.pixels[0, 0, 0]) == 100 + len(script.runs)
    assert followed.looks == tuple(script.runs)
    assert followed.judgement == answers[0]
    return script, followed.looks


def test_damage_that_comes_to_light_is_restored_too() -> None:
    answers = [seen("haze"), seen("rain"), seen("noise")]
    script, looks = follow(answers)
    assert looks == tuple(answer.weights for answer in answers)
    assert not script.answers


def test_a_look_that_finds_nothing_ends_it() -> None:
    script, looks = follow([seen("haze"), seen("clean", weight=0.6), seen("noise")])
    assert len(looks) == 1
    assert len(script.answers) == 1


def test_thick_haze_is_restored_twice_but_what_restoring_leaves_behind_is_not_restored() -> None:
    assert len(follow([seen("haze"), seen("haze"), seen("noise")])[1]) == 3
    assert len(follow([seen("noise"), seen("blur")])[1]) == 1


def test_a_further_look_that_changes_the_tone_is_undone() -> None:
    for levels, followed in ((10, 2), (11, 1)):
        script = Script(seen("rain"), seen("haze"), seen("clean"), levels=levels)
        done = look_and_follow(PHOTO, script.judge, script.restore, 3)
        assert (len(done.looks), len(script.runs)) == (followed, 2)
        assert int(done.pixels[0, 0, 0]) == 100 + levels * followed


def test_a_photo_of_which_hardly_anything_was_restored_gets_one_look() -> None:
    assert len(follow([seen("clean", weight=0.95)])[1]) == 1


def test_damage_that_the_first_look_was_unsure_of_is_restored_where_the_second_is_sure() -> None:
    assert len(follow([seen("clean", weight=0.6), seen("rain"), seen("clean")])[1]) == 2


def test_a_look_that_is_followed_in_part_is_the_last_one() -> None:
    _, looks = follow([seen("haze", confidence=0.4)])  # at a strength of 0.4
    assert looks[0]["clean"] == pytest.approx(1 - 0.4 * 0.975)
    assert len(follow([seen("haze"), seen("noise", confidence=0.45)])[1]) == 1
    unknown = Judgement(seen("noise").weights, 1.0, 0.97)
    assert len(follow([seen("haze"), unknown])[1]) == 1


@pytest.mark.parametrize(("after", "strength"), [(0.5, 1.0), (0.95, 1.0), (0.96, 0.6), (0.99, 0.0)])
def test_a_photo_unlike_all_that_was_learnt_is_restored_if_its_result_is_like_it(after: float, strength: float) -> None:
    strange = Judgement(seen("haze").weights, 1.0, 0.99)
    answers = [strange, Judgement(seen("clean").weights, 1.0, after)]
    shown: list[int] = []

    def judge(pixels: Pixels) -> Judgement:
        shown.append(int(pixels[0, 0, 0]))
        return answers.pop(0)

    def restore(pixels: Pixels, weights: Mapping[str, float]) -> Pixels:
        return pixels + np.uint8(100 * (1 - weights["clean"]))

    followed = look_and_follow(PHOTO, judge, restore, 1)
    assert followed.judgement == strange
    assert followed.looks[0]["clean"] == pytest.approx(1 - strength * 0.975, abs=1e-6)
    assert shown == [100, 197]  # the photo, and what all of the restoration makes of it
    assert int(followed.pixels[0, 0, 0]) == int(PHOTO[0, 0, 0] + np.uint8(100 * strength * 0.975 + 1e-6))
    assert bool(followed.doubts) == (strength < 1)


def test_the_number_of_looks_is_bounded() -> None:
    answers = [seen("haze"), seen("rain"), seen("noise"), seen("rain")]
    assert [len(follow(answers, most)[1]) for most in (1, 2, 3)] == [1, 2, 3]


@pytest.mark.parametrize(("dtype", "halfway"), [(np.uint8, 21), (np.uint16, 21), (np.float32, 0.205)])
def test_a_mix_lies_between_photo_and_result(dtype: type, halfway: float) -> None:
    low, high = (0.1, 0.31) if dtype is np.float32 else (10, 32)
    before, after = np.full((600, 3, 3), low, dtype), np.full((600, 3, 3), high, dtype)
    assert mix(before, after, 0.5).dtype == dtype
    np.testing.assert_allclose(mix(before, after, 0.5), halfway, rtol=1e-6)
    np.testing.assert_array_equal(mix(before, after, 0.0), before)
    np.testing.assert_allclose(mix(before, after, 1.0), after, rtol=1e-6)


def test_what_strength_takes_from_the_damage_goes_to_clean() -> None:
    weights = {"haze": 0.6, "noise": 0.2, "clean": 0.2}
    assert scale_weights(weights, 1.0) == weights
    assert scale_weights(weights, 0.5) == pytest.approx({"haze": 0.3, "noise": 0.1, "clean": 0.6})
