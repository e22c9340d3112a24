"""Which hosts have ports of a network or of a security group, active or prepared.

Asked at every change, so its cost must not grow with the ports: both tables have an index in the order (key, host), and
a recursive statement goes from each host to the next one in it.
"""

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from nacre.network import tables as t
from nacre.network.work import Work


def _hosts(keys: sa.Select[Any], key: sa.Column[Any], host: sa.Column[Any]) -> sa.CTE:
    """(key, host) of each host that the table has for the keys; a row whose host is NULL ends each key's."""
    first = keys.subquery()
    start = sa.select(first.c.id.label("key"), sa.select(sa.func.min(host)).where(
        key == first.c.id, host > "").scalar_subquery().label("host")).cte("hosts", recursive=True)
    following = sa.select(sa.func.min(host)).where(key == start.c.key, host > start.c.host).scalar_subquery()
    return start.union_all(sa.select(start.c.key, following).where(start.c.host.is_not(None)))


def _each(table: sa.Table, key: sa.Column[Any], keys: sa.Select[Any]) -> sa.Select[Any]:
    """(a port of the key there, host): any port, for it stands for all."""
    found = _hosts(keys, key, table.c.host)
    port = sa.select(table.c.port_id).where(key == found.c.key, table.c.host == found.c.host).limit(1)
    return sa.select(port.scalar_subquery(), found.c.host).where(found.c.host.is_not(None))


_IDS: sa.BindParameter[Any] = sa.bindparam("ids", expanding=True)
_B, _G = t.bindings, t.binding_groups
_OF_NETWORKS = _each(_B, _B.c.network_id, sa.select(t.networks.c.id).where(t.networks.c.id.in_(_IDS)))
_OF_GROUPS = _each(_G, _G.c.group_id, sa.select(t.security_groups.c.id).where(t.security_groups.c.id.in_(_IDS)))
_NEIGHBOURS = _hosts(sa.select(_B.c.network_id.label("id")).distinct().where(
    _B.c.host == sa.bindparam("host")), _B.c.network_id, _B.c.host)
_TUNNELS = sa.select(t.agents.c.host, t.agents.c.tunnel_ip).where(
    t.agents.c.host.in_(sa.select(_NEIGHBOURS.c.host)), t.agents.c.tunnel_ip.is_not(None))


def of_networks(work: Work, network_ids: Collection[str]) -> list[tuple[str, str]]:
    """(one of its ports, host) for each host of each of the networks."""
    return [(port, host) for port, host in work.conn.execute(_OF_NETWORKS, {"ids": list(network_ids)})]


def of_groups(work: Work, group_ids: Collection[str]) -> list[tuple[str, str]]:
    """(one of its ports, host) for each host of each of the security groups."""
    return [(port, host) for port, host in work.conn.execute(_OF_GROUPS, {"ids": list(group_ids)})]


def tunnels(work: Work, host: str) -> dict[str, str]:
    """host -> tunnel address, of the hosts that share a network with this one and have one: to them frames go, and from
    them they are taken."""
    return {other: address for other, address in work.conn.execute(_TUNNELS, {"host": host}) if other != host}
