"""`abair plugin list`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.core.cli.conftest import Abair
from tests.support.foreign_package import write_info

from abair.cli import console


def test_a_broken_plugin_is_one_line_and_the_others_are_listed(abair: Abair, monkeypatch: pytest.MonkeyPatch) -> None:
    from abair import discovery
    from abair.contract import Card, Degradation

    card = Card(authors=("a",), licence="l", training_data="t")
    Path("adapters/nano").mkdir(parents=True)
    snow = Degradation(name="snow", title="Snow", synthesizer="a:b", adapters=Path("adapters"), card=card)
    plugins = SimpleNamespace(
        found={"snow": discovery.Found(snow, "abair-snow", "1.2")},
        problems=[discovery.Problem("hail", "abair-hail", "cannot be imported: ImportError: no")],
    )
    monkeypatch.setattr(discovery, "discover", lambda: plugins)
    done = abair("plugin", "list")
    assert done.code == 1
    assert done.out[1].split() == ["snow", "Snow", "abair-snow", "1.2", "nano"]
    assert done.err == ["abair: plugin hail (distribution abair-hail): cannot be imported: ImportError: no"]


def test_a_package_that_cannot_be_read_is_a_warning_and_no_failure(
    abair: Abair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_info(tmp_path / "site", "aa_other-1.0.dist-info", "aa-other", b"[console_scripts]\nno entry point\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    done = abair("plugin", "list")
    assert done.code == 0
    (warning,) = done.err
    assert warning.startswith("abair: warning: distribution aa-other: its entry_points.txt cannot be read (")


MISTYPED = """
import json, sys
from abair.cli.app import run
codes = [run(words) for words in json.loads(sys.argv[1])]
print(json.dumps([codes, sorted({"torch", "numpy", "PIL"} & set(sys.modules))]))
"""


def test_a_mistyped_name_is_told_before_anything_heavy_is_imported() -> None:
    commands = [["plugin", "preview", "nosie"], ["train", "adapter", "nosie"], ["plugin", "check", "nosie"]]
    done = subprocess.run(
        [sys.executable, "-c", MISTYPED, json.dumps(commands)], capture_output=True, text=True, timeout=120, check=True
    )
    assert json.loads(done.stdout) == [[1, 1, 1], []]
    assert [line.split(":")[1].strip() for line in done.stderr.splitlines()] == [
        "degradation nosie", "degradation nosie", "plugin nosie",
    ]  # fmt: skip


def test_progress_is_told_in_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = console.Reporter()
    with reporter.progress("degrading photos", lines_every=0.0) as step:
        step(1, 2, "a.png")
    with reporter.progress("restoring") as step:
        step(1, 2, "a.png")
    assert capsys.readouterr().err.splitlines() == ["abair: degrading photos: 1 of 2"]
