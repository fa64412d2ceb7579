"""An entry point may name a module of its own distribution only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.support.plugin_package import Plugin, Tiny, write_metadata

from abair.errors import AdmissionError
from abair_registry.plugins.installed import find


@pytest.mark.parametrize(
    ("module", "owner"), [("abair_frost", "abair-frost"), ("abair.cli", "abair"), ("json", "Python")]
)
def test_a_module_that_belongs_to_somebody_else_is_refused(module: str, owner: str, site: Path, tiny: Tiny) -> None:
    Plugin().make(site, tiny)
    write_metadata(site, "abair-hoar", {"hoar": module}, [])
    with pytest.raises(AdmissionError, match=f"module {module.partition('.')[0]}, which belongs to {owner}; expected"):
        find("hoar")


def test_a_module_in_the_project_of_another_editable_distribution_is_refused(
    site: Path, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    Plugin().make(source, tiny)
    (source / "abair_frost-1.0.dist-info").rename(tmp_path / "away")
    monkeypatch.syspath_prepend(source)
    for name in ("frost", "hoar"):
        info = write_metadata(site, f"abair-{name}", {name: "abair_frost"}, [])
        if name == "frost":
            told = {"url": source.as_uri(), "dir_info": {"editable": True}}
            (info / "direct_url.json").write_text(json.dumps(told))
    assert find("frost").folder == source / "abair_frost"
    with pytest.raises(AdmissionError, match="which belongs to abair-frost"):
        find("hoar")
