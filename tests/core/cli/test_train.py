"""`abair train`: the options that its functions get."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.core.cli.conftest import Abair


def test_training_hands_its_options_over(abair: Abair, monkeypatch: pytest.MonkeyPatch) -> None:
    from abair.plugin_kit import adapter_report
    from abair.training import run

    calls: list[dict[str, Any]] = []
    for name in ("train_backbone", "train_estimator"):
        monkeypatch.setattr(run, name, lambda **given: calls.append(given))
    monkeypatch.setattr(adapter_report, "train", lambda **given: calls.append(given))
    assert (
        abair("train", "backbone", "--out", "run", "--size", "small", "--steps", "7", "--batch", "2", "--compile").code
        == 0
    )
    tracked = ["--time-budget", "10m", "--track"]
    assert abair("train", "adapter", "snow", "--pairs", "p", "--pairs", "q", "--layers", "l", *tracked).code == 0
    estimating = ["--out", "bundle", "--settings", "s.toml", "--decay", "0.5", "--labels", "noise, rain"]
    estimating += ["--time-budget", "1h30m", "--patience", "3"]
    assert abair("train", "estimator", *estimating).code == 0
    backbone, adapter, estimator = calls
    assert (backbone["out"], backbone["size"], backbone["steps"], backbone["batch"]) == (Path("run"), "small", 7, 2)
    assert (backbone["crop"], backbone["compile"]) == (None, True)
    assert (adapter["name"], adapter["minutes"], adapter["track"]) == ("snow", 10, True)
    assert (adapter["pairs"], adapter["layers"]) == ((Path("p"), Path("q")), (Path("l"),))
    assert (backbone["labels"], estimator["labels"]) == ((), ("noise", "rain"))
    assert (estimator["minutes"], estimator["patience"]) == (90, 3)
    assert (estimator["out"], estimator["settings_file"], estimator["decay"]) == (Path("bundle"), Path("s.toml"), 0.5)


def test_the_options_of_training_are_parameters_that_the_functions_have() -> None:
    import inspect

    from abair.cli.train_options import Size
    from abair.model.backbone import SIZES
    from abair.plugin_kit import adapter_report
    from abair.training import run
    from abair.training.settings import PRETRAINING

    assert [size.value for size in Size] == list(SIZES)
    overrides = {
        "steps",
        "batch",
        "crop",
        "learning_rate",
        "seed",
        "precision",
        "workers",
        "decay",
        "minutes",
        "patience",
    }
    assert overrides <= set(PRETRAINING.model_dump())
    for function, own in {
        run.train_backbone: {"data", "size", "out", "settings_file", "start", "labels", "device"},
        adapter_report.train: {"name", "data", "pairs", "backbone", "out", "run", "settings_file", "device"},
        run.train_estimator: {"data", "out", "name", "run", "backbone", "settings_file", "labels", "device"},
    }.items():
        assert own <= set(inspect.signature(function).parameters)
