"""Let `-` stand for stdin among the paths, and for stdout as the output."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import typer

from abair.cli.console import Reporter
from abair.cli.outputs import output_is_folder
from abair.errors import AbairError, ImageError

MARK: Final = "-"


def check_streams(paths: Sequence[str], out: str | None, options: Sequence[str], *, json: bool) -> None:
    """Check that what is asked for can be done with streams, if `-` is named at all.

    `options` are those given that need files with names of their own.

    Raises:
        typer.BadParameter: there are other paths beside `-`, or several for stdout; an option needs
            a name; both the photo and JSON lines would go to stdout.
    """
    reads, writes = MARK in paths, out == MARK
    if (reads or writes) and (len(paths) != 1 or Path(paths[0]).is_dir()):
        raise typer.BadParameter("found several photos or a folder, expected one photo with -", param_hint="PATHS")
    if (reads or writes) and options:
        raise typer.BadParameter("cannot be used with -, which has no name", param_hint=options[0])
    if reads and out is None:
        raise typer.BadParameter("missing for a photo from stdin, expected a file, or - for stdout", param_hint="-o")
    if reads and out != MARK and output_is_folder(out or "", ["photo"]):
        raise typer.BadParameter(
            f"found the folder {out} for a photo from stdin, which has no name; expected a file", param_hint="-o"
        )
    if writes and json:
        raise typer.BadParameter("cannot be used with -o -, which writes the photo to stdout", param_hint="--json")


@contextmanager
def named_streams(paths: Sequence[str], out: str | None, reporter: Reporter) -> Iterator[tuple[list[str], str | None]]:
    """Yield paths and output with files for the streams; messages call these `-`.

    What was written to the output's file goes to stdout at the end, in the format of the photo, or
    in the one that takes its place.

    Raises:
        ImageError: stdin or stdout is closed, or there is no space for the photo.
    """
    if MARK not in paths and out != MARK:
        yield list(paths), out
        return
    if out == MARK and sys.stdout is None:
        raise ImageError(f"{MARK}: stdout is closed, expected a file or a pipe; name a file with -o")
    with TemporaryDirectory() as folder:
        source = Path(paths[0])
        if paths[0] == MARK:
            source = Path(folder, "stdin")
            reporter.aliases[str(source)] = MARK
            _keep_stdin(source)
        target = None
        if out == MARK:
            target = Path(folder, "stdout" + _output_suffix(source))
            reporter.aliases[str(target)] = MARK
        yield [str(source)], out if target is None else str(target)
        if target is not None and target.is_file():
            sys.stdout.buffer.write(target.read_bytes())
            sys.stdout.buffer.flush()


def _keep_stdin(path: Path) -> None:
    if sys.stdin is None:
        raise ImageError(f"{MARK}: stdin is closed, expected a photo; name a file instead")
    try:
        with path.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
    except OSError as error:
        raise ImageError(
            f"{MARK}: cannot be kept in {path.parent.parent} ({error.strerror or error}); set TMPDIR to a folder with "
            "more space"
        ) from error


def _output_suffix(source: Path) -> str:
    """Return the suffix for the photo's format, some suffix for a file that is refused later."""
    from abair.images import output_suffix, probe_format

    with suppress(AbairError):
        return output_suffix(probe_format(source))
    return ".png"
