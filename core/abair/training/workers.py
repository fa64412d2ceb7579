"""Worker processes that make samples ahead of the training."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterable
from functools import partial
from types import TracebackType
from typing import Final, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from abair.signals import HOW

AHEAD: Final = 8
"""Results that each worker makes ahead of time."""

Result = TypeVar("Result")
ExceptHook = Callable[[type[BaseException], BaseException, TracebackType | None], object]


def compute_ahead(function: Callable[[int], Result], numbers: range, workers: int) -> Iterable[Result]:
    """Return the results of a function of the numbers, in order, made by that many processes.

    Without workers this process makes each when it is asked for.
    """
    made: Iterable[Result] = DataLoader(
        _Results(function),
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        prefetch_factor=AHEAD if workers else None,
        worker_init_fn=_set_up_worker,
        multiprocessing_context="fork" if workers else None,
    )
    return made


class _Results(Dataset[Result], Generic[Result]):
    """A function's results by its argument."""

    def __init__(self, function: Callable[[int], Result]) -> None:
        self._function = function

    def __getitem__(self, index: int) -> Result:
        return self._function(index)


def _set_up_worker(_worker: int) -> None:
    torch.set_num_threads(1)
    for number in HOW:  # a terminal sends them to all processes; the training process ends its workers
        if number != signal.SIGTERM:  # which is how it does that
            signal.signal(number, signal.SIG_IGN)
    sys.excepthook = partial(_report, sys.excepthook)


def _report(report: ExceptHook, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Report an error of a thread that sends results, unless the training process was killed.

    The kernel closes a killed process's connections before `os.getppid` shows that it ended.
    """
    if not issubclass(kind, (ConnectionError, EOFError)):
        report(kind, error, trace)
