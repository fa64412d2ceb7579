"""The type of the fixtures that call a command line in this process."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

Abair = Callable[..., SimpleNamespace]
"""Called with arguments, it returns `code`, and the lines on stdout and stderr as `out` and `err`."""
