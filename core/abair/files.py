"""Files: written completely or not at all, and identified by their SHA-256."""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def absolute_path(path: Path | str) -> Path:
    """Return a path that somebody gave, absolute and with a leading `~` replaced.

    Raises:
        ValueError: `~` is of an unknown user, or the path is not UTF-8, which neither SQLite nor
            safetensors opens.
    """
    try:
        found = Path(path).expanduser().absolute()
        str(found).encode()
    except RuntimeError:
        raise ValueError(f"found {path}; expected a folder, or ~ of a user of this machine") from None
    except UnicodeEncodeError:
        raise ValueError(f"found {os.fsencode(path)!r}; expected a path in UTF-8; rename it") from None
    return found


@contextmanager
def atomic_write(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """Yield an empty file beside `path` to write to; at the end it is renamed to `path`.

    It is synced to disk before that. At every moment `path` is the complete new file or what it was
    before. After an exception the new file is deleted. The folder is created if it is missing. The
    new file has the permissions of the file that it replaces, or those that the umask gives. A
    symbolic link at `path` is replaced, not followed. With `replace=False` a file that is at
    `path`, or appears there meanwhile, is never replaced.

    Raises:
        FileExistsError: something is at `path` and `replace` is False.
        OSError: the folder cannot be created, or the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(
        f".abair-{secrets.token_hex(8)}{path.suffix}"
    )  # some writers take the format from the suffix
    try:
        aside.touch(exist_ok=False)
        mode = aside.stat().st_mode
        yield aside
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        if replace and path.exists():
            mode = path.stat().st_mode
        aside.chmod(stat.S_IMODE(mode))  # some writers make files that only their owner can read
        if replace:
            os.replace(aside, path)
        else:
            _rename_to_free_name(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _rename_to_free_name(aside: Path, path: Path) -> None:
    """Rename `aside` to `path` unless that exists; no other process can slip in between.

    Raises:
        FileExistsError: `path` exists.
    """
    try:
        os.link(aside, path)
    except FileExistsError:
        raise
    except (OSError, AttributeError, NotImplementedError):  # no hard links there: claim the name, then fill it
        path.open("xb").close()
        try:
            os.replace(aside, path)
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with `atomic_write`.

    Raises:
        OSError: the file cannot be written.
    """
    with atomic_write(path) as aside:
        aside.write_text(text, encoding="utf-8")


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
