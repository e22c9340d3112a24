"""The network service's tables. Child lists that are searched have tables of their own; the rest is JSON."""

from typing import Any

import sqlalchemy as sa

from nacre.base.db import metadata

ID = sa.String(36)
PROJECT = sa.String(64)


def standard(*, named: bool = True) -> list[sa.Column[Any]]:
    """The columns every resource has: Neutron's standard attributes."""
    columns: list[sa.Column[Any]] = [
        sa.Column("id", ID, primary_key=True),
        sa.Column("project_id", PROJECT, nullable=False, index=True),
        sa.Column("description", sa.String(255), nullable=False, default=""),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("updated_at", sa.DateTime, nullable=False),
        sa.Column("revision_number", sa.Integer, nullable=False, default=0),
        sa.Column("tags", sa.JSON, nullable=False, default=list),
    ]
    return [*columns, sa.Column("name", sa.String(255), nullable=False, default="")] if named else columns


def _ref(name: str, target: str, *, nullable: bool = False, cascade: bool = True, key: bool = False) -> sa.Column[Any]:
    rule = "CASCADE" if cascade else "RESTRICT"
    return sa.Column(name, ID, sa.ForeignKey(target, ondelete=rule), nullable=nullable, index=not key, primary_key=key)


def _of_binding() -> sa.ForeignKeyConstraint:
    """What hangs on a binding goes with it."""
    return sa.ForeignKeyConstraint(["port_id", "host"], ["port_bindings.port_id", "port_bindings.host"],
                                   ondelete="CASCADE")


networks = sa.Table(
    "networks", metadata, *standard(),
    sa.Column("admin_state_up", sa.Boolean, nullable=False, default=True),
    sa.Column("mtu", sa.Integer, nullable=False),
    sa.Column("port_security_enabled", sa.Boolean, nullable=False, default=True),
    sa.Column("external", sa.Boolean, nullable=False, default=False),
    sa.Column("is_default", sa.Boolean, nullable=False, default=False),
    sa.Column("dns_domain", sa.String(255), nullable=False, default=""),
    sa.Column("availability_zone_hints", sa.JSON, nullable=False, default=list),
    sa.Column("qos_policy_id", ID, index=True),
)

segments = sa.Table(
    "network_segments", metadata, *standard(named=False), sa.Column("name", sa.String(255)),
    _ref("network_id", "networks.id"),
    sa.Column("network_type", sa.String(32), nullable=False),
    sa.Column("physical_network", sa.String(64)),
    sa.Column("segmentation_id", sa.Integer),
    sa.Column("position", sa.Integer, nullable=False, default=0),
    sa.Column("dynamic", sa.Boolean, nullable=False, default=False),
    #: type:physical:id of a segment that only one network may use; NULL for local.
    sa.Column("claim", sa.String(128), unique=True),
    sa.Index("segments_by_number", "network_type", "physical_network", "segmentation_id"),
)

#: Ranges that operators made by API. physical_network: "" where the kind has none.
segment_ranges = sa.Table(
    "network_segment_ranges", metadata, *standard(), sa.Column("shared", sa.Boolean, nullable=False),
    sa.Column("network_type", sa.String(32), nullable=False),
    sa.Column("physical_network", sa.String(64), nullable=False),
    sa.Column("minimum", sa.BigInteger, nullable=False), sa.Column("maximum", sa.BigInteger, nullable=False),
)

rbac_policies = sa.Table(
    "network_rbac_policies", metadata,
    sa.Column("id", ID, primary_key=True), sa.Column("project_id", PROJECT, nullable=False),
    sa.Column("object_type", sa.String(32), nullable=False), sa.Column("object_id", ID, nullable=False, index=True),
    sa.Column("action", sa.String(32), nullable=False),
    sa.Column("target_project", PROJECT, nullable=False, index=True),
    sa.UniqueConstraint("object_type", "object_id", "action", "target_project"),
)

subnets = sa.Table(
    "subnets", metadata, *standard(), _ref("network_id", "networks.id"),
    sa.Column("ip_version", sa.Integer, nullable=False), sa.Column("cidr", sa.String(64), nullable=False),
    sa.Column("gateway_ip", sa.String(45)), sa.Column("enable_dhcp", sa.Boolean, nullable=False, default=True),
    sa.Column("ipv6_ra_mode", sa.String(20)), sa.Column("ipv6_address_mode", sa.String(20)),
    sa.Column("allocation_pools", sa.JSON, nullable=False), sa.Column("dns_nameservers", sa.JSON, nullable=False),
    sa.Column("host_routes", sa.JSON, nullable=False), sa.Column("service_types", sa.JSON, nullable=False),
    sa.Column("subnetpool_id", ID, index=True), sa.Column("segment_id", ID, index=True),
)

ports = sa.Table(
    "ports", metadata, *standard(), _ref("network_id", "networks.id", cascade=False),
    sa.Column("mac_address", sa.String(17), nullable=False),
    sa.Column("admin_state_up", sa.Boolean, nullable=False, default=True),
    sa.Column("status", sa.String(16), nullable=False, default="DOWN"),
    sa.Column("device_id", sa.String(255), nullable=False, default="", index=True),
    sa.Column("device_owner", sa.String(255), nullable=False, default=""),
    sa.Column("port_security_enabled", sa.Boolean, nullable=False, default=True),
    sa.Column("allowed_address_pairs", sa.JSON, nullable=False),
    sa.Column("extra_dhcp_opts", sa.JSON, nullable=False),
    sa.Column("dns_name", sa.String(255), nullable=False, default=""),
    #: The server whose interface it is, by the cloud's word alone: device_id is what its owner says.
    sa.Column("server_id", ID, index=True),
    #: How a server uses it: the user's own (kept when the server goes), its tag, its place among the interfaces.
    sa.Column("preserve", sa.Boolean, nullable=False, default=False),
    sa.Column("device_tag", sa.String(255)), sa.Column("position", sa.Integer, nullable=False, default=0),
    sa.Column("qos_policy_id", ID, index=True),
    sa.Column("dns_domain", sa.String(255), nullable=False, default=""),
    sa.UniqueConstraint("network_id", "mac_address"),
    sa.Index("legs_of_networks", "network_id", "device_owner", "device_id",
             sqlite_where=sa.text("device_owner = 'network:router_interface'"),
             postgresql_where=sa.text("device_owner = 'network:router_interface'")),
)


def is_leg(ports: sa.FromClause) -> sa.ColumnElement[bool]:
    """Of ports that are interfaces of routers; in such words that the index of those is used."""
    return ports.c.device_owner == sa.literal_column("'network:router_interface'")


#: Where a port is, or shall be: one row per host, one of them active (the host is "" while the port is on none). The
#: network is the port's own, which never changes: here it finds the hosts of a network without looking at its ports.
bindings = sa.Table(
    "port_bindings", metadata,
    _ref("port_id", "ports.id", key=True), sa.Column("host", sa.String(255), primary_key=True),
    sa.Column("network_id", ID, nullable=False), sa.Column("active", sa.Boolean, nullable=False),
    #: The host's agent says that the port works there; an active binding's is the port's status.
    sa.Column("wired", sa.Boolean, nullable=False, default=False),
    sa.Column("vnic_type", sa.String(64), nullable=False), sa.Column("vif_type", sa.String(64), nullable=False),
    sa.Column("vif_details", sa.JSON, nullable=False), sa.Column("profile", sa.JSON, nullable=False),
    sa.Index("one_active_binding_a_port", "port_id", unique=True, sqlite_where=sa.text("active"),
             postgresql_where=sa.text("active")),
    sa.Index("bindings_on_hosts", "host", "network_id"),
    sa.Index("bindings_of_networks", "network_id", "host", "active"),
    sqlite_with_rowid=False,
)

addresses = sa.Table(
    "port_addresses", metadata,
    _ref("subnet_id", "subnets.id", cascade=False, key=True),
    sa.Column("ip_address", sa.String(45), primary_key=True),
    _ref("port_id", "ports.id"),
    sa.Column("position", sa.Integer, nullable=False, default=0),
)

levels = sa.Table(
    "port_binding_levels", metadata,
    sa.Column("port_id", ID, primary_key=True), sa.Column("host", sa.String(255), primary_key=True),
    sa.Column("level", sa.Integer, primary_key=True), sa.Column("driver", sa.String(64), nullable=False),
    sa.Column("segment_id", ID, sa.ForeignKey("network_segments.id", ondelete="RESTRICT"), nullable=False),
    _of_binding(), sa.Index("levels_of_segments_on_hosts", "segment_id", "host"),
)

security_groups = sa.Table(
    "security_groups", metadata, *standard(),
    sa.Column("stateful", sa.Boolean, nullable=False, default=True),
)

#: One row per project: who wins here makes the project's default group.
default_groups = sa.Table(
    "default_security_groups", metadata,
    sa.Column("project_id", PROJECT, primary_key=True), _ref("group_id", "security_groups.id"),
)

security_group_rules = sa.Table(
    "security_group_rules", metadata, *standard(named=False), _ref("security_group_id", "security_groups.id"),
    sa.Column("direction", sa.String(8), nullable=False), sa.Column("ethertype", sa.String(8), nullable=False),
    sa.Column("protocol", sa.String(40)), sa.Column("port_range_min", sa.Integer),
    sa.Column("port_range_max", sa.Integer), sa.Column("remote_ip_prefix", sa.String(64)),
    _ref("remote_group_id", "security_groups.id", nullable=True),
    sa.Column("remote_address_group_id", ID, sa.ForeignKey("address_groups.id"), index=True),
)

port_groups = sa.Table(
    "port_security_groups", metadata,
    _ref("port_id", "ports.id", key=True),
    sa.Column("group_id", ID, sa.ForeignKey("security_groups.id"), primary_key=True, index=True),
)

#: The groups of a binding's port: the hosts where a group counts are found without looking at its ports.
binding_groups = sa.Table(
    "port_binding_groups", metadata,
    sa.Column("group_id", ID, primary_key=True), sa.Column("host", sa.String(255), primary_key=True),
    sa.Column("port_id", ID, primary_key=True), _of_binding(), sa.Index("groups_of_bindings", "port_id", "host"),
    sqlite_with_rowid=False,
)

#: Which ports joined a security group, left it or moved in it, in which change. A row without a port: those up to that
#: change are gone (hosts/members.py).
member_changes = sa.Table(
    "security_group_member_changes", metadata,
    sa.Column("group_id", ID, primary_key=True),
    sa.Column("n", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=False),
    sa.Column("port_id", ID, primary_key=True), sa.Index("member_changes_by_number", "n"),
    sqlite_with_rowid=False,
)

#: The same of networks: which ports came, went, moved or got other addresses (hosts/placed.py).
placed_changes = sa.Table(
    "network_port_changes", metadata,
    sa.Column("network_id", ID, primary_key=True),
    sa.Column("n", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=False),
    sa.Column("port_id", ID, primary_key=True), sa.Index("placed_changes_by_number", "n"),
    sqlite_with_rowid=False,
)

agents = sa.Table(
    "network_agents", metadata,
    sa.Column("id", ID, primary_key=True), sa.Column("host", sa.String(255), nullable=False),
    sa.Column("agent_type", sa.String(64), nullable=False), sa.Column("description", sa.String(255)),
    sa.Column("admin_state_up", sa.Boolean, nullable=False, default=True),
    sa.Column("configurations", sa.JSON, nullable=False),
    #: Where frames for the host go: a plain IPv4 address, whatever the configurations say.
    sa.Column("tunnel_ip", sa.String(15)), sa.Column("created_at", sa.DateTime, nullable=False),
    sa.Column("started_at", sa.DateTime, nullable=False), sa.Column("heartbeat_at", sa.DateTime, nullable=False),
    #: Its host keeps ports of networks by differences (one of the release before does not).
    sa.Column("takes_differences", sa.Boolean, nullable=False, server_default=sa.false(), default=False),
    sa.UniqueConstraint("host", "agent_type"), sa.Index("agents_by_tunnel", "tunnel_ip"),
)

quotas = sa.Table(
    "network_quotas", metadata,
    sa.Column("project_id", PROJECT, primary_key=True), sa.Column("resource", sa.String(64), primary_key=True),
    sa.Column("limit", sa.Integer, nullable=False),
)

#: How many rows of a resource a project has: changed in the transaction that changes them.
usage = sa.Table(
    "network_usage", metadata,
    sa.Column("project_id", PROJECT, primary_key=True), sa.Column("resource", sa.String(64), primary_key=True),
    sa.Column("used", sa.Integer, nullable=False),
)

address_groups = sa.Table(
    "address_groups", metadata, *standard(), sa.Column("addresses", sa.JSON, nullable=False))

address_scopes = sa.Table(
    "address_scopes", metadata, *standard(), sa.Column("ip_version", sa.Integer, nullable=False))

subnetpools = sa.Table(
    "subnetpools", metadata, *standard(),
    sa.Column("ip_version", sa.Integer, nullable=False), sa.Column("prefixes", sa.JSON, nullable=False),
    sa.Column("default_prefixlen", sa.Integer, nullable=False), sa.Column("min_prefixlen", sa.Integer, nullable=False),
    sa.Column("max_prefixlen", sa.Integer, nullable=False), sa.Column("default_quota", sa.Integer),
    sa.Column("is_default", sa.Boolean, nullable=False, default=False),
    sa.Column("address_scope_id", ID, sa.ForeignKey("address_scopes.id"), index=True),
)

routers = sa.Table(
    "routers", metadata, *standard(),
    sa.Column("admin_state_up", sa.Boolean, nullable=False, default=True),
    sa.Column("gateway_port_id", ID, index=True), sa.Column("gateway_network_id", ID, index=True),
    sa.Column("enable_snat", sa.Boolean, nullable=False, default=True), sa.Column("routes", sa.JSON, nullable=False),
    sa.Column("availability_zone_hints", sa.JSON, nullable=False),
    #: The host that translates for it, by the latest election, and the number of that (l3/elections.py).
    sa.Column("gateway_host", sa.String(255), index=True),
    sa.Column("gateway_term", sa.Integer, nullable=False, default=0),
    #: What an administrator wished. Every router is distributed, and every gateway fails over.
    sa.Column("distributed", sa.Boolean, nullable=False, default=False),
    sa.Column("ha", sa.Boolean, nullable=False, default=False),
)

floatingips = sa.Table(
    "floatingips", metadata, *standard(named=False),
    sa.Column("floating_network_id", ID, nullable=False, index=True),
    sa.Column("floating_ip_address", sa.String(45), nullable=False),
    sa.Column("floating_port_id", ID, nullable=False), sa.Column("port_id", ID, index=True),
    sa.Column("fixed_ip_address", sa.String(45)), sa.Column("router_id", ID, index=True),
    sa.Column("status", sa.String(16), nullable=False, default="DOWN"),
    sa.Column("dns_name", sa.String(255), nullable=False, default=""),
    sa.Column("dns_domain", sa.String(255), nullable=False, default=""),
    sa.UniqueConstraint("floating_network_id", "port_id", "fixed_ip_address",
                        name="one_floating_ip_a_network_of_an_address"),
)

#: Ports of a floating IP's address that lead to ports of an address inside. Ranges: the first and the last.
port_forwardings = sa.Table(
    "port_forwardings", metadata,
    sa.Column("id", ID, primary_key=True), sa.Column("project_id", PROJECT, nullable=False),
    _ref("floatingip_id", "floatingips.id"), _ref("internal_port_id", "ports.id"),
    sa.Column("description", sa.String(255), nullable=False, default=""),
    sa.Column("protocol", sa.String(16), nullable=False),
    sa.Column("external_first", sa.Integer, nullable=False), sa.Column("external_last", sa.Integer, nullable=False),
    sa.Column("internal_ip_address", sa.String(15), nullable=False),
    sa.Column("internal_first", sa.Integer, nullable=False), sa.Column("internal_last", sa.Integer, nullable=False),
    sa.UniqueConstraint("floatingip_id", "protocol", "external_first", name="one_forwarding_of_an_outer_port"),
    sa.UniqueConstraint("internal_port_id", "internal_ip_address", "protocol", "internal_first",
                        name="one_forwarding_to_an_inner_port"),
)

#: Rules that new groups get, besides those that Nacre has by itself (traffic/default_rules.py).
default_rules = sa.Table(
    "security_group_default_rules", metadata,
    sa.Column("id", ID, primary_key=True), sa.Column("description", sa.String(255), nullable=False),
    sa.Column("direction", sa.String(8), nullable=False), sa.Column("ethertype", sa.String(8), nullable=False),
    sa.Column("protocol", sa.String(40)), sa.Column("port_range_min", sa.Integer),
    sa.Column("port_range_max", sa.Integer), sa.Column("remote_ip_prefix", sa.String(64)),
    sa.Column("remote_group_id", ID), sa.Column("remote_address_group_id", ID),
    sa.Column("used_in_default_sg", sa.Boolean, nullable=False),
    sa.Column("used_in_non_default_sg", sa.Boolean, nullable=False),
)

#: One default a project.
qos_policies = sa.Table(
    "qos_policies", metadata, *standard(), sa.Column("is_default", sa.Boolean, nullable=False, default=False),
    sa.Index("one_default_policy_a_project", "project_id", unique=True, sqlite_where=sa.text("is_default"),
             postgresql_where=sa.text("is_default")),
)

qos_rules = sa.Table(
    "qos_rules", metadata,
    sa.Column("id", ID, primary_key=True), _ref("policy_id", "qos_policies.id"),
    sa.Column("type", sa.String(32), nullable=False), sa.Column("direction", sa.String(8), nullable=False),
    sa.Column("value", sa.Integer, nullable=False), sa.Column("burst", sa.Integer),
    sa.UniqueConstraint("policy_id", "type", "direction"),
)

trunks = sa.Table(
    "trunks", metadata, *standard(), sa.Column("admin_state_up", sa.Boolean, nullable=False, default=True),
    sa.Column("port_id", ID, sa.ForeignKey("ports.id", ondelete="CASCADE"), nullable=False, unique=True),
    sa.Column("status", sa.String(16), nullable=False, default="DOWN"),
)

subports = sa.Table(
    "trunk_subports", metadata, _ref("port_id", "ports.id", key=True), _ref("trunk_id", "trunks.id"),
    sa.Column("segmentation_type", sa.String(32), nullable=False),
    sa.Column("segmentation_id", sa.Integer, nullable=False),
    sa.UniqueConstraint("trunk_id", "segmentation_type", "segmentation_id"),
)

#: The network and router that a project was given on demand.
topologies = sa.Table(
    "network_topologies", metadata, sa.Column("project_id", PROJECT, primary_key=True),
    _ref("network_id", "networks.id"), sa.Column("router_id", ID, nullable=False),
)

#: Ports with one of their bindings each, as if they were rows of one table: ask for active=True, or for a host.
placed = sa.select(ports, *(bindings.c[n] for n in (
    "host", "active", "wired", "vnic_type", "vif_type", "vif_details", "profile"))).join(
        bindings, bindings.c.port_id == ports.c.id).subquery("placed")
