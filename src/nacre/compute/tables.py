"""Servers, the room they have on hosts, and what was done to them."""

import sqlalchemy as sa

from nacre.base.db import metadata

servers = sa.Table(
    "servers", metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(36), nullable=False, unique=True),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("project_id", sa.String(64), nullable=False),
    sa.Column("user_id", sa.String(64), nullable=False),
    sa.Column("vm_state", sa.String(32), nullable=False),
    sa.Column("task_state", sa.String(32)),
    sa.Column("power_state", sa.String(16), nullable=False, default=""),
    #: Incarnation and number of the host's report that the power state is from: older news change nothing.
    sa.Column("power_incarnation", sa.Integer, nullable=False, default=0),
    sa.Column("power_n", sa.Integer, nullable=False, default=0),
    #: Counts what was ordered of hosts: an order of a lower epoch than a host has seen is refused there.
    sa.Column("epoch", sa.Integer, nullable=False, default=0),
    #: The live one, and its host.
    sa.Column("allocation_id", sa.String(36), nullable=False, default="", index=True),
    sa.Column("host", sa.String(255), nullable=False, default=""),
    sa.Column("availability_zone", sa.String(255)),
    sa.Column("pinned_zone", sa.String(255)),
    sa.Column("created_at", sa.DateTime, nullable=False),
    sa.Column("updated_at", sa.DateTime),
    sa.Column("launched_at", sa.DateTime),
    sa.Column("terminated_at", sa.DateTime),
    sa.Column("deleted", sa.Boolean, nullable=False, default=False),
    sa.Column("flavor_id", sa.String(255), nullable=False),
    sa.Column("memory_mb", sa.Integer, nullable=False),
    sa.Column("vcpus", sa.Integer, nullable=False),
    sa.Column("flavor", sa.JSON, nullable=False),
    sa.Column("metadata", sa.JSON, nullable=False),
    sa.Column("tags", sa.JSON, nullable=False),
    sa.Column("image_id", sa.String(36), nullable=False, default=""),
    sa.Column("image_properties", sa.JSON, nullable=False),
    sa.Column("kernel_id", sa.String(36), nullable=False, default=""),
    sa.Column("ramdisk_id", sa.String(36), nullable=False, default=""),
    sa.Column("key_name", sa.String(255)),
    sa.Column("key", sa.JSON),  # [name, type, public key] as it was at the create
    sa.Column("description", sa.String(255)),
    sa.Column("hostname", sa.String(255), nullable=False, default=""),
    sa.Column("access_ip_v4", sa.String(39)),
    sa.Column("access_ip_v6", sa.String(39)),
    sa.Column("disk_config", sa.String(8), nullable=False, default="MANUAL"),
    sa.Column("config_drive", sa.Boolean, nullable=False, default=False),
    sa.Column("user_data", sa.Text),
    sa.Column("reservation_id", sa.String(32), nullable=False, default=""),
    sa.Column("launch_index", sa.Integer, nullable=False, default=0),
    sa.Column("root_device_name", sa.String(32), nullable=False, default="/dev/vda"),
    sa.Column("security_groups", sa.JSON, nullable=False),
    sa.Column("locked", sa.Boolean, nullable=False, default=False),
    sa.Column("locked_reason", sa.String(255)),
    sa.Column("locked_by", sa.String(8)),  # owner, admin: somebody of another project
    sa.Column("trusted_certs", sa.JSON, nullable=False),
    sa.Column("group_id", sa.String(36)),
    sa.Column("hints", sa.JSON, nullable=False),
    sa.Column("fault", sa.JSON),
    sa.Index("ix_servers_project", "project_id", "deleted", "created_at"),
    sa.Index("ix_servers_host", "host", "deleted"),
    sa.Index("ix_servers_group_id", "group_id", sqlite_where=sa.text("group_id is not null"),
             postgresql_where=sa.text("group_id is not null")),
    sqlite_autoincrement=True,
)

server_tags = sa.Table(
    "server_tags", metadata,
    sa.Column("server_id", sa.String(36), primary_key=True),
    sa.Column("tag", sa.String(60), primary_key=True),
)

actions = sa.Table(
    "server_actions", metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("server_id", sa.String(36), nullable=False, index=True),
    sa.Column("action", sa.String(64), nullable=False),
    sa.Column("request_id", sa.String(64), nullable=False),
    sa.Column("project_id", sa.String(64)),
    sa.Column("user_id", sa.String(64)),
    sa.Column("started_at", sa.DateTime, nullable=False),
    sa.Column("updated_at", sa.DateTime),
    sa.Column("message", sa.String(255)),
)

events = sa.Table(
    "server_events", metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("server_id", sa.String(36), nullable=False, index=True),
    sa.Column("request_id", sa.String(64), nullable=False),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("host", sa.String(255)),
    sa.Column("started_at", sa.DateTime, nullable=False),
    sa.Column("finished_at", sa.DateTime),
    sa.Column("result", sa.String(16)),
    sa.Column("details", sa.Text),
)

#: The ledger of room: what has no row here has no room on a host. Written before the host hears of it, removed when the
#: host confirmed that nothing is left. state: wanted, held, ending.
allocations = sa.Table(
    "allocations", metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("server_id", sa.String(36), nullable=False, index=True),
    sa.Column("host", sa.String(255), nullable=False, index=True),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("purpose", sa.String(16), nullable=False),
    sa.Column("state", sa.String(16), nullable=False, index=True),
    sa.Column("memory_mb", sa.Integer, nullable=False),
    sa.Column("vcpus", sa.Integer, nullable=False),
    sa.Column("disk_mb", sa.Integer, nullable=False),
    sa.Column("net_bandwidth", sa.Integer, nullable=False, default=0),
    sa.Column("disk_bandwidth", sa.Integer, nullable=False, default=0),
    sa.Column("disk_shares", sa.Integer, nullable=False, default=0),
    #: Which of its host's several disk directories it lies in (FLOW A15).
    sa.Column("disk", sa.String(255), nullable=False, default=""),
    sa.Column("created_at", sa.DateTime, nullable=False),
)

#: What the servers of a project's users take: counted with each create and delete, so that a quota costs the same
#: however many servers there are.
usage = sa.Table(
    "project_usage", metadata,
    sa.Column("project_id", sa.String(64), primary_key=True),
    sa.Column("user_id", sa.String(64), primary_key=True),
    sa.Column("instances", sa.Integer, nullable=False),
    sa.Column("cores", sa.Integer, nullable=False),
    sa.Column("ram", sa.Integer, nullable=False),
)
