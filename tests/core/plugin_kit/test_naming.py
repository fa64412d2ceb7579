"""The names of a plugin package: derived from the degradation's, or refused."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from tests.support.command import Abair

from abair.errors import PluginError
from abair.plugin_kit.naming import OURS, Names, derive_names

ROOT = Path(__file__).parents[3]
LONGEST = "a-name-of-as-many-letters-as-are-allowed"


def test_all_names_are_derived_from_one() -> None:
    names = Names("film-grain", "abair-film-grain", "abair_film_grain", "Film grain", "TestFilmGrain")
    assert derive_names("film-grain") == names


def test_a_name_that_is_a_keyword_will_do_behind_the_prefix() -> None:
    assert derive_names("class").module == "abair_class"


def test_the_longest_name_that_the_contract_allows_is_allowed() -> None:
    assert len(LONGEST) == 40
    assert derive_names(LONGEST).name == LONGEST
    with pytest.raises(PluginError, match="would do"):
        derive_names(LONGEST + "-x")


@pytest.mark.parametrize(
    ("name", "would_do"),
    [
        ("Film Grain", "film-grain"),
        ("film_grain", "film-grain"),
        ("FilmGrain", "film-grain"),
        ("Éclat!", "eclat"),
        ("abair-rain", "rain"),
        ("a--b", "a-b"),
        ("long-" * 8 + "name", "long-" * 7 + "long"),
        ("clean", ""),
        ("", ""),
        ("1-bit", ""),
        ("снег", ""),
        ("registry", ""),
    ],
)
def test_a_wrong_name_is_refused_with_the_rule_and_a_name_that_would_do(abair: Abair, name: str, would_do: str) -> None:
    done = abair("plugin", "new", "--", name)
    assert done.code == 2
    assert len(done.err) == 1
    assert repr(name) in done.err[0]
    assert "expected" in done.err[0]
    assert (f"; {would_do} would do" if would_do else "") in done.err[0]
    assert ("would do" in done.err[0]) == bool(would_do)
    assert list(Path().iterdir()) == []


def test_no_plugin_may_take_the_name_of_a_package_of_the_platform() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = {Path(name).name for name in config["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]}
    assert {f"abair_{name}" for name in OURS} == packages - {"abair"}
