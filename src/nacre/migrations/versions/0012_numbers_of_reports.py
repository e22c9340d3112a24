"""compute_hosts: the number of the report that a row was written by; processes are found by their key"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # 0: of none. Rows that are there are written anew by the next report of their host, whatever its number.
    with op.batch_alter_table("compute_hosts") as table:
        for name in ("incarnation", "n"):
            table.add_column(sa.Column(name, sa.BigInteger(), server_default="0", nullable=False))
    # Whoever joins is looked for by its key, among ten thousand.
    op.create_index(op.f("ix_processes_public_key"), "processes", ["public_key"])
