"""`abair train backbone` end to end on the `tiny` backbone."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from tests.support.phases import DEGRADATIONS, QUICK

from abair.discovery import Problem, discover
from abair.errors import PluginError, TrainingError
from abair.model.backbone import fingerprint, load_backbone
from abair.training.run import train_backbone


def test_phase_one_writes_a_backbone_and_its_settings(backbone: Path) -> None:
    record = tomllib.loads((backbone.parent / "training.toml").read_text())
    assert record["settings"]["steps"] == 4
    assert record["run"]["labels"] == [*DEGRADATIONS, "clean"]
    assert record["run"]["fingerprint"] == fingerprint(load_backbone(backbone))


@pytest.mark.slow
def test_phase_one_goes_on_from_a_finished_backbone(photos: Path, backbone: Path, tmp_path: Path) -> None:
    settings = {"steps": 1, "labels": DEGRADATIONS, "learning_rate": 1e-12} | QUICK
    more = train_backbone(data=photos, size="tiny", out=tmp_path / "more", start=backbone, **settings)
    assert fingerprint(load_backbone(more)) == fingerprint(load_backbone(backbone))
    with pytest.raises(TrainingError, match=r"cannot be started from .*; expected .* or a backbone of the"):
        train_backbone(data=photos, size="nano", out=tmp_path / "other", start=backbone, **settings)


def test_a_plugin_that_cannot_be_used_stops_the_training(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugins = discover()
    plugins.problems.append(Problem("snow", "abair-snow", "cannot be imported"))
    monkeypatch.setattr("abair.training.inputs.discover", lambda: plugins)
    with pytest.raises(
        PluginError, match=r"plugin snow \(distribution abair-snow\): cannot be imported; training needs"
    ):
        train_backbone(data=photos, size="tiny", out=tmp_path / "out", steps=1, **QUICK)
    assert not (tmp_path / "out").exists()


def test_a_label_that_is_not_installed_stops_the_training(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="degradation sleet: no usable plugin declares it"):
        train_backbone(data=photos, size="tiny", out=tmp_path / "out", labels=("noise", "sleet"), steps=1, **QUICK)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [({"size": "huge"}, "expected one of tiny"), ({"steps": 0}, "steps"), ({"crop": 33}, "crop")],
)
def test_wrong_settings_are_one_clear_line(
    photos: Path, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        train_backbone(**{"data": photos, "size": "tiny", "out": tmp_path, "steps": 1} | change)
