"""The registry's tables. Constraints keep invalid states out.

Rows of `release`, `adapter`, `replay`, `estimator`, `deployment`, `member` and `event` are only
ever added; triggers in the migrations hold that. The only row of `live` points at the live
deployment.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    JSON,
    CheckConstraint,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    MetaData,
    String,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

PLUGIN_STATES: Final = ("candidate", "live", "disabled", "rejected", "removed")
OPERATION_STATES: Final = ("running", "done", "failed", "undone")
OPERATION_KINDS: Final = (
    "import", "add", "disable", "enable", "remove", "promote", "rollback", "retrain", "upgrade", "init"
)  # fmt: skip
APPEND_ONLY: Final = ("release", "adapter", "replay", "estimator", "deployment", "member", "event")


PUBLISHED: Final = "published"
"""The step recorded in the transaction that makes a deployment live.

From then on the operation is done.
"""
CONCLUSION: Final = "conclusion"
"""The key in `OperationRow.detail` of what the operation's MLflow run says at its end."""


class Moment(TypeDecorator[datetime]):
    """A moment in UTC. SQLite forgets time zones, so this type removes and restores them."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """Convert a moment to UTC without a zone. Raises ValueError for one that has no zone."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"found the moment {value} without a time zone; expected one with")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """Restore the zone."""
        return None if value is None else value.replace(tzinfo=UTC)


def now() -> datetime:
    """Return the current moment in UTC."""
    return datetime.now(UTC)


def _one_of(column: str, values: tuple[str, ...]) -> str:
    return f"{column} IN ({', '.join(repr(value) for value in values)})"


class Base(DeclarativeBase):
    """Base class of all tables."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it from the class
        datetime: Moment(),
        dict[str, Any]: JSON(),
        list[str]: JSON(),
    }


class BackboneRow(Base):
    """A frozen network, identified by its fingerprint; its file is a blob."""

    __tablename__ = "backbone"

    id: Mapped[int] = mapped_column(primary_key=True)
    size: Mapped[str] = mapped_column(String(40))
    fingerprint: Mapped[str] = mapped_column(String(64), unique=True)
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    created: Mapped[datetime]

    __table_args__ = (CheckConstraint("length(fingerprint) = 64 AND length(sha256) = 64", name="hashes"),)


class PluginRow(Base):
    """A plugin that an administrator added, by its entry point's name.

    Its state is a decision, not an observation.
    """

    __tablename__ = "plugin"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    distribution: Mapped[str] = mapped_column(String(200))
    state: Mapped[str] = mapped_column(String(20))
    reason: Mapped[str] = mapped_column(default="")
    created: Mapped[datetime]
    releases: Mapped[list[ReleaseRow]] = relationship(back_populates="plugin", order_by="ReleaseRow.id")

    __table_args__ = (
        CheckConstraint(_one_of("state", PLUGIN_STATES), name="state"),
        CheckConstraint("length(name) > 0", name="name"),
    )


class ReleaseRow(Base):
    """One version of a plugin as it was added: the hashes of its files and what it declares."""

    __tablename__ = "release"

    id: Mapped[int] = mapped_column(primary_key=True)
    plugin_id: Mapped[int] = mapped_column(ForeignKey("plugin.id"))
    version: Mapped[str] = mapped_column(String(100))
    module: Mapped[str] = mapped_column(String(300))
    files: Mapped[dict[str, Any]]
    declared: Mapped[dict[str, Any]]
    created: Mapped[datetime]
    plugin: Mapped[PluginRow] = relationship(back_populates="releases")
    adapters: Mapped[list[AdapterRow]] = relationship(back_populates="release", order_by="AdapterRow.id")

    __table_args__ = (UniqueConstraint("plugin_id", "version"),)


class AdapterRow(Base):
    """One degradation's adapter for one backbone; both files are blobs."""

    __tablename__ = "adapter"

    id: Mapped[int] = mapped_column(primary_key=True)
    release_id: Mapped[int] = mapped_column(ForeignKey("release.id"))
    backbone_id: Mapped[int] = mapped_column(ForeignKey("backbone.id"))
    degradation: Mapped[str] = mapped_column(String(40))
    title: Mapped[str]
    rank: Mapped[int]
    parameters: Mapped[int]
    config_sha256: Mapped[str] = mapped_column(String(64))
    weights_sha256: Mapped[str] = mapped_column(String(64))
    release: Mapped[ReleaseRow] = relationship(back_populates="adapters")
    backbone: Mapped[BackboneRow] = relationship()

    __table_args__ = (
        UniqueConstraint("release_id", "degradation", "backbone_id"),
        CheckConstraint("rank > 0 AND parameters > 0", name="sizes"),
        CheckConstraint("length(config_sha256) = 64 AND length(weights_sha256) = 64", name="hashes"),
        CheckConstraint("degradation <> 'clean'", name="degradation"),
    )


class ReplayRow(Base):
    """Features and samples of an adapter's label for later estimators, a blob.

    Without an adapter, of clean photos.
    """

    __tablename__ = "replay"

    id: Mapped[int] = mapped_column(primary_key=True)
    backbone_id: Mapped[int] = mapped_column(ForeignKey("backbone.id"))
    adapter_id: Mapped[int | None] = mapped_column(ForeignKey("adapter.id"))
    sha256: Mapped[str] = mapped_column(String(64))
    created: Mapped[datetime]

    __table_args__ = (CheckConstraint("length(sha256) = 64", name="hash"),)


class EstimatorRow(Base):
    """An estimator's weights, a blob, and the labels of its outputs in order."""

    __tablename__ = "estimator"

    id: Mapped[int] = mapped_column(primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    labels: Mapped[list[str]]
    created: Mapped[datetime]

    __table_args__ = (CheckConstraint("length(sha256) = 64", name="hash"),)


class DeploymentRow(Base):
    """A numbered bundle that was live, or was proposed."""

    __tablename__ = "deployment"

    number: Mapped[int] = mapped_column(primary_key=True)
    backbone_id: Mapped[int] = mapped_column(ForeignKey("backbone.id"))
    estimator_id: Mapped[int] = mapped_column(ForeignKey("estimator.id"))
    operation_id: Mapped[int | None] = mapped_column(ForeignKey("operation.id"))
    created: Mapped[datetime]
    actor: Mapped[str] = mapped_column(String(200))
    reason: Mapped[str]
    run_id: Mapped[str | None] = mapped_column(String(100))
    backbone: Mapped[BackboneRow] = relationship()
    estimator: Mapped[EstimatorRow] = relationship()
    members: Mapped[list[MemberRow]] = relationship(order_by="MemberRow.position")

    __table_args__ = (CheckConstraint("number > 0", name="number"),)

    @property
    def labels(self) -> list[str]:
        """The estimator's labels: the members' degradations and, last, `clean`."""
        return list(self.estimator.labels)


class MemberRow(Base):
    """An adapter in a deployment, at its position in the order of the labels."""

    __tablename__ = "member"

    deployment_number: Mapped[int] = mapped_column(ForeignKey("deployment.number"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    adapter_id: Mapped[int] = mapped_column(ForeignKey("adapter.id"))
    label: Mapped[str] = mapped_column(String(40))
    adapter: Mapped[AdapterRow] = relationship()

    __table_args__ = (
        UniqueConstraint("deployment_number", "label"),
        UniqueConstraint("deployment_number", "adapter_id"),
        CheckConstraint("position >= 0", name="position"),
        CheckConstraint("label <> 'clean'", name="label"),
    )


class LiveRow(Base):
    """The only row that points at the live deployment."""

    __tablename__ = "live"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, default=1)
    deployment_number: Mapped[int] = mapped_column(ForeignKey("deployment.number"))
    since: Mapped[datetime]
    deployment: Mapped[DeploymentRow] = relationship()

    __table_args__ = (CheckConstraint("id = 1", name="one"),)


class OperationRow(Base):
    """An operation, running or ended: by whom, at which step, and when it began."""

    __tablename__ = "operation"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))
    subject: Mapped[str] = mapped_column(String(200))
    state: Mapped[str] = mapped_column(String(20))
    step: Mapped[str] = mapped_column(String(40), default="")
    actor: Mapped[str] = mapped_column(String(200))
    reason: Mapped[str] = mapped_column(default="")
    host: Mapped[str] = mapped_column(String(200))
    process: Mapped[int]
    started: Mapped[datetime]
    heartbeat: Mapped[datetime]
    finished: Mapped[datetime | None]
    error: Mapped[str | None]
    detail: Mapped[dict[str, Any]] = mapped_column(default=dict)

    __table_args__ = (
        CheckConstraint(_one_of("kind", OPERATION_KINDS), name="kind"),
        CheckConstraint(_one_of("state", OPERATION_STATES), name="state"),
        CheckConstraint("(state = 'running') = (finished IS NULL)", name="finished"),
        # one operation at a time: this index holds at most one row
        Index(
            "ix_operation_running",
            "state",
            unique=True,
            sqlite_where=text("state = 'running'"),
            # PostgreSQL's condition is in the migration: here it would cost `list` 0.1 s
        ),
    )


class EventRow(Base):
    """The audit trail: who did what to what, when and why."""

    __tablename__ = "event"

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    actor: Mapped[str] = mapped_column(String(200))
    action: Mapped[str] = mapped_column(String(40))
    subject: Mapped[str] = mapped_column(String(200), index=True)
    reason: Mapped[str]
    deployment_number: Mapped[int | None] = mapped_column(ForeignKey("deployment.number"))
    operation_id: Mapped[int | None] = mapped_column(ForeignKey("operation.id"))
    detail: Mapped[dict[str, Any]] = mapped_column(default=dict)

    __table_args__ = (CheckConstraint("length(actor) > 0 AND length(action) > 0", name="who"),)
