"""Reports of `abair bench`: on stdout, and as files in a folder."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from abair.cli.console import Reporter


def write_and_print(report: BaseModel, table: str, folder: Path | None, stem: str, reporter: Reporter) -> None:
    """Print a table; with a folder, also write it and the report to `stem`.md and `stem`.json.

    Raises:
        ImageError: the folder or a file cannot be written.
    """
    from abair.errors import ImageError
    from abair.files import write_text

    print(table, flush=True)
    if folder is None:
        return
    paths = folder / f"{stem}.json", folder / f"{stem}.md"
    try:
        write_text(paths[0], report.model_dump_json(indent=1) + "\n")
        write_text(paths[1], table)
    except OSError as error:
        raise ImageError(
            f"{folder}: the report cannot be written ({error.strerror or error}); choose another --out"
        ) from None
    reporter.log(f"written: {', '.join(map(str, paths))}")
