"""Blobs between hosts that share a registry: by a folder that all of them reach (a `file:` URL), or through MLflow."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from abair.errors import RegistryError
from abair.files import file_sha256
from abair_registry.maintenance import integrity
from abair_registry.registry import Registry, sync_live_file
from abair_registry.storage.blobs import Blobs
from abair_registry.tracking.mlflow_client import MODEL, Runs


def pull(registry: Registry, url: str | None = None) -> tuple[int, int]:
    """Fetch the live deployment's blobs that are missing here, then write its file; (how many, its number).

    They come from the shared folder, if there is one, or else from MLflow's artifacts: the version of the model that is
    the champion. That one holds what serves; what labels left behind, which only operations need, stays where it is.

    Raises:
        RegistryError: a blob is not there or is not what its name says; nothing is published then.
    """
    number, named = integrity.live_files(registry)
    missing = [(what, sha256) for what, sha256 in named if registry.blobs.problem(sha256)]
    fetched = 0
    if missing and (url or registry.settings.shared_url or not registry.settings.tracking_uri):
        shared = _shared(registry, url)
        for what, sha256 in missing:
            if problem := shared.problem(sha256):
                raise RegistryError(
                    f"deployment {number}: {what}: {problem}; expected the blob {sha256} there; run on the host "
                    "that made it: abair-registry push"
                )
            fetched += _take(registry, shared.path(sha256), sha256)
    elif missing:
        folder = Runs(registry.settings).fetch(f"models:/{MODEL}@champion", registry.settings.home / "models")
        there = {file_sha256(path): path for path in sorted(folder.rglob("*")) if path.is_file()}
        for what, sha256 in missing:
            if sha256 in there:
                fetched += _take(registry, there[sha256], sha256)
            elif what != integrity.REPLAY:
                raise RegistryError(
                    f"deployment {number}: {what}: not in the champion's bundle in MLflow; expected the blob {sha256} "
                    "there; run on the host that made it: abair-registry doctor"
                )
    sync_live_file(registry)
    return fetched, number


def _take(registry: Registry, path: Path, sha256: str) -> int:
    registry.blobs.path(sha256).unlink(missing_ok=True)
    registry.blobs.add(path, sha256)
    return 1


def push(registry: Registry, url: str | None = None) -> tuple[int, int]:
    """Store the live deployment's blobs in the shared folder; (how many were new there, the deployment's number).

    Raises:
        RegistryError: a blob is missing here, or the folder cannot be written.
    """
    number, named = integrity.live_files(registry)
    shared = _shared(registry, url)
    new = [sha256 for _, sha256 in named if shared.problem(sha256)]
    for sha256 in new:
        if problem := registry.blobs.problem(sha256):
            raise RegistryError(f"deployment {number}: {problem}; expected the blob here; run: abair-registry doctor")
        shared.add(registry.blobs.path(sha256), sha256)
    return len(new), number


def _shared(registry: Registry, url: str | None) -> Blobs:
    given = url or registry.settings.shared_url
    if not given:
        raise RegistryError(
            "shared folder: found none named, expected file:///path/to/folder; set ABAIR_SHARED_URL, "
            "or MLFLOW_TRACKING_URI to a server that has the bundle"
        )
    parts = urlsplit(given)
    if parts.scheme != "file" or parts.netloc not in {"", "localhost"} or not parts.path:
        raise RegistryError(f"shared folder {given}: expected file:///path/to/folder")
    folder = Path(unquote(parts.path))
    if not folder.is_dir():
        raise RegistryError(f"shared folder {given}: no such folder; expected one that this host reaches")
    return Blobs(folder)
