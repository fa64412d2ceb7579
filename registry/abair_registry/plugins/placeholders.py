"""Check that nothing is left in a plugin of what the template leaves to its author."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import distributions
from typing import Final

from abair.plugin_kit.placeholders import MARK, find_placeholders
from abair.text import quote_foreign
from abair_registry.plugins.checks import Check
from abair_registry.plugins.installed import Candidate

_TEXTS: Final = frozenset({".py", ".md", ".toml", ".txt"})
"""Suffixes of files that are looked through: code, which holds the card, and what is beside it."""
_LARGEST: Final = 1024**2
"""Most bytes of a file that is looked through."""
_SHOWN: Final = 3
"""Placeholders that are quoted."""


def check_placeholders(candidate: Candidate) -> Check:
    """Check the wheel's metadata, README included, and the package's own texts, card included."""
    left = [f"{place}: {line}" for place, text in _texts(candidate) for line in find_placeholders(text)]
    if not left:
        return Check("placeholders", True, "none is left of the template's")
    more = f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
    shown = "; ".join(quote_foreign(text, 120) for text in left[:_SHOWN])
    return Check("placeholders", False, f"{shown}{more}", f"replace each text that begins with {MARK}")


def _texts(candidate: Candidate) -> Iterator[tuple[str, str]]:
    """Yield the texts of a plugin that people read, each with its place."""
    for distribution in distributions(name=candidate.distribution, path=[str(candidate.root)]):
        metadata = distribution.metadata
        for key in ("Summary", "Author", "Author-email", "License-Expression"):
            yield f"metadata, {key}", "\n".join(metadata.get_all(key) or ())
        yield "README", "\n".join(metadata.get_all("Description") or ())
        break
    for name in sorted(candidate.files):
        path = candidate.root / name
        # the distribution's own folder holds the README again
        if ".dist-info/" in name or path.suffix not in _TEXTS or not path.is_file():
            continue
        if path.stat().st_size <= _LARGEST:
            yield name, path.read_text(encoding="utf-8", errors="replace")
