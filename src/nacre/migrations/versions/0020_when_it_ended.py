"""identity_ended.ended_at: rows go when no token of that age can live"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("identity_ended") as table:
        table.add_column(sa.Column("ended_at", sa.Float, server_default="0", nullable=False))
    # When those of before ended is not known: they count from now on.
    rows = sa.table("identity_ended", sa.column("ended_at", sa.Float))
    op.execute(sa.update(rows).values(ended_at=sa.extract("epoch", sa.func.current_timestamp())))
    op.create_index(op.f("ix_identity_ended_ended_at"), "identity_ended", ["ended_at"])
