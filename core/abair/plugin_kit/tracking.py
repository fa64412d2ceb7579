"""Tracking a training, on request: by MLflow, which the extra `registry` brings.

The core does not import it: a tracker is found under the entry-point group `abair.trackers`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final, Protocol

from abair.errors import MissingExtraError
from abair.own_points import find_own

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRACKERS: Final = "abair.trackers"


class Tracker(Protocol):
    """One run, which ends as its `with` block does: finished, failed, or killed.

    No method fails because of the store.
    """

    @property
    def run_id(self) -> str | None:
        """The run's identifier in the store; None if that cannot be reached."""
        ...

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Record metrics at a step."""
        ...

    def figure(self, figure: Figure, path: str) -> None:
        """Store a chart under a path."""
        ...

    def text(self, text: str, path: str) -> None:
        """Store a text file under a path."""
        ...

    def describe(self, markdown: str) -> None:
        """Set the description at the top of the run's page."""
        ...


Opener = Callable[..., AbstractContextManager[Tracker]]


def tracker() -> Opener:
    """Return `open(name, params=..., tags=..., warn=...)` of the installed tracker.

    Raises:
        MissingExtraError: none is installed.
    """
    if (point := find_own(TRACKERS)) is not None:
        found: Opener = point.load()
        return found
    raise MissingExtraError("--track: found no tracker; install MLflow with: pip install 'abair[registry]'")
