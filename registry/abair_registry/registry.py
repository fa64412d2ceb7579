"""The registry as one object: database, schema, blobs and the live file.

Looking never writes: `look` opens a registry for that. An empty one is shown as it would begin.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import select

from abair.deployment import read_deployment
from abair.errors import RegistryError
from abair.locations import FILE_NAME, factory_folder
from abair_migrations import HEAD
from abair_registry.db import backup, migrate, queries
from abair_registry.db.audit import Actor
from abair_registry.db.engine import Database
from abair_registry.db.models import Base, OperationRow
from abair_registry.settings import Settings
from abair_registry.storage import publish
from abair_registry.storage.blobs import Blobs, FactoryFiles
from abair_registry.storage.factory import import_factory

LOOKS: Final = 1
LOOKS_WHILE_RUNNING: Final = 20
"""How often a file that differs from what is live is looked at again, `PAUSE` seconds apart."""
PAUSE: Final = 0.1

SYSTEM = Actor("abair", "first use: the deployment that comes with the package")


@dataclass(frozen=True)
class Registry:
    """An open registry whose schema is this program's.

    It is not `recorded` if there is none yet: then it is in memory, as it would begin. It has
    `begun` if this call recorded the factory's deployment.
    """

    settings: Settings
    database: Database
    blobs: Blobs
    recorded: bool = True
    begun: bool = False


@contextmanager
def open_registry(settings: Settings, factory: Path | None = None) -> Iterator[Registry]:
    """Open the registry; an empty home gets the schema and the factory's deployment 1.

    Raises:
        RegistryError: The home or the database cannot be used or is damaged, the schema is another
            revision, or the database is empty and the home is not.
        DeploymentError: `ABAIR_FACTORY` names no bundle.
    """
    factory = factory or factory_folder()  # before anything is written
    begins_anew(settings, factory)
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
        yield Registry(settings, database, blobs, begun=number is None)
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
    factory = factory_folder()
    if begins_anew(settings, factory):
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


def is_empty(settings: Settings) -> bool:
    """Return whether the database records nothing yet: no file, no tables, no deployment.

    Raises:
        RegistryError: it is damaged, or cannot be used; the text says what brings it back.
    """
    database = Database(settings, read_only=True)
    try:
        if not database.is_there:
            return True
        database.check_sound()
        with database.translate_errors():
            found = migrate.current(database.engine)
        if found != HEAD:  # another revision is not empty; who opens it is told what to do
            return found is None
        with database.read() as session:
            if queries.live_number(session) is not None:
                return False
            recorded = len(queries.history(session))
        if recorded:
            raise database.damaged(f"it records {recorded} deployments and not which of them is live")
        return True
    finally:
        database.close()


def begins_anew(settings: Settings, factory: Path | None = None) -> bool:
    """Return whether the registry begins with the factory: database and home are new.

    A home in which a registry was killed at its first step is new.

    Raises:
        RegistryError: the database is damaged, or it is empty and a registry was used in this home.
        DeploymentError: `ABAIR_FACTORY` names no bundle.
    """
    if not is_empty(settings):
        return False
    _check_home_is_new(settings, factory or factory_folder())
    return True


def _check_home_is_new(settings: Settings, factory: Path) -> None:
    """Check that no registry was used in this home.

    Raises:
        RegistryError: one was, and this database is not its own.
    """
    shipped = {file.sha256 for file in read_deployment(factory).files()}
    served = settings.home / FILE_NAME
    if served.exists() or any(sha256 not in shipped for sha256 in Blobs(settings.home)):
        what = f"{served} serves" if served.exists() else f"{settings.home / 'blobs'} holds files"
        file = Database(settings, read_only=True).file
        found = f"no {file}" if file is not None and not file.exists() else "an empty database"
        advice = backup.way_back(file)
        raise RegistryError(
            f"registry: found {found}, but {what}; expected the database that belongs to this home: correct "
            f"ABAIR_REGISTRY_URL or ABAIR_HOME if they are wrong; {advice}; to begin anew in this home, move "
            f"{FILE_NAME} and blobs away"
        )


def sync_live_file(registry: Registry) -> bool:
    """Write the live deployment's file if it is missing or stale; return whether it was."""
    with registry.database.write() as session:
        return publish.write_live_file(session, registry.blobs)


def live_file_problem(registry: Registry) -> str | None:
    """Return how the file that serves differs from what is live, in words, or None.

    The file follows the commit, so while another process makes something live the two may differ
    for a moment: they are looked at again, and longer while an operation is running.
    """
    tries = 0
    while True:
        with registry.database.read() as session:
            deployment = queries.live(session)
            problem = None if deployment is None else publish.difference(deployment, registry.blobs)
            running = session.scalar(select(OperationRow.id).where(OperationRow.state == "running"))
        tries += 1
        if problem is None or tries > (LOOKS_WHILE_RUNNING if running is not None else LOOKS):
            return problem
        time.sleep(PAUSE)


def keep_backup(registry: Registry) -> None:
    """Keep a copy of a SQLite database that changed; PostgreSQL's is its administrator's.

    Raises:
        RegistryError: the database is damaged, or the copy cannot be written.
    """
    if registry.database.file is not None:
        backup.keep(registry.database.file)
