"""Make triggers, indexes and functions again that somebody dropped or changed."""

from __future__ import annotations

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from abair.errors import RegistryError
from abair.text import error_text
from abair_registry.db.audit import Actor, record_event
from abair_registry.db.definitions import Difference, differences


def mend(engine: Engine, actor: Actor) -> tuple[list[str], list[RegistryError]]:
    """Make again what can be made whatever the tables hold, and record it as one event.

    Tables and constraints are left alone, as are items that are not ABAIR's. The database must be
    at the newest revision.

    Returns:
        Names of what was made again, and an error for each item that could not be, such as a unique
        index over rows that are repeated.
    """
    mended, errors = list[str](), list[RegistryError]()
    with engine.execution_options(write=True).begin() as connection:
        for difference in differences(connection):
            if not difference.mendable:
                continue
            try:
                with connection.begin_nested():
                    _make(connection, difference)
            except DBAPIError as error:
                reason = error_text(error.orig or error)
                errors.append(
                    RegistryError(f"{difference.name}: cannot be made again ({reason}); expected {difference.expected}")
                )
            else:
                mended.append(difference.name)
        if mended:
            with Session(connection, join_transaction_mode="create_savepoint") as session:
                record_event(session, actor, "mend", "schema", {"mended": mended})
                session.commit()
    return mended, errors


def _make(connection: Connection, difference: Difference) -> None:
    kind, _, name = difference.item.partition(" ")
    if difference.found is not None and kind != "function":  # a function is replaced
        on = f" ON {difference.table}" if kind == "trigger" and connection.dialect.name == "postgresql" else ""
        connection.execute(text(f"DROP {kind.upper()} {name}{on}"))
    connection.execute(text(str(difference.expected).replace(":", r"\:")))
