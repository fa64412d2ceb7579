"""The inside of a worker process: its limits, the channel back to the parent, how it ends.

Stdout belongs to the channel: its pipe moves to another descriptor before any plugin code runs, and
what a plugin prints goes to stderr. Before that, the process sets itself hard limits, where the
platform has them. The parent holds the rest (`abair_registry.plugins.worker.supervisor`).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

from pydantic import TypeAdapter

from abair.errors import DeploymentError
from abair.foreign_points import keep_foreign_out
from abair.text import describe_error
from abair_registry.plugins.worker.protocol import Refusal, Request, Send, WorkerRequest

WORKER_PID: Final = os.getpid()
"""The worker's own process id; in a fork that a plugin made, `os.getpid()` is another."""


class Channel:
    """The way back to the parent: the former stdout, which no started program inherits."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._descriptor = os.dup(1)
        os.dup2(2, 1)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)  # the request cannot be read a second time
        os.close(nothing)

    def send(self, kind: str, body: object) -> None:
        """Write one message."""
        line = (json.dumps({"token": self._token, "kind": kind, "body": body}) + "\n").encode()
        while line:
            line = line[os.write(self._descriptor, line) :]


def confine(request: WorkerRequest) -> None:
    """Limit this process and its children for good.

    Memory counts beyond what is mapped now; CPU time and file sizes are limited, core dumps off.
    Only limits that the platform has are set. macOS ignores those on address space; Windows has
    none.
    """
    try:
        import resource
    except ImportError:
        return
    limits = {
        "RLIMIT_CORE": 0,
        "RLIMIT_FSIZE": request.largest_file,
        # the parent holds the wall clock; this ends a process that got away from it
        "RLIMIT_CPU": int(2 * request.seconds) + 1,
    }
    with contextlib.suppress(OSError, ValueError):
        # what is mapped already does not count: a torch built for GPUs takes gigabytes of addresses
        mapped = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        limits["RLIMIT_AS"] = mapped + request.memory_mib * 1024**2
    for name, limit in limits.items():
        with contextlib.suppress(AttributeError, OSError, ValueError):
            which = getattr(resource, name)
            hard = resource.getrlimit(which)[1]
            allowed = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
            resource.setrlimit(which, (allowed, allowed))


def refuse_child_processes() -> None:
    """End this process if a plugin forked it; refuse the plugin if the worker has children.

    Raises:
        Refusal: the plugin started a process and did not wait for it to end.
    """
    if os.getpid() != WORKER_PID:
        os._exit(0)
    with contextlib.suppress(ChildProcessError, AttributeError):
        os.waitpid(-1, os.WNOHANG)
        raise Refusal("started a process and left it running; expected none when a hook or synthesiser returns")


def serve_request(kind: TypeAdapter[Request], work: Callable[[Request, Send], tuple[str, object]]) -> NoReturn:
    """Do what the request on stdin asks, send the last message, and exit.

    The exit is immediate, so no thread or exit handler of a plugin runs after it.
    """
    keep_foreign_out()
    request = kind.validate_json(sys.stdin.buffer.read())
    channel = Channel(request.token)
    if hasattr(signal, "alarm"):
        signal.alarm(int(request.seconds) + 2)  # ends this process even if the parent was killed
    last: str
    body: object
    try:
        last, body = work(request, channel.send)
    except DeploymentError as error:
        last, body = "error", str(error)
    except Refusal as error:
        last, body = "refusal", str(error)
    except BaseException as error:  # a plugin may raise anything
        last, body = "refusal", f"the process met {describe_error(error)}"
    if os.getpid() == WORKER_PID:
        channel.send(last, body)
    os._exit(0)
