"""Operations of the kinds `upgrade` and `init`; on PostgreSQL no TRUNCATE of what is append-only.

Revision 0001 does not know the two kinds. On the way down such an operation becomes the kind that
does most of the same; its `detail` keeps what it was, and the way up restores it. One that was cut
short also loses its step, so that an older ABAIR does not offer to resume it as what it was not.
"""

import sqlalchemy as sa
from alembic import op

from abair_migrations import MigrationError

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

KINDS_BEFORE = ("import", "add", "disable", "enable", "remove", "promote", "rollback", "retrain")
OLDER_KINDS = {"upgrade": "retrain", "init": "import"}
KEPT = "as of 0002"
"""The key in `detail`."""
APPEND_ONLY = ("release", "adapter", "replay", "estimator", "deployment", "member", "event")

operation = sa.table(
    "operation",
    sa.column("id", sa.Integer()),
    sa.column("kind", sa.String()),
    sa.column("state", sa.String()),
    sa.column("step", sa.String()),
    sa.column("detail", sa.JSON()),
)


def upgrade() -> None:
    """Allow the kinds, and give back to operations what a downgrade took."""
    set_kinds((*KINDS_BEFORE, *OLDER_KINDS))
    connection = op.get_bind()
    older = sa.select(operation.c.id, operation.c.detail).where(operation.c.kind.in_(OLDER_KINDS.values()))
    for row in connection.execute(older).all():
        if KEPT in row.detail:
            detail = {key: value for key, value in row.detail.items() if key != KEPT}
            values = {**row.detail[KEPT], "detail": detail}
            connection.execute(operation.update().where(operation.c.id == row.id).values(values))
    if connection.dialect.name == "postgresql":
        for table in APPEND_ONLY:
            op.execute(
                f"CREATE TRIGGER tr_{table}_truncate BEFORE TRUNCATE ON {table} "
                "FOR EACH STATEMENT EXECUTE FUNCTION abair_append_only()"
            )


def downgrade() -> None:
    """Take the kinds back; refused while an operation of one of them is running."""
    connection = op.get_bind()
    newer = sa.select(operation).where(operation.c.kind.in_(OLDER_KINDS)).order_by(operation.c.id)
    for row in connection.execute(newer).all():
        if row.state == "running":
            raise MigrationError(
                f"operation {row.id} ({row.kind}) is running, and revision 0001 does not know its kind; let it end, "
                "or if its process is gone run: abair-registry doctor"
            )
        values = {
            "kind": OLDER_KINDS[row.kind],
            "step": row.step if row.state == "done" else "",
            "detail": {**row.detail, KEPT: {"kind": row.kind, "step": row.step}},
        }
        connection.execute(operation.update().where(operation.c.id == row.id).values(values))
    set_kinds(KINDS_BEFORE)
    if connection.dialect.name == "postgresql":
        for table in APPEND_ONLY:
            op.execute(f"DROP TRIGGER tr_{table}_truncate ON {table}")


def set_kinds(kinds: tuple[str, ...]) -> None:
    """Let operations be of these kinds; on SQLite the table is made anew."""
    with op.batch_alter_table("operation") as batch:
        batch.drop_constraint("ck_operation_kind", type_="check")
        batch.create_check_constraint("ck_operation_kind", f"kind IN ({', '.join(map(repr, kinds))})")
