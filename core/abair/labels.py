"""Labels: the names of degradations, and `clean` for what is undamaged."""

from __future__ import annotations

import re
from typing import Final

CLEAN: Final = "clean"
"""The one label that is no degradation: it has no adapter, and its weight scales the residual
down."""

LONGEST: Final = 40
"""Most characters of a degradation's name."""

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def check_degradation_name(name: str) -> str:
    """Return the name of a degradation if it is a valid label.

    Raises:
        ValueError: the name is `clean`, too long, or not lower-case words joined by hyphens.
    """
    if name == CLEAN or not _NAME.fullmatch(name) or len(name) > LONGEST:
        raise ValueError(
            f"found {name!r}, expected up to {LONGEST} lower-case letters, digits, single hyphens, not 'clean'"
        )
    return name
