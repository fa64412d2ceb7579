"""What the parent and the worker process say to each other: a request, messages, and the verdict that refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

LARGEST_FILE: Final = 64 * 1024**2
"""No file that a plugin writes gets more bytes than this, unless the request says so."""


class Asked(BaseModel):
    """What every request has. `token` marks the run's messages; a plugin is not told it.

    `seconds` of wall clock, `memory_mib` beyond what is mapped when the limits are set, `output_kib` printed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    token: str
    seconds: float
    memory_mib: int
    output_kib: int
    largest_file: int = LARGEST_FILE


class Message(BaseModel):
    """One line of the answer: `at` says what comes next, `one` that a part of it is done, `wrong` what we did wrong.

    The last line of a run is `declared`, `tried`, `done`, `refused` or `wrong`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    token: str
    kind: Literal["at", "one", "declared", "adapters", "tried", "done", "refused", "wrong"]
    body: Any

    @property
    def last(self) -> bool:
        """Whether nothing may follow."""
        return self.kind not in ("at", "one", "adapters")


class Refusal(Exception):  # noqa: N818 - a verdict, no failure of ours
    """Why a plugin is refused; becomes an error that names it."""


Send = Callable[[str, object], None]
Request = TypeVar("Request", bound=Asked)
