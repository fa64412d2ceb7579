"""What all pictures of results share: matplotlib, which is an extra, and their colours."""

from __future__ import annotations

import importlib.util
from typing import Final

from abair.errors import MissingExtraError

INK: Final = "#1c1e22"
FAINT: Final = "#787d85"
RAIL: Final = "#dfe2e7"


def require_matplotlib(picture: str) -> None:
    """Check, before any long work, that `picture` can be drawn.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtraError(f"{picture}: matplotlib is not installed; pip install 'abair[bench]'")
