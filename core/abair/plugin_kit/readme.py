"""The sections of a plugin's README that a training writes, each between two comment lines."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from abair.files import write_text

RESULTS: Final = "figures"
"""The section with the metrics of the adapter."""
DATA: Final = "data"
"""The section with the photos that it was trained on."""
_DEPTH: Final = 3
"""Folders between `src/abair_snow/adapters` and the project."""


def find_card(adapters: Path) -> Path | None:
    """Return the README of an adapter folder's project; None for a plugin installed as a wheel."""
    for folder in list(adapters.resolve().parents)[:_DEPTH]:
        if (folder / "pyproject.toml").is_file():
            readme = folder / "README.md"
            return readme if readme.is_file() else None
    return None


def section_markers(section: str) -> tuple[str, str]:
    """Return the lines between which a section stands."""
    return f"<!-- {section} -->", f"<!-- /{section} -->"


def terms_of(readme: Path, digest: str) -> str:
    """Return the terms that the table of data gives for the photos of this digest, if it has them.

    Raises:
        OSError: the file cannot be read.
    """
    first, last = section_markers(DATA)
    section = readme.read_text(encoding="utf-8").partition(first)[2].partition(last)[0]
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) == 4 and cells[2] == digest:
            return cells[3]
    return ""


def replace_section(readme: Path, section: str, text: str) -> bool:
    """Replace a section's text; without markers for it, write nothing and return False.

    Raises:
        OSError: the file cannot be read or written.
    """
    first, last = section_markers(section)
    head, begin, rest = readme.read_text(encoding="utf-8").partition(first)
    _, end, tail = rest.partition(last)
    if not begin or not end:
        return False
    write_text(readme, f"{head}{first}\n{text.strip()}\n{last}{tail}")
    return True
