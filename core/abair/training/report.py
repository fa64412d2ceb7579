"""What a run reports: progress on stderr, and its validations in `history.jsonl`."""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from abair.files import write_text
from abair.training.settings import Settings
from abair.training.task import State

HISTORY: Final = "history.jsonl"
"""The file's name in a run's folder."""
LINE_SECONDS: Final = 30.0
"""Seconds from one line of progress to the next, where there is no terminal for a bar."""
RECENT: Final = 100
"""Steps whose mean loss the progress bar shows."""

OnValidation = Callable[[int, dict[str, float]], None]
"""Called after each validation with the step, and its metrics together with the mean `loss` since
the last one."""


def read_history(folder: Path) -> list[dict[str, float]]:
    """Return the validations of a run, those from before it was resumed, too.

    Raises:
        OSError: the folder has no history.
    """
    return [json.loads(line) for line in (folder / HISTORY).read_text(encoding="utf-8").splitlines()]


def truncate_history(folder: Path, step: int) -> None:
    """Drop the validations after a step, which will be done again, and a line that a kill cut."""
    history = folder / HISTORY
    if not history.exists():
        return
    lines = history.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
    write_text(history, "".join(f"{line}\n" for line in kept))


class Report:
    """Progress and history of one run; a context in which the progress bar is on the screen.

    If `quiet`, it writes the history and nothing to stderr.
    """

    def __init__(self, name: str, settings: Settings, folder: Path, *, quiet: bool) -> None:
        self._settings, self._folder, self._quiet = settings, folder, quiet
        self._recent: deque[float] = deque(maxlen=max(RECENT, settings.validate_every))
        self._score = ""
        self._progress = Progress(
            TextColumn(name),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=quiet or not sys.stderr.isatty(),
        )
        self._bar = self._progress.add_task("", total=settings.steps)
        self._told = time.monotonic()

    def __enter__(self) -> None:
        self._progress.start()

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def record_step(self, state: State, loss: float, metrics: dict[str, float]) -> None:
        """Show a step's loss and metrics."""
        self._recent.append(loss)
        shown = "".join(f" {name} {value:.3f}" for name, value in metrics.items())
        self._progress.update(
            self._bar,
            completed=min(self._settings.steps, state.position(self._settings)),
            description=f"loss {self._mean_loss(RECENT):.4f}{shown}{self._score}",
        )
        if self._progress.disable and not self._quiet and time.monotonic() - self._told >= LINE_SECONDS:
            self._told = time.monotonic()
            line = f"step {state.position(self._settings):.0f} of {self._settings.steps}, loss"
            print(f"{line} {self._mean_loss(RECENT):.4f}{shown}", file=sys.stderr, flush=True)

    def record_validation(self, state: State, metrics: dict[str, float], on_validation: OnValidation | None) -> None:
        """Write a validation's metrics to the history and, without a progress bar, to stderr."""
        loss = self._mean_loss(self._settings.validate_every)
        entry = {"step": state.step, "seconds": round(state.seconds, 1), "loss": loss} | metrics
        with (self._folder / HISTORY).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        if on_validation is not None:
            on_validation(state.step, {"loss": loss} | metrics)
        scores = [name for name in ("psnr", "accuracy") if name in metrics]
        self._score = "".join(f" held-out {name} {metrics[name]:.2f}" for name in scores)
        if self._progress.disable and not self._quiet:
            self._told = time.monotonic()
            line = " ".join(f"{name}={value:.4g}" for name, value in entry.items())
            print(line, file=sys.stderr, flush=True)

    def nothing_left(self, state: State) -> None:
        """Say that the run was finished before."""
        if not self._quiet:
            print(
                f"{self._folder}: nothing is left to train: {state.step} steps are done; for more raise steps or time, "
                "to begin anew name another folder for checkpoints",
                file=sys.stderr,
                flush=True,
            )

    def _mean_loss(self, steps: int) -> float:
        recent = list(self._recent)[-steps:]
        return sum(recent) / max(1, len(recent))
