"""a binding per host; what projects use, counted; tunnel addresses in a column of their own"""

import ipaddress

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

#: What quotas count, and where its rows are.
COUNTED = {
    "network": "networks", "subnet": "subnets", "port": "ports", "router": "routers", "floatingip": "floatingips",
    "security_group": "security_groups", "security_group_rule": "security_group_rules", "subnetpool": "subnetpools",
    "rbac_policy": "network_rbac_policies", "address_group": "address_groups",
}
_MOVED = ("host", "vnic_type", "vif_type", "vif_details", "profile")


def upgrade() -> None:
    _bindings()
    _levels()
    _groups()
    with op.batch_alter_table("ports") as batch:
        batch.drop_index("ports_of_networks_on_hosts")
        batch.drop_index("ix_ports_host")
        for name in _MOVED:
            batch.drop_column(name)
    _usage()
    _tunnels()
    # Those that a deleted port left behind.
    op.execute("delete from network_segments where dynamic and id not in (select segment_id from port_binding_levels)")
    op.create_index("segments_by_number", "network_segments", ["network_type", "physical_network", "segmentation_id"])


def _bindings() -> None:
    op.create_table(
        "port_bindings",
        sa.Column("port_id", sa.String(36), nullable=False), sa.Column("host", sa.String(255), nullable=False),
        sa.Column("network_id", sa.String(36), nullable=False), sa.Column("active", sa.Boolean, nullable=False),
        sa.Column("wired", sa.Boolean, nullable=False), sa.Column("vnic_type", sa.String(64), nullable=False),
        sa.Column("vif_type", sa.String(64), nullable=False), sa.Column("vif_details", sa.JSON, nullable=False),
        sa.Column("profile", sa.JSON, nullable=False),
        sa.ForeignKeyConstraint(["port_id"], ["ports.id"], name=op.f("fk_port_bindings_port_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("port_id", "host", name=op.f("pk_port_bindings")), sqlite_with_rowid=False)
    op.create_index("one_active_binding_a_port", "port_bindings", ["port_id"], unique=True,
                    sqlite_where=sa.text("active"), postgresql_where=sa.text("active"))
    op.create_index("bindings_on_hosts", "port_bindings", ["host", "network_id"])
    op.create_index("bindings_of_networks", "port_bindings", ["network_id", "host", "active"])
    op.execute("insert into port_bindings (port_id, host, network_id, active, wired, vnic_type, vif_type, vif_details,"
               " profile) select id, host, network_id, true, host != '' and status = 'ACTIVE', vnic_type, vif_type,"
               " vif_details, profile from ports")


def _of_binding(name: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["port_id", "host"], ["port_bindings.port_id", "port_bindings.host"],
                                   name=op.f(name), ondelete="CASCADE")


def _levels() -> None:
    op.execute("create temporary table levels_before as select l.port_id, l.host, l.level, l.driver, l.segment_id"
               " from port_binding_levels l join ports p on p.id = l.port_id and p.host = l.host")
    op.drop_table("port_binding_levels")
    op.create_table(
        "port_binding_levels",
        sa.Column("port_id", sa.String(36), nullable=False), sa.Column("host", sa.String(255), nullable=False),
        sa.Column("level", sa.Integer, nullable=False), sa.Column("driver", sa.String(64), nullable=False),
        sa.Column("segment_id", sa.String(36), nullable=False), _of_binding("fk_port_binding_levels_port_id_host"),
        sa.ForeignKeyConstraint(["segment_id"], ["network_segments.id"], name=op.f("fk_port_binding_levels_segment_id"),
                                ondelete="RESTRICT"),
        sa.PrimaryKeyConstraint("port_id", "host", "level", name=op.f("pk_port_binding_levels")))
    op.create_index("levels_of_segments_on_hosts", "port_binding_levels", ["segment_id", "host"])
    op.execute("insert into port_binding_levels (port_id, host, level, driver, segment_id)"
               " select port_id, host, level, driver, segment_id from levels_before")
    op.execute("drop table levels_before")


def _groups() -> None:
    op.create_table(
        "port_binding_groups",
        sa.Column("group_id", sa.String(36), nullable=False), sa.Column("host", sa.String(255), nullable=False),
        sa.Column("port_id", sa.String(36), nullable=False), _of_binding("fk_port_binding_groups_port_id_host"),
        sa.PrimaryKeyConstraint("group_id", "host", "port_id", name=op.f("pk_port_binding_groups")),
        sqlite_with_rowid=False)
    op.create_index("groups_of_bindings", "port_binding_groups", ["port_id", "host"])
    op.execute("insert into port_binding_groups (group_id, host, port_id) select g.group_id, p.host, p.id"
               " from port_security_groups g join ports p on p.id = g.port_id where p.host != ''")


def _usage() -> None:
    op.create_table(
        "network_usage",
        sa.Column("project_id", sa.String(64), nullable=False), sa.Column("resource", sa.String(64), nullable=False),
        sa.Column("used", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("project_id", "resource", name=op.f("pk_network_usage")))
    for resource, table in COUNTED.items():
        op.execute(f"insert into network_usage (project_id, resource, used)"
                   f" select project_id, '{resource}', count(*) from {table} group by project_id")


def _tunnels() -> None:
    with op.batch_alter_table("network_agents") as batch:
        batch.add_column(sa.Column("tunnel_ip", sa.String(15)))
    connection = op.get_bind()
    agents = sa.table("network_agents", sa.column("id"), sa.column("agent_type"), sa.column("configurations", sa.JSON),
                      sa.column("tunnel_ip"))
    for agent in connection.execute(sa.select(agents.c.id, agents.c.configurations).where(
            agents.c.agent_type == "Open vSwitch agent")).all():
        address = _plain(agent.configurations)
        if address:
            connection.execute(sa.update(agents).where(agents.c.id == agent.id).values(tunnel_ip=address))


def _plain(configurations: object) -> str | None:
    """The tunnel address of a report, if it is one that frames can be sent to."""
    given = configurations.get("tunnel_ip") if isinstance(configurations, dict) else None
    try:
        address = ipaddress.IPv4Address(given) if isinstance(given, str) else None
    except ValueError:
        return None
    return str(address) if address and not (address.is_multicast or address.is_unspecified) else None
