"""Runs in MLflow: their parameters, metrics, descriptions and files.

MLflow observes and never decides. Its store is a SQLite file and a folder below the home, or the
server that `MLFLOW_TRACKING_URI` names. Nothing is sent anywhere else: its telemetry is switched
off before the import.
"""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final, Literal

from abair.errors import DeploymentError, RegistryError
from abair_registry.settings import Settings
from abair_registry.tracking import limits
from abair_registry.tracking.model_versions import ModelVersions
from abair_registry.tracking.store import EXPERIMENT

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow import MlflowClient

DESCRIPTION: Final = "description.md"
"""The artifact with the whole description of a run, if MLflow does not take it all."""

Status = Literal["FINISHED", "FAILED", "KILLED"]

_NOTE: Final = "mlflow.note.content"
_HEADLINES: Final = {
    "FINISHED": "Done",
    "FAILED": "Failed; nothing was published",
    "KILLED": "Stopped; nothing was published",
}


class Runs(ModelVersions):
    """The runs in MLflow's store, and the versions of the model that they made."""

    def __init__(self, settings: Settings, *, patient: bool = True, experiment: str = EXPERIMENT) -> None:
        super().__init__(settings, patient=patient)
        self._experiment = experiment
        self._notes: dict[str, str] = {}

    def begin(self, name: str, *, tags: Mapping[str, str], params: Mapping[str, object], at: int | None = None) -> str:
        """Start a run and return its id; `at` is when it began, in ms since 1970, now by default.

        Raises:
            RegistryError: the store cannot be reached or written.
        """
        with self._connected() as client:
            from mlflow.entities import Param

            number = self.experiment()
            title = limits.fit_value(name, limits.KEY, "")
            short = {limits.fit_key(key): value for key, value in tags.items() if len(value) <= limits.TAG_VALUE}
            info = client.create_run(number, start_time=at, run_name=title, tags=short).info
            run_id: str = info.run_id
            self._artifacts[run_id] = info.artifact_uri
            self.tags(run_id, {key: value for key, value in tags.items() if len(value) > limits.TAG_VALUE})
            fitted = self._fitted(run_id, {key: str(value) for key, value in params.items()}, limits.PARAM_VALUE)
            for part in limits.batches([Param(key, value) for key, value in fitted.items()], limits.BATCH):
                client.log_batch(run_id, params=part)
            return run_id

    def experiment(self) -> str:
        """Return the experiment's id; create it if there is none.

        Raises RegistryError.
        """
        with self._connected() as client:
            found = client.get_experiment_by_name(self._experiment)
            if found is None:
                return self._create_experiment(client)
            if found.lifecycle_stage == "deleted":  # on the page: no run can begin in it
                client.restore_experiment(found.experiment_id)
            return str(found.experiment_id)

    def metrics(self, run_id: str, values: Mapping[str, float], step: int = 0, at: int | None = None) -> None:
        """Log metrics; names with `/` are grouped on the page. Raises RegistryError."""
        with self._connected() as client:
            from mlflow.entities import Metric

            moment = int(time.time() * 1000) if at is None else at
            metrics = [Metric(limits.fit_key(key), value, moment, step) for key, value in values.items()]
            for part in limits.batches(metrics, limits.METRICS):
                client.log_batch(run_id, metrics=part)

    def tags(self, run_id: str, values: Mapping[str, str]) -> None:
        """Set tags. Raises RegistryError."""
        with self._connected() as client:
            from mlflow.entities import RunTag

            fitted = self._fitted(run_id, values, limits.TAG_VALUE)
            for part in limits.batches([RunTag(key, value) for key, value in fitted.items()], limits.BATCH):
                client.log_batch(run_id, tags=part)

    def describe(self, run_id: str, markdown: str, whole: str = "") -> None:
        """Set the text at the top of the run's page, and store the `whole` one, if there is more.

        A text that MLflow does not take is cut where it says so, and stored whole. Raises
        RegistryError.
        """
        note = limits.fit_markdown(markdown, limits.NOTE, DESCRIPTION)
        if whole or note != markdown:
            self.text(run_id, whole or markdown, DESCRIPTION)
        self.tags(run_id, {_NOTE: note})
        self._notes[run_id] = note

    def conclude(self, run_id: str, headline: str, tags: Mapping[str, str], at: int | None = None) -> None:
        """Close a run as finished, replace its text's first line, and set tags.

        Raises RegistryError.
        """
        with self._connected() as client:
            note = self._notes.get(run_id) or client.get_run(run_id).data.tags.get(_NOTE, "")
            _, _, rest = str(note).partition("\n")
            self.tags(run_id, {_NOTE: f"{headline}\n{rest}", **tags})
            client.set_terminated(run_id, "FINISHED", end_time=at)

    def figure(self, run_id: str, figure: Figure, path: str) -> None:
        """Store a figure as an image. Raises RegistryError."""
        self.file(run_id, image_of(figure, path), path)

    def text(self, run_id: str, text: str, path: str) -> None:
        """Store a text as a file. Raises RegistryError."""
        self.file(run_id, text.encode(), path)

    def file(self, run_id: str, content: bytes, path: str) -> None:
        """Store bytes as a file. Raises RegistryError."""
        place = PurePosixPath(path)
        with self._connected() as client, tempfile.TemporaryDirectory() as folder:
            (Path(folder) / place.name).write_bytes(content)
            client.log_artifact(
                run_id, str(Path(folder) / place.name), str(place.parent) if place.parent.name else None
            )

    def end(self, run_id: str, status: Status, reason: str = "", at: int | None = None) -> None:
        """Close a run unless it is closed already. Raises RegistryError."""
        with self._connected() as client:
            if client.get_run(run_id).info.status == "RUNNING":
                if reason:
                    self.tags(run_id, {"abair.reason": reason})
                    self.describe(run_id, f"## {_HEADLINES[status]}\n\n{reason}")
                client.set_terminated(run_id, status, end_time=at)

    def running(self, experiment_name: str | None = None) -> list[tuple[str, dict[str, str]]]:
        """Return the runs that have not ended, with their tags. Raises RegistryError."""
        with self._connected() as client:
            experiment = client.get_experiment_by_name(experiment_name or self._experiment)
            if experiment is None:
                return []
            listed = client.search_runs([experiment.experiment_id], "attributes.status = 'RUNNING'", max_results=1000)
            return [(run.info.run_id, dict(run.data.tags)) for run in listed]

    def exists(self, run_id: str) -> bool:
        """Return whether there is such a run, and it was not deleted. Raises RegistryError."""
        return self._stage(run_id) == "active"

    def find(self, tags: Mapping[str, str]) -> str | None:
        """Return the id of the run with these tags, or None. Raises RegistryError."""
        with self._connected() as client:
            wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
            found = client.search_runs([self.experiment()], wanted, max_results=1)
            return str(found[0].info.run_id) if found else None

    def _create_experiment(self, client: MlflowClient) -> str:
        place = self.artifacts if self.uri.startswith("sqlite:") else None
        # without this tag the page shows the form for language models
        return client.create_experiment(self._experiment, place, {"mlflow.experimentKind": "custom_model_development"})

    def _fitted(self, run_id: str, values: Mapping[str, str], limit: int) -> dict[str, str]:
        """Return keys and values that MLflow takes; store those whole that are cut."""
        fitted = {}
        for key, value in values.items():
            whole = f"whole/{limits.fit_key(key).replace('/', '_')}.txt"
            fitted[limits.fit_key(key)] = limits.fit_value(value, limit, whole)
            if len(value) > limit:
                self.text(run_id, value, whole)
        return fitted


def image_of(figure: Figure, path: str) -> bytes:
    """Return a figure as the image file that the path's suffix names."""
    with io.BytesIO() as image:
        figure.savefig(image, format=PurePosixPath(path).suffix[1:])
        return image.getvalue()


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
