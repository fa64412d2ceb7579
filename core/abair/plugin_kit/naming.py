"""The names of a plugin package: all derived from one, the degradation's."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from abair.contract import Card, Degradation
from abair.errors import PluginError

PREFIX: Final = "abair-"
OURS: Final = ("migrations", "registry")
"""Names whose module, `abair_registry` say, comes with the platform."""


@dataclass(frozen=True)
class Names:
    """The names of a package; beside each field stands that of `film-grain`."""

    name: str  # film-grain: the degradation, the entry point, the key
    distribution: str  # abair-film-grain: the folder, too
    module: str  # abair_film_grain
    title: str  # Film grain
    suite: str  # TestFilmGrain: the class of its contract tests


def derive_names(name: str) -> Names:
    """Return all names of the package for the degradation `name`.

    Raises:
        PluginError: `name` cannot be used; the text has the rule, and a name that would do if one
            can be derived.
    """
    if objection := _objection(name):
        derived = _derive(name)
        raise PluginError(objection + (f"; {derived} would do" if derived else ""))
    distribution = PREFIX + name
    return Names(
        name=name,
        distribution=distribution,
        module=distribution.replace("-", "_"),
        title=name.replace("-", " ").capitalize(),
        suite="Test" + "".join(word.capitalize() for word in name.split("-")),
    )


def _objection(name: str) -> str:
    """Return why `name` cannot be used, empty if it can; the rule is the contract's."""
    card = Card(authors=("nobody",), licence="none", training_data="none")
    try:
        Degradation(name=name, title="none", synthesizer="none:none", adapters=Path(), card=card)
    except ValidationError as error:
        rule = "; ".join(problem["msg"].removeprefix("Value error, ") for problem in error.errors())
        return f"{rule}, and a letter first"
    if name.startswith(PREFIX):
        return f"found {name!r}, expected the degradation's name alone: {PREFIX!r} is put in front of it"
    if name in OURS:
        return f"found {name!r}, expected another name: {PREFIX}{name} would hide a part of ABAIR itself"
    return ""


def _derive(name: str) -> str:
    """Return the nearest name that can be used; empty if none is near."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name)  # FilmGrain
    plain = unicodedata.normalize("NFKD", words).encode("ascii", "ignore").decode().lower()
    derived = re.sub(r"[^a-z0-9]+", "-", plain).strip("-").removeprefix(PREFIX)
    while derived and _objection(derived):
        derived = derived.rpartition("-")[0]  # too long: fewer words
    return derived
