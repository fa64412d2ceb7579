"""Find and end all processes that descend from one, by a mark in their environment."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from typing import Final

import psutil  # type: ignore[import-untyped]

MARK: Final = "ABAIR_PROBE"
"""The variable that marks a process and all that it starts, orphans too."""


def find_marked(mark: str) -> list[psutil.Process]:
    """Return the processes with the mark in their environment.

    One that daemonised is no descendant of the first any more, but its environment is still ours.
    """
    marked = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark:
                marked.append(process)
    return marked


def with_descendants(process: psutil.Process) -> list[psutil.Process]:
    """Return a process and its descendants, also those that cleared their environment."""
    with contextlib.suppress(psutil.Error, OSError):
        return [process, *process.children(recursive=True)]
    return []


def end_marked(mark: str, others: Iterable[psutil.Process] = ()) -> None:
    """Kill the processes with the mark, their descendants and `others`, and see them end."""
    others = list(others)
    for _ in range(50):  # a process that is being forked at this moment is found the next time
        others += [one for marked in find_marked(mark) for one in with_descendants(marked)]
        others = [one for one in others if _is_alive(one)]
        if not others:
            return
        for one in others:
            with contextlib.suppress(psutil.Error, OSError):
                one.kill()
        time.sleep(0.01)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except (psutil.Error, OSError):
        return False
