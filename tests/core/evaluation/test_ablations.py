"""`abair bench ablations`: variants of each phase, trained for the same time on the tiny network."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from PIL import Image
from tests.conftest import pictures

from abair.cli import app
from abair.continual.collect import ReplayCounts
from abair.evaluation import ablations
from abair.evaluation.ablations import AblationConfig
from abair.training.settings import ADAPTING, PRETRAINING

pytestmark = pytest.mark.slow


@pytest.fixture
def small(tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command on little of everything."""
    quick = {"crop": 32, "batch": 2, "workers": 0}
    config = AblationConfig(
        ranks=(2, 4), mixture_count=2, replay=ReplayCounts(8, 2, 2),
        pretraining=PRETRAINING.model_copy(update=quick), adapting=ADAPTING.model_copy(update=quick),
    )  # fmt: skip
    monkeypatch.setattr(ablations, "ablate", partial(ablations.ablate, config=config))
    (tmp_path / "photos").mkdir()
    for place, picture in enumerate(pictures(range(8)).photos):
        wide = Image.fromarray(picture).resize((256, 192))  # validation crops are 192 pixels wide
        wide.save(tmp_path / "photos" / f"{place}.png")
    return ["bench", "ablations", "--data", str(tmp_path / "photos"), "--out", str(tmp_path / "out"), "--minutes",
            "0.01", "--labels", "noise,rain", "--adapters", "noise", "--deployment", str(bundle)]  # fmt: skip


@pytest.mark.rare
@pytest.mark.exhaustive
def test_every_variant_is_trained_for_its_time_and_judged_on_held_out_photos(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(small) == 0, capsys.readouterr().err
    told = json.loads((tmp_path / "out" / "ablations.json").read_text())
    assert told["labels"] == ["noise", "rain", "clean"]
    found = {(one["part"], one["name"]): one for one in told["variants"]}
    assert [name for part, name in found if part == "Phase I"] == [
        "whole", "without CutMix", "without segmentation head"
    ]  # fmt: skip
    assert [name for part, name in found if part == "Phase II"] == [
        "the frozen backbone", "adapters of rank 2", "adapters of rank 4", "the whole network, jointly"
    ]  # fmt: skip
    assert [name for part, name in found if part == "Phase III"] == [
        "all features", "without the files' marks", "crops alone", "global view alone"
    ]  # fmt: skip
    narrow, wide = (found["Phase II", f"adapters of rank {rank}"] for rank in (2, 4))
    assert wide["trained"] == 2 * narrow["trained"]
    assert found["Phase II", "the whole network, jointly"]["trained"] > wide["trained"]
    per_step = [one["multiply_adds"] / one["steps"] for one in (wide, found["Phase II", "the whole network, jointly"])]
    assert 0 < per_step[0] < per_step[1]  # the frozen weights need no gradients
    trained = [one for (part, name), one in found.items() if part != "Phase III" and "frozen" not in name]
    assert all(one["steps"] > 0 and one["minutes"] >= 0.01 for one in trained)
    figures = found["Phase I", "whole"]["figures"]
    assert set(figures) == {"single", "chains", "regions", "top-1 in %"}
    # the parts that are left out make another network
    assert len({json.dumps(one["figures"]) for (part, _), one in found.items() if part == "Phase I"}) == 3
    page = (tmp_path / "out" / "ablations.md").read_text()
    assert capsys.readouterr().out == page + "\n"


def test_a_label_that_nobody_declares_is_one_line(small: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run([*small, "--adapters", "noise,sleet"]) == 2
    assert app.run([*small, "--adapters", "noise,"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert ["sleet" in said[0], "--adapters" in said[1]] == [True, True]
