"""`abair-registry bench`: plugins added one after the other in a registry of their own, and measured after each."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.conftest import pictures
from tests.registry.conftest import Run

from abair.evaluation.policies import Score
from abair.evaluation.results import QualityReport, SetResult
from abair_registry import bench
from abair_registry.bench import Addition, Experiment
from abair_registry.operations.lifecycle import Add
from abair_registry.settings import Settings


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Test sets: three clean photos, and pairs with bright columns."""
    folder = tmp_path / "sets"
    for place, picture in enumerate(pictures(range(40, 43)).photos):
        rained = picture.copy()
        rained[:, :: 7 + place] = 255
        kinds = {"CBSD68": picture, "Rain100L/clean": picture, "Rain100L/degraded": rained}
        for kind, pixels in kinds.items():
            path = folder / kind / f"{place}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.ascontiguousarray(pixels[:64, :96])).save(path)
    return folder


@pytest.mark.rare
@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
def test_each_stage_is_measured_once_and_what_serves_here_stays(
    run: Run,
    team: Path,
    bundle: Path,
    data: Path,
    settings: Settings,
    empty_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out"
    (out / "home").mkdir(parents=True)
    shutil.copyfile(empty_store, out / "home" / "mlflow.db")
    asked = ("bench", "--data", str(data), "--out", str(out), "--plugins", "frost", "--deployment", str(bundle))
    code, (told,), err = run(*asked)
    assert code == 0, err
    assert (told["plugin"], told["outcome"], told["deployment"]) == ("frost", "live", 2)
    assert told["adapter_parameters"] > 0
    assert all(gate["passed"] for gate in told["gates"])
    kept = Experiment.model_validate_json((out / "additions.json").read_text())
    assert [one.key for one in kept.reports[0].sets] == [one.key for one in kept.reports[1].sets]
    assert "Rain100L" in {one.key for one in kept.reports[0].sets}
    assert kept.reports[0].weights_sha256 != kept.reports[1].weights_sha256
    page = re.sub(" +", " ", (out / "additions.md").read_text())
    assert "| set | input | tiny-bundle | + frost | change |" in page
    assert "not measured: SOTS_indoor" in page
    assert "| frost | live | features |" in page
    assert np.asarray(Image.open(out / "additions.png")).std() > 1
    assert not (settings.home / "deployment.json").exists()

    def never(*_: object, **__: object) -> None:
        raise AssertionError("done before")

    monkeypatch.setattr(Add, "run", never)
    monkeypatch.setattr(bench, "evaluate", never)
    assert run(*asked)[:2] == (0, [told])


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
def test_a_plugin_that_is_not_there_is_told_before_anything_is_measured(
    run: Run, data: Path, settings: Settings, tmp_path: Path
) -> None:
    code, _, err = run("bench", "--data", str(data), "--out", str(tmp_path / "out"), "--plugins", "noise,nosuch")
    assert (code, "plugin nosuch: no installed distribution has it" in err) == (1, True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
def test_what_the_first_stage_has_already_is_not_added(
    run: Run, data: Path, settings: Settings, bundle: Path, tmp_path: Path
) -> None:
    asked = ("bench", "--data", str(data), "--out", str(tmp_path / "out"), "--plugins", "jpeg,noise")
    code, _, err = run(*asked, "--deployment", str(bundle))
    assert (code, "noise: found in deployment tiny-bundle before anything is added" in err) == (1, True)
    assert not (tmp_path / "out").exists()


def test_the_gain_of_a_new_degradation_stands_beside_the_papers() -> None:
    def report(soft: float) -> QualityReport:
        means = {policy: Score(psnr=soft, ssim=0.5) for policy in ("input", "OH", "SW", "Oracle")}
        one = SetResult.model_construct(key="CBSD68_jpeg20", title="JPEG Q20", mean=means)
        return QualityReport.model_construct(
            deployment="paper", sets=(one,), protocol=("crops of 8",), missing={}, weights_sha256="cd" * 32
        )

    added = Addition.model_construct(
        plugin="jpeg", outcome="rejected", route="full", seconds=80.4, adapter_parameters=1000,
        estimator_parameters=20, gates=[{"name": "clean photos", "passed": False}],
        photos={"photos": "ab" * 32}, thresholds={"loss": 0.1},
    )  # fmt: skip
    experiment = Experiment.model_construct(additions=[added], reports=[report(26.0), report(28.5)])
    page = re.sub(" +", " ", experiment.markdown())
    assert "| JPEG Q20 | 26.00 | 26.00 | 28.50 | 28.50 | 28.50 | +2.50 | +1.36 | reached |" in page
    assert "thresholds of the gates: loss 0.1" in page
    assert "Lost more than 0.10 dB from first to last: none." in page
    assert "| jpeg | rejected (clean photos) | full | 80 | 1,000 | 20 |" in page
