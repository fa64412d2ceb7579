"""The registry as one object: database, schema, blobs and the live file.

Looking never writes: `look` opens a registry for that. An empty one is shown as it would begin.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from abair.deployment import FILE_NAME, factory_folder, read_deployment
from abair.errors import RegistryError
from abair_migrations import HEAD
from abair_registry.db import migrate, queries
from abair_registry.db.audit import Actor
from abair_registry.db.engine import Database
from abair_registry.db.models import Base
from abair_registry.settings import Settings
from abair_registry.storage import publish
from abair_registry.storage.blobs import Blobs, FactoryFiles
from abair_registry.storage.factory import import_factory

SYSTEM = Actor("abair", "first use: the deployment that comes with the package")


@dataclass(frozen=True)
class Registry:
    """An open registry whose schema is this program's.

    It is not `recorded` if there is none yet: then it is in memory, as it would begin.
    """

    settings: Settings
    database: Database
    blobs: Blobs
    recorded: bool = True


@contextmanager
def open_registry(settings: Settings, factory: Path | None = None) -> Iterator[Registry]:
    """Open the registry; an empty home gets the schema and the factory's deployment 1.

    Raises:
        RegistryError: The home or the database cannot be used, the schema is another revision, or
            the database is empty and the home is not.
        DeploymentError: `ABAIR_FACTORY` names no bundle.
    """
    factory = factory or factory_folder()  # before anything is written
    if _is_empty(settings):
        _check_home_is_new(settings, factory)
    database = Database(settings)
    try:
        blobs = Blobs(settings.home)
        with database.translate_errors():
            migrate.ensure(database.engine)
        with database.read() as session:
            number = queries.live_number(session)
        if number is None:
            with database.write() as session:
                # another process may have been faster
                if queries.live_number(session) is None:
                    import_factory(session, blobs, SYSTEM, factory)
        yield Registry(settings, database, blobs)
    finally:
        database.close()


@contextmanager
def look(settings: Settings) -> Iterator[Registry]:
    """Open the registry to look at it; nothing is written, and a read-only home will do.

    An empty registry is shown as it would begin, in memory, and its files are the factory's.

    Raises:
        RegistryError: as `open_registry`.
        DeploymentError: `ABAIR_FACTORY` names no bundle.
    """
    if _is_empty(settings):
        factory = factory_folder()
        _check_home_is_new(settings, factory)
        database, recorded = Database.in_memory(), False
        blobs: Blobs = FactoryFiles(settings.home)
        Base.metadata.create_all(database.engine)
        with database.write() as session:
            import_factory(session, blobs, SYSTEM, factory)
    else:
        database, blobs, recorded = Database(settings, read_only=True), Blobs(settings.home), True
        with database.translate_errors():
            migrate.check_revision(database.engine)
    try:
        yield Registry(settings, database, blobs, recorded)
    finally:
        database.close()


def _is_empty(settings: Settings) -> bool:
    """Return whether the database records nothing yet: no file, no tables, no deployment."""
    database = Database(settings, read_only=True)
    try:
        if not database.is_there:
            return True
        with database.translate_errors():
            found = migrate.current(database.engine)
        if found != HEAD:  # another revision is not empty; who opens it is told what to do
            return found is None
        with database.read() as session:
            return queries.live_number(session) is None
    finally:
        database.close()


def _check_home_is_new(settings: Settings, factory: Path) -> None:
    """Check that no registry was used in this home; one that was killed at its first step was not.

    Raises:
        RegistryError: one was, and this database is not its own.
    """
    shipped = {file.sha256 for file in read_deployment(factory).files()}
    served = settings.home / FILE_NAME
    if served.exists() or any(sha256 not in shipped for sha256 in Blobs(settings.home)):
        what = f"{served} serves" if served.exists() else f"{settings.home / 'blobs'} holds files"
        raise RegistryError(
            f"registry: found an empty database, but {what}; expected the database that belongs to this home: correct "
            "ABAIR_REGISTRY_URL or ABAIR_HOME, or put registry.db back from a backup; to begin anew in this home, "
            f"move {FILE_NAME} and blobs away"
        )


def sync_live_file(registry: Registry) -> bool:
    """Write the live deployment's file if it is missing or stale; return whether it was."""
    with registry.database.write() as session:
        return publish.write_live_file(session, registry.blobs)


def live_file_is_stale(registry: Registry) -> bool:
    """Return whether the live file names another deployment than the registry."""
    with registry.database.read() as session:
        deployment = queries.live(session)
    served = publish.read_published(registry.settings.home)
    return deployment is not None and (served is None or served.name != str(deployment.number))
