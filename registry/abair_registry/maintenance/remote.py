"""Copy deployments' blobs between hosts, by a shared folder or through MLflow."""

from __future__ import annotations

from abair.errors import RegistryError
from abair.files import file_sha256
from abair_registry.maintenance.integrity import live_files, needed_files
from abair_registry.registry import Registry, sync_live_file
from abair_registry.storage.shared import SharedBlobs
from abair_registry.tracking.mlflow_client import Runs
from abair_registry.tracking.model_versions import MODEL


def pull(registry: Registry, url: str | None = None) -> tuple[int, int]:
    """Fetch the live deployment's blobs that are missing here, verify them, then write its file.

    They come from the shared folder if there is one, or else from MLflow's artifacts: the version
    of the model that is the champion. That version holds what serves. Replays, which only
    operations need, are not in it.

    Returns:
        How many blobs were fetched, and the deployment's number.

    Raises:
        RegistryError: a blob is not there, or its bytes have another SHA-256. Nothing is published
            then.
        MissingExtraError: the shared folder's URL needs a package that is not installed.
    """
    number, files = live_files(registry)
    by_digest = {file.sha256: file for file in files}  # adapters may have equal configurations
    missing = [file for digest, file in by_digest.items() if registry.blobs.problem(digest)]
    fetched = 0
    if missing and (url or registry.settings.shared_url or not registry.settings.tracking_uri):
        shared = _shared_blobs(registry, url)
        for file in missing:
            with registry.blobs.writing() as path:
                try:
                    shared.fetch(file.sha256, path)
                except RegistryError as error:
                    raise RegistryError(
                        f"deployment {number}: {file.description}: {error}; expected the blob {file.sha256} there; "
                        "run on the host that made it: abair-registry push"
                    ) from None
                registry.blobs.add(path, file.sha256)
            fetched += 1
    elif missing:
        folder = Runs(registry.settings).fetch(f"models:/{MODEL}@champion", registry.settings.home / "models")
        there = {file_sha256(path): path for path in sorted(folder.rglob("*")) if path.is_file()}
        for file in missing:
            if file.sha256 in there:
                registry.blobs.add(there[file.sha256], file.sha256)
                fetched += 1
            elif file.serves:
                raise RegistryError(
                    f"deployment {number}: {file.description}: not in the champion's bundle in MLflow; expected the "
                    f"blob {file.sha256} there; run on the host that made it: abair-registry doctor"
                )
    sync_live_file(registry)
    return fetched, number


def push(registry: Registry, url: str | None = None) -> tuple[int, int]:
    """Store the blobs that the live deployment needs in the shared folder, and what others need.

    Other hosts can then promote a challenger and go back, too. Blobs that are there unchanged are
    left alone, and so are those of other deployments that are missing here.

    Returns:
        How many blobs were stored, and the deployment's number.

    Raises:
        RegistryError: a blob is missing here, or the folder cannot be written.
        MissingExtraError: the shared folder's URL needs a package that is not installed.
    """
    number, _ = live_files(registry)
    with registry.database.read() as session:
        files = needed_files(session)
    shared = _shared_blobs(registry, url)
    stored = 0
    # adapters may have equal configurations; those of the live deployment come first
    for file in {file.sha256: file for file in reversed(files)}.values():
        if shared.problem(file.sha256) is None:
            continue
        if problem := registry.blobs.problem(file.sha256):
            if file.deployment is not None:
                continue
            raise RegistryError(
                f"deployment {number}: {problem}; expected the blob here; run: abair-registry verify, which says what "
                "helps"
            )
        shared.store(registry.blobs.path(file.sha256), file.sha256)
        stored += 1
    return stored, number


def _shared_blobs(registry: Registry, url: str | None) -> SharedBlobs:
    given = url or registry.settings.shared_url
    if not given:
        raise RegistryError(
            "shared folder: found none named, expected file:///path/to/folder; set ABAIR_SHARED_URL or give the URL "
            "to this command (pull --from, push --to); pull also takes MLFLOW_TRACKING_URI, of a server that has the "
            "bundle"
        )
    return SharedBlobs(given)
