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


networks = sa.Table(
    "networks", metadata, *standard(),
    sa.Column("admin_state_up", sa.Boolean, nullable=False, default=True),
    sa.Column("mtu", sa.Integer, nullable=False),
    sa.Column("port_security_enabled", sa.Boolean, nullable=False, default=True),
    sa.Column("external", sa.Boolean, nullable=False, default=False),
    sa.Column("is_default", sa.Boolean, nullable=False, default=False),
    sa.Column("dns_domain", sa.String(255), nullable=False, default=""),
    sa.Column("availability_zone_hints", sa.JSON, nullable=False, default=list),
)

segments = sa.Table(
    "network_segments", metadata,
    sa.Column("id", ID, primary_key=True), _ref("network_id", "networks.id"),
    sa.Column("network_type", sa.String(32), nullable=False),
    sa.Column("physical_network", sa.String(64)),
    sa.Column("segmentation_id", sa.Integer),
    sa.Column("position", sa.Integer, nullable=False, default=0),
    sa.Column("dynamic", sa.Boolean, nullable=False, default=False),
    #: type:physical:id of a segment that only one network may use; NULL for local.
    sa.Column("claim", sa.String(128), unique=True),
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
    sa.Column("subnetpool_id", ID, index=True),
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
    sa.Column("host", sa.String(255), nullable=False, default="", index=True),
    sa.Column("vnic_type", sa.String(64), nullable=False, default="normal"),
    sa.Column("vif_type", sa.String(64), nullable=False, default="unbound"),
    sa.Column("vif_details", sa.JSON, nullable=False), sa.Column("profile", sa.JSON, nullable=False),
    #: How a server uses it: the user's own (kept when the server goes), its tag, its place among the interfaces.
    sa.Column("preserve", sa.Boolean, nullable=False, default=False),
    sa.Column("device_tag", sa.String(255)), sa.Column("position", sa.Integer, nullable=False, default=0),
    sa.UniqueConstraint("network_id", "mac_address"), sa.Index("ports_of_networks_on_hosts", "network_id", "host"),
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
    _ref("port_id", "ports.id", key=True), sa.Column("level", sa.Integer, primary_key=True),
    sa.Column("host", sa.String(255), nullable=False), sa.Column("driver", sa.String(64), nullable=False),
    _ref("segment_id", "network_segments.id", cascade=False),
    sa.Index("levels_of_segments_on_hosts", "segment_id", "host"),
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

agents = sa.Table(
    "network_agents", metadata,
    sa.Column("id", ID, primary_key=True), sa.Column("host", sa.String(255), nullable=False),
    sa.Column("agent_type", sa.String(64), nullable=False), sa.Column("description", sa.String(255)),
    sa.Column("admin_state_up", sa.Boolean, nullable=False, default=True),
    sa.Column("configurations", sa.JSON, nullable=False), sa.Column("created_at", sa.DateTime, nullable=False),
    sa.Column("started_at", sa.DateTime, nullable=False), sa.Column("heartbeat_at", sa.DateTime, nullable=False),
    sa.UniqueConstraint("host", "agent_type"),
)

quotas = sa.Table(
    "network_quotas", metadata,
    sa.Column("project_id", PROJECT, primary_key=True), sa.Column("resource", sa.String(64), primary_key=True),
    sa.Column("limit", sa.Integer, nullable=False),
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
    sa.UniqueConstraint("port_id", "fixed_ip_address"),
)
