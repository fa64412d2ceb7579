"""Put a backup of a SQLite database back, and bring it in line with what the home serves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from abair.errors import AbairError, RegistryError
from abair_registry.db import backup, queries
from abair_registry.db.audit import Actor
from abair_registry.db.engine import Database
from abair_registry.db.operation_lock import operation_lock
from abair_registry.maintenance import rebuild
from abair_registry.registry import Registry, is_empty, keep_backup, live_file_problem, open_registry
from abair_registry.settings import Settings
from abair_registry.storage import publish


@dataclass(frozen=True)
class PutBack:
    """What is live now, where the replaced database is, which deployment was recorded in the copy.

    `warnings` say what does not agree.
    """

    live: int
    replaced: Path | None
    adopted: int | None
    warnings: tuple[str, ...]


def choose(settings: Settings, copy: Path | None) -> Path:
    """Return the copy that was asked for, or the newest in which nothing is wrong.

    Raises:
        RegistryError: there is none, or the database is PostgreSQL's.
    """
    database = _file(settings)
    chosen = copy or backup.newest_sound_copy(database)
    if chosen is None:
        raise RegistryError(
            f"registry: found no backup in {database.parent / backup.FOLDER}; expected a copy of {database.name}; "
            "to rebuild it from what this home serves, run: abair-registry init --from-home"
        )
    return chosen


def is_usable(settings: Settings) -> bool:
    """Return whether the present database can be read and records something."""
    try:
        return not is_empty(settings)
    except RegistryError:
        return False


def put_back(settings: Settings, copy: Path, actor: Actor) -> PutBack:
    """Put the copy in the database's place; record in it what serves, if that is newer.

    Raises:
        RegistryError: an operation is running, the copy is damaged or of another revision, or the
            folder cannot be written.
    """
    file = _file(settings)
    lock = operation_lock(Database(settings).engine) if file.exists() else None
    if lock is not None and not lock.take():
        raise RegistryError(f"registry {file}: an operation is running; expected nobody; try again when it has ended")
    try:
        replaced = backup.put_back(file, copy)
    finally:
        if lock is not None:
            lock.release()
    warnings = []
    with open_registry(settings) as registry:
        try:
            adopted = rebuild.adopt_served(registry, actor)
        except AbairError as error:
            adopted = None
            warnings.append(f"what serves is newer than this copy and could not be recorded in it: {error}")
        if problem := live_file_problem(registry):
            advice = _way_to_what_served(registry)
            warnings.append(
                f"deployment.json {problem}; the next command that writes lets the live deployment serve{advice}"
            )
        keep_backup(registry)
        with registry.database.read() as session:
            live = queries.live_number(session)
    return PutBack(live or 0, replaced, adopted.live if adopted else None, tuple(warnings))


def _way_to_what_served(registry: Registry) -> str:
    """Return what lets the deployment that the home serves go on, empty if it is not recorded."""
    served = publish.read_published(registry.settings.home)
    with registry.database.read() as session:
        numbers = {deployment.number for deployment, live in queries.history(session) if not live}
        if served is None or not served.name.isdigit() or int(served.name) not in numbers:
            return ""
        command = "rollback --to" if queries.was_live(session, int(served.name)) else "promote"
    return f"; to go on with deployment {served.name}, run: abair-registry {command} {served.name}"


def _file(settings: Settings) -> Path:
    database = Database(settings, read_only=True)
    database.close()
    if database.file is None:
        raise RegistryError(
            "registry: the database is PostgreSQL's; expected a SQLite file; restore it with the server's own tools"
        )
    return database.file
