"""One check of a plugin, as `abair plugin check` shows it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One check: what was found, and what to do if it did not pass."""

    name: str
    passed: bool
    found: str
    advice: str = ""
