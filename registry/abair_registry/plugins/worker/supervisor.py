"""The parent of a worker process: holds the wall clock, bounds its output, ends what is left."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import site
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final

import psutil  # type: ignore[import-untyped]

from abair.foreign_points import ALLOWED, SWITCHES
from abair_registry.plugins.worker.protocol import Message, Refusal, WorkerRequest
from abair_registry.processes.guardian import guarded
from abair_registry.processes.marked import MARK, end_marked, find_marked, with_descendants

LARGEST_ANSWER: Final = 1024**2
"""Most bytes of an answer; five degradations with their cards take three thousand."""
GRACE: Final = 1.0
"""Seconds that a worker has to end after its last message, and the processes that it started."""
INHERITED: Final = (
    *("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "VIRTUAL_ENV", "CONDA_PREFIX", "SYSTEMROOT"),
    *SWITCHES,
    ALLOWED,
    *("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"),  # where some installations of torch find their libraries
)
"""The variables of the caller's environment that a plugin sees."""


def run_worker(
    module: str, request: WorkerRequest, deadline: float, on_progress: Callable[[], object] = lambda: None
) -> list[Message]:
    """Run a module of ours in a worker process and return its messages, the last one included.

    No process that a plugin started is left when this returns or raises, nor if this process dies.

    Args:
        module: started with `python -m`; it gets the request on stdin.
        request: what to do, and within which limits.
        deadline: when the run is ended, by `time.monotonic()`.
        on_progress: called from a thread for each `progress` message.

    Raises:
        Refusal: the worker printed too much, ran out of time, died, left a process behind, or the
            answer is not the module's.
    """
    mark = secrets.token_hex(16)
    with (
        tempfile.TemporaryDirectory(prefix="abair-probe-", ignore_cleanup_errors=True) as home,
        tempfile.TemporaryFile() as question,
    ):
        question.write(request.model_dump_json().encode())
        question.seek(0)
        with (
            guarded(mark, Path(home)),
            subprocess.Popen(
                [sys.executable, "-P", "-m", module],
                stdin=question,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=home,
                env=worker_environment(home, mark),
                start_new_session=True,
            ) as process,
        ):
            ended = threading.Event()
            try:
                answer = _Stream(process.stdout, LARGEST_ANSWER, ended, _AnswerWatcher(request.token, on_progress))
                printed = _Stream(process.stderr, request.output_kib * 1024, ended)
                in_time = ended.wait(max(0.0, deadline - time.monotonic()))
                status, leftover = None, False
                if in_time and not answer.over and not printed.over:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        status = process.wait(GRACE)
                    so_far, _ = _parse(bytes(answer.data), request.token)
                    if so_far and so_far[-1].succeeded:  # anything else is refused anyway
                        leftover = _remain(mark, time.monotonic() + GRACE)
            finally:
                _end(process, mark)
            answer.join()
            printed.join()
    messages, forged = _parse(bytes(answer.data), request.token)
    last = messages[-1] if messages and messages[-1].last else None
    stage = next((str(message.body) for message in reversed(messages) if message.kind == "stage"), "starting")
    if printed.over:
        raise Refusal(f"printed more than {request.output_kib} KiB; expected a few lines at most")
    if answer.over:
        raise Refusal(f"declares more than {LARGEST_ANSWER // 1024} KiB; expected a few")
    if forged:
        raise Refusal("wrote into the process's answer; expected it to leave that alone")
    if not in_time:
        raise Refusal(f"did not finish within {request.seconds:g} s: it was {stage}")
    if last is None or (status != 0 and last.kind != "refusal"):
        lines = bytes(printed.data).decode(errors="replace").split("\n")
        final_line = next((line.strip() for line in reversed(lines) if line.strip()), "")
        how = "closed the process's answer"
        if status is not None:
            how = f"ended the process with code {status}" if status >= 0 else f"crashed with {_signal_name(-status)}"
        raise Refusal(f"{how} while {stage}" + (f"; its last words: {final_line[:200]}" if final_line else ""))
    if leftover:
        raise Refusal("left a process running; expected none when a hook or synthesiser returns")
    return messages


def worker_environment(home: str, mark: str) -> dict[str, str]:
    """Return the worker's environment: the variables that plugins may see, and the mark."""
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    set_here = {
        "HOME": home,
        "TMPDIR": home,
        MARK: mark,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if os.path.isabs(path)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",  # no GPU is needed here, and its driver maps more memory than a plugin may
    }
    if site.ENABLE_USER_SITE:
        set_here["PYTHONUSERBASE"] = site.getuserbase()  # it would follow HOME
    return SWITCHES | inherited | set_here


class _Stream:
    """Read a pipe in a thread, up to a limit.

    Set `ended` at the end, at the limit, or when `enough` is true.
    """

    def __init__(
        self,
        pipe: IO[bytes] | None,
        limit: int,
        ended: threading.Event,
        enough: Callable[[bytearray], bool] | None = None,
    ) -> None:
        self.data = bytearray()
        self.over = False
        self._pipe, self._limit, self._ended, self._enough = pipe, limit, ended, enough
        self._thread = threading.Thread(target=self._drain, daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait a moment until all is read: a process may have got away with the other end."""
        self._thread.join(GRACE)

    def _drain(self) -> None:
        assert self._pipe is not None
        with contextlib.suppress(OSError, ValueError):
            while piece := os.read(self._pipe.fileno(), 65536):
                self.data += piece
                self.over = len(self.data) > self._limit
                if self.over or (self._enough is not None and self._enough(self.data)):
                    self._ended.set()
                if self.over:
                    return
        if self._enough is not None:
            self._ended.set()


def _parse(data: bytes, token: str) -> tuple[list[Message], bool]:
    """Return the messages in an answer, and whether there is anything else in it."""
    messages: list[Message] = []
    *lines, rest = data.split(b"\n")
    for line in lines:
        try:
            message = Message.model_validate_json(line)
        except ValueError:
            return messages, True
        if message.token != token or (messages and messages[-1].last):
            return messages, True
        messages.append(message)
    return messages, bool(rest)


class _AnswerWatcher:
    """Tell whether an answer holds its last line, or a forged one.

    Report finished parts on the way.
    """

    def __init__(self, token: str, on_progress: Callable[[], object]) -> None:
        self._token, self._on_progress, self._reported = token, on_progress, 0

    def __call__(self, data: bytearray) -> bool:
        messages, forged = _parse(bytes(data[: data.rfind(b"\n") + 1]), self._token)
        finished = sum(message.kind == "progress" for message in messages)
        for _ in range(finished - self._reported):
            self._on_progress()
        self._reported = finished
        return forged or bool(messages and messages[-1].last)


def _remain(mark: str, deadline: float) -> bool:
    """Return whether marked processes are left at the deadline; some only need a moment to end."""
    while find_marked(mark):
        if time.monotonic() > deadline:
            return True
        time.sleep(0.02)
    return False


def _end(worker: subprocess.Popen[bytes], mark: str) -> None:
    """Kill the worker, its group, its descendants, and what left all of these, and see them end."""
    descendants = []
    with contextlib.suppress(psutil.Error):
        if worker.poll() is None:  # else its number may be another process's by now
            descendants = with_descendants(psutil.Process(worker.pid))
    worker.kill()
    with contextlib.suppress(OSError, AttributeError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    end_marked(mark, descendants)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
