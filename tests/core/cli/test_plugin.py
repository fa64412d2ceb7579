"""`abair plugin list`."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.core.cli.conftest import Abair


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
