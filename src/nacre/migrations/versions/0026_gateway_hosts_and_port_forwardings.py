"""Port forwardings; which host translates for a router; a floating IP of each external network for an address"""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "port_forwardings",
        sa.Column("id", sa.String(36), nullable=False), sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("floatingip_id", sa.String(36), nullable=False),
        sa.Column("internal_port_id", sa.String(36), nullable=False),
        sa.Column("description", sa.String(255), nullable=False), sa.Column("protocol", sa.String(16), nullable=False),
        sa.Column("external_first", sa.Integer, nullable=False), sa.Column("external_last", sa.Integer, nullable=False),
        sa.Column("internal_ip_address", sa.String(15), nullable=False),
        sa.Column("internal_first", sa.Integer, nullable=False), sa.Column("internal_last", sa.Integer, nullable=False),
        sa.ForeignKeyConstraint(["floatingip_id"], ["floatingips.id"], ondelete="CASCADE",
                                name=op.f("fk_port_forwardings_floatingip_id_floatingips")),
        sa.ForeignKeyConstraint(["internal_port_id"], ["ports.id"], ondelete="CASCADE",
                                name=op.f("fk_port_forwardings_internal_port_id_ports")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_port_forwardings")),
        sa.UniqueConstraint("floatingip_id", "protocol", "external_first", name="one_forwarding_of_an_outer_port"),
        sa.UniqueConstraint("internal_port_id", "internal_ip_address", "protocol", "internal_first",
                            name="one_forwarding_to_an_inner_port"))
    op.create_index(op.f("ix_port_forwardings_floatingip_id"), "port_forwardings", ["floatingip_id"])
    op.create_index(op.f("ix_port_forwardings_internal_port_id"), "port_forwardings", ["internal_port_id"])
    with op.batch_alter_table("routers") as table:
        table.add_column(sa.Column("gateway_host", sa.String(255)))
        table.add_column(sa.Column("gateway_term", sa.Integer, nullable=False, server_default="0"))
        for name in ("distributed", "ha"):
            table.add_column(sa.Column(name, sa.Boolean, nullable=False, server_default=sa.false()))
        table.create_index(op.f("ix_routers_gateway_host"), ["gateway_host"])
    with op.batch_alter_table("routers") as table:
        for name in ("gateway_term", "distributed", "ha"):
            table.alter_column(name, server_default=None)
    with op.batch_alter_table("floatingips") as table:
        table.drop_constraint(op.f("uq_floatingips_port_id_fixed_ip_address"), type_="unique")
        table.create_unique_constraint("one_floating_ip_a_network_of_an_address",
                                       ["floating_network_id", "port_id", "fixed_ip_address"])
