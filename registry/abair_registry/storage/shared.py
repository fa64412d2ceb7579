"""Blobs in a folder that several hosts reach: any file system that fsspec knows, named by a URL.

`file:///srv/abair` and `memory://` need nothing else; `s3://` needs s3fs, `gs://` needs gcsfs, and
so on.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import fsspec
from fsspec.implementations.local import LocalFileSystem

from abair.errors import MissingExtraError, RegistryError
from abair.files import file_sha256
from abair.text import error_text
from abair_registry.storage.blobs import blob_path

EXPECTED = "expected a URL such as file:///path/to/folder, s3://bucket/folder or gs://bucket/folder"


class SharedBlobs:
    """The blobs below a URL, each at `blobs/<first two digits>/<SHA-256>`."""

    def __init__(self, url: str) -> None:
        """Connect to the file system of a URL.

        Raises:
            RegistryError: the URL names no file system, or no folder that exists.
            MissingExtraError: the file system needs a package that is not installed.
        """
        self.url = _without_password(url)
        self._files, self._root = self._open(url)

    def problem(self, sha256: str) -> str | None:
        """Return what is wrong with a blob, or None; reads all of it."""
        path = self._path(sha256)
        try:
            with self._files.open(path, "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            return f"{path} is missing"
        except Exception as error:  # the drivers of object stores have errors of their own
            return f"{path} cannot be read ({error_text(error)})"
        return None if found == sha256 else f"{path} was changed: found SHA-256 {found}"

    def store(self, source: Path, sha256: str) -> None:
        """Upload a file under its hash.

        It is written under another name and then moved, so nobody sees half of it.

        Raises:
            RegistryError: the folder cannot be written.
        """
        target = self._path(sha256)
        partial = f"{target.rpartition('/')[0]}/.{sha256}-{secrets.token_hex(4)}"
        with self._translate_errors("written"):
            try:
                self._upload(source, partial)
                self._files.mv(partial, target)
            except BaseException:
                with suppress(Exception):
                    self._files.rm_file(partial)
                raise

    def fetch(self, sha256: str, target: Path) -> None:
        """Download a blob to a local file and verify it.

        Raises:
            RegistryError: the blob is missing, cannot be read, or its bytes have another SHA-256.
        """
        path = self._path(sha256)
        with self._translate_errors("read"):
            try:
                self._files.get_file(path, str(target))
            except FileNotFoundError:
                raise RegistryError(f"{path} is missing") from None
        if (found := file_sha256(target)) != sha256:
            raise RegistryError(f"{path} was changed: found SHA-256 {found}")

    def _path(self, sha256: str) -> str:
        return f"{self._root}/{blob_path(sha256)}"

    def _upload(self, source: Path, path: str) -> None:
        """Write a file; make its folder only if that fails: object stores have no folders."""
        try:
            self._files.put_file(str(source), path)
        except FileNotFoundError:
            self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._files.put_file(str(source), path)

    def _open(self, url: str) -> tuple[Any, str]:
        parts = urlsplit(url)
        if parts.scheme == "file":
            # fsspec would neither decode %20 nor refuse a host
            folder = unquote(parts.path)
            if parts.netloc not in {"", "localhost"} or not folder:
                raise RegistryError(f"shared folder {self.url}: {EXPECTED}")
            if not Path(folder).is_dir():
                raise RegistryError(f"shared folder {self.url}: no such folder; expected one that this host reaches")
            return fsspec.filesystem("file"), folder.rstrip("/")
        try:
            files, root = fsspec.core.url_to_fs(url)
            if _is_on_this_host(files):
                raise ValueError("read as a path of this host")
        except ImportError as error:
            package = getattr(error.__cause__, "name", None) or "its driver"
            raise MissingExtraError(
                f"shared folder {self.url}: needs {package}; install it with: pip install {package}"
            ) from None
        except ValueError as error:
            raise RegistryError(f"shared folder {self.url}: {error_text(error)}; {EXPECTED}") from None
        except Exception as error:  # some connect at once, and the drivers have errors of their own
            raise RegistryError(
                f"shared folder {self.url}: cannot be reached ({error_text(error)}); expected one that this host "
                "reaches; check the URL and the credentials"
            ) from None
        return files, str(root).rstrip("/")

    @contextmanager
    def _translate_errors(self, action: str) -> Iterator[None]:
        """Turn what a driver raises into one line of ours."""
        try:
            yield
        except RegistryError:
            raise
        except Exception as error:  # the drivers of object stores have errors of their own
            raise RegistryError(
                f"shared folder {self.url}: cannot be {action} ({error_text(error)}); "
                "expected one that this host reaches; check the URL and the credentials"
            ) from None


def _is_on_this_host(files: object) -> bool:
    """Return whether a file system is this host's, as it is or behind a cache.

    fsspec reads whatever lacks `://` as a path, such as `s3:/bucket`, and would make that folder.
    """
    while (inner := getattr(files, "fs", None)) is not None:
        files = inner
    return isinstance(files, LocalFileSystem)


def _without_password(url: str) -> str:
    return re.sub(r"(:/*)[^/]*@", r"\1***@", url, count=1)  # also where a slash is missing
