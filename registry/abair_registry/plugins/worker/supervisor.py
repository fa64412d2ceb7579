"""Runs plugins in a process of their own: holds the wall clock, bounds what is printed, ends every process left."""

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

from abair_registry.plugins.worker.protocol import Asked, Message, Refusal

LARGEST_ANSWER: Final = 1024**2
"""Bytes of an answer; five degradations with their cards take three thousand."""
GRACE: Final = 1.0
"""Seconds in which a process that has said its last word must be gone, and those it started."""
INHERITED: Final = (
    *("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "VIRTUAL_ENV", "CONDA_PREFIX", "SYSTEMROOT"),
    *("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"),  # where some installations of torch find their libraries
)
"""The variables of the caller's environment that a plugin sees."""


def ask(module: str, request: Asked, deadline: float, tell: Callable[[], object] = lambda: None) -> list[Message]:
    """The parent's side: run a module of ours, and return its messages, the last of which is a `last` one.

    Nothing that a plugin started is left when it returns or raises. `deadline` is one of `time.monotonic()`; `tell` is
    called, from a thread, for each part that is done.

    Raises:
        Refusal: the process printed too much, ran out of time, died, left another one behind, or the answer is not
            the module's.
    """
    mark = secrets.token_hex(16)
    with (
        tempfile.TemporaryDirectory(prefix="abair-probe-", ignore_cleanup_errors=True) as home,
        tempfile.TemporaryFile() as question,
    ):
        question.write(request.model_dump_json().encode())
        question.seek(0)
        with subprocess.Popen(
            [sys.executable, "-P", "-m", module],
            stdin=question,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=home,
            env=environment(home, mark),
            start_new_session=True,
        ) as process:
            ended = threading.Event()
            try:
                answer = _Stream(process.stdout, LARGEST_ANSWER, ended, _Watching(request.token, tell))
                printed = _Stream(process.stderr, request.output_kib * 1024, ended)
                in_time = ended.wait(max(0.0, deadline - time.monotonic()))
                status, left = None, False
                if in_time and not answer.over and not printed.over:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        status = process.wait(GRACE)
                    said_so_far, _ = _read(bytes(answer.data), request.token)
                    if said_so_far and said_so_far[-1].kind in (
                        "declared",
                        "tried",
                        "done",
                    ):  # else it is refused anyway
                        left = _lingers(mark, time.monotonic() + GRACE)
            finally:
                _end(process, mark)
            answer.join()
            printed.join()
    messages, forged = _read(bytes(answer.data), request.token)
    last = messages[-1] if messages and messages[-1].last else None
    doing = next((str(message.body) for message in reversed(messages) if message.kind == "at"), "starting")
    if printed.over:
        raise Refusal(f"printed more than {request.output_kib} KiB; expected a few lines at most")
    if answer.over:
        raise Refusal(f"declares more than {LARGEST_ANSWER // 1024} KiB; expected a few")
    if forged:
        raise Refusal("wrote into the process's answer; expected it to leave that alone")
    if not in_time:
        raise Refusal(f"did not finish within {request.seconds:g} s: it was {doing}")
    if last is None or (status != 0 and last.kind != "refused"):
        lines = bytes(printed.data).decode(errors="replace").split("\n")
        said_last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        how = "closed the process's answer"
        if status is not None:
            how = f"ended the process with code {status}" if status >= 0 else f"crashed with {_signal(-status)}"
        raise Refusal(f"{how} while {doing}" + (f"; its last words: {said_last[:200]}" if said_last else ""))
    if left:
        raise Refusal("left a process running; expected none when a hook or synthesiser returns")
    return messages


def environment(home: str, mark: str) -> dict[str, str]:
    """All that a plugin sees of the caller's environment, and a mark by which the processes it leaves are found."""
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    set_here = {
        "HOME": home,
        "TMPDIR": home,
        "ABAIR_PROBE": mark,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if os.path.isabs(path)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",  # nothing here needs a GPU, and its driver maps more memory than a plugin may
    }
    if site.ENABLE_USER_SITE:
        set_here["PYTHONUSERBASE"] = site.getuserbase()  # it would follow HOME
    return inherited | set_here


class _Stream:
    """Reads a pipe in a thread, up to a limit; sets `ended` at the end or the limit, or when `enough` says so."""

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
        """Wait until all is read; not for long, should a process have got away with the other end."""
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


def _read(data: bytes, token: str) -> tuple[list[Message], bool]:
    """The messages in an answer, and whether there is anything else in it."""
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


class _Watching:
    """Whether an answer's last line is there, or one that is not the module's; tells of parts that are done."""

    def __init__(self, token: str, tell: Callable[[], object]) -> None:
        self._token, self._tell, self._told = token, tell, 0

    def __call__(self, data: bytearray) -> bool:
        messages, forged = _read(bytes(data[: data.rfind(b"\n") + 1]), self._token)
        done = sum(message.kind == "one" for message in messages)
        for _ in range(done - self._told):
            self._tell()
        self._told = done
        return forged or bool(messages and messages[-1].last)


def _lingers(mark: str, until: float) -> bool:
    """Whether a process with the mark is still there, some of which only need a moment to end."""
    while _marked(mark):
        if time.monotonic() > until:
            return True
        time.sleep(0.02)
    return False


def _marked(mark: str) -> list[int]:
    """The processes that have the mark in their environment; found on Linux only."""
    found = []
    for file in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark.encode() in file.read_bytes():
                found.append(int(file.parent.name))
    return found


def _end(process: subprocess.Popen[bytes], mark: str) -> None:
    """Kill the process, its group, and on Linux whatever left the group."""
    process.kill()
    with contextlib.suppress(OSError, AttributeError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for _ in range(50):  # one that is being forked at this moment is found the next time
        left = _marked(mark)
        if not left:
            return
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
