"""Copies of a SQLite database: made whole and checked, the newest kept, and put back when asked.

PostgreSQL has tools of its own for that.
"""

from __future__ import annotations

import os
import re
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import quote

from abair.errors import RegistryError
from abair.files import file_sha256
from abair_migrations import VERSION_TABLE

FOLDER: Final = "backups"
"""The folder of the copies, beside the database."""
KEPT: Final = 5
"""Copies that stay; a copy is made only of a database that changed."""
_STAMP: Final = "%Y%m%dT%H%M%S.%f"
_STAMPED: Final = re.compile(r"\d{8}T\d{6}\.\d{6}")
_BESIDE: Final = ("", "-wal", "-shm")
"""Endings of a database's files: its journal belongs to it."""


def timestamp() -> str:
    """Return this moment in UTC for a file's name; names in their order are moments in theirs."""
    return datetime.now(UTC).strftime(_STAMP)


def _stamp_after(newest: str | None) -> str:
    """Return this moment, or the one after the newest copy's if the clock went back since then."""
    now = timestamp()
    if newest is None or now > newest:
        return now
    return (datetime.strptime(newest, _STAMP) + timedelta(microseconds=1)).strftime(_STAMP)


def damage(connection: sqlite3.Connection) -> str | None:
    """Return what is wrong with a database's pages or references, or None; reads all of it."""
    try:
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            return " ".join(str(found).split())
        loose = connection.execute("PRAGMA foreign_key_check").fetchall()
    except sqlite3.DatabaseError as error:
        return str(error)
    if loose:
        return f"{len(loose)} rows refer to rows that are not there, the first from {loose[0][0]} to {loose[0][2]}"
    return None


def copy_database(source: Path, target: Path) -> None:
    """Copy a database, with what is still in its journal.

    Raises:
        sqlite3.Error: it cannot be read, or the copy cannot be written.
    """
    with closing(sqlite3.connect(source)) as reader, closing(sqlite3.connect(target)) as writer:
        reader.backup(writer)


def copies(database: Path) -> list[Path]:
    """Return the kept copies of a database, newest first; files of other names are none."""
    found = (database.parent / FOLDER).glob(f"*{database.suffix}")
    return sorted((path for path in found if _stamp_of(database, path)), reverse=True)


def _stamp_of(database: Path, copy: Path) -> str | None:
    """Return the moment in a copy's name, or None if it has none."""
    stamp = copy.stem.removeprefix(f"{database.stem}-")
    return stamp if copy.stem != stamp and _STAMPED.fullmatch(stamp) else None


def newest_sound_copy(database: Path) -> Path | None:
    """Return the newest copy that holds a registry in which nothing is wrong, or None."""
    return next((copy for copy in copies(database) if _copy_damage(copy) is None), None)


def keep(database: Path) -> Path | None:
    """Keep a copy of a database, unless it is that of the newest copy; delete the oldest ones.

    Returns:
        The copy's path, or None if none was needed.

    Raises:
        RegistryError: the database is damaged, which replaces no copy, or cannot be copied.
    """
    folder = database.parent / FOLDER
    with _translate_errors(folder):
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".copying-", ignore_cleanup_errors=True) as aside:
            copy = Path(aside, database.name)
            copy_database(database, copy)
            kept = copies(database)
            if kept and kept[0].stat().st_size == copy.stat().st_size and file_sha256(kept[0]) == file_sha256(copy):
                return None
            if problem := _copy_damage(copy):
                raise RegistryError(f"{database}: is damaged ({problem}); the older copies in {folder} stay")
            stamp = _stamp_after(_stamp_of(database, kept[0]) if kept else None)
            target = folder / f"{database.stem}-{stamp}{database.suffix}"
            copy.rename(target)
        for old in copies(database)[KEPT:]:
            old.unlink(missing_ok=True)  # another process may be faster
    return target


def put_back(database: Path, copy: Path) -> Path | None:
    """Put a copy in a database's place; the copy stays.

    Returns:
        Where the database is now that was there, or None.

    Raises:
        RegistryError: the copy is damaged or holds no registry, or the folder cannot be written.
    """
    if problem := _copy_damage(copy):
        raise RegistryError(
            f"{copy}: {problem}; expected a copy of a registry's database, such as those in {database.parent / FOLDER}"
        )
    with (
        _translate_errors(database.parent),
        tempfile.TemporaryDirectory(dir=database.parent, prefix=".copying-", ignore_cleanup_errors=True) as folder,
    ):
        aside = Path(folder, database.name)
        copy_database(copy, aside)
        with closing(sqlite3.connect(aside)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
        replaced = set_aside(database)
        os.replace(aside, database)
    return replaced


def set_aside(database: Path) -> Path | None:
    """Rename a database and its journal; return the new path, or None if there is none.

    Raises:
        OSError: the folder cannot be written.
    """
    if not any(database.with_name(database.name + ending).exists() for ending in _BESIDE):
        return None
    target = database.with_name(f"{database.name}.replaced.{timestamp()}")
    for ending in _BESIDE:
        path = database.with_name(database.name + ending)
        if path.exists():
            os.replace(path, target.with_name(target.name + ending))
    return target


def way_back(database: Path | None) -> str:
    """Return what brings a lost or damaged registry back, to end an error with.

    Args:
        database: the SQLite file; None for a database on a server.
    """
    if database is None:
        return (
            "restore the database from its server's backup, or rebuild it in an empty one: abair-registry init "
            "--from-home"
        )
    if copy := newest_sound_copy(database):
        return f"to put its newest backup back ({copy}), run: abair-registry db restore"
    return "there is no backup; to rebuild it from what this home serves, run: abair-registry init --from-home"


def _copy_damage(copy: Path) -> str | None:
    """Return why a file is no copy of a registry that could serve, or None."""
    if not copy.is_file():
        return "a folder" if copy.is_dir() else "no such file"
    # nobody writes a copy, and to be told so SQLite needs no folder that it can write
    alone = "" if copy.with_name(f"{copy.name}-wal").exists() else "&immutable=1"
    try:
        with closing(sqlite3.connect(f"file:{quote(str(copy.absolute()))}?mode=ro{alone}", uri=True)) as connection:
            if problem := damage(connection):
                return f"is damaged ({problem})"
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (VERSION_TABLE,)).fetchone():
                return "holds no registry"
    except sqlite3.Error as error:
        return f"cannot be read ({error})"
    return None


@contextmanager
def _translate_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise RegistryError(
            f"{folder}: the registry's backup cannot be written ({reason}); expected a folder that can be written "
            "and has space"
        ) from None
