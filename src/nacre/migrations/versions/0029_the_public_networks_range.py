"""For which range behind a machine's address the cloud has its public network's rows"""

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("cloud", sa.Column("external_cidr", sa.String(18)))
