"""Where a training is told to, if somebody asks for it: MLflow, which the extra `registry` brings.

The core imports none of it: whoever provides a tracker names it under the entry-point group `abair.trackers`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final, Protocol

from abair.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRACKERS: Final = "abair.trackers"


class Tracker(Protocol):
    """One run, which ends as the block ends that it was opened for: finished, failed, or killed, with the reason."""

    @property
    def run_id(self) -> str:
        """Its name in the store."""
        ...

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Figures at a step."""
        ...

    def figure(self, figure: Figure, path: str) -> None:
        """A picture."""
        ...

    def text(self, text: str, path: str) -> None:
        """A text file."""
        ...

    def describe(self, markdown: str) -> None:
        """What stands at the top of the run's page."""
        ...


Opener = Callable[..., AbstractContextManager[Tracker]]


def tracker() -> Opener:
    """`open(name, params=..., tags=...)` of the tracker that is installed.

    Raises:
        MissingExtraError: there is none.
    """
    for point in entry_points(group=TRACKERS):
        found: Opener = point.load()
        return found
    raise MissingExtraError("--track: found no tracker; install MLflow with: pip install 'abair[registry]'")
