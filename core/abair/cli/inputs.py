"""Plan which input is written to which output, before any photo is restored."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import typer

from abair import labels
from abair.batch.places import make_folder
from abair.cli.console import Reporter
from abair.errors import ImageError, WeightsError
from abair.text import one_line

BESIDE_END: Final = ".restored"
BESIDE: Final = f"{{stem}}{BESIDE_END}{{suffix}}"
"""The name of an output that lies beside its photo."""


@dataclass(frozen=True)
class Input:
    """A file to read; `relative` is its path below the output folder."""

    path: Path
    relative: Path


@dataclass(frozen=True)
class Job:
    """A file to read and the file to write; `keep_format` ignores the target's suffix."""

    source: Path
    target: Path
    keep_format: bool
    pixels: int = 0
    """As many as the file says; 0 if it was not looked at."""


def drop_duplicates(paths: Sequence[str]) -> list[str]:
    """Return the paths in order, each file or folder once.

    Raises:
        typer.BadParameter: there is no path, or one is empty.
    """
    if not paths or "" in paths:
        raise typer.BadParameter("found an empty path, expected photos or folders", param_hint="PATHS")
    first: dict[str, str] = {}
    for path in paths:
        first.setdefault(os.path.abspath(path), path)
    return list(first.values())


def find_inputs(
    paths: Sequence[str], reporter: Reporter, *, recursive: bool = False, leave_out: Path | None = None
) -> list[Input]:
    """Return the files to read: files as they are named, and the photos in folders.

    With `recursive`, also the photos in sub-folders. In folders, only names with a photo's suffix
    count; hidden files and folders, links to folders, and the folder `leave_out` are skipped. A
    folder without photos or one that cannot be read is reported, and the others are still searched.
    """
    found: dict[str, Input] = {}
    for given in drop_duplicates(paths):
        path = Path(given)
        if not path.is_dir():
            found.setdefault(os.path.abspath(path), Input(path, Path(path.name)))
            continue
        with reporter.guard(given):
            inside = list(find_photos(path, recursive, leave_out, reporter))
            if not inside:
                where, hint = (
                    ("in it or its sub-folders", "")
                    if recursive or not _has_folders(path)
                    else ("directly in it", "; use -r for sub-folders")
                )
                raise ImageError(f"{given}: found no photos {where}, expected at least one{hint}")
            for photo in inside:
                found.setdefault(os.path.abspath(photo), Input(photo, photo.relative_to(path)))
    return list(found.values())


def _has_folders(folder: Path) -> bool:
    return any(one.is_dir() for one in folder.iterdir())


def find_inputs_in(
    folders: Sequence[str], reporter: Reporter, *, recursive: bool, leave_out: Path | None
) -> list[Input]:
    """Return the photos that are in folders now, which may be none."""
    found: dict[str, Input] = {}
    for folder in map(Path, drop_duplicates(folders)):
        for photo in find_photos(folder, recursive, leave_out, reporter):
            found.setdefault(os.path.realpath(photo), Input(photo, photo.relative_to(folder)))
    return list(found.values())


def plan_jobs(
    inputs: Sequence[Input], paths: Sequence[str], out: str | None, *, folder: bool, name: str | None = None
) -> list[Job]:
    """Return one job per input, which were found in `paths`.

    The output goes to the file `out`; into the folder `out`, as `name` or with its own name; or, if
    `out` is None, beside the input as `name` or `BESIDE`. Unless its suffix is another one, the
    format stays; a.heic, whose format is not written, becomes a.heic.jpg. What an earlier run put
    beside photos is no input, unless it is named. Outputs may still clash: see `check_clashes`.
    """
    jobs = [_plan_job(one, out, folder, name) for one in inputs]
    return jobs if out is not None and not folder else _leave_out_results(jobs, paths, beside=out is None)


def _plan_job(one: Input, out: str | None, folder: bool, name: str | None) -> Job:
    from abair.images import OUTPUT_SUFFIXES

    if out is not None and not folder:
        return Job(one.path, Path(out), keep_format=False)
    place = one.path if out is None else Path(out) / one.relative
    pattern = name or (BESIDE if out is None else "{stem}{suffix}")
    stem, suffix = place.stem, place.suffix
    if changed := OUTPUT_SUFFIXES.get(suffix.lower()):  # the whole name, or the output could be that of a.jpg
        stem, suffix = place.name, changed
    target = place.with_name(pattern.format(stem=stem, suffix=suffix))
    return Job(one.path, target, keep_format=target.suffix == place.suffix)


def _leave_out_results(jobs: Sequence[Job], paths: Sequence[str], *, beside: bool) -> list[Job]:
    """Return the jobs without those whose photo an earlier run made, unless it is named.

    Its name tells, or, where outputs lie `beside` photos, that it is the output of another job.
    """
    named, results = {_key(Path(path)) for path in paths}, {_key(job.target) for job in jobs if beside}
    return [
        job
        for job in jobs
        if _key(job.source) in named or not (_key(job.source) in results or job.source.stem.endswith(BESIDE_END))
    ]


def check_clashes(jobs: Sequence[Job]) -> None:
    """Check that no output is another job's output or input.

    Raises:
        typer.BadParameter: one is.
    """
    for clash in find_clashes(jobs).values():
        raise typer.BadParameter(clash, param_hint="PATHS")


def find_clashes(jobs: Sequence[Job]) -> dict[Path, str]:
    """Return by source what is wrong with jobs whose output is another job's output or input."""
    sources = {_key(job.source): job for job in jobs}
    targets: dict[str, Job] = {}
    clashes = {}
    for job in jobs:
        other = targets.setdefault(_key(job.target), job)
        if other is not job:
            clashes[job.source] = (
                f"{other.source} and {job.source} would both be written to {job.target}; restore them into different "
                "folders or give other names"
            )
        elif sources.get(_key(job.target), job) is not job:
            clashes[job.source] = (
                f"{job.source} would be written to {job.target}, which is to be restored itself; choose another folder "
                "or name"
            )
    return clashes


def _key(path: Path) -> str:
    """Return a path by which files are told apart."""
    return os.path.normcase(os.path.abspath(path))


def drop_done(jobs: Sequence[Job], reporter: Reporter) -> list[Job]:
    """Return the jobs without an output, or with an older one; report the others."""
    to_do = []
    for job in jobs:
        try:
            done = job.target.stat().st_mtime_ns >= job.source.stat().st_mtime_ns
            done = done and not job.target.samefile(job.source)
        except OSError:  # one of them does not exist, which is reported later
            done = False
        if not done:
            to_do.append(job)
        elif reporter.json_lines:
            reporter.result({"input": str(job.source), "output": str(job.target), "skipped": True})
    return to_do


def check_jobs(
    jobs: Sequence[Job], folder: Path | None, reporter: Reporter, *, overwrite: bool, make_folders: bool = True
) -> list[Job]:
    """Return the jobs that can be done: the input is a photo and the output can be written.

    Makes the output `folder` and those below it, unless nothing would be written there, and reports
    each of the other jobs.
    """
    from abair import images

    readable = []
    for job in jobs:
        with reporter.guard(str(job.source)):
            readable.append(replace(job, pixels=math.prod(images.probe(job.source))))
    if folder is not None and readable and make_folders:
        try:
            make_folder(folder)
        except ImageError as error:
            reporter.fail(error, *(str(job.source) for job in readable))
            return []
    possible = []
    for job in readable:
        with reporter.guard(str(job.source)):
            if folder is not None and make_folders:
                make_folder(job.target.parent)
            if not overwrite and job.target.exists() and job.target.samefile(job.source):
                raise ImageError(
                    f"{job.source}: found the input itself as its output, expected another file; "
                    "choose another -o, or use --overwrite to replace the input"
                )
            if folder is None or job.target.parent.is_dir():
                images.check_output(job.target, overwrite=overwrite)
            else:  # it would be made
                _check_can_be_made(job.target.parent)
            possible.append(job)
    return possible


@contextmanager
def keeping_time(job: Job) -> Iterator[None]:
    """Give the output the input's time of modification, if it is written inside the block."""
    made = job.source.stat()
    yield
    os.utime(job.target, ns=(made.st_atime_ns, made.st_mtime_ns))


def parse_weights(text: str) -> dict[str, float]:
    """Parse `noise=0.7,blur=0.3`; labels are not compared with a deployment's.

    Raises:
        typer.BadParameter: the form is another, a number is outside [0, 1], a label comes twice, or
            the numbers sum to more than 1.
    """
    try:
        return labels.parse_weights(text)
    except WeightsError as error:
        raise typer.BadParameter(str(error), param_hint="--weights") from None


def check_labels(weights: Mapping[str, float], known: Sequence[str]) -> None:
    """Check that the deployment has all labels that weights were given for.

    Raises:
        typer.BadParameter: it lacks one.
    """
    if unknown := [label for label in weights if label not in known]:
        raise typer.BadParameter(
            f"found the label {one_line(unknown[0])}, expected some of {', '.join(known)}", param_hint="--weights"
        )


def find_photos(folder: Path, recursive: bool, leave_out: Path | None, reporter: Reporter) -> Iterator[Path]:
    """Yield the photos of a folder in the order of their names, those of sub-folders last."""
    from abair.images import OUTPUT_SUFFIXES, SUFFIXES

    def on_error(error: OSError) -> None:
        if Path(error.filename) == folder:
            raise error
        reporter.fail(error, str(error.filename), about=str(error.filename))

    left_out = leave_out.resolve() if leave_out else None
    if left_out == folder.resolve():
        left_out = None  # the folder itself was asked for
    for at, folders, files in os.walk(folder, onerror=on_error):
        for name in sorted(files):
            suffix = os.path.splitext(name)[1].lower()
            if not name.startswith(".") and (suffix in SUFFIXES or suffix in OUTPUT_SUFFIXES):
                yield Path(at, name)
        folders[:] = sorted(
            name for name in folders if recursive and not name.startswith(".") and Path(at, name).resolve() != left_out
        )


def _check_can_be_made(folder: Path) -> None:
    nearest = next(parent for parent in folder.absolute().parents if parent.exists())
    if folder.exists() or not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise ImageError(
            f"{folder}: the folder cannot be made, expected a name that is free in a writable folder; choose another -o"
        )
