"""Where a deployment's file that is lost or changed can be found again, by its SHA-256.

Nothing is imported or unpacked: what is found is a file with exactly the recorded bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from abair.deployment import Deployment, read_deployment
from abair.errors import AbairError, AdmissionError, DeploymentError
from abair.files import file_sha256
from abair.locations import FILE_NAME, factory_folder, find_shipped, shipped_names
from abair_registry.plugins import installed
from abair_registry.settings import Settings
from abair_registry.storage.blobs import Blobs
from abair_registry.storage.shared import SharedBlobs

ARTIFACTS: Final = "artifacts"
"""The folder of MLflow's local store in the home: the files of each run are below it."""
BUNDLES: Final = f"*/artifacts/bundle/{FILE_NAME}"
"""Where each run keeps its bundle below that."""


@dataclass(frozen=True)
class Source:
    """Something that holds a wanted file: a file of this host, or the shared folder without one."""

    name: str
    path: Path | None


class Sources:
    """All that this host can look in; each place is looked at once, when the ones before failed."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.remarks: list[str] = []
        """Why a place could not be looked in, a line for each."""

    def find(self, sha256: str) -> Source | None:
        """Return who holds the file with this SHA-256, after hashing what is there, or None."""
        for places in (self._bundles, self._plugins):
            for source in places.get(sha256, []):
                with suppress(OSError):
                    if source.path is not None and file_sha256(source.path) == sha256:
                        return source
        if self._shared is not None and self._shared.problem(sha256) is None:
            return Source(f"the shared folder {self._shared.url}", None)
        return None

    def put_back(self, sha256: str, source: Source, blobs: Blobs) -> None:
        """Store the file that a source holds as a blob again.

        Raises:
            RegistryError: it cannot be read any more, or the blob cannot be written.
        """
        if source.path is not None:
            blobs.add(source.path, sha256)
        elif self._shared is not None:
            with blobs.writing() as path:
                self._shared.fetch(sha256, path)
                blobs.add(path, sha256)

    def shipped_replay(self, bundle: Deployment) -> tuple[str, Source] | None:
        """Return the replay of the package's bundle that shares most adapters with this one."""
        mine = {adapter.weights.sha256 for adapter in bundle.adapters}
        best, found = 0, None
        for shipped, name in _shipped():
            shared = len(mine & {adapter.weights.sha256 for adapter in shipped.adapters})
            if shipped.replay is not None and shared > best:
                best, found = shared, (shipped.replay.sha256, Source(name, shipped.folder / shipped.replay.path))
        return found

    @cached_property
    def _bundles(self) -> dict[str, list[Source]]:
        """The files of the bundles that come with the package, then those of MLflow's runs here."""
        found: dict[str, list[Source]] = {}
        for bundle, name in (*_shipped(), *local_bundles(self.settings)):
            for file in bundle.files():
                found.setdefault(file.sha256, []).append(Source(name, bundle.folder / file.path))
        return found

    @cached_property
    def _plugins(self) -> dict[str, list[Source]]:
        """The files of the installed plugins."""
        found: dict[str, list[Source]] = {}
        for plugin in dict.fromkeys(plugin.name for plugin in installed.installed_plugins()):
            with suppress(AdmissionError):  # damaged, or installed twice: others may hold the file
                candidate = installed.find(plugin)
                name = f"the installed {candidate.distribution} {candidate.version}"
                for path, sha256 in candidate.files.items():
                    found.setdefault(sha256, []).append(Source(name, candidate.root / path))
        return found

    @cached_property
    def _shared(self) -> SharedBlobs | None:
        if not self.settings.shared_url:
            return None
        try:
            return SharedBlobs(self.settings.shared_url)
        except AbairError as error:
            self.remarks.append(str(error))
            return None


def local_bundles(settings: Settings) -> Iterator[tuple[Deployment, str]]:
    """Yield the bundles that the runs of MLflow's local store hold, newest first, with a name.

    Their files are not hashed. Neither MLflow nor its database is needed.
    """
    bundles = []
    for path in (settings.home / ARTIFACTS).glob(BUNDLES):
        with suppress(DeploymentError):
            bundles.append(read_deployment(path))
    for bundle in sorted(bundles, key=lambda bundle: bundle.created, reverse=True):
        yield bundle, f"MLflow's bundle of deployment {bundle.name}"


def _shipped() -> Iterator[tuple[Deployment, str]]:
    folders = [folder for name in shipped_names() if (folder := find_shipped(name))]
    with suppress(DeploymentError):
        folders.insert(0, factory_folder())
    for folder in dict.fromkeys(folders):
        with suppress(DeploymentError):
            yield read_deployment(folder), "the package"
