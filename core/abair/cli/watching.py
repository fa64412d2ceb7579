"""Wait for photos that are put into folders, by watchfiles of the extra `watch`.

A file that is still being written is not taken for damaged: it is read once it has not changed for
`SETTLE` seconds. One that cannot be read is handed on when it has not changed for `GRACE`.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import typer

from abair.cli.console import Reporter
from abair.cli.inputs import Input, find_photos
from abair.errors import AbairError, MissingExtraError
from abair.text import one_line

SETTLE: Final = 1.0
GRACE: Final = 10.0
POLL: Final = 0.25
"""Seconds between looks at the files that have not settled."""


@dataclass
class _Seen:
    """A file as it was last seen: size and time of modification, since when, and if it was read."""

    state: tuple[int, int]
    since: float
    tried: bool = False


class Settling:
    """Files that are changing, until they are complete; `is_complete` reads one."""

    def __init__(self, is_complete: Callable[[Path], bool]) -> None:
        self._is_complete = is_complete
        self._seen: dict[Path, _Seen] = {}

    def add(self, paths: Iterable[Path], now: float) -> None:
        """Take in files that are there or have changed; `now` is in seconds."""
        for path in paths:
            if (state := _state(path)) is not None:
                self._seen[path] = _Seen(state, now)

    def take(self, now: float) -> list[Path]:
        """Return the files that are complete, or have not changed for `GRACE`, and forget them."""
        done = []
        for path, seen in list(self._seen.items()):
            state = _state(path)
            if state is None:
                del self._seen[path]
            elif state != seen.state:
                self._seen[path] = _Seen(state, now)
            elif now - seen.since >= GRACE or (
                now - seen.since >= SETTLE and not seen.tried and self._is_complete(path)
            ):
                del self._seen[path]
                done.append(path)
            elif now - seen.since >= SETTLE:
                seen.tried = True
        return done


def check_folders(paths: Sequence[str], options: Sequence[str]) -> None:
    """Check that there are only folders to watch; `options` are those given that need an end.

    Raises:
        typer.BadParameter: a path is no folder, or there is such an option.
    """
    if options:
        raise typer.BadParameter("cannot be used with --watch, which has no end", param_hint=options[0])
    if others := [path for path in paths if not Path(path).is_dir()]:
        raise typer.BadParameter(f"found {one_line(others[0])}, expected folders to watch", param_hint="PATHS")


def wait_for_inputs(
    paths: Sequence[str], reporter: Reporter, *, recursive: bool, leave_out: Path | None
) -> Iterator[Input]:
    """Yield the photos in folders, and then for ever those that are put there or change.

    Raises:
        MissingExtraError: watchfiles is not installed.
        KeyboardInterrupt: Ctrl-C was pressed.
    """
    try:
        from watchfiles import watch
    except ImportError as error:
        raise MissingExtraError(
            "--watch: watchfiles is missing; install it with: pip install 'abair[watch]'"
        ) from error
    folders = {os.path.realpath(path): Path(path) for path in paths}
    settling, started = Settling(_can_be_read), False
    poll = round(POLL * 1000)
    for changes in watch(*folders, recursive=recursive, debounce=poll, rust_timeout=poll, yield_on_timeout=True):
        if changes or not started:
            there = {
                photo for folder in folders.values() for photo in find_photos(folder, recursive, leave_out, reporter)
            }
            changed = {_as_named(path, folders) for _, path in changes}
            settling.add(there & changed if started else there, time.monotonic())
            started = True
        for photo in settling.take(time.monotonic()):
            root = next(folder for folder in folders.values() if photo.is_relative_to(folder))
            yield Input(photo, photo.relative_to(root))


def _can_be_read(path: Path) -> bool:
    from abair import images

    try:
        images.read(path, max_megapixels=math.inf)
    except AbairError:
        return False
    return True


def _as_named(path: str, named: dict[str, Path]) -> Path:
    """Return a path below the folder as it was named, not below the one that it is."""
    for real, folder in named.items():
        if path.startswith(real + os.sep):
            return folder / os.path.relpath(path, real)
    return Path(path)


def _state(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns
