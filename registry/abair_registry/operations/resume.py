"""Resume: run again the operation that was killed, stopped or failed last."""

from __future__ import annotations

from typing import Final

from abair.errors import RegistryError
from abair_registry.db.audit import Actor
from abair_registry.operations import lock
from abair_registry.operations.lifecycle import Add, Disable, Enable, Remove, Retrain
from abair_registry.operations.progress import Terminal
from abair_registry.operations.promotion import Promote, Rollback
from abair_registry.operations.requests import Operation, OperationResult, PointerMove
from abair_registry.operations.upgrade import Upgrade
from abair_registry.registry import Registry

OPERATIONS: Final[dict[str, type[Operation]]] = {
    operation.kind: operation for operation in (Add, Enable, Disable, Remove, Retrain, Upgrade, Promote, Rollback)
}
"""All operations, by the kind under which they are recorded."""


def resume(registry: Registry, actor: Actor, terminal: Terminal | None = None) -> OperationResult | PointerMove | None:
    """Run the newest interrupted operation again with its recorded arguments.

    What it had made already is used. An actor without a reason gets the recorded one.

    Returns:
        How it ended; None if no operation was interrupted.

    Raises:
        AbairError: The operation failed again.
        RegistryError: Another operation is running.
    """
    lock.recover(registry.database)
    with registry.database.read() as session:
        other = lock.running(session)
        if other is not None:
            raise RegistryError(f"registry: {other}; expected nobody; try again later")
        row = lock.interrupted(session)
        if row is None:
            return None
        number = row.id
        kind, subject, arguments = row.kind, row.subject, dict(row.detail.get("arguments", {}))
        actor = Actor(actor.name, actor.reason or row.reason)
    result = OPERATIONS[kind].from_record(subject, arguments, actor).run(registry, terminal)
    if result.operation is None:
        lock.settle(registry.database, number)
    return result
