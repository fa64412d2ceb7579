"""What a person sees while an operation runs: its steps, a bar where there is something to count, on stderr."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from abair_registry.operations.lock import Running


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Go on: who looked on has gone, which stops no operation (rich would end the program)."""


class Steps:
    """The steps of an operation; on a terminal a live line, elsewhere one line a step. `quiet` says nothing.

    Elsewhere the first step is told with the second: what is refused at the door costs one line, that of the refusal.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = _Console(stderr=True, quiet=quiet, highlight=False)
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=quiet or not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None)
        self._untold: list[str] | None = []

    def begin(self, step: str, total: int | None = None) -> None:
        """The next step, of so many parts if that is known."""
        if self._bar.disable:
            if self._untold == []:
                self._untold.append(step)
            else:
                self._console.print(*(self._untold or []), step, sep="\n", markup=False)
                self._untold = None
        self._bar.reset(self._task, description=step, total=total)

    def advance(self) -> None:
        """One part of the step is done."""
        self._bar.advance(self._task)

    def __enter__(self) -> Steps:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()


@dataclass(frozen=True)
class Terminal:
    """How a person follows an operation: its steps, who is waited for, what went wrong without stopping it."""

    steps: Steps
    waiting: Callable[[Running], None] = lambda other: None
    warn: Callable[[str], None] = lambda text: None


def quiet() -> Terminal:
    """For programs: nothing is shown."""
    return Terminal(Steps(quiet=True))
