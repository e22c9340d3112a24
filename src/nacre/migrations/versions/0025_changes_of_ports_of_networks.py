"""network_port_changes: what hosts have to hear of where the ports of a network are"""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Empty: hosts that know no version of a network are told all its ports once.
    op.create_table(
        "network_port_changes",
        sa.Column("network_id", sa.String(36), nullable=False),
        sa.Column("n", sa.BigInteger().with_variant(sa.Integer, "sqlite"), autoincrement=False, nullable=False),
        sa.Column("port_id", sa.String(36), nullable=False),
        sa.PrimaryKeyConstraint("network_id", "n", "port_id", name=op.f("pk_network_port_changes")),
        sqlite_with_rowid=False)
    op.create_index("placed_changes_by_number", "network_port_changes", ["n"])
    # Which agents keep ports of networks by differences: of the release before none does.
    op.add_column("network_agents", sa.Column("takes_differences", sa.Boolean, nullable=False,
                                              server_default=sa.false()))
