"""Moves the pointer: promote lets a challenger serve, rollback an earlier deployment.

Nothing is trained, nothing heavy is imported, and MLflow may be down.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from abair.errors import RegistryError
from abair_registry.db import queries
from abair_registry.db.models import PUBLISHED, DeploymentRow
from abair_registry.db.queries import Actor
from abair_registry.db.snapshot import live_snapshot, take_snapshot
from abair_registry.maintenance import integrity
from abair_registry.operations import lock
from abair_registry.operations.after_commit import follow
from abair_registry.operations.progress import Terminal, quiet
from abair_registry.plugins import calls
from abair_registry.registry import Registry
from abair_registry.tracking.mlflow_client import Runs


@dataclass(frozen=True)
class PointerMove:
    """Where the pointer went: the field names are those of its JSON."""

    operation: int
    outcome: str
    deployment: int
    before: int


def promote(
    registry: Registry, number: int | None, actor: Actor, *, force: bool = False, wait: bool = False,
    terminal: Terminal | None = None,
) -> PointerMove:  # fmt: skip
    """Let a challenger serve: the newest that waits for review, or the one of this number.

    Raises:
        RegistryError: there is none, it serves already, or (without `force`) another was its champion.
    """

    def target(session: Session, champion: int) -> DeploymentRow:
        if number is None:
            waiting = queries.challenger(session)
            if waiting is None:
                raise RegistryError(
                    "promote: found no challenger that waits for review; expected one made with --review; "
                    "see: abair-registry history"
                )
            return waiting
        found = _deployment(session, number)
        made_for = queries.champion_of(session, found)
        if not force and not queries.served(session, number) and made_for != champion:
            raise RegistryError(
                f"deployment {number}: was judged against deployment {made_for}, but {champion} is live now; add the "
                "plugin again, or take --force with a --reason"
            )
        return found

    return _move(registry, "promote", actor, target, {"number": number, "force": force}, wait, terminal or quiet())


def rollback(
    registry: Registry, to: int | None, actor: Actor, *, wait: bool = False, terminal: Terminal | None = None
) -> PointerMove:
    """Let an earlier deployment serve again: the one before the live one, or the one of this number.

    Raises:
        RegistryError: there is none, or it never served.
    """

    def target(session: Session, champion: int) -> DeploymentRow:
        earlier = queries.before(session, champion) if to is None else to
        if earlier is None:
            raise RegistryError(
                f"rollback: deployment {champion} is the first; expected an earlier one; see: abair-registry history"
            )
        found = _deployment(session, earlier)
        if not queries.served(session, earlier):
            raise RegistryError(
                f"deployment {earlier}: never served; expected one that did; to let it serve now, run: "
                f"abair-registry promote {earlier}"
            )
        return found

    return _move(registry, "rollback", actor, target, {"to": to}, wait, terminal or quiet())


def _move(
    registry: Registry,
    kind: str,
    actor: Actor,
    target: Callable[[Session, int], DeploymentRow],
    arguments: dict[str, Any],
    wait: bool,
    terminal: Terminal,
) -> PointerMove:
    """Point at a recorded deployment: one transaction, then what follows from it."""

    def chosen(session: Session) -> tuple[int, DeploymentRow]:
        champion = live_snapshot(session).number
        deployment = target(session, champion)
        if deployment.number == champion:
            raise RegistryError(
                f"deployment {champion}: is live already; expected another; see: abair-registry history"
            )
        for what, sha256 in integrity.named_files(deployment):
            if problem := registry.blobs.problem(sha256):
                raise RegistryError(
                    f"deployment {deployment.number}: {what}: {problem}; expected a whole deployment; nothing was "
                    "changed; bring it back from where it is whole: abair-registry pull"
                )
        return champion, deployment

    if not wait:  # what cannot be done leaves no operation behind
        lock.expect_nobody(registry.database)
        with registry.database.read() as session:
            chosen(session)
    working = lock.working(
        registry.database, kind, "deployment", actor, arguments=arguments, wait=wait, waiting=terminal.waiting
    )
    with working as work:
        work.step("publish")
        with work.session() as (session, operation):
            champion, deployment = chosen(session)
            number = deployment.number
            queries.publish(
                session, deployment, actor, action=kind, subject=f"deployment {number}", operation_id=operation.id,
                detail={"forced": True} if arguments.get("force") else None,
            )  # fmt: skip
            members = take_snapshot(session, deployment).members
            operation.step = PUBLISHED
            operation.detail = operation.detail | {"deployment": number}
        runs = Runs(registry.settings, patient=False)
        follow(registry, runs, calls.verify_plugins(members), terminal.warn)
        return PointerMove(work.id, "live", number, champion)


def _deployment(session: Session, number: int) -> DeploymentRow:
    found = session.get(DeploymentRow, number)
    if found is None:
        newest = session.scalar(select(DeploymentRow.number).order_by(DeploymentRow.number.desc()).limit(1))
        raise RegistryError(f"deployment {number}: there is none; expected 1 to {newest}; see: abair-registry history")
    return found
