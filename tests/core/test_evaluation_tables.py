"""The quality table: each policy gets its own weights, means are right, and the report says how it was made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from abair.errors import AbairError, ImageError
from abair.evaluation.metrics import PSNR_CAP
from abair.evaluation.policies import ImageResult, Score, run_policies
from abair.evaluation.tables import QualityReport, evaluate
from abair.evaluation.testsets import FIVE_TASKS, EvaluationSet, Item

LABELS = ("noise", "haze", "clean")


class FakeRestorer:
    """Takes away as much of an error of 0.2 as the weights on the true label `noise` say; counts its calls."""

    labels = LABELS
    deployment = SimpleNamespace(name="fake-1", backbone=SimpleNamespace(size="nano", fingerprint="ab" * 32))

    def __init__(self, **weights: float) -> None:
        self.weights = weights or {"noise": 0.6, "haze": 0.3, "clean": 0.1}
        self.estimates = 0
        self.asked: list[dict[str, float]] = []

    def estimate(self, image: np.ndarray) -> dict[str, float]:
        self.estimates += 1
        return dict(self.weights)

    def __call__(self, image: np.ndarray, *, weights: Mapping[str, float]) -> Any:
        self.asked.append(dict(weights))
        return SimpleNamespace(image=image - np.float32(0.2 * weights.get("noise", 0.0)))


def _item(name: str = "a", error: float = 0.2) -> Item:
    clean = np.random.default_rng(0).uniform(0.2, 0.7, (24, 24, 3))
    pixels: NDArray[np.float32] = (np.rint(clean * 255) / 255).astype(np.float32)
    return Item(name, pixels + np.float32(error), pixels)


def _set(key: str = "one", labels: tuple[str, ...] = ("noise",), names: tuple[str, ...] = ("a", "b")) -> EvaluationSet:
    def load(name: str) -> Item:
        if name == "bad":
            raise ImageError("bad.png: damaged")
        return _item(name)

    return EvaluationSet(key, f"set {key}", labels, "made up", names, load)


def _evaluate(restorer: FakeRestorer, *sets: EvaluationSet, **options: Any) -> QualityReport:
    return evaluate(restorer, sets, **options)  # type: ignore[arg-type]


def test_every_policy_gets_its_own_weights_after_one_estimate() -> None:
    restorer = FakeRestorer()
    run_policies(restorer, _item(), ("noise", "haze"))  # type: ignore[arg-type]
    assert restorer.estimates == 1
    assert restorer.asked == [{}, {"noise": 1.0}, restorer.weights, {"noise": 0.5, "haze": 0.5}]


def test_policies_of_the_same_weights_share_one_run() -> None:
    restorer = FakeRestorer()
    result, _ = run_policies(restorer, _item(), ("noise",))  # type: ignore[arg-type]
    assert restorer.asked == [{}, {"noise": 1.0}, restorer.weights]
    assert result.scores["Oracle"] == result.scores["OH"]


def test_scores_are_those_of_outputs_rounded_to_8_bits_and_of_the_input_as_it_is() -> None:
    result, pictures = run_policies(FakeRestorer(), _item(error=0.2001), ("noise",))  # type: ignore[arg-type]
    assert result.scores["input"].psnr == pytest.approx(-20 * np.log10(0.2001), abs=1e-3)
    assert result.scores["Oracle"] == Score(psnr=PSNR_CAP, ssim=1.0)
    assert result.scores["backbone"].psnr < result.scores["SW"].psnr < result.scores["OH"].psnr
    assert all(picture.min() >= 0 and picture.max() <= 1 for picture in pictures.values())


def test_the_restorer_is_given_unclipped_noise_as_it_is() -> None:
    seen: list[np.ndarray] = []

    class Looking(FakeRestorer):
        def estimate(self, image: np.ndarray) -> dict[str, float]:
            seen.append(image)
            return super().estimate(image)

    item = _item(error=0.5)
    run_policies(Looking(), item, ("noise",))  # type: ignore[arg-type]
    assert seen[0] is item.degraded
    assert seen[0].max() > 1


def test_a_label_without_an_adapter_has_no_oracle_and_the_table_shows_a_dash() -> None:
    report = _evaluate(FakeRestorer(), _set(labels=("snow",)))
    assert "Oracle" not in report.sets[0].mean
    assert [cell.strip() for cell in report.markdown().splitlines()[4].split("|")][-3:-1] == ["-", "0.00"]


def test_means_weights_and_top_1_are_over_the_pictures() -> None:
    report = _evaluate(FakeRestorer(noise=0.2, haze=0.7, clean=0.1), _set(), _set("two", ("haze", "noise")))
    one, two = report.sets
    assert (one.count, one.top1, one.seen) == (2, 0.0, {"haze": 2})
    assert two.top1 == 1.0, "any label of a mixture is right"
    assert one.weights == pytest.approx({"noise": 0.2, "haze": 0.7, "clean": 0.1})
    assert one.mean["SW"].psnr == pytest.approx(np.mean([image.scores["SW"].psnr for image in one.images]))


def test_a_bad_picture_is_named_and_the_rest_is_measured() -> None:
    report = _evaluate(FakeRestorer(), _set(names=("a", "bad", "c")))
    assert [image.name for image in report.sets[0].images] == ["a", "c"]
    assert report.problems == ("bad.png: damaged",)
    assert "- left out: bad.png: damaged" in report.markdown()


def test_nothing_but_bad_pictures_is_an_error() -> None:
    with pytest.raises(AbairError, match=r"no picture could be used; bad\.png: damaged"):
        _evaluate(FakeRestorer(), _set(names=("bad",)))


def test_progress_counts_pictures_over_all_sets() -> None:
    told: list[tuple[int, int]] = []
    _evaluate(FakeRestorer(), _set(), _set("two"), progress=lambda done, total, text: told.append((done, total)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_the_five_task_mean_is_there_only_with_all_five() -> None:
    five = [_set(key) for key in FIVE_TASKS]
    assert _evaluate(FakeRestorer(), *five[:4]).five_task_mean() == {}
    report = _evaluate(FakeRestorer(), *five, _set("clean", ("clean",)))
    assert report.five_task_mean()["SW"].psnr == pytest.approx(report.sets[0].mean["SW"].psnr)
    assert "**mean of the five tasks**" in report.markdown()


def test_the_report_is_written_with_its_protocol_and_read_back_whole(tmp_path: Path) -> None:
    report = _evaluate(FakeRestorer(), _set(), missing={"GoPro": "found no pairs"})
    results, table = report.write(tmp_path / "deep" / "out")
    assert QualityReport.model_validate_json(results.read_text()) == report
    assert json.loads(results.read_text())["sets"][0]["mean"]["SW"].keys() == {"psnr", "ssim"}
    text = table.read_text()
    for part in (
        "fake-1",
        "ab" * 32,
        "RGB",
        "no crop",
        "not clipped",
        "seeds",
        "8 bits",
        "GoPro: found no pairs",
        "100 dB",
    ):
        assert part in text
    heading, rule, row = text.splitlines()[2:5]
    assert len(heading) == len(rule) == len(row)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ImageError, match=r"file/out: the report cannot be written .*--out"):
        _evaluate(FakeRestorer(), _set()).write(tmp_path / "file" / "out")


def test_a_picture_too_small_for_ssim_has_a_psnr_alone() -> None:
    black, white = np.zeros((4, 4, 3), np.float32), np.ones((4, 4, 3), np.float32)
    tiny = EvaluationSet("tiny", "tiny", ("noise",), "", ("a",), lambda name: Item(name, black, white))
    report = _evaluate(FakeRestorer(), tiny)
    assert report.sets[0].mean["input"].ssim is None
    assert [cell.strip() for cell in report.markdown().splitlines()[4].split("|")][3] == "0.00"


def test_top_is_the_label_of_the_largest_weight() -> None:
    assert ImageResult(name="a", weights={"x": 0.2, "y": 0.8}, scores={}).top == "y"
