"""Where restored photos go: what `-o` and `--name` say, checked before any work."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from string import Formatter

import typer

from abair.cli.inputs import drop_duplicates
from abair.text import one_line


def check_order(out: str | None, paths: Sequence[str]) -> None:
    """Refuse an output that was named as `cp` and `convert` take it, after the input.

    Raises:
        typer.BadParameter: there is no `-o`, and the second of two paths is a photo that does not
            exist.
    """
    from abair.images import SUFFIXES

    if out is not None or len(paths) != 2:
        return
    source, target = map(Path, paths)
    if source.exists() and not target.exists() and target.suffix.lower() in SUFFIXES:
        raise typer.BadParameter(
            f"{target}: found no such file; to name the output: abair restore {source} -o {target}", param_hint="PATHS"
        )


def output_is_folder(out: str, paths: Sequence[str]) -> bool:
    """Return whether the value of `-o` names a folder.

    It does if it ends in a slash, if there is more than one file to write, or if it has no suffix,
    since a file's suffix chooses its format.

    Raises:
        typer.BadParameter: it names a file, but there are several inputs.
    """
    from abair.images import SUFFIXES

    if not out:
        raise typer.BadParameter("found an empty name, expected a file or a folder", param_hint="-o")
    path, sources = Path(out), drop_duplicates(paths)
    if out.endswith(tuple(filter(None, (os.sep, os.altsep)))) or path.is_dir():
        return True
    if len(sources) == 1 and not Path(sources[0]).is_dir():
        return not path.exists() and not path.suffix
    if path.exists() or path.suffix.lower() in SUFFIXES:
        several = f"{len(sources)} inputs" if len(sources) > 1 else "a folder as input"
        raise typer.BadParameter(
            f"found the file {out} for {several}, expected a folder, for example fixed/", param_hint="-o"
        )
    return True


def check_name(name: str | None, *, for_file: bool) -> None:
    """Check the pattern of output names, if there is one; `for_file`: the output is named already.

    Raises:
        typer.BadParameter: it has other fields than stem and suffix, makes no file name, or has no
            output to name.
    """
    from abair.images import SUFFIXES

    if name is None:
        return
    if for_file:
        raise typer.BadParameter("cannot be used when -o names a file", param_hint="--name")
    try:
        fields = [
            (field, form, conversion) for _, field, form, conversion in Formatter().parse(name) if field is not None
        ]
    except ValueError:
        fields = [("", "", None)]
    plain = all(field in {"stem", "suffix"} and not form and not conversion for field, form, conversion in fields)
    made = name.format(stem="photo", suffix=".jpg") if plain else ""
    if not made or os.path.basename(made) != made or os.path.splitext(made)[1].lower() not in SUFFIXES:
        raise typer.BadParameter(
            f"found {one_line(name)!r}, expected a file name with {{stem}} and {{suffix}}, or an ending of its own of "
            f"{' '.join(sorted(SUFFIXES))}, as in {{stem}}_fixed{{suffix}} or {{stem}}.png",
            param_hint="--name",
        )
