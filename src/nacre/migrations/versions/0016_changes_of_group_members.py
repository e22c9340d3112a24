"""security_group_member_changes: what hosts have to hear of a security group's members"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Empty: hosts that know no version of a group are told all its members once.
    op.create_table(
        "security_group_member_changes",
        sa.Column("group_id", sa.String(36), nullable=False),
        sa.Column("n", sa.BigInteger().with_variant(sa.Integer, "sqlite"), autoincrement=False, nullable=False),
        sa.Column("port_id", sa.String(36), nullable=False),
        sa.PrimaryKeyConstraint("group_id", "n", "port_id", name=op.f("pk_security_group_member_changes")),
        sqlite_with_rowid=False)
    op.create_index("member_changes_by_number", "security_group_member_changes", ["n"])
