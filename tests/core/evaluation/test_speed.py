"""The speed report: the variants do the same work, and without PEFT the rest is still measured."""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from abair.contract import CONFIG_FILE, WEIGHTS_FILE
from abair.deployment import AdapterRef, BackboneRef, Deployment, file_ref, write_deployment
from abair.evaluation import speed, speed_profile
from abair.evaluation.compare_builds import Measurement, Seconds
from abair.evaluation.reports import speed_page
from abair.evaluation.speed import BACKBONE, BLENDED, PEFT, SpeedReport, interleaved, measure_speed
from abair.model.backbone import SIZES, Backbone, fingerprint, load_backbone, save_backbone
from abair.model.lora import PREFIX, adaptable_layers, backbone_reference

NAMES = ("noise", "blur")


@pytest.fixture(scope="module")
def restorer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tiny network whose output is not zero, with two adapters of random numbers; its estimator does nothing."""
    folder = tmp_path_factory.mktemp("bundle")
    generator = torch.Generator().manual_seed(0)
    network = Backbone(SIZES["tiny"])
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1 + (parameter.dim() == 1)
    save_backbone(network, folder / "backbone.safetensors")
    backbone = load_backbone(folder / "backbone.safetensors")
    return SimpleNamespace(
        deployment=_bundle(folder, backbone, generator),
        estimate=lambda image: {"noise": 1.0, "blur": 0.0, "clean": 0.0},
    )


def _bundle(folder: Path, backbone: Backbone, generator: torch.Generator) -> Deployment:
    layers = adaptable_layers(backbone)
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": list(layers), "bias": "none"}
    config["base_model_name_or_path"] = backbone_reference("tiny", fingerprint(backbone))
    adapters = []
    for name in NAMES:
        (folder / name).mkdir()
        tensors = {}
        for layer, module in layers.items():
            weight: Any = module.weight
            ones = (1, 1) if weight.dim() == 4 else ()
            tensors[f"{PREFIX}{layer}.lora_A.weight"] = torch.randn((2, *weight.shape[1:]), generator=generator) * 0.1
            tensors[f"{PREFIX}{layer}.lora_B.weight"] = torch.randn((len(weight), 2, *ones), generator=generator) * 0.1
        # not PEFT's names: a bundle may lay its files out as it likes
        save_file(tensors, folder / name / "weights.safetensors")
        (folder / name / "config.json").write_text(json.dumps(config))
        refs = {part: file_ref(folder / name / file, folder)
                for part, file in (("config", "config.json"), ("weights", "weights.safetensors"))}  # fmt: skip
        adapters.append(AdapterRef(degradation=name, title=name, distribution="test", version="0", **refs))
    deployment = Deployment(
        name="tiny-1",
        created=datetime.now(UTC),
        labels=(*NAMES, "clean"),
        backbone=BackboneRef(
            size="tiny",
            fingerprint=fingerprint(backbone),
            file=file_ref(folder / "backbone.safetensors", folder),
        ),
        adapters=tuple(adapters),
        estimator=file_ref(folder / "backbone.safetensors", folder),
    )
    write_deployment(deployment, folder)
    return deployment


def _measure(restorer: Any, **options: Any) -> SpeedReport:
    return measure_speed(restorer, sides=(24, 32), repeats=1, **options)


def test_our_blend_and_peft_with_the_same_adapters_active_give_the_same_picture(restorer: Any) -> None:
    pytest.importorskip("peft")
    report = _measure(restorer)
    assert report.largest_difference is not None
    assert report.largest_difference < 1e-4
    assert set(report.networks[0].seconds) == {BACKBONE, BLENDED, PEFT}
    text = report.markdown()
    for part in (
        "24 x 24",
        "32 x 32",
        "MP/s",
        "blend of 2 adapters",
        "estimator, 32 x 32",
        "tiny-1",
        "noise, blur",
        PEFT,
    ):
        assert part in text


def test_without_peft_the_rest_is_measured_and_the_report_names_the_pip_command(
    restorer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    told: list[tuple[int, int]] = []
    report = _measure(restorer, progress=lambda done, total, text: told.append((done, total)))
    assert set(report.networks[0].seconds) == {BACKBONE, BLENDED}
    assert report.largest_difference is None
    assert "pip install 'abair[train]'" in report.markdown()
    assert told[-1][0] == told[-1][1]
    assert SpeedReport.model_validate_json(report.model_dump_json()) == report


def test_bf16_is_measured_where_the_processor_has_it_and_named_where_not(
    restorer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    for has_it in (True, False):
        monkeypatch.setattr(speed, "fast_bf16_on_cpu", lambda has_it=has_it: has_it)
        report = _measure(restorer)
        assert ("bfloat16" in {network.precision for network in report.networks}) == has_it
        assert ("bf16 not measured" in report.markdown()) != has_it


def test_ratios_are_against_the_bare_backbone() -> None:
    one = speed.NetworkSpeed(side=1000, precision="float32", seconds={BACKBONE: 2.0, BLENDED: 2.1, PEFT: 5.0})
    assert one.ratios == pytest.approx({BACKBONE: 1.0, BLENDED: 1.05, PEFT: 2.5})
    assert one.megapixels_per_second[BACKBONE] == pytest.approx(0.5)


def test_timing_runs_all_calls_in_turn_after_a_warm_up() -> None:
    order: list[str] = []
    calls = {name: (lambda name=name: order.append(name)) for name in "abc"}
    seconds = interleaved(calls, 3)
    assert "".join(order) == "abc" + "abc" + "cba" + "abc"
    assert list(seconds) == list("abc")
    assert all(taken >= 0 for taken in seconds.values())


def test_the_files_for_peft_have_its_names() -> None:
    assert (CONFIG_FILE, WEIGHTS_FILE) == ("adapter_config.json", "adapter_model.safetensors")


def _measured(size: float, threads: int, precision: str) -> Measurement:
    seconds = Seconds(wall=size / threads / (2 if precision == "auto" else 1), cpu=size)
    return Measurement(start=seconds, restore=seconds, peak_bytes=int(3e8 + size * 1e6), mean=0, abair="a", torch="t")


def test_the_page_has_every_size_threads_and_precision_and_what_blends_take(
    restorer: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = []

    def measure(build: Any, folder: Path, size: float, threads: int, precision: str) -> Measurement:
        asked.append((size, threads, precision))
        return _measured(size, threads, precision)

    monkeypatch.setattr(speed_profile, "measure_build", measure)
    profile = speed_profile.measure_profile(restorer, megapixels=[1, 24], threads=[1, 2], rounds=3, adapters=(2, 5))
    assert asked == 3 * [(size, count, kind) for kind in ("float32", "auto") for count in (1, 2) for size in (1, 24)]
    assert {(point.megapixels, point.threads, point.precision): point.seconds for point in profile.points} == {
        (1, 1, "float32"): 1, (24, 1, "float32"): 24, (1, 2, "float32"): 0.5, (24, 2, "float32"): 12,
        (1, 1, "auto"): 0.5, (24, 1, "auto"): 12, (1, 2, "auto"): 0.25, (24, 2, "auto"): 6,
    }  # fmt: skip
    few, many = profile.blends
    assert (few.adapters, many.adapters) == (2, 5)
    assert all(part is not None and part > 0 for part in (many.two_ms, many.peft_forward_ms, many.peft_cat_ms))

    page = speed_page.write_page(profile, "abair bench speed --results speed.md", "speed.png")
    assert "| 24 | 2 | auto | 6.00 | 24.00 | 4.00 | 324 |" in re.sub(" +", " ", page)
    assert "![Throughput and memory" in page
    assert "](speed.png)" in page
    drawn = [axes.get_title() for axes in speed_page.draw(profile).axes]
    assert drawn == ["Throughput", "Peak memory", "Blending, of the network's time at 0.25 MP"]


def test_without_peft_the_blends_are_measured_all_the_same(restorer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    cost = speed_profile._blend_cost(restorer, 2, 1)
    assert cost.peft_forward_ms is None
    assert cost.two_ms > 0
