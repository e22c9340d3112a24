"""by whom a server is locked: what an administrator locked a member does not unlock"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Who locked what is locked today was not written down: its owner may unlock it, as until now.
    op.add_column("servers", sa.Column("locked_by", sa.String(8), nullable=True))
    op.execute("UPDATE servers SET locked_by = 'owner' WHERE locked")
