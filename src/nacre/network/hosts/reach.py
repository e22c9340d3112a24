"""Which hosts have ports of a network or of a security group, active or prepared.

Asked at every change, so its cost must not grow with the ports: both tables have an index in the order (key, host), and
a recursive statement goes from each host to the next one in it.
"""

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from nacre.network import tables as t
from nacre.network.work import Work


def _distinct(keys: sa.Select[Any], key: sa.Column[Any], value: sa.Column[Any], name: str) -> sa.CTE:
    """(key, value) of each value that the table has for the keys; a row whose value is NULL ends each key's."""
    first = keys.subquery()
    start = sa.select(first.c[0].label("key"), sa.select(sa.func.min(value)).where(
        key == first.c[0], value > "").scalar_subquery().label("value")).cte(name, recursive=True)
    following = sa.select(sa.func.min(value)).where(key == start.c.key, value > start.c.value).scalar_subquery()
    return start.union_all(sa.select(start.c.key, following).where(start.c.value.is_not(None)))


def _each(table: sa.Table, key: sa.Column[Any], keys: sa.Select[Any]) -> sa.Select[Any]:
    """(a port of the key on the host, host): any port, for it stands for all."""
    found = _distinct(keys, key, table.c.host, "hosts")
    port = sa.select(table.c.port_id).where(key == found.c.key, table.c.host == found.c.value).limit(1)
    return sa.select(port.scalar_subquery(), found.c.value).where(found.c.value.is_not(None))


_IDS: sa.BindParameter[Any] = sa.bindparam("ids", expanding=True)
_B, _G, _A = t.bindings.c, t.binding_groups.c, t.agents.c
_OF_NETWORKS = _each(t.bindings, _B.network_id, sa.select(t.networks.c.id).where(t.networks.c.id.in_(_IDS)))
_OF_GROUPS = _each(t.binding_groups, _G.group_id, sa.select(t.security_groups.c.id).where(
    t.security_groups.c.id.in_(_IDS)))
_OWN = _distinct(sa.select(sa.bindparam("host", type_=sa.String).label("key")), _B.host, _B.network_id, "own")
_NEIGHBOURS = _distinct(sa.select(_OWN.c.value).where(_OWN.c.value.is_not(None)), _B.network_id, _B.host, "neighbours")
_TUNNELS = sa.select(_A.host, _A.tunnel_ip).where(
    _A.host.in_(sa.select(_NEIGHBOURS.c.value)), _A.tunnel_ip.is_not(None))


def of_networks(work: Work, network_ids: Collection[str]) -> list[tuple[str, str]]:
    """(one of its ports, host) for each host of each of the networks."""
    return [(port, host) for port, host in work.conn.execute(_OF_NETWORKS, {"ids": list(network_ids)})]


def of_groups(connection: sa.Connection, group_ids: Collection[str]) -> list[tuple[str, str]]:
    """(one of its ports, host) for each host of each of the security groups."""
    return [(port, host) for port, host in connection.execute(_OF_GROUPS, {"ids": list(group_ids)})]


def tunnels(work: Work, host: str) -> dict[str, str]:
    """host -> tunnel address, of the hosts that share a network with this one and have one: to them frames go, and from
    them they are taken."""
    return {other: address for other, address in ways(work, host).items() if other != host}


def ways(work: Work, host: str) -> dict[str, str]:
    """As `tunnels`, with its own, if it has ports."""
    return {row.host: row.tunnel_ip for row in work.conn.execute(_TUNNELS, {"host": host})}
