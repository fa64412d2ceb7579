"""The deployment: an immutable bundle of backbone, adapters, estimator and order of the labels.

A bundle is a folder with `deployment.json` and the files that it names by path, size and SHA-256.
Everything that serves reads a deployment, never plugins. No torch is needed to read or check one.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from abair.errors import DeploymentError
from abair.files import file_sha256, write_text
from abair.labels import CLEAN
from abair.locations import FILE_NAME, SHIPPED, home, home_serves, live, locate, missing_live, shipped_names

CHECKSUM: Final = "checksum"
"""The key in `deployment.json` of the SHA-256 over all that it says otherwise; it may be absent."""
BACKBONE_FILE: Final = "backbone.safetensors"
ESTIMATOR_FILE: Final = "estimator.safetensors"
REPLAY_FILE: Final = "replay.safetensors"
"""Names of a bundle's files."""
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
    _has_checksum: bool = PrivateAttr(default=False)

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

    @property
    def has_checksum(self) -> bool:
        """Whether it was read from a document with a checksum: then nobody edited it."""
        return self._has_checksum

    def find(self, file: FileRef) -> Path:
        """Return the path of one file of the bundle, after comparing its size and SHA-256.

        Raises:
            DeploymentError: the file is missing, unreadable, or not the one that the deployment
                names.
        """
        path = self.folder / file.path
        if not path.is_file():
            found_instead = "is a folder" if path.is_dir() else "is missing"
            raise DeploymentError(
                f"deployment {self.name}: {path} {found_instead}; expected a file with SHA-256 {file.sha256}; "
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


def read_deployment(path: Path | str | None = None) -> Deployment:
    """Read a bundle: a folder, its `deployment.json`, a `models:/...` name, or (None) the live one.

    `runs:/ID` is what an MLflow run of an operation holds.

    A name such as `paper` is a bundle that comes with ABAIR.

    Raises:
        DeploymentError: it cannot be found, is not JSON, does not have the form of a deployment, or
            was edited.
    """
    if path is not None:
        return _read_file(locate(path))
    try:
        return _read_file(live())
    except DeploymentError as error:
        if live() != home():
            raise
        raise DeploymentError(f"{error}; run: abair-registry doctor") from None


def live_warning() -> str:
    """Return why what serves may not be what was deployed, in one line, or nothing."""
    try:
        if home_serves() and not read_deployment(home()).has_checksum:
            return (
                f"{home() / FILE_NAME} has no checksum, so an edit would not be noticed; to write it again as it is "
                "recorded, run: abair-registry doctor"
            )
        return missing_live()
    except DeploymentError:
        return ""  # who reads it next says why


def _read_file(given: Path) -> Deployment:
    file = given / FILE_NAME if given.is_dir() else given
    try:
        deployment = _parse(file.read_text(encoding="utf-8"))
    except DeploymentError as error:
        raise DeploymentError(f"{file}: {error}") from None
    except OSError as error:
        raise DeploymentError(
            f"{file}: no deployment can be read there ({error.strerror or error}); "
            f"expected a bundle's folder, its {FILE_NAME}, one of {', '.join(shipped_names())}, "
            "models:/NAME@ALIAS, or runs:/ID"
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
    deployment._has_checksum = True
    return deployment


def _checksum(document: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def write_deployment(deployment: Deployment, folder: Path) -> Path:
    """Write `deployment.json` with its checksum into the bundle's folder, atomically.

    Returns its path.

    Raises:
        OSError: the file cannot be written.
    """
    deployment._folder, deployment._has_checksum = folder, True
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
