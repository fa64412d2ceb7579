"""The deployment: an immutable bundle of backbone, adapters, estimator and order of the labels.

A bundle is a folder with `deployment.json` and the files that it names by path, size and SHA-256.
Everything that serves reads a deployment, never plugins. No torch is needed to read or check one.
"""

from __future__ import annotations

import hashlib
import json
import os
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final, Literal

from platformdirs import user_data_path
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from abair.errors import DeploymentError
from abair.files import absolute_path, file_sha256, write_text
from abair.foreign_points import foreign_kept_out
from abair.labels import CLEAN
from abair.own_points import find_own

FILE_NAME: Final = "deployment.json"
CHECKSUM: Final = "checksum"
"""The key in `deployment.json` of the SHA-256 over all that it says otherwise; it may be absent."""
BACKBONE_FILE: Final = "backbone.safetensors"
ESTIMATOR_FILE: Final = "estimator.safetensors"
REPLAY_FILE: Final = "replay.safetensors"
"""Names of a bundle's files."""
SHIPPED: Final = Path(__file__).parent / "weights"
"""The folder of the complete bundles inside the wheel, each known by its folder's name."""
FACTORY: Final = SHIPPED / "factory"
"""The bundle that restores when nothing else was deployed."""
FACTORY_VARIABLE: Final = "ABAIR_FACTORY"
"""The variable that names another bundle to start from; the default is `FACTORY`."""

_FETCHED_AS: Final = {"runs": "models"}
"""Schemes that another one's fetcher knows, too: MLflow's two."""
FETCHERS: Final = "abair.fetchers"
"""The entry-point group of functions that bring a deployment from elsewhere, each named by its
scheme: called with what was asked for, returns the bundle's folder."""

HOME: Final = "ABAIR_HOME"
"""The variable that names the folder of what this machine has deployed; the default is the user's
data folder."""

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileRef(_Part):
    """A file of the bundle: its path below the bundle's folder, its size in bytes, its SHA-256."""

    path: str
    size: int = Field(ge=0)
    sha256: Sha256

    @model_validator(mode="after")
    def _stays_inside(self) -> FileRef:
        path = PurePosixPath(self.path)
        if path.is_absolute() or ".." in path.parts or not path.parts or "\\" in self.path:
            raise ValueError(f"found path {self.path!r}, expected one below the bundle's folder")
        return self


class BackboneRef(_Part):
    """The frozen network: its size's name, its fingerprint, its file."""

    size: str
    fingerprint: Sha256
    file: FileRef


class AdapterRef(_Part):
    """One degradation's adapter in PEFT's format, and the distribution that it came from."""

    degradation: str
    title: str
    distribution: str
    version: str
    config: FileRef
    weights: FileRef


class Deployment(_Part):
    """What serves.

    `labels` is the order of the estimator's outputs: the adapters' degradations, then `clean`.
    `replay` is what its labels leave behind for later estimators (`abair.continual.replay`);
    serving does not need it.
    """

    format: Literal[1] = 1
    name: str = Field(min_length=1)
    created: datetime
    labels: tuple[str, ...] = Field(min_length=1)
    backbone: BackboneRef
    adapters: tuple[AdapterRef, ...]
    estimator: FileRef
    replay: FileRef | None = None
    _folder: Path = PrivateAttr(default=Path())

    @model_validator(mode="after")
    def _labels_are_the_adapters(self) -> Deployment:
        expected = (*(adapter.degradation for adapter in self.adapters), CLEAN)
        if self.labels != expected or len(set(expected)) != len(expected):
            raise ValueError(f"found labels {list(self.labels)}, expected {list(expected)}, each once")
        return self

    @property
    def folder(self) -> Path:
        """The folder that the files' paths start from."""
        return self._folder

    def find(self, file: FileRef) -> Path:
        """Return the path of one file of the bundle, after comparing its size and SHA-256.

        Raises:
            DeploymentError: the file is missing, unreadable, or not the one that the deployment
                names.
        """
        path = self.folder / file.path
        if not path.is_file():
            raise DeploymentError(
                f"deployment {self.name}: {path} is missing; expected a file with SHA-256 {file.sha256}; "
                f"{self._way_back()}"
            )
        try:
            found = file_ref(path, self.folder)
        except OSError as error:
            raise DeploymentError(
                f"deployment {self.name}: {path} cannot be read ({error.strerror or error}); expected a file with "
                f"SHA-256 {file.sha256}; make it readable, or {self._way_back()}"
            ) from None
        if (found.size, found.sha256) != (file.size, file.sha256):
            raise DeploymentError(
                f"deployment {self.name}: {path} was changed: found SHA-256 {found.sha256} ({found.size} bytes), "
                f"expected {file.sha256} ({file.size} bytes); {self._way_back()}"
            )
        return path

    def _way_back(self) -> str:
        """Return what brings a file of this bundle back, to end an error with."""
        if self.folder == home():
            return "run: abair-registry doctor"
        if self.folder.parent == SHIPPED:
            return "run: pip install --force-reinstall abair"
        return "restore the bundle from its source"

    def files(self) -> list[FileRef]:
        """Every file of the bundle."""
        adapters = [file for adapter in self.adapters for file in (adapter.config, adapter.weights)]
        return [self.backbone.file, *adapters, self.estimator, *filter(None, [self.replay])]

    def verify(self) -> None:
        """Compare every file with its hash.

        Raises:
            DeploymentError: at the first file that is missing or changed.
        """
        for file in self.files():
            self.find(file)


def home() -> Path:
    """Return the folder of the live deployment and the registry's state; it need not exist.

    Raises:
        DeploymentError: its path begins with `~` of an unknown user, or is not UTF-8.
    """
    return _named_folder(HOME) or user_data_path("abair", appauthor=False)


def _named_folder(variable: str) -> Path | None:
    """Return the folder that a variable of the environment names, or None if it is empty."""
    given = os.environ.get(variable)
    try:
        return absolute_path(given) if given else None
    except ValueError as error:
        raise DeploymentError(f"{variable}: {error}") from None


def factory_folder() -> Path:
    """Return the bundle that every home starts from: the wheel's, or the one of `ABAIR_FACTORY`.

    Raises:
        DeploymentError: the variable names no bundle.
    """
    given = os.environ.get(FACTORY_VARIABLE)
    if not given:
        return FACTORY
    folder = find_shipped(given) or _named_folder(FACTORY_VARIABLE) or FACTORY
    if not (folder / FILE_NAME).is_file():
        raise DeploymentError(
            f"{FACTORY_VARIABLE}: found {given}, which holds no {FILE_NAME}; expected a bundle's folder, or one of "
            f"{', '.join(shipped_names())}; correct or unset it"
        )
    return folder


def shipped_names() -> list[str]:
    """Return the names of the bundles inside the wheel."""
    return sorted(file.parent.name for file in SHIPPED.glob(f"*/{FILE_NAME}"))


def find_shipped(name: str) -> Path | None:
    """Return the folder of the bundle of this name inside the wheel, or None if none has it.

    Raises:
        DeploymentError: a bundle in the working folder has the same name.
    """
    if name not in shipped_names():
        return None
    if Path(name, FILE_NAME).is_file():
        raise DeploymentError(
            f"{name}: found a bundle in this folder and one that comes with ABAIR; expected only one of this name; "
            f"use ./{name} for the one in this folder, or rename it"
        )
    return SHIPPED / name


def live() -> Path:
    """Return the default bundle: what the home's registry published, or else the factory's."""
    return home() if (home() / FILE_NAME).is_file() else factory_folder()


def missing_live() -> str:
    """Return why the factory serves where another deployment is expected, in one line, or nothing.

    Nothing is expected of a home that was never used, unless its variable names it.
    """
    place = home()
    if (place / FILE_NAME).is_file():
        return ""
    if os.environ.get(HOME) and not place.exists():
        return f"{HOME} names {place}, which does not exist; restoring with the deployment that comes with ABAIR"
    if (place / "registry.db").exists() or (place / "blobs").exists():
        return (
            f"{place} has no {FILE_NAME}; restoring with the deployment that comes with ABAIR; run: abair-registry "
            "doctor"
        )
    return ""


def read_deployment(path: Path | str | None = None) -> Deployment:
    """Read a bundle: a folder, its `deployment.json`, a `models:/...` name, or (None) the live one.

    `runs:/ID` is what an MLflow run of an operation holds.

    A name such as `paper` is a bundle that comes with ABAIR.

    Raises:
        DeploymentError: it cannot be found, is not JSON, does not have the form of a deployment, or
            was edited.
    """
    if path is not None:
        return _read_file(_locate(path))
    try:
        return _read_file(live())
    except DeploymentError as error:
        if live() != home():
            raise
        raise DeploymentError(f"{error}; run: abair-registry doctor") from None


def _read_file(given: Path) -> Deployment:
    file = given / FILE_NAME if given.is_dir() else given
    try:
        deployment = _parse(file.read_text(encoding="utf-8"))
    except DeploymentError as error:
        raise DeploymentError(f"{file}: {error}") from None
    except OSError as error:
        raise DeploymentError(
            f"{file}: no deployment can be read there ({error.strerror or error}); "
            f"expected a bundle's folder, its {FILE_NAME}, or one of {', '.join(shipped_names())}"
        ) from None
    except UnicodeDecodeError:
        raise DeploymentError(f"{file}: found a binary file; expected a bundle's folder or its {FILE_NAME}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise DeploymentError(
            f"{file}: not a deployment: {where}: {first['msg']}; expected a bundle's {FILE_NAME} of format 1"
        ) from None
    deployment._folder = file.parent
    return deployment


def _parse(text: str) -> Deployment:
    """Return the deployment that a document describes, after comparing the document's checksum.

    Raises:
        ValidationError: it does not have the form of a deployment.
        DeploymentError: it was changed since it was written.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None  # the validation tells why
    if not isinstance(document, dict) or CHECKSUM not in document:
        return Deployment.model_validate_json(text)
    written = document.pop(CHECKSUM)
    deployment = Deployment.model_validate_json(json.dumps(document))
    if written != _checksum(document):
        raise DeploymentError("was edited: its checksum is another; expected it as it was written")
    return deployment


def _checksum(document: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _locate(path: Path | str) -> Path:
    """Return a path as it is, or the folder of what is named otherwise.

    That is a bundle that comes with ABAIR, or `scheme:/...`, fetched as installed for the scheme.
    """
    if isinstance(path, str) and (found := find_shipped(path)):
        return found
    scheme, colon, _ = str(path).partition(":/")
    if isinstance(path, Path) or not colon or len(scheme) < 2:  # C:/ is a drive
        return Path(path)
    fetcher = find_own(FETCHERS, _FETCHED_AS.get(scheme, scheme))
    if fetcher is None:
        raise DeploymentError(
            f"{path}: nothing that is installed fetches {scheme}:/; expected a bundle's folder, models:/... or "
            "runs:/..."
        )
    with foreign_kept_out():
        fetched: Path = fetcher.load()(path)
    return fetched


def write_deployment(deployment: Deployment, folder: Path) -> Path:
    """Write `deployment.json` with its checksum into the bundle's folder, atomically.

    Returns its path.

    Raises:
        OSError: the file cannot be written.
    """
    deployment._folder = folder
    path = folder / FILE_NAME
    write_text(path, deployment_text(deployment))
    return path


def deployment_text(deployment: Deployment) -> str:
    """Return what `deployment.json` says of a deployment, with its checksum."""
    document = deployment.model_dump(mode="json")
    return json.dumps(document | {CHECKSUM: _checksum(document)}, indent=2) + "\n"


def file_ref(path: Path, folder: Path) -> FileRef:
    """Describe a file below `folder` by path, size and SHA-256."""
    return FileRef(path=path.relative_to(folder).as_posix(), size=path.stat().st_size, sha256=file_sha256(path))
