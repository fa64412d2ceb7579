"""MLflow's local store: a SQLite file and a folder of artifacts below the home.

MLflow keeps absolute addresses of artifacts. A home that was moved or copied would go on in the
place where it was made, so its store is claimed before it is used.
"""

from __future__ import annotations

import os
import re
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote, urlsplit

from filelock import FileLock

if TYPE_CHECKING:
    from mlflow import MlflowClient

STORE: Final = "mlflow.db"
"""The SQLite file, below the home."""
ARTIFACTS: Final = "artifacts"
"""The folder of the runs' files, below the home."""
BEFORE_MOVE: Final = "mlflow.db.before-move"
"""The copy of the store that is made before its addresses are changed."""
WAITING_SECONDS: Final = 300
"""Seconds that a process waits for another one to make the store, which takes five."""
_ADDRESSES: Final = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""The columns that hold addresses of artifacts."""
_ROOT: Final = re.compile(rf"(file:.*/{ARTIFACTS})(?:/\d+)?")
"""An experiment's location: the folder of artifacts, or one below it that a server chose."""


def store_path(home: Path) -> Path:
    """Return the path of a home's store, whether there is one or not."""
    return home.absolute() / STORE


def store_uri(home: Path) -> str:
    """Return the URI of a home's store."""
    return f"sqlite:///{store_path(home)}"


def artifacts_uri(home: Path) -> str:
    """Return the address of a home's artifacts."""
    return (home.absolute() / ARTIFACTS).as_uri()


def prepare(home: Path, client: type[MlflowClient], experiments: tuple[str, ...]) -> bool:
    """Make a home's store if there is none; claim the one of a home that was moved or copied.

    `experiments` are those whose location shows where the home was. Returns whether it was claimed.

    Raises:
        OSError: the store cannot be made.
        sqlite3.Error: the store cannot be opened, or is another home's and cannot be written.
    """
    if store_path(home).exists():
        with _opened(store_path(home)) as database:  # MLflow would try for minutes
            database.execute("SELECT count(*) FROM sqlite_master")
        return _claim(home, experiments)
    _make(home, client)
    return False


def _make(home: Path, client: type[MlflowClient]) -> None:
    """Make the local store with MLflow's tables; of two processes at once, one makes it.

    MLflow makes its tables in many transactions, and a store whose tables were made in part cannot
    be opened (findings/mlflow_half_made_store.sh). So they are made aside, and the finished store
    gets its name.
    """
    home.mkdir(parents=True, exist_ok=True)
    store = store_path(home)
    with _lock(home):
        if store.exists():  # another process was faster
            return
        with tempfile.TemporaryDirectory(dir=home, prefix=".mlflow-", ignore_cleanup_errors=True) as folder:
            made, copy = Path(folder, "made.db"), Path(folder, "copy.db")
            uri = f"sqlite:///{made}"
            client(uri, uri).search_experiments(max_results=1)  # makes its tables
            # MLflow keeps its file open, and Windows renames no such file
            _copy(made, copy)
            copy.rename(store)


def _claim(home: Path, experiments: tuple[str, ...]) -> bool:
    """Let all addresses below another home's artifacts be addresses below this home's.

    The other home, if it is still there, is not touched. Returns whether there were any.
    """
    if not _foreign_roots(home, experiments):
        return False
    with _lock(home):
        roots = _foreign_roots(home, experiments)
        if not roots:  # another process was faster
            return False
        aside = store_path(home).with_name(f"{BEFORE_MOVE}.part")
        _copy(store_path(home), aside)
        os.replace(aside, home / BEFORE_MOVE)
        with _opened(store_path(home)) as database:
            database.execute("BEGIN IMMEDIATE")
            for table, column in _ADDRESSES:
                columns = {row[1] for row in database.execute(f"PRAGMA table_info({table})")}
                if column in columns:
                    for root in roots:
                        database.execute(
                            f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                            f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                            (artifacts_uri(home), len(root) + 1, root, len(root) + 1, f"{root}/"),
                        )
            database.execute("COMMIT")
    return True


def _foreign_roots(home: Path, experiments: tuple[str, ...]) -> list[str]:
    """Return the addresses of other homes' artifacts that the experiments name, longest first."""
    names = ", ".join("?" * len(experiments))
    try:
        with _opened(store_path(home)) as database:
            found = database.execute(
                f"SELECT artifact_location FROM experiments WHERE name IN ({names})",
                experiments,
            ).fetchall()
    except sqlite3.OperationalError as error:
        # a table or column is missing: MLflow says what is wrong with such a store
        if error.sqlite_errorcode == sqlite3.SQLITE_ERROR:
            return []
        raise
    roots = {match[1] for (location,) in found if (match := _ROOT.fullmatch(location or ""))}
    return sorted((root for root in roots if not _is_here(root, home)), key=len, reverse=True)


def _is_here(root: str, home: Path) -> bool:
    """Return whether an address is that of this home's artifacts, by whatever name of the home."""
    if root == artifacts_uri(home):
        return True
    try:
        return Path(unquote(urlsplit(root).path)).parent.samefile(home)
    except OSError:  # there is no such folder any more
        return False


def _lock(home: Path) -> FileLock:
    return FileLock(f"{store_path(home)}.lock", timeout=WAITING_SECONDS)


def _copy(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as read, closing(sqlite3.connect(target)) as written:
        read.backup(written)


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Yield a connection to a file that exists; it is read-only if the file is."""
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, isolation_level=None)) as database:
        yield database
