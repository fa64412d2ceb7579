"""What is restored, how much of it, and how sure the restorer is."""

from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from abair import Restorer
from abair.errors import DeploymentError, WeightsError
from abair.inference.results import Judgement, Quality, Restored
from abair.model import views
from abair.model.estimator import Estimate
from abair.model.look import context_view


def decibels(one: np.ndarray, other: np.ndarray) -> float:
    difference = (one.astype(float) - other.astype(float)) / 255
    return float(-10 * np.log10(max(np.mean(difference**2), 1e-12)))


def test_strength_is_the_part_of_the_restoration(restorer: Restorer, photo: np.ndarray) -> None:
    floats = photo.astype(np.float32) / 255
    whole = restorer(floats, weights={"noise": 1.0})
    for strength in (0.0, 0.25, 0.5):
        part = restorer(floats, weights={"noise": 1.0}, strength=strength)
        assert part.weights["clean"] == pytest.approx(1 - strength)
        inside = (whole.image > 0) & (whole.image < 1)
        expected = floats + strength * (whole.image - floats)
        assert np.allclose(part.image[inside], expected[inside], atol=1e-5)
    assert restorer(photo, strength=1.0).weights == restorer.estimate(photo)
    for wrong in (-0.1, 1.1, float("nan"), "half"):
        with pytest.raises(WeightsError, match="strength"):
            restorer(photo, strength=wrong)


@pytest.mark.parametrize("tile", [float("nan"), float("inf"), -float("inf"), 100.5, 0, -64])
def test_a_tile_that_is_no_size_is_refused(restorer: Restorer, photo: np.ndarray, tile: float) -> None:
    with pytest.raises(WeightsError, match="expected a whole number"):
        restorer(photo, tile=tile)  # type: ignore[call-overload]


def test_soft_weights_sum_to_one_in_the_deployments_order(restorer: Restorer, photo: np.ndarray) -> None:
    weights = restorer.estimate(photo)
    assert tuple(weights) == restorer.labels == ("noise", "rain", "low-light", "clean")
    assert sum(weights.values()) == pytest.approx(1, abs=1e-5)
    assert restorer(photo).weights == weights


def test_one_hot_uses_the_largest_label_alone(restorer: Restorer, photo: np.ndarray) -> None:
    weights = restorer.estimate(photo)
    largest = max(weights, key=lambda label: weights[label])
    result = restorer(photo, policy="one-hot")
    assert result.weights == {label: float(label == largest) for label in weights}
    assert np.array_equal(result.image, restorer(photo, weights={largest: 1.0}).image)


def orientations(picture: np.ndarray) -> list[np.ndarray]:
    turned = [np.rot90(picture, quarter) for quarter in range(4)]
    return [np.ascontiguousarray(view) for one in turned for view in (one, one[:, ::-1])]


def test_best_quality_is_the_mean_of_four_orientations_with_the_context_of_the_photo(
    restorer: Restorer, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, image = {"noise": 0.02}, photo[:100, :180].astype(np.float32) / 255
    best = restorer(image, weights=weights, tile=64, quality="best")
    alone = restorer(image, weights=weights, tile=64).image
    own = context_view(image, restorer.blender.backbone.size)
    monkeypatch.setattr("abair.inference.restorer.context_view", lambda pixels, size: own)
    mean = np.zeros_like(image)
    for view in (np.s_[:, :], np.s_[:, ::-1], np.s_[::-1], np.s_[::-1, ::-1]):
        restored = restorer(np.ascontiguousarray(image[view]), weights=weights, tile=64).image
        mean += restored[view] / 4
    assert best.quality == "best"
    assert np.abs(best.image - mean).max() < 2e-3  # each of the four was clipped, their mean once
    assert np.median(np.abs(best.image - mean)) < 1e-6
    assert np.abs(best.image - alone).max() > 1e-3


def test_an_unknown_quality_is_refused(restorer: Restorer, photo: np.ndarray) -> None:
    with pytest.raises(WeightsError, match="quality 'fine': unknown; expected 'standard' or 'best'"):
        restorer(photo, quality="fine")  # type: ignore[call-overload]


def test_what_is_left_of_given_weights_is_left_alone(restorer: Restorer, photo: np.ndarray) -> None:
    image = photo.astype(np.float32) / 255
    used = restorer(image, weights={"noise": 0.25, "clean": 0.25}).weights
    assert used == {"noise": 0.25, "rain": 0.0, "low-light": 0.0, "clean": 0.75}
    assert restorer(image, weights={"noise": 0.7, "rain": 0.3 + 1e-6}).weights["clean"] == 0.0
    full = restorer(image, weights={"noise": 1.0}).image - image
    for part in (0.1, 0.5):
        change = restorer(image, weights={"noise": part}).image - image
        inside = (image + full > 0) & (image + full < 1)
        assert np.abs(change - part * full)[inside].max() < 1e-5


def test_the_bare_backbone_is_a_policy(restorer: Restorer, photo: np.ndarray) -> None:
    image = torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        expected = restorer._blender.backbone(image)[0].clamp(0, 1).mul(255).round().permute(1, 2, 0).numpy()
    assert np.abs(restorer(photo, policy="backbone").image - expected).max() <= 1


@pytest.mark.parametrize(
    "weights",
    [
        {"snow": 1.0},
        {"noise": 1.2},
        {"noise": -0.1},
        {"noise": float("nan")},
        {"noise": "much"},
        {"noise": 0.8, "rain": 0.4},
        {"noise": 1.0, "clean": 0.1},
    ],
)
def test_wrong_weights_are_refused(restorer: Restorer, photo: np.ndarray, weights: dict[str, float]) -> None:
    with pytest.raises(WeightsError, match="expected"):
        restorer(photo, weights=weights)


@pytest.mark.parametrize("tile", [64, 80, 100])
def test_tiles_agree_with_the_whole(restorer: Restorer, tile: int) -> None:
    picture = np.random.default_rng(1).random((190, 230, 3), np.float32)
    whole, tiled = (restorer(picture, weights={"noise": 0.9}, tile=width).image for width in (4096, tile))
    assert np.abs(whole - picture).max() > 0.01
    assert np.abs(whole - tiled).max() < 1e-5


def test_a_deployment_that_is_calibrated_says_how_sure_it_is(bundle: Path, photo: np.ndarray) -> None:
    restorer = Restorer.load(bundle)
    assert restorer.judge(photo).confidence is restorer(photo).confidence is None
    restorer._estimator.confidence_temperature.fill_(1.0)
    weights, confidence, unknown = restorer.judge(photo)
    assert weights == restorer.estimate(photo)
    assert unknown is restorer(photo).unknown is None  # this estimator keeps nothing of what it was taught
    assert confidence is not None
    assert 1 / len(weights) <= confidence <= 1
    assert restorer(photo).confidence == confidence
    assert restorer(photo, weights={"noise": 1}).confidence is None
    page = np.where(photo[:, :, :1] > 128, 255, 0).astype(np.uint8).repeat(3, axis=2)
    assert restorer.judge(page) == ({label: float(label == "clean") for label in restorer.labels}, 1.0, 0.0)


def test_what_the_estimate_is_unsure_of_is_restored_gently_or_not_at_all_and_said(
    restorer: Restorer, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = dict.fromkeys(restorer.labels, 0.0) | {"noise": 0.75, "clean": 0.25}

    def answer(confidence: float | None) -> Restored[Any]:
        monkeypatch.setattr(restorer, "_judge", lambda _: Judgement(weights, confidence))
        return restorer(photo)

    unsure, sure, lost = answer(5 / 12), answer(0.5), answer(0.33)
    assert unsure.weights == pytest.approx(weights | {"noise": 0.375, "clean": 0.625})
    assert unsure.warnings == (
        "noise, not sure (0.42): restored at a strength of 0.50; --weights noise=1 for all of it",
    )
    assert lost.weights == dict.fromkeys(restorer.labels, 0.0) | {"clean": 1.0}
    assert np.array_equal(lost.image, photo)
    assert lost.warnings == ("noise, not sure (0.33): left as it is; --weights noise=1 for all of it",)
    assert np.array_equal(unsure.image, restorer(photo, weights=unsure.weights).image)
    assert (sure.weights, sure.warnings) == (weights, ())
    assert answer(None).weights == weights
    weights |= {"noise": 0.4, "clean": 0.6}  # the estimate is as unsure of what it would leave alone
    assert answer(5 / 12).weights == pytest.approx(weights | {"noise": 0.2, "clean": 0.8})
    assert answer(0.33).warnings == ("noise, not sure (0.33): left as it is; --weights noise=1 for all of it",)
    weights |= {"noise": 0.05, "clean": 0.95}
    assert answer(0.41).weights == weights  # little is done anyway


def test_damage_that_is_unlike_all_that_was_learnt_is_restored_gently_or_not_at_all_and_said(
    restorer: Restorer, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = dict.fromkeys(restorer.labels, 0.0) | {"noise": 0.75, "clean": 0.25}

    def answer(unknown: float | None, confidence: float = 0.9) -> Restored[Any]:
        monkeypatch.setattr(restorer, "_judge", lambda _: Judgement(weights, confidence, unknown))
        return restorer(photo)

    strange, known, alien = answer(0.9625), answer(0.95), answer(0.98)
    assert strange.weights == pytest.approx(weights | {"noise": 0.375, "clean": 0.625})
    assert strange.warnings == (
        "noise, but unlike what was learnt (0.96): restored at a strength of 0.50; --weights noise=1 for all of it",
    )
    assert (strange.unknown, known.unknown) == (0.9625, 0.95)
    assert (known.weights, known.warnings) == (weights, ())
    assert np.array_equal(alien.image, photo)
    assert alien.warnings == (
        "noise, but unlike what was learnt (0.98): left as it is; --weights noise=1 for all of it",
    )
    assert "not sure (0.33)" in answer(0.9625, 0.33).warnings[0]  # the stronger reason is told
    weights |= {"noise": 0.4, "clean": 0.6}
    assert np.array_equal(answer(0.98).image, photo)
    weights |= {"noise": 0.05, "clean": 0.95}
    assert answer(0.99).weights == weights  # little is done anyway


@pytest.mark.parametrize("colour", [0, 255])
@pytest.mark.parametrize("border", [5, 64, 300])
@pytest.mark.parametrize("quality", ["standard", "best"])
def test_a_photo_comes_back_the_same_within_a_border_and_the_border_stays(
    restorer: Restorer, photo: np.ndarray, border: int, colour: int, quality: Quality
) -> None:
    framed = np.pad(photo, ((border, border), (border, border), (0, 0)), constant_values=colour)
    assert restorer.estimate(framed) == restorer.estimate(photo)
    weights = {"noise": 0.6}
    restored = np.array(restorer(framed, weights=weights, quality=quality).image)
    inside = restored[border:-border, border:-border]
    alone = np.array(restorer(photo, weights=weights, quality=quality).image)
    assert np.array_equal(inside, alone)
    assert not np.array_equal(alone, photo)
    inside[...] = photo
    assert np.array_equal(restored, framed)


@pytest.mark.parametrize(("dtype", "least"), [(np.uint8, 0.5 / 255), (np.uint16, 0.5 / 65535), (np.float32, 0.0)])
def test_a_part_that_rounds_to_nothing_costs_no_time(
    restorer: Restorer, photo: np.ndarray, dtype: type, least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    factor = {np.uint8: 1, np.uint16: 257, np.float32: 1 / 255}[dtype]
    pixels = (photo.astype(np.float64) * factor).astype(dtype)
    changed = restorer(pixels, weights={"noise": least * 1.01 + 1e-5}).image
    assert np.abs(changed.astype(np.float64) - pixels).max() <= (1 if dtype != np.float32 else 1e-3)
    monkeypatch.setattr(restorer.blender, "blend", None)
    assert np.array_equal(restorer(pixels, weights={"noise": least * 0.99}).image, pixels)


def test_a_turned_photo_gets_exactly_the_same_estimate(restorer: Restorer, photo: np.ndarray) -> None:
    estimate = restorer.estimate(photo)
    for turned in orientations(photo):
        assert restorer.estimate(np.ascontiguousarray(turned)) == estimate


def test_a_tile_that_is_all_overlap_and_an_unknown_policy_are_refused(restorer: Restorer, photo: np.ndarray) -> None:
    with pytest.raises(WeightsError, match="tile 63: expected a whole number of at least 64"):
        restorer(photo, tile=63)
    with pytest.raises(WeightsError, match="policy 'hard': unknown; expected 'soft', 'one-hot' or 'backbone'"):
        restorer(photo, policy="hard", weights={"clean": 1})  # type: ignore[call-overload]


def test_the_global_view_of_a_strip_reads_no_more_than_that_of_a_square(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = views.to_tensor
    monkeypatch.setattr(views, "to_tensor", lambda pixels: seen.append(pixels.size) or real(pixels))
    for shape in ((2000, 2000, 3), (40, 100_000, 3)):
        assert views.global_view(np.zeros(shape, np.uint8)).shape == (1, 3, 64, 64)
    assert max(seen) <= 3 * (2 * views.SAMPLED) ** 2


@pytest.mark.slow
def test_weights_of_one_request_never_reach_another(restorer: Restorer, photo: np.ndarray) -> None:
    small = photo[:64, :64].copy()
    asked = [{"noise": 1.0}, {"rain": 1.0}, {"noise": 0.3, "rain": 0.5}, {"clean": 0.5, "low-light": 0.5}, {}] * 6
    alone = [restorer(small, weights=weights).image for weights in asked]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda weights: restorer(small, weights=weights).image, asked))
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))
    assert len({image.tobytes() for image in alone}) == 5


def test_low_precision_is_near(bundle: Path, photo: np.ndarray) -> None:
    exact = Restorer.load(bundle)(photo, policy="backbone").image
    low = Restorer.load(bundle, precision="bfloat16")(photo, policy="backbone").image
    assert decibels(exact, low) > 45


@pytest.mark.parametrize("fast", [True, False])
def test_auto_is_bfloat16_where_that_is_fast_and_a_photo_is_not_mostly_clean(
    bundle: Path, photo: np.ndarray, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("abair.inference.hardware.fast_bf16_on_cpu", lambda: fast)
    exact, low, auto = (Restorer.load(bundle, precision=name) for name in ("float32", "bfloat16", "auto"))
    for clean in (0.4, 0.6):
        expected = low if fast and clean < 0.5 else exact
        weights = {"noise": 1 - clean}
        image = auto(photo, weights=weights).image
        assert np.array_equal(image, expected(photo, weights=weights).image)


def test_a_changed_file_is_refused_with_both_hashes(bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    target = copy / "adapters" / "rain" / "adapter_model.safetensors"
    content = bytearray(target.read_bytes())
    content[-1] ^= 1
    target.write_bytes(content)
    with pytest.raises(DeploymentError, match=r"rain.*found SHA-256 [0-9a-f]{64}.*expected [0-9a-f]{64}.*restore the"):
        Restorer.load(copy)


@pytest.mark.parametrize("looks", [0, -1, 1.5, "two"])
def test_an_unusable_number_of_looks_is_refused(restorer: Restorer, photo: np.ndarray, looks: Any) -> None:
    with pytest.raises(WeightsError, match=r"looks .*: expected a whole number of at least 1"):
        restorer(photo, looks=looks)


def test_a_photo_too_small_for_sixteen_crops_is_never_called_unknown(
    restorer: Restorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = Estimate([1 / len(restorer.labels)] * len(restorer.labels), 0.9, 0.97)
    monkeypatch.setattr(restorer._estimator, "estimate", lambda *_: said)
    told = [restorer.judge(np.full((height, 300, 3), 90, np.uint8)).unknown for height in (255, 256)]
    assert told == [None, 0.97]


def test_an_unknown_device_is_one_clear_line(bundle: Path) -> None:
    with pytest.raises(DeploymentError, match="device warp: cannot be used"):
        Restorer.load(bundle, device="warp")


@pytest.mark.slow
def test_serving_runs_no_plugin_code(bundle: Path, tmp_path: Path) -> None:
    """A plugin whose import raises is installed for the process; restoring neither fails nor imports it."""
    site = tmp_path / "site"
    info = site / "abair_bomb-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: abair-bomb\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[abair]\nnoise = abair_bomb\n")
    (site / "abair_bomb.py").write_text("raise RuntimeError('a plugin was imported')\n")
    program = (
        "import sys, numpy, abair.discovery\n"
        f"sys.path.insert(0, {str(site)!r})\n"
        "assert any('bomb' in str(p) for p in abair.discovery.discover().problems)\n"
        "sys.modules.pop('abair_bomb', None)\n"
        "before = set(sys.modules)\n"
        "from abair import Restorer\n"
        f"Restorer.load({str(bundle)!r})(numpy.zeros((20, 20, 3), numpy.uint8))\n"
        "print(sorted(m for m in set(sys.modules) - before if m.startswith('abair_')))\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "[]"


def test_numbers_of_any_kind_are_weights_and_wrong_ones_are_told(restorer: Restorer, photo: np.ndarray) -> None:
    given = restorer(photo, weights={"noise": np.float32(0.5)}).weights
    assert given["noise"] == 0.5
    with pytest.raises(WeightsError, match="unknown label 3, hail"):
        restorer(photo, weights={"hail": 1, 3: 1})  # type: ignore[dict-item]
    with pytest.raises(WeightsError, match=r"tile 64\.5"):
        restorer(photo, tile=64.5)  # type: ignore[call-overload]
    with pytest.raises(DeploymentError, match="precision 'fp16': unknown"):
        Restorer.load(precision="fp16")  # type: ignore[arg-type]
