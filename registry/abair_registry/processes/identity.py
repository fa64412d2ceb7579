"""Tell whether a process that was recorded on some host is still running."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import psutil  # type: ignore[import-untyped]

HOST: Final = "abair.host"
PROCESS: Final = "abair.process"
STARTED: Final = "abair.process.started"
CLOCK_SECONDS: Final = 60.0
"""Where a start is a time by a clock, a clock that was set moves it by less."""


@dataclass(frozen=True)
class ProcessIdentity:
    """A process that no other one can be taken for.

    Attributes:
        host: the host's name, and a digest of what tells its processes from those of its
            containers and of hosts with the same name.
        number: the process id, which a later process may get again.
        started: when it started: on Linux the boot and the clock ticks since, elsewhere seconds
            since 1970.
    """

    host: str
    number: int
    started: str

    @classmethod
    def of_this_process(cls) -> Self:
        """Return the identity of the process that asks."""
        return cls(_host(), os.getpid(), _started(os.getpid()) or "")

    def as_tags(self) -> dict[str, str]:
        """Return tags, from which `from_tags` makes the same identity."""
        return {HOST: self.host, PROCESS: str(self.number), STARTED: self.started}

    @classmethod
    def from_tags(cls, tags: Mapping[str, str]) -> Self | None:
        """Return the identity in these tags; None if there is none."""
        number = tags.get(PROCESS, "")
        if not number.isdigit() or not tags.get(HOST) or not tags.get(STARTED):
            return None
        return cls(tags[HOST], int(number), tags[STARTED])

    def is_gone(self) -> bool:
        """Return whether the process has certainly ended; one of another host never has."""
        if self.host != _host():
            return False
        now = _started(self.number)
        if now is None:
            return not psutil.pid_exists(self.number)
        try:
            return abs(float(now) - float(self.started)) > CLOCK_SECONDS
        except ValueError:  # Linux's, which are exact
            return now != self.started

    def __str__(self) -> str:
        return f"process {self.number} on {self.host.partition('/')[0]}"


def _host() -> str:
    parts = [_read("/etc/machine-id")]
    with contextlib.suppress(OSError, AttributeError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return f"{socket.gethostname()}/{hashlib.sha256(' '.join(parts).encode()).hexdigest()[:12]}"


def _started(number: int) -> str | None:
    """Return when the process with this number started; None if there is none."""
    boot, stat = _read("/proc/sys/kernel/random/boot_id"), _read(f"/proc/{number}/stat")
    if boot and stat:
        # the name in parentheses may hold anything; the state after it is field 3, the start 22
        return f"{boot} {stat.rpartition(')')[2].split()[22 - 3]}"
    with contextlib.suppress(psutil.Error, OSError):
        return str(psutil.Process(number).create_time()) if not boot else None
    return None


def _read(path: str) -> str:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return Path(path).read_text(encoding="utf-8").strip()
    return ""
