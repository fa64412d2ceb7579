"""The connection to MLflow's store: opened on first use, and given up once it cannot be reached."""

from __future__ import annotations

import sqlite3
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from abair.errors import RegistryError
from abair_registry.settings import Settings
from abair_registry.tracking import local_store
from abair_registry.tracking.connection import display_uri, import_client, open_client, reason_of_no_connection

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT: Final = "abair"
"""The experiment of the registry's operations."""
TRAINING: Final = "abair training"
"""The experiment of trainings."""
MISSING: Final = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")
"""MLflow's codes of what is not there."""
_ABOUT_ONE_REQUEST: Final = (*MISSING, "RESOURCE_ALREADY_EXISTS", "INVALID_PARAMETER_VALUE", "BAD_REQUEST")
"""MLflow's codes of errors that say nothing about the next request."""


class Store:
    """MLflow's store: the local one below the home, or the one that the settings name.

    Without `patient` no answer is waited for longer than a few seconds. A store that cannot be
    reached is not tried again: `away` then says why, and so does each further call.
    """

    def __init__(self, settings: Settings, *, patient: bool = True) -> None:
        self._patient = patient
        self._home = settings.home
        local = local_store.store_uri(settings.home)
        self.uri = settings.tracking_uri or local
        self._local = self.uri == local
        self._client: MlflowClient | None = None
        self.away: RegistryError | None = None
        """Why the store cannot be reached or written, once that was found."""
        self.claimed = False
        """Whether the store was that of a home which this one was copied or moved from."""

    @property
    def display_uri(self) -> str:
        """The store's URI for people, without a password."""
        return display_uri(self.uri)

    @property
    def has_store(self) -> bool:
        """Whether there is a store: the settings name one, or a local file exists."""
        return not self._local or local_store.store_path(self._home).is_file()

    @property
    def artifacts(self) -> str:
        """The folder of the local store's artifacts, as a URI."""
        return local_store.artifacts_uri(self._home)

    @contextmanager
    def _connected(self) -> Iterator[MlflowClient]:
        """Yield the client; turn MLflow's errors into one line of ours."""
        if self.away is not None:
            raise self.away
        client_class = import_client()
        from alembic.util import CommandError
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            if self._client is None:
                if self._local:
                    self.claimed = local_store.prepare(self._home, client_class, (EXPERIMENT, TRAINING))
                self._client = open_client(self.uri, patient=self._patient)
            yield self._client
        except (MlflowException, OSError, SQLAlchemyError, CommandError, sqlite3.Error) as error:
            failure = self._failure(error)
            if self._client is None or getattr(error, "error_code", None) not in _ABOUT_ONE_REQUEST:
                self.away = failure
            raise failure from None

    def _failure(self, error: Exception) -> RegistryError:
        unreachable = reason_of_no_connection(error)
        # SQLAlchemy's statement and its parameters help nobody here
        said = str(error).partition("[SQL:")[0].replace(self.uri, self.display_uri)
        said = textwrap.shorten(said, 300, placeholder=" …").rstrip(".")
        reason = f"cannot be reached ({unreachable})" if unreachable else said
        advice = (
            f"to begin with an empty one, move {local_store.store_path(self._home)} away"
            if self._local
            else "check MLFLOW_TRACKING_URI"
        )
        return RegistryError(
            f"MLflow at {self.display_uri}: {reason}; expected a store that can be reached and written; {advice}"
        )
