"""`abair plugin list`."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.core.cli.conftest import Abair
from tests.support.foreign_package import write_info


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
