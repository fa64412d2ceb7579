"""Runs, metrics, figures, bundles and aliases in MLflow. The only importer of mlflow.

MLflow observes and never decides. Its store is a SQLite file and a folder below the home, or the
server that `MLFLOW_TRACKING_URI` names. Nothing is sent anywhere else: its telemetry is switched
off before the import.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from filelock import FileLock

from abair.errors import DeploymentError, MissingExtraError, RegistryError
from abair_registry.settings import Settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow import MlflowClient

EXPERIMENT: Final = "abair"
"""The experiment of the registry's operations."""
TRAINING: Final = "abair training"
"""The experiment of trainings."""
MODEL: Final = "abair"
"""The registered model; each challenger is one version of it."""
STORE: Final = "mlflow.db"
"""The local store, below the home."""
BUNDLE: Final = "bundle"
"""The artifact folder of a run that holds the challenger's complete bundle."""
_MODEL_URI: Final = re.compile(r"models:/([^/@]+)(?:@([\w-]+)|/(\d+))")

Alias = Literal["champion", "challenger"]
Status = Literal["FINISHED", "FAILED", "KILLED"]

MAKING_SECONDS: Final = 300
"""Seconds that a process waits for another one to make the store, which takes five."""
LARGEST_BATCH: Final = 500
"""Metrics in one request; MLflow takes a thousand."""
_NOTE: Final = "mlflow.note.content"
_HEADLINES: Final = {
    "FINISHED": "Done",
    "FAILED": "Failed; nothing was published",
    "KILLED": "Stopped; nothing was published",
}

QUIET: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    # stdout is for results, stderr for our own lines
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # a server that is down must cost seconds, not the ten minutes of the default
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
_IMPATIENT: Final = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "2"}


@dataclass(frozen=True)
class Version:
    """A version of the registered model: its number, the run that made it, its tags."""

    number: str
    run_id: str
    tags: dict[str, str]


class Runs:
    """The tracking store of a registry. It connects on first use.

    Without `patient` it gives up after two seconds.
    """

    def __init__(self, settings: Settings, *, patient: bool = True, experiment: str = EXPERIMENT) -> None:
        self._patient = patient
        self._experiment = experiment
        self._home = settings.home
        self._named = settings.tracking_uri is not None
        self.uri = settings.tracking_uri or f"sqlite:///{settings.home / STORE}"
        self._client: MlflowClient | None = None
        # reading a run from the store reads all its metrics, which takes longer with every label
        self._artifacts: dict[str, str] = {}
        self._notes: dict[str, str] = {}

    def begin(self, name: str, *, tags: Mapping[str, str], params: Mapping[str, object]) -> str:
        """Start a run and return its id.

        Raises:
            RegistryError: the store cannot be reached or written.
        """
        with self._connected() as client:
            from mlflow.entities import Param

            number = self.experiment()
            info = client.create_run(number, run_name=name, tags=dict(tags)).info
            run_id: str = info.run_id
            self._artifacts[run_id] = info.artifact_uri
            client.log_batch(run_id, params=[Param(key, str(value)) for key, value in params.items()])
            return run_id

    def experiment(self) -> str:
        """Return the experiment's id; create it if there is none.

        Raises RegistryError.
        """
        with self._connected() as client:
            found = client.get_experiment_by_name(self._experiment)
            return str(found.experiment_id) if found else self._create_experiment(client)

    def metrics(self, run_id: str, values: Mapping[str, float], step: int = 0) -> None:
        """Log metrics; names with `/` are grouped on the page. Raises RegistryError."""
        with self._connected() as client:
            from mlflow.entities import Metric

            moment = int(time.time() * 1000)
            metrics = [Metric(key, value, moment, step) for key, value in values.items()]
            for begin in range(0, len(metrics), LARGEST_BATCH):
                client.log_batch(run_id, metrics=metrics[begin : begin + LARGEST_BATCH])

    def tags(self, run_id: str, values: Mapping[str, str]) -> None:
        """Set tags. Raises RegistryError."""
        with self._connected() as client:
            from mlflow.entities import RunTag

            client.log_batch(run_id, tags=[RunTag(key, value) for key, value in values.items()])

    def describe(self, run_id: str, markdown: str) -> None:
        """Set the text at the top of the run's page. Raises RegistryError."""
        self.tags(run_id, {_NOTE: markdown})
        self._notes[run_id] = markdown

    def conclude(self, run_id: str, headline: str, tags: Mapping[str, str]) -> None:
        """Close a run as finished, replace its text's first line, and set tags.

        Raises RegistryError.
        """
        with self._connected() as client:
            note = self._notes.get(run_id) or client.get_run(run_id).data.tags.get(_NOTE, "")
            _, _, rest = str(note).partition("\n")
            self.tags(run_id, {_NOTE: f"{headline}\n{rest}", **tags})
            client.set_terminated(run_id, "FINISHED")

    def figure(self, run_id: str, figure: Figure, path: str) -> None:
        """Store a figure as an image. Raises RegistryError."""
        with self._connected() as client:
            client.log_figure(run_id, figure, path)

    def text(self, run_id: str, text: str, path: str) -> None:
        """Store a text as a file. Raises RegistryError."""
        with self._connected() as client:
            client.log_text(run_id, text, path)

    def end(self, run_id: str, status: Status, reason: str = "") -> None:
        """Close a run unless it is closed already. Raises RegistryError."""
        with self._connected() as client:
            if client.get_run(run_id).info.status == "RUNNING":
                if reason:
                    client.set_tag(run_id, "abair.reason", reason)
                    client.set_tag(run_id, _NOTE, f"## {_HEADLINES[status]}\n\n{reason}")
                client.set_terminated(run_id, status)

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
                MODEL, source, run_id=run_id, tags=dict(tags), description=description, await_creation_for=0
            )
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
                if error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
                    return None
                raise

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

    def running(self, experiment_name: str | None = None) -> list[tuple[str, dict[str, str]]]:
        """Return the runs that have not ended, with their tags. Raises RegistryError."""
        with self._connected() as client:
            experiment = client.get_experiment_by_name(experiment_name or self._experiment)
            if experiment is None:
                return []
            listed = client.search_runs([experiment.experiment_id], "attributes.status = 'RUNNING'", max_results=1000)
            return [(run.info.run_id, dict(run.data.tags)) for run in listed]

    def exists(self, run_id: str) -> bool:
        """Return whether there is such a run. Raises RegistryError."""
        with self._connected() as client:
            from mlflow.exceptions import MlflowException

            try:
                client.get_run(run_id)
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return False
                raise
            return True

    def fetch(self, model: str, folder: Path) -> Path:
        """Download the bundle of `models:/abair@champion` or `models:/abair/3` below `folder`.

        Raises:
            RegistryError: there is no such version, or the store cannot be reached.
        """
        named = _MODEL_URI.fullmatch(model)
        if named is None:
            raise RegistryError(f"deployment {model}: expected models:/{MODEL}@champion or models:/{MODEL}/NUMBER")
        if not self.has_store:
            raise RegistryError(
                f"deployment {model}: found no runs in {self._home}; expected those of an operation; name the server "
                "that has them with MLFLOW_TRACKING_URI, or the home with ABAIR_HOME"
            )
        with self._connected() as client:
            from mlflow.artifacts import download_artifacts

            name, alias, number = named.groups()
            version = number or client.get_model_version_by_alias(name, alias).version
            # a version never changes, so it is downloaded once
            target = folder / hashlib.sha256(self.uri.encode()).hexdigest()[:12] / name / str(version)
            if not target.is_dir():
                source = client.get_model_version_download_uri(name, version)
                target.parent.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryDirectory(dir=target.parent) as aside:
                    Path(download_artifacts(artifact_uri=source, dst_path=aside, tracking_uri=self.uri)).rename(target)
            return target

    def _create_experiment(self, client: MlflowClient) -> str:
        place = self.artifacts if self.uri.startswith("sqlite:") else None
        # without this tag the page shows the form for language models
        return client.create_experiment(self._experiment, place, {"mlflow.experimentKind": "custom_model_development"})

    @property
    def display_uri(self) -> str:
        """The store's URI for people, without a password."""
        return _display_uri(self.uri)

    @property
    def has_store(self) -> bool:
        """Whether there is a store: the settings name one, or a local file exists."""
        return self._named or self._store.is_file()

    @property
    def _store(self) -> Path:
        return self._home / STORE

    @property
    def artifacts(self) -> str:
        """The folder of the local store's artifacts, as a URI."""
        return (self._home / "artifacts").absolute().as_uri()

    @contextmanager
    def _connected(self) -> Iterator[MlflowClient]:
        """Yield the client; turn MLflow's errors into one line of ours."""
        client_class = _import_client(patient=self._patient)
        from alembic.util import CommandError
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            if self._client is None:
                if not self.has_store:
                    _make_store(self._home)
                self._client = client_class(self.uri, self.uri)  # which opens a local store
            yield self._client
        except (MlflowException, OSError, SQLAlchemyError, CommandError) as error:
            reason = " ".join(str(error).replace(self.uri, _display_uri(self.uri)).split())[:300]
            advice = (
                "check MLFLOW_TRACKING_URI" if self._named else f"to begin with an empty one, move {self._store} away"
            )
            raise RegistryError(
                f"MLflow at {_display_uri(self.uri)}: {reason}; expected a store that can be reached and written; "
                f"{advice}"
            ) from None


def fetch_bundle(model: str) -> Path:
    """Return the folder of the bundle that `models:/...` names.

    Download it into the home on first use.

    Raises:
        DeploymentError: there is no such version, or the store cannot be reached.
    """
    settings = Settings()
    try:
        return Runs(settings).fetch(model, settings.home / "models")
    except RegistryError as error:
        raise DeploymentError(str(error)) from None


def _import_client(*, patient: bool) -> type[MlflowClient]:
    for name, value in {**QUIET, **({} if patient else _IMPATIENT)}.items():
        os.environ.setdefault(name, value)
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        raise MissingExtraError(
            f"tracking: {error.name} is missing; install it with: pip install 'abair[registry]'"
        ) from None
    for name in ("mlflow", "alembic", "urllib3"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return MlflowClient


def _make_store(home: Path) -> None:
    """Make the local store with MLflow's tables; of two processes at once, one makes it.

    MLflow makes its tables in many transactions, and a store whose tables were made in part cannot
    be opened (findings/mlflow_half_made_store.sh). So they are made aside, and the finished store
    gets its name.
    """
    home.mkdir(parents=True, exist_ok=True)
    store = home / STORE
    with FileLock(f"{store}.lock", timeout=MAKING_SECONDS):
        if store.exists():  # another process was faster
            return
        with tempfile.TemporaryDirectory(dir=home, prefix=".mlflow-", ignore_cleanup_errors=True) as folder:
            made, copy = Path(folder, "made.db"), Path(folder, "copy.db")
            uri = f"sqlite:///{made}"
            _import_client(patient=True)(uri, uri).search_experiments(max_results=1)  # makes its tables
            # MLflow keeps its file open, and Windows renames no such file
            with closing(sqlite3.connect(made)) as source, closing(sqlite3.connect(copy)) as target:
                source.backup(target)
            copy.rename(store)


def _display_uri(uri: str) -> str:
    """Return the URI without its user and password."""
    head, at, tail = uri.rpartition("@")
    return f"{head.split('://')[0]}://***@{tail}" if at else uri
