"""End the processes that this one started when it dies, however it dies.

A small process of ours, the guardian, waits at the end of a pipe that this process holds. The
operating system closes the pipe when this process is gone, by SIGKILL or by the lack of memory,
too. Then the guardian ends every process with the mark. What it watches over can run a stranger's
code, ignore signals, hold the interpreter's lock or start processes of its own.
`prctl(PR_SET_PDEATHSIG)` would reach the first process alone, on Linux alone, and kill it as soon
as the thread that started it ends.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from abair_registry.processes.marked import end_marked

INHERITED: Final = ("PATH", "SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
"""What the guardian sees of the environment: neither the mark nor a password."""
DONE: Final = b"done"
"""What the pipe holds if this process has put everything in order by itself."""


@contextmanager
def guarded(mark: str, folder: Path | None = None) -> Iterator[None]:
    """End the processes with this mark, and remove `folder`, if this process dies in the block.

    Start the processes inside the block. A process that dies otherwise leaves nothing behind:
    whoever leaves the block ends them by itself.

    Raises:
        OSError: there is no room for one more process.
    """
    command = [sys.executable, "-S", "-P", "-m", "abair_registry.processes.guardian", mark, str(folder or "")]
    environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if os.path.isabs(path))
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,  # neither Ctrl-C nor the end of this process's group reaches it
    ) as guardian:
        try:
            yield
        finally:
            with suppress(OSError):  # the guardian was killed
                guardian.communicate(DONE)


def _watch(mark: str, folder: str) -> None:
    """Wait for the end of the process at the other end of stdin, and clear up unless it has."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if sys.stdin.buffer.read() != DONE:
        end_marked(mark)
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _watch(*sys.argv[1:])
