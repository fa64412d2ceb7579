"""Wait for photos that are put into folders, by watchfiles of the extra `watch`.

A file that is still being written is not taken for damaged: it is read once it has not changed for
`SETTLE` seconds. One that cannot be read is handed on when it has not changed for `GRACE`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import typer

from abair.cli.console import Reporter
from abair.cli.inputs import Input, Job, check_clashes, drop_done, find_clashes, find_inputs_in
from abair.errors import AbairError, ImageError, MissingExtraError
from abair.text import one_line

SETTLE: Final = 1.0
GRACE: Final = 10.0
POLL: Final = 0.25
"""Seconds between looks at the files that have not settled."""


State = tuple[int, int, int]


@dataclass
class _Seen:
    """A file as it was last seen: size and time of modification, since when, and if it was read."""

    state: State
    since: float
    tried: bool = False


class Settling:
    """Files that are changing, until they are complete; `is_complete` reads one."""

    def __init__(self, is_complete: Callable[[Path], bool], *, settle: float = SETTLE, grace: float = GRACE) -> None:
        self._is_complete, self._settle, self._grace = is_complete, settle, grace
        self._seen: dict[Path, _Seen] = {}

    def add(self, paths: Iterable[Path], now: float) -> None:
        """Take in files that are there or have changed; `now` is in seconds."""
        for path in paths:
            if (state := state_of(path)) is not None:
                self._seen[path] = _Seen(state, now)

    def take(self, now: float) -> list[Path]:
        """Return the files that are complete, or have not changed for `GRACE`, and forget them."""
        done = []
        for path, seen in list(self._seen.items()):
            state = state_of(path)
            if state is None:
                del self._seen[path]
            elif state != seen.state:
                self._seen[path] = _Seen(state, now)
            elif now - seen.since >= self._grace or (
                now - seen.since >= self._settle and not seen.tried and self._is_complete(path)
            ):
                del self._seen[path]
                done.append(path)
            elif now - seen.since >= self._settle:
                seen.tried = True
        return done


def check_folders(paths: Sequence[str], out: str | None, options: Sequence[str], *, overwrite: bool) -> None:
    """Check that folders can be watched; `options` are those given that need an end.

    Raises:
        typer.BadParameter: a path is no folder, there is such an option, or every photo would be
            its own output, which is not to be overwritten.
    """
    if options:
        raise typer.BadParameter("cannot be used with --watch, which has no end", param_hint=options[0])
    if others := [path for path in paths if not Path(path).is_dir()]:
        raise typer.BadParameter(f"found {one_line(others[0])}, expected folders to watch", param_hint="PATHS")
    if out is not None and not overwrite and os.path.realpath(out) in map(os.path.realpath, paths):
        raise typer.BadParameter(
            f"found {one_line(out)}, which is watched itself; expected another folder, or none, or --overwrite",
            param_hint="-o",
        )


def watched_jobs(
    paths: Sequence[str],
    reporter: Reporter,
    plan: Callable[[Sequence[Input]], list[Job]],
    *,
    recursive: bool,
    leave_out: Path | None,
    max_megapixels: float,
) -> Iterator[Job]:
    """Yield the jobs of the photos in folders, and then for ever of those that come or change.

    `plan` makes the jobs of all photos that are there. Who takes a job does it at once: what it
    writes is no arrival. A photo that is there at the beginning is skipped if its output is as new.

    Raises:
        MissingExtraError: watchfiles is not installed.
        typer.BadParameter: photos that are there at the beginning have one output.
        KeyboardInterrupt: Ctrl-C was pressed.
    """
    try:
        from watchfiles import watch
    except ImportError as error:
        raise MissingExtraError(
            "--watch: watchfiles is missing; install it with: pip install 'abair[watch]'"
        ) from error

    def scan() -> list[Input]:
        return find_inputs_in(paths, reporter, recursive=recursive, leave_out=leave_out)

    check_clashes(plan(scan()))
    reporter.log(f"watching {', '.join(paths)}; Ctrl-C ends it")
    settling = Settling(lambda path: _can_be_read(path, max_megapixels))
    seen, written = dict[Path, State | None](), dict[str, State | None]()
    waiting: set[Path] | None = None
    poll = round(POLL * 1000)
    for changes in watch(*paths, recursive=recursive, debounce=poll, rust_timeout=poll, yield_on_timeout=True):
        inputs: list[Input] | None = None
        if changes or waiting is None:
            inputs = scan()
            new = [
                one.path for one in inputs if state_of(one.path) not in {seen.get(one.path), written.get(_real(one))}
            ]
            seen |= {path: state_of(path) for path in new}
            settling.add(new, time.monotonic())
            waiting = set(new) if waiting is None else waiting
        done = settling.take(time.monotonic())
        if not done:
            continue
        jobs = plan(inputs or scan())
        clashes, by_source = find_clashes(jobs), {job.source: job for job in jobs}
        for path in done:
            if path in clashes:
                reporter.fail(ImageError(clashes[path]), str(path))
            elif (job := by_source.get(path)) and (path not in waiting or drop_done([job], reporter)):
                yield job
                written[os.path.realpath(job.target)] = state_of(job.target)
            waiting.discard(path)


def _real(one: Input) -> str:
    return os.path.realpath(one.path)


def _can_be_read(path: Path, max_megapixels: float) -> bool:
    from abair import images

    try:
        images.read(path, max_megapixels=max_megapixels)
    except AbairError:
        return False
    return True


def state_of(path: Path) -> State | None:
    """Return what changes when a file does: size, time of modification, and which file it is."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino
