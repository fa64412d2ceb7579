"""What becomes of each photo, kept where no worker's death can lose it.

Ray repeats the call of a worker that died, with all its photos and for ever. The ledger knows which
of them are done, so that none is restored twice, and which one was begun each time, so that a photo
that ends every process that reads it costs one row and not the run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol

ATTEMPTS: Final = 3
"""How often a photo may be begun without an end before it counts as the cause."""


@dataclass(frozen=True)
class Attempt:
    """What a worker is told when it begins a photo.

    Attributes:
        number: how often it was begun, from 1.
        was_there: whether the output existed at the first of these.
        record: what was said when it was done; then nothing is left to do.
    """

    number: int
    was_there: bool
    record: str | None


class Ledger(Protocol):
    """What workers use of a ledger, here or in another process."""

    def begin(self, index: int, was_there: bool) -> Attempt:
        """Return what is known of the photo `index`, whose output `was_there` just now."""

    def finish(self, index: int, record: str) -> None:
        """Keep the record of a photo that is done."""


class MemoryLedger:
    """A ledger in the memory of one process; it holds only photos under way."""

    def __init__(self) -> None:
        self._begun: dict[int, Attempt] = {}

    def begin(self, index: int, was_there: bool) -> Attempt:
        """Return what is known of the photo `index`, whose output `was_there` just now."""
        known = self._begun.get(index)
        if known is None:
            attempt = Attempt(1, was_there, None)
        elif known.record is not None:
            return known
        else:
            attempt = Attempt(known.number + 1, known.was_there, None)
        self._begun[index] = attempt
        return attempt

    def finish(self, index: int, record: str) -> None:
        """Keep the record of a photo that is done."""
        known = self._begun.get(index, Attempt(1, False, None))
        self._begun[index] = Attempt(known.number, known.was_there, record)

    def forget(self, indices: Iterable[int]) -> None:
        """Drop photos whose records have arrived."""
        for index in indices:
            self._begun.pop(index, None)

    def size(self) -> int:
        """Return how many photos are kept."""
        return len(self._begun)
