"""Blobs between hosts that share a registry: a folder that all of them reach, named by a `file:` URL."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from abair.errors import RegistryError
from abair_registry import catalogue, inspection
from abair_registry.blobs import Blobs
from abair_registry.catalogue import Catalogue


def pull(opened: Catalogue, url: str | None = None) -> tuple[int, int]:
    """Fetch the live deployment's blobs that are missing here, then write its file; (how many, its number).

    Raises:
        RegistryError: a blob is not in the shared folder or is not what its name says; nothing is published then.
    """
    number, named = inspection.live_files(opened)
    missing = [(what, sha256) for what, sha256 in named if opened.blobs.problem(sha256)]
    if missing:
        shared = _shared(opened, url)
        for what, sha256 in missing:
            if problem := shared.problem(sha256):
                raise RegistryError(
                    f"deployment {number}: {what}: {problem}; expected the blob {sha256} there; run on the host "
                    "that made it: abair-registry push"
                )
            opened.blobs.path(sha256).unlink(missing_ok=True)
            opened.blobs.add(shared.path(sha256), sha256)
    catalogue.settle(opened)
    return len(missing), number


def push(opened: Catalogue, url: str | None = None) -> tuple[int, int]:
    """Store the live deployment's blobs in the shared folder; (how many were new there, the deployment's number).

    Raises:
        RegistryError: a blob is missing here, or the folder cannot be written.
    """
    number, named = inspection.live_files(opened)
    shared = _shared(opened, url)
    new = [sha256 for _, sha256 in named if shared.problem(sha256)]
    for sha256 in new:
        if problem := opened.blobs.problem(sha256):
            raise RegistryError(f"deployment {number}: {problem}; expected the blob here; run: abair-registry doctor")
        shared.add(opened.blobs.path(sha256), sha256)
    return len(new), number


def _shared(opened: Catalogue, url: str | None) -> Blobs:
    given = url or opened.settings.shared_url
    if not given:
        raise RegistryError("shared folder: found none named, expected file:///path/to/folder; set ABAIR_SHARED_URL")
    parts = urlsplit(given)
    if parts.scheme != "file" or parts.netloc not in {"", "localhost"} or not parts.path:
        raise RegistryError(f"shared folder {given}: expected file:///path/to/folder")
    folder = Path(unquote(parts.path))
    if not folder.is_dir():
        raise RegistryError(f"shared folder {given}: no such folder; expected one that this host reaches")
    return Blobs(folder)
