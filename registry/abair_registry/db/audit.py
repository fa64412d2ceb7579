"""The audit trail: who did what, when and why, as events that are only ever added."""

from __future__ import annotations

import getpass
import os
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from abair_registry.db.models import AdapterRow, EventRow, MemberRow, PluginRow, ReleaseRow, now


@dataclass(frozen=True)
class Actor:
    """Who does something, and why, for the audit trail."""

    name: str
    reason: str = ""


def this_user() -> str:
    """Return the login name, or the user id where the system has no name."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return f"uid {os.getuid()}" if hasattr(os, "getuid") else "unknown"


def record_event(
    session: Session,
    actor: Actor,
    action: str,
    subject: str,
    detail: dict[str, Any] | None = None,
    *,
    deployment: int | None = None,
    operation_id: int | None = None,
) -> None:
    """Add one event to the audit trail, in the transaction of the change that it describes."""
    session.add(
        EventRow(
            at=now(),
            actor=actor.name,
            action=action,
            subject=subject,
            reason=actor.reason,
            detail=detail or {},
            deployment_number=deployment,
            operation_id=operation_id,
        )
    )
    session.flush()


def events(session: Session, subject: str | None = None, limit: int = 100) -> list[EventRow]:
    """Return the newest events, of one subject or of all, the oldest of them first."""
    query = select(EventRow).order_by(EventRow.id.desc()).limit(limit)
    if subject is not None:
        query = query.where(EventRow.subject == subject)
    return list(session.scalars(query))[::-1]


def gate_summaries(session: Session) -> dict[int, str]:
    """Return what the gates said of each deployment that an operation proposed, by its number."""
    proposed = session.scalars(select(EventRow).where(EventRow.action == "propose").order_by(EventRow.id))
    return {
        event.deployment_number: str(event.detail["gates"])
        for event in proposed
        if event.deployment_number is not None and "gates" in event.detail
    }


def publications(session: Session) -> dict[int, list[EventRow]]:
    """Return the events that made each deployment live, by its number, the oldest first."""
    found: dict[int, list[EventRow]] = {}
    dated = select(EventRow).where(EventRow.deployment_number.is_not(None)).order_by(EventRow.id)
    for event in session.scalars(dated):
        if event.deployment_number is not None and "before" in event.detail:
            found.setdefault(event.deployment_number, []).append(event)
    return found


def taken_out_by(session: Session, plugin: PluginRow) -> str | None:
    """Return the kind of operation that last took a plugin out of what is live, if one did."""
    members = select(MemberRow.deployment_number).join(AdapterRow).join(ReleaseRow)
    holding = set(session.scalars(members.where(ReleaseRow.plugin_id == plugin.id)))
    published = select(EventRow).where(EventRow.deployment_number.is_not(None)).order_by(EventRow.id.desc())
    for event in session.scalars(published):
        before = event.detail.get("before")
        if isinstance(before, int) and before in holding and event.deployment_number not in holding:
            return event.action
    return None
