"""legs_of_networks: the routers of a network are found however many ports it has"""

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None


def upgrade() -> None:
    legs = sa.text("device_owner = 'network:router_interface'")
    op.create_index("legs_of_networks", "ports", ["network_id", "device_owner", "device_id"], sqlite_where=legs,
                    postgresql_where=legs)
