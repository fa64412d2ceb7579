"""Which inputs go to which outputs: settled and checked before any work, so that no photo is restored in vain."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from abair.cli.console import Reporter
from abair.errors import ImageError
from abair.text import one_line


@dataclass(frozen=True)
class Input:
    """A file to read, and its name below the output folder: with its sub-folder if it was found in one."""

    path: Path
    relative: Path


@dataclass(frozen=True)
class Job:
    """A file to read and the file to write; `keep_format`: in the format that was read, whatever its name says."""

    source: Path
    target: Path
    keep_format: bool


def unique(paths: Sequence[str]) -> list[str]:
    """The paths without those that say the same again.

    Raises:
        typer.BadParameter: there is none, or one is empty.
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
    """The files that the paths name: a file itself, of a folder its photos, with `recursive` those below it too.

    In folders only names with a photo's ending count; hidden files and folders, links to folders, and the folder
    `leave_out` are passed over. A folder that holds no photos or cannot be read is reported; the others go on.
    """
    found: dict[str, Input] = {}
    for given in unique(paths):
        path = Path(given)
        if not path.is_dir():
            found.setdefault(os.path.abspath(path), Input(path, Path(path.name)))
            continue
        with reporter.guard(given):
            inside = list(_photos(path, recursive, leave_out, reporter))
            if not inside:
                where, hint = ("in or below it", "") if recursive else ("directly in it", "; -r looks below it, too")
                raise ImageError(f"{given}: found no photos {where}, expected at least one{hint}")
            for photo in inside:
                found.setdefault(os.path.abspath(photo), Input(photo, photo.relative_to(path)))
    return list(found.values())


def output_is_folder(out: str, paths: Sequence[str]) -> bool:
    """Whether `-o` names a folder: it says so or is one, or it must be because there is more than one file to write.

    A name without an ending is a folder, too: the ending of a file is what chooses its format.

    Raises:
        typer.BadParameter: it is a file, but there are several inputs.
    """
    from abair.images import SUFFIXES

    if not out:
        raise typer.BadParameter("found an empty name, expected a file or a folder", param_hint="-o")
    path, given = Path(out), unique(paths)
    if out.endswith(tuple(filter(None, (os.sep, os.altsep)))) or path.is_dir():
        return True
    if len(given) == 1 and not Path(given[0]).is_dir():
        return not path.exists() and not path.suffix
    if path.exists() or path.suffix.lower() in SUFFIXES:
        several = f"{len(given)} inputs" if len(given) > 1 else "a folder as input"
        raise typer.BadParameter(f"found the file {out} for {several}, expected a folder (fixed/)", param_hint="-o")
    return True


def plan(inputs: Sequence[Input], out: str, *, folder: bool) -> list[Job]:
    """One job an input: into the folder under its own name and format, or to the file `out`.

    Raises:
        typer.BadParameter: two inputs would write the same output; both are named.
    """
    jobs = [Job(found.path, Path(out) / found.relative if folder else Path(out), folder) for found in inputs]
    taken: dict[str, Path] = {}
    for job in jobs:
        other = taken.setdefault(os.path.normcase(os.path.abspath(job.target)), job.source)
        if other is not job.source:
            raise typer.BadParameter(
                f"{other} and {job.source} would both be written to {job.target}; restore them into different folders",
                param_hint="PATHS",
            )
    return jobs


def ready(jobs: Sequence[Job], out: str, reporter: Reporter, *, folder: bool, overwrite: bool) -> list[Job]:
    """The jobs whose input has a photo's header and whose output can be written; folders are made.

    Each of the others is reported.
    """
    from abair import images

    if folder and jobs:
        try:
            _make(Path(out))
        except ImageError as error:
            reporter.fail(error, *(str(job.source) for job in jobs))
            return []
    possible = []
    for job in jobs:
        with reporter.guard(str(job.source)):
            images.probe(job.source)
            if folder:
                _make(job.target.parent)
            if not overwrite and job.target.exists() and job.target.samefile(job.source):
                raise ImageError(
                    f"{job.source}: found the input itself as its output, expected another file; "
                    "choose another -o, or use --overwrite to replace the input"
                )
            images.check_output(job.target, overwrite=overwrite)
            possible.append(job)
    return possible


def parse_weights(text: str) -> dict[str, float]:
    """`noise=0.7,blur=0.3` as a mapping; whether the labels exist is not looked at.

    Raises:
        typer.BadParameter: another form, a number outside [0, 1], or a label twice.
    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        label, _, number = (piece.strip() for piece in part.partition("="))
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not label or not 0 <= weight <= 1:
            raise typer.BadParameter(
                f"found {part.strip()!r}, expected label=number with a number from 0 to 1, as in noise=0.7,blur=0.3",
                param_hint="--weights",
            )
        if label in weights:
            raise typer.BadParameter(f"found {label} twice, expected every label once", param_hint="--weights")
        weights[label] = weight
    return weights


def check_labels(weights: dict[str, float], labels: Sequence[str]) -> None:
    """Compare the weights' labels with the deployment's.

    Raises:
        typer.BadParameter: one is not among them.
    """
    if unknown := [label for label in weights if label not in labels]:
        raise typer.BadParameter(
            f"found the label {one_line(unknown[0])}, expected some of {', '.join(labels)}", param_hint="--weights"
        )


def _photos(folder: Path, recursive: bool, leave_out: Path | None, reporter: Reporter) -> Iterator[Path]:
    """The photos of a folder in the order of their names, sub-folders after the files."""
    from abair.images import SUFFIXES

    def unreadable(error: OSError) -> None:
        if Path(error.filename) == folder:
            raise error
        reporter.fail(error, str(error.filename), about=str(error.filename))

    left_out = leave_out.resolve() if leave_out else None
    if left_out == folder.resolve():
        left_out = None  # the folder itself was asked for
    for at, folders, files in os.walk(folder, onerror=unreadable):
        for name in sorted(files):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES:
                yield Path(at, name)
        folders[:] = sorted(
            name for name in folders if recursive and not name.startswith(".") and Path(at, name).resolve() != left_out
        )


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageError(
            f"{folder}: the folder cannot be made ({error.strerror or error}), expected a name that is free "
            "in a writable folder; choose another -o"
        ) from None
