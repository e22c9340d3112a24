"""eras: which history a database has"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # None is begun here: what hosts have seen so far is of the nameless one, which ends with the next start.
    op.create_table(
        "eras",
        sa.Column("n", sa.BigInteger().with_variant(sa.Integer, "sqlite"), autoincrement=False, nullable=False),
        sa.Column("id", sa.String(36), nullable=False),
        sa.PrimaryKeyConstraint("n", name=op.f("pk_eras")), sa.UniqueConstraint("id", name=op.f("uq_eras_id")))
