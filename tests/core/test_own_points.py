"""Only ABAIR's own entry points are loaded: no other package answers for models:/, checks or tracking."""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from abair.cli import plugin
from abair.locations import FETCHERS
from abair.own_points import DISTRIBUTION, find_own
from abair.plugin_kit import tracking

GROUPS = {FETCHERS: "models", plugin.CHECKERS: "plugins", tracking.TRACKERS: "mlflow"}


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package, before all others on the path, that answers for every group and tells when it is imported."""
    site = tmp_path / "site"
    info = site / "evil-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    lines = [f"[{group}]\n{name} = evil:answer\nother = evil:answer\n" for group, name in GROUPS.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))
    (site / "evil.py").write_text("import pathlib; pathlib.Path(__file__).with_name('ran').touch()\nanswer = print\n")
    monkeypatch.syspath_prepend(site)
    importlib.invalidate_caches()
    return site


@pytest.mark.parametrize("group", GROUPS)
def test_a_foreign_package_answers_for_nothing(foreign: Path, group: str) -> None:
    found = find_own(group, GROUPS[group])
    assert found is not None
    assert found.dist is not None
    assert found.dist.name == DISTRIBUTION
    assert find_own(group, "other") is None
    assert find_own(group) == found
    assert not (foreign / "ran").exists()


def test_a_malformed_list_of_a_foreign_package_disturbs_nobody(foreign: Path) -> None:
    (foreign / "evil-1.0.dist-info" / "entry_points.txt").write_text("[console_scripts]\nno entry point\n")
    assert find_own(FETCHERS, "models") is not None


def test_without_an_installation_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("abair.own_points.distribution", missing)
    assert find_own(FETCHERS) is None
