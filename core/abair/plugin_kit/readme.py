"""The parts of a plugin's card that a training writes: in its README, between two marks each."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from abair.files import write_text

FIGURES: Final = "figures"
"""What the adapter is worth."""
DATA: Final = "data"
"""Which photos it was trained on."""
_ABOVE: Final = 3
"""From `src/abair_snow/adapters` up to the project: so many folders."""


def card_of(adapters: Path) -> Path | None:
    """The README of the project that a folder of adapters belongs to; a plugin installed as a wheel has none."""
    for folder in list(adapters.resolve().parents)[:_ABOVE]:
        if (folder / "pyproject.toml").is_file():
            readme = folder / "README.md"
            return readme if readme.is_file() else None
    return None


def marks(part: str) -> tuple[str, str]:
    """Between which lines a part stands."""
    return f"<!-- {part} -->", f"<!-- /{part} -->"


def fill(readme: Path, part: str, text: str) -> bool:
    """Put the text between the part's marks; False, and nothing written, where it has none. Raises OSError."""
    before, after = marks(part)
    head, begin, rest = readme.read_text(encoding="utf-8").partition(before)
    _, end, tail = rest.partition(after)
    if not begin or not end:
        return False
    write_text(readme, f"{head}{before}\n{text.strip()}\n{after}{tail}")
    return True
