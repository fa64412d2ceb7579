"""Files that are there wholly or not at all: written aside, then renamed."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """The path to write to, an empty file; at the end it takes the name `path`.

    After an exception it is gone and `path` is as it was. Makes the folder. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")
    try:
        aside.touch()
        mode = aside.stat().st_mode  # as the umask has it; some writers make files that only their owner reads
        yield aside
        aside.chmod(mode)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text. Raises OSError."""
    with written_whole(path) as aside:
        aside.write_text(text, encoding="utf-8")
