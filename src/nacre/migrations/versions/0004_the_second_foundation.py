# ruff: noqa
"""the second foundation: a cloud with an id, processes, stories that belong to them, changes, allocations, counted usage"""

import json
import math
from datetime import datetime
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import sqlalchemy as sa
from alembic import op

revision = '0004'
down_revision = '0003'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('allocations',
    sa.Column('id', sa.String(length=36), nullable=False),
    sa.Column('server_id', sa.String(length=36), nullable=False),
    sa.Column('host', sa.String(length=255), nullable=False),
    sa.Column('epoch', sa.Integer(), nullable=False),
    sa.Column('purpose', sa.String(length=16), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('memory_mb', sa.Integer(), nullable=False),
    sa.Column('vcpus', sa.Integer(), nullable=False),
    sa.Column('disk_mb', sa.Integer(), nullable=False),
    sa.Column('net_bandwidth', sa.Integer(), nullable=False),
    sa.Column('disk_bandwidth', sa.Integer(), nullable=False),
    sa.Column('disk_shares', sa.Integer(), nullable=False),
    sa.Column('disk', sa.String(length=255), nullable=False),
    sa.Column('created_at', sa.DateTime(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_allocations'))
    )
    with op.batch_alter_table('allocations', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_allocations_host'), ['host'], unique=False)
        batch_op.create_index(batch_op.f('ix_allocations_server_id'), ['server_id'], unique=False)
        batch_op.create_index(batch_op.f('ix_allocations_state'), ['state'], unique=False)

    op.create_table('changes',
    sa.Column('n', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), autoincrement=True, nullable=False),
    sa.Column('kind', sa.String(length=16), nullable=False),
    sa.Column('id', sa.String(length=255), nullable=False),
    sa.Column('project_id', sa.String(length=64), nullable=False),
    sa.Column('at', sa.DateTime(), nullable=False),
    sa.PrimaryKeyConstraint('n', name=op.f('pk_changes')),
    sqlite_autoincrement=True
    )
    op.create_table('last_changes',
    sa.Column('kind', sa.String(length=16), nullable=False),
    sa.Column('id', sa.String(length=255), nullable=False),
    sa.Column('n', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), nullable=False),
    sa.PrimaryKeyConstraint('kind', 'id', name=op.f('pk_last_changes'))
    )
    op.create_table('cloud',
    sa.Column('number', sa.Integer(), nullable=False),
    sa.Column('id', sa.String(length=36), nullable=False),
    sa.Column('created_at', sa.DateTime(), nullable=False),
    sa.PrimaryKeyConstraint('number', name=op.f('pk_cloud'))
    )
    op.create_table('processes',
    sa.Column('id', sa.String(length=64), nullable=False),
    sa.Column('role', sa.String(length=16), nullable=False),
    sa.Column('name', sa.String(length=255), nullable=False),
    sa.Column('address', sa.String(length=255), nullable=False),
    sa.Column('public_key', sa.String(length=64), nullable=False),
    sa.Column('version', sa.String(length=32), nullable=False),
    sa.Column('generation', sa.Integer(), nullable=False),
    sa.Column('started_at', sa.DateTime(), nullable=False),
    sa.Column('seen_at', sa.DateTime(), nullable=False),
    sa.Column('lease_until', sa.DateTime(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_processes')),
    sa.UniqueConstraint('role', 'name', name=op.f('uq_processes_role_name'))
    )
    op.create_table('project_usage',
    sa.Column('project_id', sa.String(length=64), nullable=False),
    sa.Column('user_id', sa.String(length=64), nullable=False),
    sa.Column('instances', sa.Integer(), nullable=False),
    sa.Column('cores', sa.Integer(), nullable=False),
    sa.Column('ram', sa.Integer(), nullable=False),
    sa.PrimaryKeyConstraint('project_id', 'user_id', name=op.f('pk_project_usage'))
    )
    with op.batch_alter_table('compute_hosts', schema=None) as batch_op:
        batch_op.add_column(sa.Column('accepted', sa.Boolean(), server_default=sa.false(), nullable=False))

    with op.batch_alter_table('servers', schema=None) as batch_op:
        batch_op.add_column(sa.Column('power_incarnation', sa.Integer(), nullable=False, server_default='0'))
        batch_op.add_column(sa.Column('power_n', sa.Integer(), nullable=False, server_default='0'))
        batch_op.add_column(sa.Column('allocation_id', sa.String(length=36), nullable=False, server_default=''))

    carry_attempts(op.get_bind())
    count_usage(op.get_bind())

    with op.batch_alter_table('attempts', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_attempts_host'))

    op.drop_table('attempts')

    with op.batch_alter_table('servers', schema=None) as batch_op:
        for name in ('power_incarnation', 'power_n', 'allocation_id'):
            batch_op.alter_column(name, server_default=None)
        batch_op.create_index(batch_op.f('ix_servers_allocation_id'), ['allocation_id'], unique=False)
        batch_op.drop_column('selected_dir')

    op.create_index('ix_servers_group_id', 'servers', ['group_id'], sqlite_where=sa.text('group_id is not null'),
                    postgresql_where=sa.text('group_id is not null'))
    op.execute("update stories set owner = null")

    with op.batch_alter_table('stories', schema=None) as batch_op:
        batch_op.add_column(sa.Column('generation', sa.Integer(), nullable=False, server_default='0'))
        batch_op.add_column(sa.Column('failures', sa.Integer(), nullable=False, server_default='0'))
        batch_op.add_column(sa.Column('not_before', sa.DateTime(), nullable=True))
        batch_op.add_column(sa.Column('set_aside', sa.String(length=255), nullable=True))
        batch_op.alter_column('owner',
               existing_type=sa.VARCHAR(length=255),
               type_=sa.String(length=64),
               existing_nullable=True)
        batch_op.drop_column('lease_until')

    with op.batch_alter_table('stories', schema=None) as batch_op:
        for name in ('generation', 'failures'):
            batch_op.alter_column(name, server_default=None)


servers = sa.table("servers", *(sa.column(name) for name in (
    "id", "host", "vm_state", "deleted", "memory_mb", "vcpus", "flavor", "hints", "selected_dir", "allocation_id",
    "created_at", "project_id", "user_id")))
attempts = sa.table("attempts", sa.column("server_id"), sa.column("epoch"), sa.column("host"))
allocations = sa.table("allocations", *(sa.column(name) for name in (
    "id", "server_id", "host", "epoch", "purpose", "state", "memory_mb", "vcpus", "disk_mb", "net_bandwidth",
    "disk_bandwidth", "disk_shares", "disk", "created_at")))
usage = sa.table("project_usage", *(sa.column(name) for name in (
    "project_id", "user_id", "instances", "cores", "ram")))


def carry_attempts(connection: sa.Connection) -> None:
    """Each attempt becomes an allocation: the last one on a living server's host its own, the others are to end. The ids
    are those under which the hosts' journals are taken over."""
    of = {row.id: row for row in connection.execute(sa.select(servers))}
    last: dict[str, int] = {}
    rows = connection.execute(sa.select(attempts)).all()
    for row in rows:
        server = of.get(row.server_id)
        if server is not None and not server.deleted and server.vm_state != "error" and server.host == row.host:
            last[row.server_id] = max(last.get(row.server_id, 0), row.epoch)
    for row in rows:
        server = of.get(row.server_id)
        if server is None:
            continue
        ident = str(uuid5(NAMESPACE_OID, f"nacre/{row.server_id}/{row.epoch}"))
        state = "ending"
        if last.get(row.server_id) == row.epoch:
            state = "wanted" if server.vm_state == "building" else "held"
        connection.execute(sa.insert(allocations).values(
            id=ident, server_id=row.server_id, host=row.host, epoch=row.epoch, purpose="build", state=state,
            created_at=moment(server.created_at), **amounts(server)))
        if state == "held":
            connection.execute(sa.update(servers).where(servers.c.id == row.server_id).values(allocation_id=ident))


def moment(value: object) -> object:
    """SQLite gives text where the column's type is not named."""
    return datetime.fromisoformat(value) if isinstance(value, str) else value


def amounts(server: sa.Row[Any]) -> dict[str, object]:
    """What a server takes, as the release before counted it: the flavor's extra specs before the hints."""
    flavor, hints = (json.loads(v) if isinstance(v, str) else v or {} for v in (server.flavor, server.hints))
    specs = flavor.get("extra_specs") or {}

    def number(where: dict[str, Any], name: str) -> int:
        text = str(where.get(name) or 0)
        return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0

    network = max(number(specs, f"quota:vif_{way}_average") for way in ("inbound", "outbound"))
    disk = number(specs, "quota:disk_total_bytes_sec") or sum(
        number(specs, f"quota:disk_{way}_bytes_sec") for way in ("read", "write"))
    return {
        "memory_mb": server.memory_mb, "vcpus": server.vcpus, "disk": server.selected_dir or "",
        "disk_mb": 1024 * (flavor.get("root_gb", 0) + flavor.get("ephemeral_gb", 0)) + flavor.get("swap_mb", 0),
        "net_bandwidth": number(specs, "nacre:network_bandwidth") or math.ceil(network * 8 / 1000)
        or number(hints, "network_bandwidth"),
        "disk_bandwidth": number(specs, "nacre:disk_bandwidth") or math.ceil(disk / 1e6)
        or number(hints, "disk_bandwidth"),
        "disk_shares": number(specs, "nacre:disk_shares") or number(hints, "disk_shares")}


def count_usage(connection: sa.Connection) -> None:
    """What every project's users have."""
    c = servers.c
    connection.execute(sa.insert(usage).from_select(
        ["project_id", "user_id", "instances", "cores", "ram"],
        sa.select(c.project_id, c.user_id, sa.func.count(), sa.func.sum(c.vcpus), sa.func.sum(c.memory_mb)).where(
            sa.not_(sa.cast(c.deleted, sa.Boolean))).group_by(c.project_id, c.user_id)))


def downgrade() -> None:
    raise NotImplementedError("what is counted by allocations cannot be told as attempts")
