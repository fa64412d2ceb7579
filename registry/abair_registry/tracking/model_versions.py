"""Versions of the registered model, each a complete bundle, and the aliases that point at them."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, Literal

from abair.errors import RegistryError
from abair.locations import FILE_NAME
from abair_registry.settings import Settings
from abair_registry.tracking import limits
from abair_registry.tracking.store import MISSING, Store

MODEL: Final = "abair"
"""The registered model; each challenger is one version of it."""
BUNDLE: Final = "bundle"
"""The artifact folder of a run that holds the challenger's complete bundle."""
_MODEL_URI: Final = re.compile(r"models:/([^/@]+)(?:@([\w-]+)|/(\d+))")

FEW: Final = 5
"""Names of versions that an error tells."""
_RUN_URI: Final = re.compile(r"runs:/([0-9a-f]{32})")

Alias = Literal["champion", "challenger"]


@dataclass(frozen=True)
class Version:
    """A version of the registered model: its number, the run that made it, its tags."""

    number: str
    run_id: str
    tags: dict[str, str]


class ModelVersions(Store):
    """The versions of the registered model in MLflow's store."""

    def __init__(self, settings: Settings, *, patient: bool = True) -> None:
        super().__init__(settings, patient=patient)
        # reading a run from the store reads all its metrics, which takes longer with every label
        self._artifacts: dict[str, str] = {}

    def register(self, run_id: str, bundle: Path, *, description: str, tags: Mapping[str, str]) -> str:
        """Store a bundle's folder with the run and register it; returns the model version's number.

        Raises:
            RegistryError: the store cannot be reached or written.
        """
        with self._connected() as client:
            from mlflow.exceptions import MlflowException

            client.log_artifacts(run_id, str(bundle), BUNDLE)
            try:
                client.get_registered_model(MODEL)
            except MlflowException:
                client.create_registered_model(MODEL)
            source = f"{self._artifacts.get(run_id) or client.get_run(run_id).info.artifact_uri}/{BUNDLE}"
            made = client.create_model_version(
                MODEL, source, run_id=run_id, tags=dict(tags), await_creation_for=0,
                description=limits.fit_value(description, limits.VERSION_TEXT, f"{BUNDLE}/deployment.json"),
            )  # fmt: skip
            return str(made.version)

    def point(self, alias: Alias, version: str | None) -> None:
        """Set the alias to a version, or delete it. Raises RegistryError."""
        with self._connected() as client:
            if version is not None:
                client.set_registered_model_alias(MODEL, alias, version)
            elif self.version(alias) is not None:
                client.delete_registered_model_alias(MODEL, alias)

    def version(self, alias: Alias) -> str | None:
        """Return the number of the version with this alias, or None. Raises RegistryError."""
        with self._connected() as client:
            from mlflow.exceptions import MlflowException

            try:
                return str(client.get_model_version_by_alias(MODEL, alias).version)
            except MlflowException as error:
                if error.error_code in {*MISSING, "INVALID_PARAMETER_VALUE"}:
                    return None
                raise

    def problem(self, version: Version, files: Mapping[str, int]) -> str | None:
        """Return what a version has lost, its run or its files, or None if it is whole.

        `files` are the sizes in bytes that its bundle's files must have. Raises RegistryError.
        """
        stage = self._stage(version.run_id)
        if stage != "active":
            return "its run was deleted" if stage else "its run is gone"
        with self._connected() as client:
            there: dict[str, int] = {}
            folders = [BUNDLE]
            while folders:
                for found in client.list_artifacts(version.run_id, folders.pop()):
                    if found.is_dir:
                        folders.append(found.path)
                    else:
                        there[found.path.removeprefix(f"{BUNDLE}/")] = int(found.file_size or 0)
        if missing := sorted(files.keys() - there.keys()):
            return f"its files are gone ({missing[0]}" + (f" and {len(missing) - 1} more)" if missing[1:] else ")")
        changed = next((name for name, size in files.items() if there[name] != size), None)
        return f"its file {changed} was changed" if changed else None

    def versions(self) -> list[Version]:
        """Return all versions of the model, newest first. Raises RegistryError."""
        with self._connected() as client:
            found: list[Version] = []
            token = None
            while True:
                page = client.search_model_versions(f"name='{MODEL}'", max_results=200, page_token=token)
                found += [Version(str(v.version), v.run_id or "", dict(v.tags)) for v in page]
                token = page.token
                if not token:
                    return sorted(found, key=lambda version: -int(version.number))

    def tag_version(self, number: str, tags: Mapping[str, str]) -> None:
        """Set tags of a model version. Raises RegistryError."""
        with self._connected() as client:
            for key, value in tags.items():
                client.set_model_version_tag(MODEL, number, key, value)

    def fetch(self, model: str, folder: Path) -> Path:
        """Download the bundle of `models:/abair@champion` or another version, or of `runs:/ID`.

        Raises:
            RegistryError: there is no such version or run, or the store cannot be reached.
        """
        named, run = _MODEL_URI.fullmatch(model), _RUN_URI.fullmatch(model)
        if named is None and run is None:
            raise RegistryError(
                f"deployment {model}: expected models:/{MODEL}@champion, models:/{MODEL}/NUMBER or runs:/ID with the "
                "32 digits of a run"
            )
        if not self.has_store:
            raise RegistryError(
                f"deployment {model}: found no runs in {self._home}; expected those of an operation; name the server "
                "that has them with MLFLOW_TRACKING_URI, or the home with ABAIR_HOME"
            )
        if named is None:
            return self._fetch_run(model.removeprefix("runs:/"), folder)
        with self._connected() as client:
            from mlflow.exceptions import MlflowException

            name, alias, number = named.groups()
            try:
                version = (
                    client.get_model_version(name, number) if number else client.get_model_version_by_alias(name, alias)
                )
            except MlflowException as error:
                if error.error_code not in {*MISSING, "INVALID_PARAMETER_VALUE"}:
                    raise
                raise RegistryError(
                    f"deployment {model}: found no such model version in {self.display_uri}; expected "
                    f"{self._some_versions()}; see: abair-registry ui"
                ) from None
            # a version never changes, so it is downloaded once; but a new store counts from 1 again
            kept = hashlib.sha256(f"{self.uri} {version.run_id} {version.creation_timestamp}".encode()).hexdigest()[:12]
            target = folder / kept / name / str(version.version)
            if not target.is_dir():
                self._download(client.get_model_version_download_uri(name, version.version), target)
            return target

    def _some_versions(self) -> str:
        """Return the names by which versions of the model can be fetched: aliases, then numbers."""
        with self._connected() as client:
            models = client.search_registered_models(f"name='{MODEL}'")
            aliases = sorted(models[0].aliases) if models else []
        names = [f"@{alias}" for alias in aliases] + [f"/{version.number}" for version in self.versions()]
        return ", ".join(f"models:/{MODEL}{name}" for name in names[:FEW]) or "one that an operation registered"

    def _fetch_run(self, run_id: str, folder: Path) -> Path:
        """Download the bundle that lies in a run.

        Raises:
            RegistryError: there is no such run, it holds none, or the store cannot be reached.
        """
        target = folder / "runs" / run_id
        with self._connected() as client:
            if self._stage(run_id) != "active":
                raise RegistryError(
                    f"deployment runs:/{run_id}: found no such run in {self.display_uri}; expected that of an "
                    "operation; see: abair-registry ui"
                )
            if FILE_NAME not in {PurePosixPath(found.path).name for found in client.list_artifacts(run_id, BUNDLE)}:
                raise RegistryError(
                    f"deployment runs:/{run_id}: found no bundle in the run; expected that of an operation which "
                    "trained an estimator; see: abair-registry ui"
                )
            if not target.is_dir():
                self._download(f"{client.get_run(run_id).info.artifact_uri}/{BUNDLE}", target)
        return target

    def _download(self, source: str, target: Path) -> None:
        """Download a folder of artifacts, all of it or nothing."""
        from mlflow.artifacts import download_artifacts

        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as aside:
            Path(download_artifacts(artifact_uri=source, dst_path=aside, tracking_uri=self.uri)).rename(target)

    def _stage(self, run_id: str) -> str | None:
        """Return `active` or `deleted`, or None if there is no such run."""
        with self._connected() as client:
            from mlflow.exceptions import MlflowException

            try:
                return str(client.get_run(run_id).info.lifecycle_stage)
            except MlflowException as error:
                if error.error_code in {*MISSING, "INVALID_PARAMETER_VALUE"}:
                    return None
                raise
