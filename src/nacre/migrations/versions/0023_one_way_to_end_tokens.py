"""identity_ended says of every token that it is over: what identity_revocations and users' tokens_valid_from said"""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

ended = sa.table("identity_ended", sa.column("id", sa.String), sa.column("revision", sa.Integer),
                 sa.column("ended_at", sa.Float))
users = sa.table("identity_users", sa.column("id", sa.String), sa.column("tokens_valid_from", sa.Float))
revocations = sa.table("identity_revocations", sa.column("audit_id", sa.String))
count = sa.table("identity_revision", sa.column("value", sa.Integer))


def upgrade() -> None:
    """Both count from now on, as what ended without saying when: forgotten when no token of today can live."""
    # At which revision a token was issued is not known, but that it was no later than today's.
    later = sa.select(sa.func.coalesce(sa.func.max(count.c.value), 0) + 1).scalar_subquery()
    op.execute(sa.insert(ended).from_select(["id", "revision", "ended_at"], sa.select(
        sa.literal("token:") + revocations.c.audit_id, later, sa.literal(0.0))))
    # A password that changed since tokens carry a revision is there, or was forgotten for its age. Of one that changed
    # before, the tokens carry none: they end with the first.
    user = sa.literal("user:") + users.c.id
    op.execute(sa.insert(ended).from_select(["id", "revision", "ended_at"], sa.select(
        user, sa.literal(1), sa.literal(0.0)).where(
            users.c.tokens_valid_from > 0, ~sa.exists().where(ended.c.id == user))))
    op.drop_table("identity_revocations")
    op.add_column("identity_ended", sa.Column("owner", sa.String(160)))
    op.create_index("ix_identity_ended_owner", "identity_ended", ["owner"])
    with op.batch_alter_table("identity_users") as table:
        table.drop_column("tokens_valid_from")
