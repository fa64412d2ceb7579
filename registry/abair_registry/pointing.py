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
from abair_registry import hooks, inspection, operations, store
from abair_registry.catalogue import Catalogue
from abair_registry.following import follow
from abair_registry.models import Deployment
from abair_registry.operations import PUBLISHED
from abair_registry.progress import Terminal, quiet
from abair_registry.runs import Runs
from abair_registry.serving import live, serving
from abair_registry.store import Who


@dataclass(frozen=True)
class Moved:
    """Where the pointer went: the field names are those of its JSON."""

    operation: int
    outcome: str
    deployment: int
    before: int


def promote(
    opened: Catalogue, number: int | None, who: Who, *, force: bool = False, wait: bool = False,
    terminal: Terminal | None = None,
) -> Moved:  # fmt: skip
    """Let a challenger serve: the newest that waits for review, or the one of this number.

    Raises:
        RegistryError: there is none, it serves already, or (without `force`) another was its champion.
    """

    def target(session: Session, champion: int) -> Deployment:
        if number is None:
            waiting = store.challenger(session)
            if waiting is None:
                raise RegistryError(
                    "promote: found no challenger that waits for review; expected one made with --review; "
                    "see: abair-registry history"
                )
            return waiting
        found = _deployment(session, number)
        made_for = store.champion_of(session, found)
        if not force and not store.served(session, number) and made_for != champion:
            raise RegistryError(
                f"deployment {number}: was judged against deployment {made_for}, but {champion} is live now; add the "
                "plugin again, or take --force with a --reason"
            )
        return found

    return _move(opened, "promote", who, target, {"number": number, "force": force}, wait, terminal or quiet())


def rollback(
    opened: Catalogue, to: int | None, who: Who, *, wait: bool = False, terminal: Terminal | None = None
) -> Moved:
    """Let an earlier deployment serve again: the one before the live one, or the one of this number.

    Raises:
        RegistryError: there is none, or it never served.
    """

    def target(session: Session, champion: int) -> Deployment:
        earlier = store.before(session, champion) if to is None else to
        if earlier is None:
            raise RegistryError(
                f"rollback: deployment {champion} is the first; expected an earlier one; see: abair-registry history"
            )
        found = _deployment(session, earlier)
        if not store.served(session, earlier):
            raise RegistryError(
                f"deployment {earlier}: never served; expected one that did; to let it serve now, run: "
                f"abair-registry promote {earlier}"
            )
        return found

    return _move(opened, "rollback", who, target, {"to": to}, wait, terminal or quiet())


def _move(
    opened: Catalogue,
    kind: str,
    who: Who,
    target: Callable[[Session, int], Deployment],
    arguments: dict[str, Any],
    wait: bool,
    terminal: Terminal,
) -> Moved:
    """Point at a recorded deployment: one transaction, then what follows from it."""

    def chosen(session: Session) -> tuple[int, Deployment]:
        champion = live(session).number
        deployment = target(session, champion)
        if deployment.number == champion:
            raise RegistryError(
                f"deployment {champion}: is live already; expected another; see: abair-registry history"
            )
        for what, sha256 in inspection.named_files(deployment):
            if problem := opened.blobs.problem(sha256):
                raise RegistryError(
                    f"deployment {deployment.number}: {what}: {problem}; expected a whole deployment; nothing was "
                    "changed; bring it back from where it is whole: abair-registry pull"
                )
        return champion, deployment

    if not wait:  # what cannot be done leaves no operation behind
        operations.expect_nobody(opened.database)
        with opened.database.read() as session:
            chosen(session)
    working = operations.working(
        opened.database, kind, "deployment", who, arguments=arguments, wait=wait, waiting=terminal.waiting
    )
    with working as work:
        work.step("publish")
        with work.session() as (session, operation):
            champion, deployment = chosen(session)
            number = deployment.number
            store.publish(
                session, deployment, who, action=kind, subject=f"deployment {number}", operation_id=operation.id,
                detail={"forced": True} if arguments.get("force") else None,
            )  # fmt: skip
            parts = serving(session, deployment).parts
            operation.step = PUBLISHED
            operation.detail = operation.detail | {"deployment": number}
        runs = Runs(opened.settings, patient=False)
        follow(opened, runs, hooks.trusted(parts), terminal.warn)
        return Moved(work.id, "live", number, champion)


def _deployment(session: Session, number: int) -> Deployment:
    found = session.get(Deployment, number)
    if found is None:
        newest = session.scalar(select(Deployment.number).order_by(Deployment.number.desc()).limit(1))
        raise RegistryError(f"deployment {number}: there is none; expected 1 to {newest}; see: abair-registry history")
    return found
