"""Content-addressed files: a blob's name is its SHA-256, so what a deployment names can never become something else."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Final

from abair.errors import RegistryError
from abair.files import file_sha256

FOLDER: Final = "blobs"


class Blobs:
    """The blobs below `home/blobs`, each at `blobs/<first two digits>/<SHA-256>`."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def relative(self, sha256: str) -> PurePosixPath:
        """Where a blob lies below the home, as a deployment's file names it."""
        return PurePosixPath(FOLDER, sha256[:2], sha256)

    def path(self, sha256: str) -> Path:
        """Where a blob lies, whether it exists or not."""
        return self.home / self.relative(sha256)

    def add(self, source: Path, expected: str | None = None) -> str:
        """Copy a file in and return its SHA-256; a blob that is there already is left as it is.

        Raises:
            RegistryError: the file cannot be read or stored, or its hash is not the `expected` one.
        """
        try:
            sha256 = file_sha256(source)
            if expected is not None and sha256 != expected:
                raise RegistryError(f"{source}: found SHA-256 {sha256}, expected {expected}; it changed meanwhile")
            target = self.path(sha256)
            if target.is_file() and file_sha256(target) == sha256:
                return sha256
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".partial-", delete=False) as aside:
                try:
                    with source.open("rb") as file:
                        shutil.copyfileobj(file, aside)
                    aside.flush()
                    os.fsync(aside.fileno())
                    # what was copied is what gets the name, even if the source changed meanwhile
                    if file_sha256(Path(aside.name)) != sha256:
                        raise RegistryError(f"{source}: changed while it was copied; expected it to stay; try again")
                    Path(aside.name).chmod(0o644)
                    Path(aside.name).replace(target)
                except BaseException:
                    Path(aside.name).unlink(missing_ok=True)
                    raise
        except OSError as error:
            raise RegistryError(
                f"blob of {source}: cannot be stored in {self.home / FOLDER} ({error.strerror or error}); "
                "expected a home that can be written and has space; set ABAIR_HOME to another folder"
            ) from None
        return sha256

    @contextmanager
    def writing(self) -> Iterator[Path]:
        """A path to write something to that shall become a blob; gone afterwards.

        Raises:
            RegistryError: nothing can be written there.
        """
        try:
            self.home.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.home, prefix=".writing-") as folder:
                yield Path(folder) / "blob"
        except OSError as error:
            raise RegistryError(
                f"{self.home}: cannot be written ({error.strerror or error}); expected a home with space; "
                "set ABAIR_HOME to another folder"
            ) from None

    def problem(self, sha256: str) -> str | None:
        """What is wrong with a blob, or None."""
        path = self.path(sha256)
        try:
            found = file_sha256(path)
        except FileNotFoundError:
            return f"{path} is missing"
        except OSError as error:
            return f"{path} cannot be read ({error.strerror or error})"
        return None if found == sha256 else f"{path} was changed: found SHA-256 {found}"

    def size(self, sha256: str) -> int:
        """Of a blob in bytes.

        Raises:
            RegistryError: it is missing.
        """
        try:
            return self.path(sha256).stat().st_size
        except OSError as error:
            raise RegistryError(
                f"blob {sha256}: {self.path(sha256)} cannot be read ({error.strerror or error}); "
                "run: abair-registry doctor (or pull, on a host that shares a registry)"
            ) from None

    def __iter__(self) -> Iterator[str]:
        """The SHA-256 of every blob."""
        for path in sorted((self.home / FOLDER).glob("??/*")):
            if len(path.name) == 64:
                yield path.name
