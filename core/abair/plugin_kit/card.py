"""The figures on a plugin's card: the part of its README between two marks, written by the training that made them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from abair.wholefile import write_text

BEGIN: Final = "<!-- figures -->"
END: Final = "<!-- /figures -->"
_ABOVE: Final = 3
"""From `src/abair_snow/adapters` up to the project: so many folders."""


def card_of(adapters: Path) -> Path | None:
    """The README of the project that a folder of adapters belongs to; a plugin installed as a wheel has none."""
    for folder in list(adapters.resolve().parents)[:_ABOVE]:
        if (folder / "pyproject.toml").is_file():
            readme = folder / "README.md"
            return readme if readme.is_file() else None
    return None


def fill(readme: Path, figures: str) -> bool:
    """Put the figures between the marks; False, and nothing written, where it has none. Raises OSError."""
    text = readme.read_text(encoding="utf-8")
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        return False
    write_text(readme, f"{head}{BEGIN}\n{figures.strip()}\n{END}{tail}")
    return True
