"""The inside of a process in which plugins run: its limits, the channel back, how it ends.

A request goes to its stdin, messages come from its stdout.

Stdout is the channel's alone: its pipe is moved to another descriptor before any plugin runs, and what a plugin prints
goes to stderr. The process limits itself before that, with hard limits where the platform has them; the rest is held
from outside (`abair_registry.plugins.worker.supervisor`).
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
from abair.text import describe_error
from abair_registry.plugins.worker.protocol import Asked, Refusal, Request, Send

OWN: Final = os.getpid()
"""This process; a plugin may fork it."""


class Channel:
    """The way back to the parent: what was stdout, at a descriptor of its own that no started program inherits."""

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


def confine(request: Asked) -> None:
    """Limit this process and those it starts, for good: memory beyond what is mapped now, CPU time, files, no core.

    Only what the platform has is set; macOS ignores limits on address space, Windows has none of them.
    """
    try:
        import resource
    except ImportError:
        return
    limits = {
        "RLIMIT_CORE": 0,
        "RLIMIT_FSIZE": request.largest_file,
        # The parent holds the wall clock; this ends a process that has got away from it.
        "RLIMIT_CPU": int(2 * request.seconds) + 1,
    }
    with contextlib.suppress(OSError, ValueError):
        # What is mapped already does not count: a torch built for GPUs takes gigabytes of addresses, others do not.
        mapped = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        limits["RLIMIT_AS"] = mapped + request.memory_mib * 1024**2
    for name, limit in limits.items():
        with contextlib.suppress(AttributeError, OSError, ValueError):
            which = getattr(resource, name)
            hard = resource.getrlimit(which)[1]
            limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
            resource.setrlimit(which, (limit, limit))


def refuse_processes() -> None:
    """End this process if it is a fork that a plugin made; refuse the plugin if this process has children.

    Raises:
        Refusal: the plugin started a process and did not wait for its end.
    """
    if os.getpid() != OWN:
        os._exit(0)
    with contextlib.suppress(ChildProcessError, AttributeError):
        os.waitpid(-1, os.WNOHANG)
        raise Refusal("started a process and left it running; expected none when a hook or synthesiser returns")


def answer(kind: TypeAdapter[Request], work: Callable[[Request, Send], tuple[str, object]]) -> NoReturn:
    """Do what the request on stdin asks, and leave at once: no thread or exit handler of a plugin gets its turn."""
    request = kind.validate_json(sys.stdin.buffer.read())
    channel = Channel(request.token)
    if hasattr(signal, "alarm"):
        signal.alarm(int(request.seconds) + 2)  # ends this process if the parent was killed
    last: str
    body: object
    try:
        last, body = work(request, channel.send)
    except DeploymentError as error:
        last, body = "wrong", str(error)
    except Refusal as error:
        last, body = "refused", str(error)
    except BaseException as error:  # a plugin may raise anything
        last, body = "refused", f"the process met {describe_error(error)}"
    if os.getpid() == OWN:
        channel.send(last, body)
    os._exit(0)
