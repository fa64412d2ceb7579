"""The first tables, and triggers that keep what was told once."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

APPEND_ONLY = ("release", "adapter", "replay", "estimator", "deployment", "member", "event")


TRIGGERS = {
    "sqlite": tuple(
        f"CREATE TRIGGER tr_{{table}}_{event} BEFORE {event.upper()} ON {{table}} "
        "BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
        for event in ("update", "delete")
    ),
    "postgresql": (
        "CREATE OR REPLACE FUNCTION abair_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$",
        *(
            f"CREATE TRIGGER tr_{{table}}_{event} BEFORE {event.upper()} ON {{table}} "
            "FOR EACH ROW EXECUTE FUNCTION abair_append_only()"
            for event in ("update", "delete")
        ),
    ),
}


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "backbone",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("size", sa.String(length=40), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.CheckConstraint("length(fingerprint) = 64 AND length(sha256) = 64", name="ck_backbone_hashes"),
        sa.PrimaryKeyConstraint("id", name="pk_backbone"),
        sa.UniqueConstraint("fingerprint", name="uq_backbone_fingerprint"),
        sa.UniqueConstraint("sha256", name="uq_backbone_sha256"),
    )
    op.create_table(
        "estimator",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.CheckConstraint("length(sha256) = 64", name="ck_estimator_hash"),
        sa.PrimaryKeyConstraint("id", name="pk_estimator"),
        sa.UniqueConstraint("sha256", name="uq_estimator_sha256"),
    )
    op.create_table(
        "operation",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("subject", sa.String(length=200), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("step", sa.String(length=40), nullable=False),
        sa.Column("actor", sa.String(length=200), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("host", sa.String(length=200), nullable=False),
        sa.Column("process", sa.Integer(), nullable=False),
        sa.Column("started", sa.DateTime(), nullable=False),
        sa.Column("heartbeat", sa.DateTime(), nullable=False),
        sa.Column("finished", sa.DateTime(), nullable=True),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.CheckConstraint("(state = 'running') = (finished IS NULL)", name="ck_operation_finished"),
        sa.CheckConstraint(
            "kind IN ('import', 'add', 'disable', 'enable', 'remove', 'promote', 'rollback', 'retrain')",
            name="ck_operation_kind",
        ),
        sa.CheckConstraint("state IN ('running', 'done', 'failed', 'undone')", name="ck_operation_state"),
        sa.PrimaryKeyConstraint("id", name="pk_operation"),
    )
    op.create_index(
        "ix_operation_running",
        "operation",
        ["state"],
        unique=True,
        sqlite_where=sa.text("state = 'running'"),
        postgresql_where=sa.text("state = 'running'"),
    )
    op.create_table(
        "plugin",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("distribution", sa.String(length=200), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.CheckConstraint("state IN ('candidate', 'live', 'disabled', 'rejected', 'removed')", name="ck_plugin_state"),
        sa.CheckConstraint("length(name) > 0", name="ck_plugin_name"),
        sa.PrimaryKeyConstraint("id", name="pk_plugin"),
        sa.UniqueConstraint("name", name="uq_plugin_name"),
    )
    op.create_table(
        "deployment",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("backbone_id", sa.Integer(), nullable=False),
        sa.Column("estimator_id", sa.Integer(), nullable=False),
        sa.Column("operation_id", sa.Integer(), nullable=True),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.Column("actor", sa.String(length=200), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("run_id", sa.String(length=100), nullable=True),
        sa.CheckConstraint("number > 0", name="ck_deployment_number"),
        sa.ForeignKeyConstraint(["backbone_id"], ["backbone.id"], name="fk_deployment_backbone_id_backbone"),
        sa.ForeignKeyConstraint(["estimator_id"], ["estimator.id"], name="fk_deployment_estimator_id_estimator"),
        sa.ForeignKeyConstraint(["operation_id"], ["operation.id"], name="fk_deployment_operation_id_operation"),
        sa.PrimaryKeyConstraint("number", name="pk_deployment"),
    )
    op.create_table(
        "release",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("plugin_id", sa.Integer(), nullable=False),
        sa.Column("version", sa.String(length=100), nullable=False),
        sa.Column("module", sa.String(length=300), nullable=False),
        sa.Column("files", sa.JSON(), nullable=False),
        sa.Column("declared", sa.JSON(), nullable=False),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["plugin_id"], ["plugin.id"], name="fk_release_plugin_id_plugin"),
        sa.PrimaryKeyConstraint("id", name="pk_release"),
        sa.UniqueConstraint("plugin_id", "version", name="uq_release_plugin_id_version"),
    )
    op.create_table(
        "adapter",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("release_id", sa.Integer(), nullable=False),
        sa.Column("backbone_id", sa.Integer(), nullable=False),
        sa.Column("degradation", sa.String(length=40), nullable=False),
        sa.Column("title", sa.String(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("parameters", sa.Integer(), nullable=False),
        sa.Column("config_sha256", sa.String(length=64), nullable=False),
        sa.Column("weights_sha256", sa.String(length=64), nullable=False),
        sa.CheckConstraint("degradation <> 'clean'", name="ck_adapter_degradation"),
        sa.CheckConstraint("length(config_sha256) = 64 AND length(weights_sha256) = 64", name="ck_adapter_hashes"),
        sa.CheckConstraint("rank > 0 AND parameters > 0", name="ck_adapter_sizes"),
        sa.ForeignKeyConstraint(["backbone_id"], ["backbone.id"], name="fk_adapter_backbone_id_backbone"),
        sa.ForeignKeyConstraint(["release_id"], ["release.id"], name="fk_adapter_release_id_release"),
        sa.PrimaryKeyConstraint("id", name="pk_adapter"),
        sa.UniqueConstraint(
            "release_id", "degradation", "backbone_id", name="uq_adapter_release_id_degradation_backbone_id"
        ),
    )
    op.create_table(
        "replay",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("backbone_id", sa.Integer(), nullable=False),
        sa.Column("adapter_id", sa.Integer(), nullable=True),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.CheckConstraint("length(sha256) = 64", name="ck_replay_hash"),
        sa.ForeignKeyConstraint(["adapter_id"], ["adapter.id"], name="fk_replay_adapter_id_adapter"),
        sa.ForeignKeyConstraint(["backbone_id"], ["backbone.id"], name="fk_replay_backbone_id_backbone"),
        sa.PrimaryKeyConstraint("id", name="pk_replay"),
    )
    op.create_table(
        "event",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.Column("actor", sa.String(length=200), nullable=False),
        sa.Column("action", sa.String(length=40), nullable=False),
        sa.Column("subject", sa.String(length=200), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("deployment_number", sa.Integer(), nullable=True),
        sa.Column("operation_id", sa.Integer(), nullable=True),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.CheckConstraint("length(actor) > 0 AND length(action) > 0", name="ck_event_who"),
        sa.ForeignKeyConstraint(
            ["deployment_number"], ["deployment.number"], name="fk_event_deployment_number_deployment"
        ),
        sa.ForeignKeyConstraint(["operation_id"], ["operation.id"], name="fk_event_operation_id_operation"),
        sa.PrimaryKeyConstraint("id", name="pk_event"),
    )
    op.create_index("ix_event_subject", "event", ["subject"], unique=False)
    op.create_table(
        "live",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("deployment_number", sa.Integer(), nullable=False),
        sa.Column("since", sa.DateTime(), nullable=False),
        sa.CheckConstraint("id = 1", name="ck_live_one"),
        sa.ForeignKeyConstraint(
            ["deployment_number"], ["deployment.number"], name="fk_live_deployment_number_deployment"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_live"),
    )
    op.create_table(
        "member",
        sa.Column("deployment_number", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("adapter_id", sa.Integer(), nullable=False),
        sa.Column("label", sa.String(length=40), nullable=False),
        sa.CheckConstraint("label <> 'clean'", name="ck_member_label"),
        sa.CheckConstraint("position >= 0", name="ck_member_position"),
        sa.ForeignKeyConstraint(["adapter_id"], ["adapter.id"], name="fk_member_adapter_id_adapter"),
        sa.ForeignKeyConstraint(
            ["deployment_number"], ["deployment.number"], name="fk_member_deployment_number_deployment"
        ),
        sa.PrimaryKeyConstraint("deployment_number", "position", name="pk_member"),
        sa.UniqueConstraint("deployment_number", "adapter_id", name="uq_member_deployment_number_adapter_id"),
        sa.UniqueConstraint("deployment_number", "label", name="uq_member_deployment_number_label"),
    )
    for table in APPEND_ONLY:
        for statement in TRIGGERS[op.get_bind().dialect.name]:
            op.execute(statement.format(table=table))


def downgrade() -> None:
    """Drop the tables with all that they hold."""
    for table in APPEND_ONLY:
        for name in ("update", "delete"):
            on = f" ON {table}" if op.get_bind().dialect.name == "postgresql" else ""
            op.execute(f"DROP TRIGGER tr_{table}_{name}{on}")
    op.drop_table("member")
    op.drop_table("live")
    op.drop_table("event")
    op.drop_table("replay")
    op.drop_table("adapter")
    op.drop_table("release")
    op.drop_table("deployment")
    op.drop_table("plugin")
    op.drop_table("operation")
    op.drop_table("estimator")
    op.drop_table("backbone")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION abair_append_only()")
