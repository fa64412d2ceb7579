"""What parent and worker process exchange: one request, and messages in answer.

The request is one JSON document on the worker's stdin. Messages are JSON lines on its stdout.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

LARGEST_FILE: Final = 64 * 1024**2
"""Most bytes of a file that a plugin writes, unless the request allows more."""


class WorkerRequest(BaseModel):
    """What every request has.

    Attributes:
        token: marks the messages of this run; a plugin does not get to know it.
        seconds: wall clock of the run.
        memory_mib: address space beyond what is mapped when the limits are set.
        output_kib: what may be printed.
        largest_file: bytes of a file that may be written.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    token: str
    seconds: float
    memory_mib: int
    output_kib: int
    largest_file: int = LARGEST_FILE


class Message(BaseModel):
    """One line of the worker's answer.

    `stage` announces what comes next, `progress` counts one finished part, and `adapters` are the
    verdicts on adapters. Every other kind is the last line of a run: `declarations`, `speeds` and
    `result` of one that succeeded, `refusal` for the plugin's fault and `error` for our own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    token: str
    kind: Literal[
        "stage", "progress", "adapters", "declarations", "speeds", "result", "refusal", "error"
    ]  # fmt: skip
    body: Any

    @property
    def last(self) -> bool:
        """Whether no message may follow."""
        return self.kind not in {"stage", "progress", "adapters"}

    @property
    def succeeded(self) -> bool:
        """Whether this is the last message of a run that did what was requested."""
        return self.kind in {"declarations", "speeds", "result"}


class Refusal(Exception):  # noqa: N818 - a verdict on a plugin, not a failure of the platform
    """Why a plugin is refused; the caller turns it into an error that names the plugin."""


Send = Callable[[str, object], None]
Request = TypeVar("Request", bound=WorkerRequest)
