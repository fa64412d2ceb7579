"""The installed distributions are read one by one, with the names that pip gives them."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from tests.support.foreign_package import write_damaged, write_info

from abair.distributions import installed_distributions, metadata_text, read_entry_points


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two folders on the path before all others; returns the first."""
    for folder in (tmp_path / "second", tmp_path / "first"):
        folder.mkdir()
        monkeypatch.syspath_prepend(folder)
    importlib.invalidate_caches()
    return tmp_path / "first"


def names() -> list[str]:
    return [name for name, _ in installed_distributions()]


def test_a_name_is_that_of_the_folder_in_its_normal_form(site: Path) -> None:
    write_info(site, "Aa_Frost.Ice-1.0.dist-info", "another-name")
    write_info(site, "aa_rime.egg-info", "aa-rime")
    assert {"aa-frost-ice", "aa-rime", "abair", "numpy"} <= set(names())
    assert "another-name" not in names()


def test_of_two_versions_the_first_on_the_path_counts(site: Path) -> None:
    write_info(site.parent / "second", "aa_frost-2.0.dist-info", "aa-frost", b"[abair]\nlater = x\n")
    write_info(site, "aa_frost-1.0.dist-info", "aa-frost", b"[abair]\nfirst = x\n")
    (found,) = (each for name, each in installed_distributions() if name == "aa-frost")
    assert [point.name for point in read_entry_points(found)] == ["first"]


def test_what_an_interrupted_pip_left_behind_is_left_out(site: Path) -> None:
    write_info(site, "~a_frost-1.0.dist-info", "aa-frost")
    write_info(site, "-a_frost-1.0.dist-info", "aa-frost")
    assert not [name for name in names() if "frost" in name]


def test_every_kind_of_damage_is_found_in_the_one_distribution(site: Path) -> None:
    write_damaged(site)
    unreadable, nameless = set(), set()
    for name, distribution in installed_distributions():
        nameless |= set() if metadata_text(distribution, "Name") else {name}
        try:
            read_entry_points(distribution)
        except Exception:
            unreadable.add(name)
    assert unreadable == {"aa-malformed", "aa-binary", "aa-folder"}
    assert nameless == {"aa-nameless", "aa-empty", "aa-bare", "aa-file"}
