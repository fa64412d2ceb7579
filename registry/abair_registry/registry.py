"""The registry as one object: database, schema, blobs and the live file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from abair.deployment import factory_folder
from abair_registry.db import migrate, queries
from abair_registry.db.audit import Actor
from abair_registry.db.engine import Database
from abair_registry.settings import Settings
from abair_registry.storage import publish
from abair_registry.storage.blobs import Blobs
from abair_registry.storage.factory import import_factory

SYSTEM = Actor("abair", "first use: the deployment that comes with the package")


@dataclass(frozen=True)
class Registry:
    """An open registry whose schema is this program's."""

    settings: Settings
    database: Database
    blobs: Blobs


@contextmanager
def open_registry(settings: Settings, factory: Path | None = None) -> Iterator[Registry]:
    """Open the registry; an empty home gets the schema and the factory's deployment 1.

    Raises:
        RegistryError: The home or the database cannot be used, or the schema is another revision.
        DeploymentError: `ABAIR_FACTORY` names no bundle.
    """
    factory = factory or factory_folder()  # before anything is written
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
