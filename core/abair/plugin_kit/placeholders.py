"""What the template leaves to the author: texts with a mark, which `abair plugin check` finds."""

from __future__ import annotations

from typing import Final

MARK: Final = "TODO(plugin)"
"""Begins each text of the template that the author replaces; the rest of the line says by what."""


def find_placeholders(text: str) -> list[str]:
    """Return the lines of a text from its marks on, in their order."""
    return [line[line.index(MARK) :].strip() for line in text.splitlines() if MARK in line]
