"""whose a tunnel address is; networks that a policy opens as external ones are"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("agents_by_tunnel", "network_agents", ["tunnel_ip"])
    networks = sa.table("networks", sa.column("id"), sa.column("external", sa.Boolean))
    policies = sa.table("network_rbac_policies", sa.column("object_id"), sa.column("action"))
    op.execute(sa.update(networks).where(networks.c.id.in_(sa.select(policies.c.object_id).where(
        policies.c.action == "access_as_external"))).values(external=True))
    # What nobody reaches is no tunnel address; the host says so itself with its next report.
    agents = sa.table("network_agents", sa.column("tunnel_ip"))
    op.execute(sa.update(agents).where(agents.c.tunnel_ip.like("127.%")).values(tunnel_ip=None))


def downgrade() -> None:
    op.drop_index("agents_by_tunnel", table_name="network_agents")
