"""network_usage: the address scopes that projects have, now that a quota counts them"""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    scopes = sa.table("address_scopes", sa.column("project_id", sa.String))
    usage = sa.table("network_usage", sa.column("project_id", sa.String), sa.column("resource", sa.String),
                     sa.column("used", sa.Integer))
    op.execute(sa.insert(usage).from_select(["project_id", "resource", "used"], sa.select(
        scopes.c.project_id, sa.literal("address_scope"), sa.func.count()).group_by(scopes.c.project_id)))
