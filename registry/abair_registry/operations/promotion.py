"""Promote and Rollback: operations that make a recorded deployment live.

They only move the pointer. Nothing is trained, nothing heavy is imported, and MLflow may be down.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from sqlalchemy import select
from sqlalchemy.orm import Session
from typing_extensions import override

from abair.errors import RegistryError
from abair_registry.db import queries
from abair_registry.db.audit import Actor
from abair_registry.db.models import PUBLISHED, DeploymentRow
from abair_registry.db.snapshot import live_snapshot, take_snapshot
from abair_registry.maintenance import integrity
from abair_registry.operations import lock
from abair_registry.operations.after_commit import follow
from abair_registry.operations.progress import Terminal, quiet
from abair_registry.operations.requests import Operation, PointerMove
from abair_registry.plugins import calls
from abair_registry.registry import Registry
from abair_registry.tracking.mlflow_client import Runs


class _PointerOperation(Operation):
    """An operation that makes a recorded deployment live, of a number or of its choice."""

    subject = "deployment"
    force = False

    def __init__(self, number: int | None, actor: Actor, *, wait: bool = False) -> None:
        self.number, self.actor, self.wait = number, actor, wait

    @abstractmethod
    def target(self, session: Session, champion: int) -> DeploymentRow:
        """Return the deployment to make live.

        Raises:
            RegistryError: There is none, or this operation may not make it live.
        """

    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """Return what is recorded, from which `from_record` makes the same operation."""

    @override
    def run(self, registry: Registry, terminal: Terminal | None = None) -> PointerMove:
        """Make the target live in one transaction, then update the file, MLflow and the plugins.

        Raises:
            RegistryError: The target cannot be made live, or another operation is running.
        """
        terminal = terminal or quiet()
        if not self.wait:  # what cannot be done leaves no operation behind
            lock.expect_nobody(registry.database)
            if (unchanged := self._unchanged(registry)) is not None:
                return unchanged
        working = lock.working(
            registry.database, self.kind, self.subject, self.actor,
            arguments=self.arguments(), wait=self.wait, waiting=terminal.waiting,
        )  # fmt: skip
        with working as work:
            if (unchanged := self._unchanged(registry, work.id)) is not None:
                return unchanged
            work.step("publish")
            with work.session() as (session, operation):
                champion, deployment = self._checked_target(session, registry)
                number = deployment.number
                queries.publish(
                    session, deployment, self.actor, action=self.kind, subject=f"deployment {number}",
                    operation_id=operation.id, detail={"forced": True} if self.force else None,
                )  # fmt: skip
                members = take_snapshot(session, deployment).members
                files = queries.recorded_files(session, (member.adapter_id for member in members))
                operation.step = PUBLISHED
                operation.detail = {**operation.detail, "deployment": number}
            runs = Runs(registry.settings, patient=False)
            follow(registry, runs, calls.verify_plugins(members, files), terminal, work.id)
            return PointerMove(work.id, "live", number, champion)

    def _unchanged(self, registry: Registry, operation: int | None = None) -> PointerMove | None:
        """Return how the operation ends if its target is live already.

        Raises:
            RegistryError: The target cannot be made live.
        """
        with registry.database.read() as session:
            champion, deployment = self._checked_target(session, registry)
            if deployment.number != champion:
                return None
        return PointerMove(operation, "live", champion, champion, f"deployment {champion}: is live already")

    def _checked_target(self, session: Session, registry: Registry) -> tuple[int, DeploymentRow]:
        """Return the champion's number, and the target, if that is whole."""
        champion = live_snapshot(session).number
        deployment = self.target(session, champion)
        for file in integrity.deployment_files(deployment):
            if problem := registry.blobs.problem(file.sha256):
                raise RegistryError(
                    f"deployment {deployment.number}: {file.description}: {problem}; expected a whole deployment; "
                    "nothing was changed; run: abair-registry verify, which says what helps"
                )
        return champion, deployment


class Promote(_PointerOperation):
    """Make a challenger live: the newest that waits for review, or the deployment of a number.

    Without `force`, a deployment that was never live must have been compared with the live one.
    """

    kind: ClassVar[str] = "promote"

    def __init__(self, number: int | None, actor: Actor, *, force: bool = False, wait: bool = False) -> None:
        super().__init__(number, actor, wait=wait)
        self.force = force

    @classmethod
    @override
    def from_record(cls, subject: str, arguments: Mapping[str, Any], actor: Actor) -> Self:
        """Return the operation that was recorded with these arguments."""
        return cls(arguments.get("number"), actor, force=bool(arguments.get("force")))

    @override
    def arguments(self) -> dict[str, Any]:
        """Return what is recorded."""
        return {"number": self.number, "force": self.force}

    @override
    def target(self, session: Session, champion: int) -> DeploymentRow:
        """Return the challenger.

        Raises:
            RegistryError: There is none, or it was compared with another champion.
        """
        if self.number is None:
            waiting = queries.challenger(session)
            if waiting is None:
                raise RegistryError(
                    "promote: found no challenger that waits for review; expected one made with --review; "
                    "see: abair-registry history"
                )
            return waiting
        found = _deployment(session, self.number)
        compared_with = queries.champion_of(session, found)
        if not self.force and not queries.was_live(session, self.number) and compared_with != champion:
            raise RegistryError(
                f"deployment {self.number}: was judged against deployment {compared_with}, but {champion} is live now; "
                "add the plugin again, or take --force with a --reason"
            )
        return found


class Rollback(_PointerOperation):
    """Make an earlier deployment live again: the one before, or the one of a number."""

    kind: ClassVar[str] = "rollback"

    @classmethod
    @override
    def from_record(cls, subject: str, arguments: Mapping[str, Any], actor: Actor) -> Self:
        """Return the operation that was recorded with these arguments."""
        return cls(arguments.get("to"), actor)

    @override
    def arguments(self) -> dict[str, Any]:
        """Return what is recorded."""
        return {"to": self.number}

    @override
    def target(self, session: Session, champion: int) -> DeploymentRow:
        """Return the earlier deployment.

        Raises:
            RegistryError: There is none, or it was never live.
        """
        earlier = queries.predecessor(session, champion) if self.number is None else self.number
        if earlier is None:
            raise RegistryError(
                f"rollback: deployment {champion} is the first; expected an earlier one; see: abair-registry history"
            )
        found = _deployment(session, earlier)
        if not queries.was_live(session, earlier):
            raise RegistryError(
                f"deployment {earlier}: never served; expected one that did; to let it serve now, run: "
                f"abair-registry promote {earlier}"
            )
        return found


def _deployment(session: Session, number: int) -> DeploymentRow:
    newest = session.scalar(select(DeploymentRow.number).order_by(DeploymentRow.number.desc()).limit(1))
    found = session.get(DeploymentRow, number) if newest and 0 < number <= newest else None  # no column holds more
    if found is None:
        raise RegistryError(f"deployment {number}: there is none; expected 1 to {newest}; see: abair-registry history")
    return found
