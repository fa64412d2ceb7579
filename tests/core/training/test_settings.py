"""Settings: defaults, file and options; names of before; settings of other phases."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from tests.support.toy_task import make_settings

from abair.errors import TrainingError
from abair.training.settings import (
    ADAPTING,
    ESTIMATING,
    PRETRAINING,
    RENAMED,
    AdapterSettings,
    BackboneSettings,
    EstimatorSettings,
    Settings,
    read_settings,
    with_current_names,
    write_settings,
)

ROOT = Path(__file__).parents[3]
TEMPLATE = ROOT / "core" / "abair" / "plugin_kit" / "template"
OLD_RECORDS = sorted(ROOT.glob("plugins/*/src/*/adapters/nano/training.toml"))
RECORDS = [
    *sorted(ROOT.glob("plugins/*/src/*/adapters/nano-2/training.toml")),
    *TEMPLATE.glob("src/module/adapters/nano-2/training.toml"),
]


def write(folder: Path, *lines: str) -> Path:
    """Write a settings file."""
    file = folder / "s.toml"
    file.write_text("\n".join(["[settings]", *lines]), encoding="utf-8")
    return file


def test_settings_come_from_defaults_then_file_then_what_is_given(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text("[settings]\nsteps = 20\nbatch = 2\n", encoding="utf-8")
    read = read_settings(make_settings(), file, steps=30, seed=None)
    assert (read.steps, read.batch, read.seed) == (30, 2, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[settings]\nstep = 3", "step: .*found 3"),
        ("[settings]\nsteps = 0", "steps: .*found 0"),
        ("[settings]\ncrop = 20", "crop: .*found 20"),
        ("[settings", "cannot be read as TOML"),
        ("steps = 3", r"found steps, expected a table \[settings\]"),
        ("settings = 3", r"found settings, expected a table \[settings\]"),
        (None, "cannot be read as TOML"),
    ],
)
def test_settings_that_cannot_be_used_are_one_clear_error(tmp_path: Path, text: str | None, message: str) -> None:
    file = tmp_path / "s.toml"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    with pytest.raises(TrainingError, match=message) as caught:
        read_settings(make_settings(), file)
    assert str(file) in str(caught.value)


# --- names of before


@pytest.mark.parametrize("record", RECORDS, ids=lambda path: path.parts[-5])
def test_the_record_of_a_shipped_adapter_is_read_back(record: Path) -> None:
    lines: list[str] = []
    settings = read_settings(ADAPTING, record, log=lines.append)
    stated = tomllib.loads(record.read_text(encoding="utf-8"))["settings"]
    assert {name: settings.model_dump(mode="json")[name] for name in stated} == stated
    assert lines == []


@pytest.mark.parametrize("record", OLD_RECORDS, ids=lambda path: path.parts[-5])
def test_the_record_of_an_adapter_of_the_first_release_is_read_back(record: Path) -> None:
    lines: list[str] = []
    settings = read_settings(ADAPTING, record, log=lines.append)
    stated = tomllib.loads(record.read_text(encoding="utf-8"))["settings"]
    for name, value in with_current_names(stated).items():
        if name in AdapterSettings.model_fields:
            assert settings.model_dump(mode="json")[name] == value
    (line,) = lines
    assert "averaging is now ema_decay, clip is now grad_clip" in line
    assert str(record) in line
    assert ("beside is now mix_with" in line) == ("beside" in stated)
    assert "emphasis" not in line  # another phase's, at its default


def test_all_shipped_adapters_have_a_record() -> None:
    assert (len(RECORDS), len(OLD_RECORDS)) == (9, 8)


def test_the_record_of_an_estimator_of_the_first_release_is_read_back() -> None:
    lines: list[str] = []
    record = ROOT / "core" / "abair" / "weights" / "paper" / "training.toml"
    settings = read_settings(ESTIMATING, record, log=lines.append)
    assert (settings.steps, settings.ema_decay, settings.average_weight) == (600, 0.998, 0.5)
    assert len(lines) == 1
    assert "trained_part is now average_weight" in lines[0]
    assert "scene" not in lines[0]


def test_every_old_name_has_a_new_one_that_is_a_setting() -> None:
    fields = {name for kind in (BackboneSettings, AdapterSettings, EstimatorSettings) for name in kind.model_fields}
    assert set(RENAMED.values()) <= fields
    assert not set(RENAMED) & fields


def test_a_setting_by_both_its_names_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path, "clip = 2.0", "grad_clip = 1.0")
    with pytest.raises(TrainingError, match=r"s\.toml: found clip and grad_clip, two names of one setting; .* remove"):
        read_settings(PRETRAINING, file)


def test_a_file_with_the_names_of_today_says_nothing(tmp_path: Path) -> None:
    lines: list[str] = []
    file = write(tmp_path, "grad_clip = 2.0", 'mix_with = ["rain"]')
    settings = read_settings(ADAPTING, file, log=lines.append)
    assert (settings.grad_clip, settings.mix_with, lines) == (2.0, ("rain",), [])


@pytest.mark.parametrize("defaults", [PRETRAINING, ADAPTING, ESTIMATING])
def test_a_record_has_the_phases_own_settings_and_is_read_back_to_them(defaults: Settings, tmp_path: Path) -> None:
    settings = defaults.model_copy(update={"steps": 7, "minutes": 2.5})
    write_settings(tmp_path / "training.toml", settings, run={"steps": 7})
    written = tomllib.loads((tmp_path / "training.toml").read_text(encoding="utf-8"))["settings"]
    assert set(written) == set(type(defaults).model_fields)
    lines: list[str] = []
    assert read_settings(defaults, tmp_path / "training.toml", log=lines.append) == settings
    assert lines == []


# --- settings of other phases


@pytest.mark.parametrize(
    ("defaults", "line", "message"),
    [
        (PRETRAINING, "rank = 8", r"rank: found 8, a setting of phase II \(abair train adapter\), expected settings of "
         r"phase I \(abair train backbone\); remove it"),
        (ESTIMATING, "scene_size = 512", r"scene_size: found 512, a setting of phase II .*of phase III"),
        (ESTIMATING, 'beside = ["rain"]', r"mix_with: found \['rain'\], a setting of phase II"),
        (ADAPTING, "sampling_weights = {blur = 2.0}", r"sampling_weights: found .*, a setting of phase I "),
        (PRETRAINING, "average_weight = 0.25", r"average_weight: found 0.25, a setting of phase II .* and phase III"),
    ],
)  # fmt: skip
def test_a_setting_of_another_phase_is_refused_by_name(
    defaults: Settings, line: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=message) as caught:
        read_settings(defaults, write(tmp_path, line))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "line", ["rank = 16", "scene_size = 0", "scene_probability = 0.6", "mix_with = []", "blended = true"]
)
def test_a_setting_of_another_phase_is_ignored_at_its_default(line: str, tmp_path: Path) -> None:
    assert read_settings(PRETRAINING, write(tmp_path, line)) == PRETRAINING
    assert read_settings(ESTIMATING, write(tmp_path, line)) == ESTIMATING


def test_an_option_of_another_phase_is_refused_at_any_value() -> None:
    with pytest.raises(TrainingError, match="settings: rank: found 16, a setting of phase II"):
        read_settings(PRETRAINING, None, rank=16)
