"""Content-addressed files: the name is the SHA-256, so a blob cannot change unnoticed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Final

from abair.errors import RegistryError
from abair.files import atomic_write, file_sha256

FOLDER: Final = "blobs"


def blob_path(sha256: str) -> PurePosixPath:
    """Return where a blob lies below a home or a shared folder, as a deployment's file names it."""
    return PurePosixPath(FOLDER, sha256[:2], sha256)


class Blobs:
    """The blobs below `home/blobs`, each at `blobs/<first two digits>/<SHA-256>`."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def path(self, sha256: str) -> Path:
        """Return where a blob lies, whether it exists or not."""
        return self.home / blob_path(sha256)

    def add(self, source: Path, expected: str | None = None) -> str:
        """Copy a file into the store and return its SHA-256; an intact blob is left as it is.

        Raises:
            RegistryError: the file cannot be read or stored, or its hash is not the `expected` one.
        """
        try:
            sha256 = file_sha256(source)
            if expected is not None and sha256 != expected:
                raise RegistryError(f"{source}: found SHA-256 {sha256}, expected {expected}; it changed meanwhile")
            target = self.path(sha256)
            if target.is_dir():
                raise RegistryError(
                    f"{target}: found a folder, expected the file of that SHA-256; move {target} away, then run the "
                    "command again"
                )
            if target.is_file() and file_sha256(target) == sha256:
                return sha256
            with atomic_write(target) as partial:
                with source.open("rb") as file, partial.open("wb") as copy:
                    shutil.copyfileobj(file, copy)
                    copy.flush()
                    os.fsync(copy.fileno())
                # the source may have changed meanwhile: what was copied must be what the name says
                if file_sha256(partial) != sha256:
                    raise RegistryError(f"{source}: changed while it was copied; expected it to stay; try again")
        except OSError as error:
            raise RegistryError(
                f"blob of {source}: cannot be stored in {self.home / FOLDER} ({error.strerror or error}); "
                "expected a home that can be written and has space; set ABAIR_HOME to another folder"
            ) from None
        return sha256

    @contextmanager
    def writing(self) -> Iterator[Path]:
        """Yield a path for a file that will become a blob; it is deleted afterwards.

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
        """Return what is wrong with a blob, or None; reads all of it."""
        path = self.path(sha256)
        try:
            found = file_sha256(path)
        except FileNotFoundError:
            return f"{path} is missing"
        except IsADirectoryError:
            return f"{path} is a folder"
        except OSError as error:
            return f"{path} cannot be read ({error.strerror or error})"
        return None if found == sha256 else f"{path} was changed: found SHA-256 {found}"

    def size(self, sha256: str) -> int:
        """Return the size of a blob in bytes.

        Raises:
            RegistryError: it is missing.
        """
        try:
            return self.path(sha256).stat().st_size
        except OSError as error:
            raise RegistryError(
                f"blob {sha256}: {self.path(sha256)} cannot be read ({error.strerror or error}); "
                "run: abair-registry verify, which says what helps"
            ) from None

    def __iter__(self) -> Iterator[str]:
        """Iterate over the SHA-256 of every blob."""
        for path in sorted((self.home / FOLDER).glob("??/*")):
            if len(path.name) == 64:
                yield path.name


class FactoryFiles(Blobs):
    """The files that a home would begin with, where they are: nothing is copied."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self._places: dict[str, Path] = {}

    def path(self, sha256: str) -> Path:
        """Return where a file of the factory lies."""
        return self._places.get(sha256, super().path(sha256))

    def add(self, source: Path, expected: str | None = None) -> str:
        """Note where a file lies and return its SHA-256, which is the `expected` one."""
        sha256 = expected or file_sha256(source)
        self._places[sha256] = source
        return sha256
