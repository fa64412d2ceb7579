"""Options of `abair train` by their old names: understood, with a line that names the new one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from abair.cli.app import run
from abair.plugin_kit import adapter_report
from abair.training import run as phases


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the command hands to the functions of phases II and III."""
    given: list[dict[str, Any]] = []
    monkeypatch.setattr(adapter_report, "train", lambda **options: given.append(options))
    monkeypatch.setattr(phases, "train_estimator", lambda **options: given.append(options))
    return given


@pytest.mark.parametrize(
    ("command", "old", "new", "name", "value"),
    [
        (["adapter", "snow"], ["--beside", "rain,haze"], "--mix-with", "mix_with", ("rain", "haze")),
        (["adapter", "snow"], ["--mean-with", "a"], "--average-with", "average_with", Path("a")),
        (["estimator", "--out", "b"], ["--mean-with", "e"], "--average-with", "average_with", Path("e")),
    ],
)
def test_an_option_by_its_old_name_is_understood_and_the_new_one_named(
    calls: list[dict[str, Any]], capsys: pytest.CaptureFixture[str],
    command: list[str], old: list[str], new: str, name: str, value: object,
) -> None:  # fmt: skip
    assert run(["train", *command, *old]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"abair: warning: {old[0]} is now {new}; the old name will be refused after this release"
    assert run(["train", *command, new, old[1]]) == 0
    assert capsys.readouterr().err == ""
    assert [options[name] for options in calls] == [value, value]


def test_an_option_by_both_its_names_is_wrong_usage(
    calls: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", "adapter", "snow", "--beside", "rain", "--mix-with", "haze"]) == 2
    assert "found --beside, too, its old name; expected one of them" in capsys.readouterr().err
    assert calls == []


def test_the_help_shows_the_new_names_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "adapter", "--help"]) == 0
    text = capsys.readouterr().out
    assert "--mix-with" in text
    assert "--average-with" in text
    assert "--beside" not in text
    assert "--mean-with" not in text
