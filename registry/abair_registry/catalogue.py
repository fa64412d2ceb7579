"""The registry as one thing: database, schema, blobs and the file that serves, opened together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from abair.deployment import FACTORY
from abair_registry import publishing, schema, store
from abair_registry.blobs import Blobs
from abair_registry.database import Database
from abair_registry.settings import Settings
from abair_registry.store import Who

SYSTEM = Who("abair", "first use: the deployment that comes with the package")


@dataclass(frozen=True)
class Catalogue:
    """An open registry whose schema is this program's."""

    settings: Settings
    database: Database
    blobs: Blobs


@contextmanager
def opened(settings: Settings, factory: Path | None = None) -> Iterator[Catalogue]:
    """Open the registry; an empty home gets the schema and, as deployment 1, the factory deployment.

    What a kill left between a commit and the file that serves is mended here.

    Raises:
        RegistryError: the home or the database cannot be used, or the schema is another revision.
    """
    database = Database(settings)
    try:
        blobs = Blobs(settings.home)
        with database.telling():
            schema.ensure(database.engine)
        with database.read() as session:
            number = publishing.live_number(session)
        if number is None:
            with database.write() as session:
                # another process may have been faster
                if publishing.live_number(session) is None:
                    publishing.import_factory(session, blobs, SYSTEM, factory or FACTORY)
        yield Catalogue(settings, database, blobs)
    finally:
        database.close()


def settle(catalogue: Catalogue) -> bool:
    """Write the live deployment's file where it is missing or stale, one process at a time; says whether it was."""
    with catalogue.database.write() as session:
        return publishing.settle(session, catalogue.blobs)


def changed(catalogue: Catalogue) -> bool:
    """Whether the file that serves names another deployment than the registry."""
    with catalogue.database.read() as session:
        deployment = store.live(session)
    served = publishing.published(catalogue.settings.home)
    return deployment is not None and (served is None or served.name != str(deployment.number))
