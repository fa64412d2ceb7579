"""Importing MLflow quietly, and finding out within seconds whether its server can be reached."""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from abair.errors import MissingExtraError

if TYPE_CHECKING:
    from mlflow import MlflowClient

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
_IMPATIENT: Final = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "4"}
REACHING_SECONDS: Final = 4
"""Seconds that the first answer of a server may take."""
_PORTS: Final = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


def import_client() -> type[MlflowClient]:
    """Import MLflow's client with its telemetry and its messages switched off.

    Raises:
        MissingExtraError: MLflow is not installed.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        raise MissingExtraError(
            f"tracking: {error.name} is missing; install it with: pip install 'abair[registry]'"
        ) from None
    for name in ("mlflow", "alembic", "urllib3"):
        # its errors come as exceptions, too; with a damaged store it logs tracebacks besides
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return MlflowClient


def open_client(uri: str, *, patient: bool) -> MlflowClient:
    """Return a client whose store has answered once, in at most a few seconds.

    Without `patient` it waits no longer for later answers either.

    Raises:
        OSError: nothing listens at the database's address.
        MlflowException: the server did not answer, or the store cannot be opened.
    """
    client_class = import_client()
    place = urlsplit(uri)
    if place.scheme in {"http", "https"}:
        client = client_class(uri, uri)
        with _impatient(keep=not patient):
            client.search_experiments(max_results=1)
        return client
    port = place.port or _PORTS.get(place.scheme.partition("+")[0])
    if place.hostname and port:  # MLflow tries a database for minutes
        socket.create_connection((place.hostname, port), timeout=REACHING_SECONDS).close()
    return client_class(uri, uri)


def display_uri(uri: str) -> str:
    """Return a store's URI without its user and password."""
    head, at, tail = uri.rpartition("@")
    if not at or uri.startswith("sqlite:"):  # a file's path may hold an @
        return uri
    return f"{head.split('://')[0]}://***@{tail}"


@contextmanager
def _impatient(*, keep: bool) -> Iterator[None]:
    """Let requests fail soon, for as long as the block lasts, or from now on.

    What the environment set before this program stays.
    """
    ours = {name: value for name, value in _IMPATIENT.items() if os.environ.get(name) == QUIET[name]}
    os.environ.update(ours)
    try:
        yield
    finally:
        if not keep:
            os.environ.update({name: QUIET[name] for name in ours})


def reason_of_no_connection(error: BaseException) -> str:
    """Return why a host cannot be reached, by the innermost cause of an error; else nothing.

    Libraries wrap it several times, and say all of that in their texts.
    """
    cause: BaseException | None = error
    while cause is not None:
        error, cause = cause, cause.__cause__ or cause.__context__
    if not isinstance(error, OSError):
        return ""
    no_host = isinstance(error, ConnectionError | TimeoutError | socket.gaierror)
    if not no_host and error.errno not in {errno.EHOSTUNREACH, errno.ENETUNREACH}:
        return ""
    return (error.strerror or str(error)).lower()
