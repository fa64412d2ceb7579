"""How an operation's progress is shown on stderr, and where its steps are recorded."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import TracebackType
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from abair_registry.operations.lock import Running, Work
from abair_registry.tracking.outbox import OperationRun

LINE_SECONDS: Final = 30.0
"""Seconds from one line of progress to the next, where there is no terminal for a bar."""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Go on without a reader of stderr, where rich would end the program."""


@dataclass(frozen=True)
class Stage:
    """A step of an operation, and what it took: seconds, and those of all processors together.

    Processes for plugins count, once they have ended.
    """

    name: str
    seconds: float
    cpu_seconds: float


class Steps:
    """The steps of an operation: one live line on a terminal, elsewhere one line a step.

    A step that goes on says there every `LINE_SECONDS` how many of its parts are done.

    Elsewhere the first step is printed with the second, so that an operation that is refused at
    once costs one line, that of the refusal. `quiet` prints nothing.
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
        self._held_back: list[str] | None = []
        self._step, self._done, self._total = "", 0, 0
        self._told = time.monotonic()
        self._marks: list[tuple[str, float, float]] = []

    def stages(self) -> list[Stage]:
        """Return what each step took until now; steps of the same name are one."""
        took: dict[str, tuple[float, float]] = {}
        for (name, began, busy), (_, ended, later) in pairwise([*self._marks, _mark("")]):
            seconds, cpu = took.get(name, (0.0, 0.0))
            took[name] = (seconds + ended - began, cpu + later - busy)
        return [Stage(name, seconds, cpu) for name, (seconds, cpu) in took.items()]

    def begin(self, step: str, total: int | None = None) -> None:
        """Show the next step, which has `total` parts if that is known."""
        self._marks.append(_mark(step))
        if self._bar.disable:
            if self._held_back == []:
                self._held_back.append(step)
            else:
                self._console.print(*(self._held_back or []), step, sep="\n", markup=False)
                self._held_back = None
        self._step, self._done, self._total, self._told = step, 0, total or 0, time.monotonic()
        self._bar.reset(self._task, description=step, total=total)

    def tell(self, text: str) -> None:
        """Print a line that stays, above the bar if there is one."""
        self._console.print(*(self._held_back or []), text, sep="\n", markup=False, soft_wrap=True)
        self._held_back = None

    def advance(self) -> None:
        """Show that one more part of the step is done."""
        self._bar.advance(self._task)
        self._done += 1
        if self._bar.disable and time.monotonic() - self._told >= LINE_SECONDS:
            self._told = time.monotonic()
            of = f" of {self._total}" if self._total else ""
            self._console.print(f"{self._step}: {self._done}{of}", markup=False)

    def __enter__(self) -> Steps:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()


def _mark(name: str) -> tuple[str, float, float]:
    """Return a step's name, the time, and the seconds that processors worked until now."""
    times = os.times()
    busy = times.user + times.system + times.children_user + times.children_system
    return name, time.monotonic(), busy


@dataclass(frozen=True)
class Terminal:
    """How a person follows an operation: its steps, whom it waits for, its warnings and notes.

    What `later` is given need not be waited for: it may be called after the answer was printed.
    """

    steps: Steps
    waiting: Callable[[Running], None] = lambda _: None
    warn: Callable[[str], None] = lambda _: None
    note: Callable[[str], None] = lambda _: None
    later: Callable[[Callable[[], None]], object] = lambda task: task()


def quiet() -> Terminal:
    """Return a terminal that shows nothing, for programs."""
    return Terminal(Steps(quiet=True))


@dataclass(frozen=True)
class OperationLog:
    """Where a running operation records its steps: registry, terminal, MLflow run."""

    lease: Work
    steps: Steps
    run: OperationRun

    def begin(self, step: str, shown: str, **detail: object) -> None:
        """Record the step that begins, and show it.

        Raises:
            RegistryError: The lease was lost.
        """
        self.lease.step(step, **detail)
        self.steps.begin(shown)

    def training_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of a training step."""
        self.run.metrics({f"train/{name}": value for name, value in metrics.items()}, step)
