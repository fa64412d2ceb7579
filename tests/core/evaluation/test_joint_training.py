"""`abair bench joint`: one more degradation by an adapter and by training everything again, on the tiny network."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pluggy
import pytest
from PIL import Image
from tests.conftest import SYNTHESIZERS, pictures, write_adapter

import abair.discovery
from abair.cli import app
from abair.contract import Card, Degradation
from abair.discovery import Found, Plugins
from abair.evaluation import joint_training
from abair.evaluation.joint_training import ComparisonConfig
from abair.model.backbone import load_backbone
from abair.training.settings import ADAPTING, PRETRAINING

pytestmark = pytest.mark.slow

RECORD = "[settings]\ncrop = 32\nbatch = 2\n\n[run]\nsteps = 10\n"


@pytest.fixture
def command(tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command on little of everything; rain and low light are the new ones."""
    found = {}
    for seed, name in enumerate(SYNTHESIZERS):
        write_adapter(tmp_path / name / "tiny", load_backbone(bundle / "backbone.safetensors"), seed)
        (tmp_path / name / "tiny" / "training.toml").write_text(RECORD)
        degradation = Degradation(
            name=name, title=name, synthesizer=f"tests.conftest:{name.replace('-', '_')}", adapters=tmp_path / name,
            card=Card(authors=("test",), licence="Apache-2.0", training_data="none"),
        )  # fmt: skip
        found[name] = Found(degradation, f"abair-{name}", "0.1.0")
    monkeypatch.setattr(abair.discovery, "discover", lambda: Plugins(pluggy.PluginManager("abair"), found))
    monkeypatch.setattr(joint_training, "load_synthesizer", lambda degradation: SYNTHESIZERS[degradation.name])
    quick = {"crop": 32, "batch": 2, "workers": 0}
    config = ComparisonConfig(
        timing_minutes=0.01, validate_every=2,
        pretraining=PRETRAINING.model_copy(update=quick), adapting=ADAPTING.model_copy(update=quick),
    )  # fmt: skip
    monkeypatch.setattr(joint_training, "compare_costs", partial(joint_training.compare_costs, config=config))
    (tmp_path / "photos").mkdir()
    for place, picture in enumerate(pictures(range(8)).photos):
        wide = Image.fromarray(picture).resize((256, 192))  # validation crops are 192 pixels wide
        wide.save(tmp_path / "photos" / f"{place}.png")
    return ["bench", "joint", "--data", str(tmp_path / "photos"), "--out", str(tmp_path / "out"), "--minutes", "0.03",
            "--new", "rain,low-light", "--deployment", str(bundle)]  # fmt: skip


@pytest.mark.rare
@pytest.mark.exhaustive
def test_each_label_more_is_measured_both_ways(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(command) == 0, capsys.readouterr().err
    stages = json.loads((tmp_path / "out" / "joint.json").read_text())["stages"]
    assert [stage["labels"] for stage in stages] == [["noise", "rain"], ["noise", "rain", "low-light"]]
    for stage in stages:
        beside, jointly = stage["adapter"], stage["joint"]
        assert beside["steps"] == 10
        assert beside["minutes"] > 0
        assert jointly["minutes"] >= 0.03
        assert jointly["trained"] > beside["trained"]
        assert jointly["multiply_adds"] / jointly["steps"] > beside["multiply_adds"] / beside["steps"] > 0
        assert set(beside["figures"]) == set(jointly["figures"]) == set(stage["labels"])
        # an adapter of random numbers is soon left behind, and that is told
        assert jointly["psnr"] > beside["psnr"]
        assert 0 <= stage["reached"] <= jointly["minutes"] + 0.01
    assert capsys.readouterr().out == (tmp_path / "out" / "joint.md").read_text() + "\n"


def test_an_adapter_without_a_record_is_one_line(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rain" / "tiny" / "training.toml").unlink()
    assert app.run(command) == 1
    said = capsys.readouterr().err.splitlines()
    assert "training.toml: cannot be read as the record of a training" in said[-1]


def test_a_label_that_nobody_declares_is_one_line(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run([*command, "--new", "sleet"]) == 2
    assert "sleet: no usable plugin declares it" in capsys.readouterr().err
