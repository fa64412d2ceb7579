"""The quality table: each policy gets its own weights, means are right, and the report says how it was made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from abair.errors import AbairError, ImageError
from abair.evaluation.benchmark import evaluate, weights_hash
from abair.evaluation.datasets.items import EvaluationSet, Item
from abair.evaluation.datasets.paper import FIVE_TASKS
from abair.evaluation.policies import ImageResult, Score, run_policies
from abair.evaluation.reports.markdown import overview, results_page
from abair.evaluation.reports.write import write_results
from abair.evaluation.results import QualityReport
from abair.metrics import PSNR_CAP

LABELS = ("noise", "haze", "clean")


class FakeRestorer:
    """Takes away as much of an error of 0.2 as the weights on the true label `noise` say; counts its calls."""

    labels, precision = LABELS, "float32"
    deployment = SimpleNamespace(name="fake-1", backbone=SimpleNamespace(size="nano", fingerprint="ab" * 32))

    def __init__(self, **weights: float) -> None:
        self.weights = weights or {"noise": 0.6, "haze": 0.3, "clean": 0.1}
        self.estimates = 0
        self.asked: list[str | dict[str, float]] = []
        self.qualities: set[str] = set()

    def estimate(self, image: np.ndarray) -> dict[str, float]:
        self.estimates += 1
        return dict(self.weights)

    def __call__(
        self, image: np.ndarray, *, quality: str, policy: str = "soft", weights: Mapping[str, float] | None = None
    ) -> Any:
        assert weights is None or policy == "soft"
        if policy == "soft" and weights is None:
            weights = self.weights
        self.asked.append(policy if weights is None else dict(weights))
        self.qualities.add(quality)
        return SimpleNamespace(image=image - np.float32(0.2 * (weights or {}).get("noise", 0.0)))


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
    assert restorer.asked == ["backbone", {"noise": 1.0}, restorer.weights, {"noise": 0.5, "haze": 0.5}]


def test_policies_of_the_same_weights_share_one_run() -> None:
    restorer = FakeRestorer()
    result, _ = run_policies(restorer, _item(), ("noise",))  # type: ignore[arg-type]
    assert restorer.asked == ["backbone", {"noise": 1.0}, restorer.weights]
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


def test_a_report_at_best_quality_says_so() -> None:
    restorer = FakeRestorer()
    assert not any("quality" in line for line in _evaluate(restorer, _set()).protocol)
    assert restorer.qualities == {"standard"}
    restorer = FakeRestorer()
    assert "four orientations" in _evaluate(restorer, _set(), quality="best").protocol[-1]
    assert restorer.qualities == {"best"}


def test_a_label_without_an_adapter_has_no_oracle_and_the_table_shows_a_dash() -> None:
    report = _evaluate(FakeRestorer(), _set(labels=("snow",)))
    assert "Oracle" not in report.sets[0].mean
    assert [cell.strip() for cell in overview(report).splitlines()[4].split("|")][-4:-1] == ["-", "0.00", "-"]


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
    assert "- left out: bad.png: damaged" in overview(report)


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
    assert "**mean of the five tasks**" in overview(report)


def test_the_report_is_written_with_its_protocol_and_read_back_whole(tmp_path: Path) -> None:
    report = _evaluate(FakeRestorer(), _set(), missing={"GoPro": "found no pairs"})
    results, table = write_results(report, tmp_path / "deep" / "out")
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
        write_results(_evaluate(FakeRestorer(), _set()), tmp_path / "file" / "out")


def test_a_picture_too_small_for_ssim_has_a_psnr_alone() -> None:
    black, white = np.zeros((4, 4, 3), np.float32), np.ones((4, 4, 3), np.float32)
    tiny = EvaluationSet("tiny", "tiny", ("noise",), "", ("a",), lambda name: Item(name, black, white))
    report = _evaluate(FakeRestorer(), tiny)
    assert report.sets[0].mean["input"].ssim is None
    assert [cell.strip() for cell in overview(report).splitlines()[4].split("|")][3] == "0.00"


def test_an_undamaged_picture_that_was_changed_is_told_beside_the_mean() -> None:
    grey = np.full((16, 16, 3), 0.5, np.float32)
    clean = EvaluationSet("clean", "clean photos", ("clean",), "", ("a", "b"), lambda name: Item(name, grey, grey))
    report = _evaluate(FakeRestorer(), clean)
    below = sum(image.scores["SW"].psnr < 38 for image in report.sets[0].images)
    (line,) = [line for line in overview(report).splitlines() if "come back below 38 dB" in line]
    assert line.startswith(f"clean photos by SW: {below} of 2 come back")


def test_top_is_the_label_of_the_largest_weight() -> None:
    assert ImageResult(name="a", weights={"x": 0.2, "y": 0.8}, scores={}).top == "y"


def test_a_table_has_its_mean_only_where_none_of_its_sets_is_missing() -> None:
    keys = ("mix_blur_noise", "mix_blur_jpeg", "mix_haze_snow", "mix_low-light_noise", "mix_haze_low-light")
    report = _evaluate(FakeRestorer(), *[_set(key, ("noise",), ("a",)) for key in keys], _set("CBSD68_s25"))
    tables = {table.key: table for table in report.tables}
    assert list(tables) == ["five_tasks", "three_tasks", "mixtures"]
    assert (tables["mixtures"].sets, tables["mixtures"].missing) == (keys, ())
    assert tables["mixtures"].mean["SW"].psnr == pytest.approx(report.sets[0].mean["SW"].psnr)
    assert tables["five_tasks"].sets == ("CBSD68_s25",)
    assert (tables["five_tasks"].mean, tables["five_tasks"].gap) == ({}, None)
    assert "GoPro" in tables["five_tasks"].missing
    means = [line for line in overview(report).splitlines() if line.startswith("| **mean")]
    assert len(means) == 1
    assert "mean of the mixtures" in means[0]


def test_outdoor_haze_takes_the_place_of_indoor_haze_which_is_then_an_unseen_set() -> None:
    sets = [_set(key, names=("a",)) for key in (*FIVE_TASKS, "SOTS_outdoor")]
    tables = {table.key: table for table in _evaluate(FakeRestorer(), *sets).tables}
    assert tables["five_tasks"].sets == ("CBSD68_s25", "Rain100L", "SOTS_outdoor", "GoPro", "LOL_eval15")
    assert tables["unseen_sets"].sets == ("SOTS_indoor",)


def test_the_gap_is_what_the_blend_lacks_to_the_oracle() -> None:
    found = _evaluate(FakeRestorer(), _set()).sets[0]
    assert found.gap == pytest.approx(found.mean["Oracle"].psnr - found.mean["SW"].psnr)
    assert found.gap > 0


def test_a_set_whose_labels_are_not_known_has_neither_oracle_nor_top_1_and_is_an_unseen_set() -> None:
    restorer = FakeRestorer()
    report = _evaluate(restorer, _set("Mine", ()))
    assert (report.sets[0].top1, report.sets[0].gap) == (None, None)
    assert "Oracle" not in report.sets[0].mean
    assert restorer.asked == ["backbone", {"noise": 1.0}, restorer.weights] * 2
    assert [(table.key, table.sets) for table in report.tables] == [("unseen_sets", ("Mine",))]
    assert report.confusion == {}


def test_the_confusion_counts_pictures_by_true_and_likeliest_label_and_leaves_mixtures_out() -> None:
    report = _evaluate(
        FakeRestorer(haze=0.8, noise=0.2),
        _set("one", ("snow",)),
        _set("two", ("noise",)),
        _set("three", ("noise",), ("a",)),
        _set("four", ("noise", "haze")),
    )
    assert report.confusion == {
        "noise": {"noise": 0, "haze": 3, "clean": 0},
        "snow": {"noise": 0, "haze": 2, "clean": 0},
    }


def test_y_is_measured_where_the_papers_do_as_matlab_makes_it() -> None:
    # MATLAB: rgb2ycbcr(uint8(cat(3, 200, 100, 50))) is 123, of (210, 110, 60) 131
    clean = np.broadcast_to(np.array([200, 100, 50], np.float32) / np.float32(255), (12, 12, 3))
    rain = np.broadcast_to(np.array([210, 110, 60], np.float32) / np.float32(255), (12, 12, 3))
    found = EvaluationSet("r", "r", ("noise",), "", ("a",), lambda name: Item(name, rain, clean), luma=True)
    result = _evaluate(FakeRestorer(), found).sets[0]
    assert result.mean_y["input"].psnr == pytest.approx(20 * np.log10(255 / 8), abs=1e-4)
    assert result.mean["input"].psnr == pytest.approx(20 * np.log10(255 / 10), abs=1e-4)
    assert result.mean_y.keys() == result.mean.keys()
    assert _evaluate(FakeRestorer(), _set()).sets[0].mean_y == {}


def test_every_row_has_the_hash_of_the_files_that_were_read_and_of_the_weights() -> None:
    def load(name: str) -> Item:
        if name == "bad":
            raise ImageError("bad.png: damaged")
        item = _item(name)
        return Item(name, item.degraded, item.clean, {"degraded": "d" * 64, "clean": "c" * 64})

    found = EvaluationSet("one", "one", ("noise",), "made up", ("a", "bad"), load)
    report = _evaluate(FakeRestorer(), found, weights_sha256="e" * 64)
    text = f"{'d' * 64}  degraded/a\n{'c' * 64}  clean/a\n"
    assert report.sets[0].data_sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert report.sets[0].weights_sha256 == report.weights_sha256 == "e" * 64
    assert _evaluate(FakeRestorer(), _set()).sets[0].data_sha256 is None


def test_the_weights_hash_is_another_for_any_other_part_and_the_same_for_another_name() -> None:
    from abair.deployment import read_deployment
    from abair.locations import FACTORY

    factory = read_deployment(FACTORY)
    once = weights_hash(factory)
    assert weights_hash(factory.model_copy(update={"name": "other", "replay": None})) == once
    other = factory.backbone.file.model_copy(update={"sha256": "0" * 64})
    parts = [factory.model_copy(update={"estimator": other})]
    parts.append(factory.model_copy(update={"backbone": factory.backbone.model_copy(update={"file": other})}))
    changed = factory.adapters[-1].model_copy(update={"weights": other})
    parts.append(factory.model_copy(update={"adapters": (*factory.adapters[:-1], changed)}))
    assert len({once, *map(weights_hash, parts)}) == 4


def test_the_page_begins_with_its_command_and_has_a_section_a_table() -> None:
    report = _evaluate(
        FakeRestorer(),
        *[_set(key, names=("a",)) for key in FIVE_TASKS],
        _set("CBSD68_4bit", ("bitdepth",), ("a", "bad")),
        missing={"HIDE": "found no pairs"},
        weights_sha256="e" * 64,
    )
    page = results_page(report, "abair bench quality --data sets", "page-radar.png")
    assert page.startswith("# Results\n\nThis page was written by\n\n```sh\nabair bench quality --data sets\n```\n")
    headings = [line[3:] for line in page.splitlines() if line.startswith("## ")]
    assert headings == ["Five tasks", "Three tasks", "Unseen degradations", "The estimator", "Protocol", "Not measured"]
    for part in ("](page-radar.png)", "No mean, because these sets were not found: CBSD68_s15", "HIDE: found no pairs",
                 "bad.png: damaged", "**mean of the five tasks**", "e" * 64):  # fmt: skip
        assert part in page
    assert "](" not in results_page(report, "abair bench quality --data sets")


def test_a_report_written_before_there_were_tables_is_still_read() -> None:
    report = _evaluate(FakeRestorer(), *[_set(key) for key in FIVE_TASKS])
    new = {"tables", "confusion", "weights_sha256", "mean_y", "gap", "data_sha256", "scores_y"}
    old = json.loads(report.model_dump_json(), object_hook=lambda o: {k: v for k, v in o.items() if k not in new})
    read = QualityReport.model_validate(old)
    assert read.five_task_mean() == report.five_task_mean()
    assert "**mean of the five tasks**" in overview(read)
