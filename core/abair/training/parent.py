"""End a training process with the one that started it.

Of processes that train together each waits for the others only in the exchange of gradients, and
none of them hears that the launcher was killed.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Final

from abair.signals import LAUNCHER

POLL_SECONDS: Final = 0.5
ORPHANED: Final = 1
"""The exit code, which nobody waits for."""


def end_with_launcher() -> None:
    """Watch the process that started this one, torchrun or `train --processes`, from a thread.

    As soon as it is gone, however it ended, this process ends, and so do those that make its
    samples. A thread suffices: this process runs our own code, and torch works without the
    interpreter's lock. On Windows a process keeps its parent's number, and nothing happens.
    """
    launcher = int(os.environ.get(LAUNCHER) or os.getppid())
    threading.Thread(target=_watch, args=(launcher,), name="launcher watch", daemon=True).start()


def _watch(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(POLL_SECONDS)
    os._exit(ORPHANED)
