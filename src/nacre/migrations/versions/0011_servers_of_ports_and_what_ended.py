"""the server of a port: by the cloud's word, where device_id is its owner's; what ended, and ended tokens with it"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("ports", sa.Column("server_id", sa.String(36)))
    op.create_index(op.f("ix_ports_server_id"), "ports", ["server_id"])
    # Ports that were made for a server are of its project, and its user's own say so (preserve): what else names a
    # server was only said, and becomes nobody's interface.
    op.execute("""
        UPDATE ports SET server_id = device_id WHERE device_owner LIKE 'compute:%' AND EXISTS (
            SELECT 1 FROM servers WHERE servers.id = ports.device_id
                AND (ports.preserve OR servers.project_id = ports.project_id))
    """)
    # Nothing has ended so far: tokens of before carry no revision, and end with the first thing they rest on.
    op.create_table(
        "identity_ended", sa.Column("id", sa.String(160), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_identity_ended")))
