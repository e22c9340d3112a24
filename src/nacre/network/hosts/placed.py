"""Where the ports of a network are, as its hosts keep it: the twin of members.py. Whatever others see of a port (its
host, its MAC, its addresses, where it is prepared) is written down as `Changes.placed` where it changes.

A host keeps it of the networks that it has ports of, active or prepared, and of those that it reaches through routers:
which one router joins to such a network; all of a router of which it is the gateway host; the external networks of
that, and of the floating IPs of its ports.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Any

import sqlalchemy as sa

from nacre.base.durable import eras
from nacre.network import tables as t
from nacre.network.contract import NetworkPorts, Peer, PlacedPort
from nacre.network.hosts.members import Found, Numbered

_B, _P, _A, _R, _F = t.bindings.c, t.ports.c, t.addresses.c, t.routers.c, t.floatingips.c
_IDS: sa.BindParameter[Any] = sa.bindparam("ids", expanding=True)
_HOST = sa.bindparam("host", type_=sa.String)
#: Where nothing could bind the port it is not.
WIRED = _B.vif_type == "ovs"
_EVERY = sa.select(_B.network_id, _B.port_id, _P.mac_address, _B.host, _B.active, _A.ip_address).where(
    _B.host != "", WIRED).join_from(t.bindings, t.ports, _P.id == _B.port_id).outerjoin(
        t.addresses, _A.port_id == _P.id)
_OF_NETWORKS = _EVERY.where(_B.network_id.in_(_IDS))
_OF_PORTS = _EVERY.where(_B.port_id.in_(sa.bindparam("ports", expanding=True)))
#: Those of these networks that the host has ports of.
_ON = sa.select(_B.network_id).distinct().where(_B.host == _HOST, WIRED, _B.network_id.in_(_IDS))

#: It is on no host, nor prepared on one.
GONE = PlacedPort(mac="")

# Asked at every change, so the cost must not grow with the ports: the tables have an index in the order (key, host),
# and a recursive statement goes from each host to the next one in it. Routers are found by their legs' own index.


def _distinct(keys: sa.Select[Any], key: sa.Column[Any], value: sa.Column[Any], name: str) -> sa.CTE:
    """(key, value) of each value that the table has for the keys; a row whose value is NULL ends each key's."""
    first = keys.subquery()
    start = sa.select(first.c[0].label("key"), sa.select(sa.func.min(value)).where(
        key == first.c[0], value > "").scalar_subquery().label("value")).cte(name, recursive=True)
    following = sa.select(sa.func.min(value)).where(key == start.c.key, value > start.c.value).scalar_subquery()
    return start.union_all(sa.select(start.c.key, following).where(start.c.value.is_not(None)))


def any_port(table: sa.Table, key: sa.Column[Any], keys: sa.Select[Any],
             *where: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """(a port of the key on the host, host): any port for which that holds, for it stands for all; None: there is
    none."""
    found = _distinct(keys, key, table.c.host, "hosts")
    port = sa.select(table.c.port_id).where(key == found.c.key, table.c.host == found.c.value, *where).limit(1)
    return sa.select(port.scalar_subquery(), found.c.value).where(found.c.value.is_not(None))


_HOSTS_OF = any_port(t.bindings, _B.network_id, sa.select(t.networks.c.id).where(t.networks.c.id.in_(_IDS)), WIRED)
_LEG, _OTHER = t.ports.alias("leg"), t.ports.alias("other")
_JOIN = sa.and_(t.is_leg(_LEG), _OTHER.c.device_id == _LEG.c.device_id, t.is_leg(_OTHER))


def _joined(own: sa.FromClause, *more: sa.Select[Any]) -> sa.CompoundSelect[Any]:
    """Those networks, what routers join with them or have the host for their gateway host, and more."""
    return sa.union(
        sa.select(own.c.id).where(own.c.id.is_not(None)),
        sa.select(_OTHER.c.network_id).where(_LEG.c.network_id == own.c.id, _JOIN),
        sa.select(_OTHER.c.network_id).where(_R.gateway_host == _HOST, _OTHER.c.device_id == _R.id, t.is_leg(_OTHER)),
        sa.select(_R.gateway_network_id).where(_R.gateway_host == _HOST, _R.gateway_network_id.is_not(None)),
        *more)


_OWN = _distinct(sa.select(_HOST.label("key")), _B.host, _B.network_id, "own")
_AROUND = _distinct(sa.select(_joined(sa.select(_OWN.c.value.label("id")).subquery()).subquery().c.id),
                    _B.network_id, _B.host, "around")
#: The networks of which a host keeps where the ports are.
_KEPT = _joined(sa.select(_B.network_id.label("id")).distinct().where(_B.host == _HOST, WIRED).subquery(), sa.select(
    _F.floating_network_id).where(_B.host == _HOST, _B.active, _F.port_id == _B.port_id))
_NEIGHBOURS = _distinct(sa.select(_KEPT.subquery().c.id), _B.network_id, _B.host, "neighbours")
_SHARING = sa.select(_NEIGHBOURS.c.value).distinct().where(_NEIGHBOURS.c.value.is_not(None))
_WAYS = sa.select(t.agents.c.host, t.agents.c.tunnel_ip).where(t.agents.c.tunnel_ip.is_not(None))
_WAYS_TO = _WAYS.where(t.agents.c.host.in_(sa.bindparam("hosts", expanding=True)))
_TUNNELS = _WAYS.where(t.agents.c.host.in_(sa.select(_AROUND.c.value)))
#: The networks that routers join with these, which are among them where there are any; the gateway hosts of those
#: routers, or of those whose gateways are on one of these; and hosts with floating IPs of these.
_BESIDE = sa.select(_OTHER.c.network_id).distinct().where(_LEG.c.network_id.in_(_IDS), _JOIN)
_GATEWAYS = sa.union(
    sa.select(_R.gateway_host).where(_LEG.c.network_id.in_(_IDS), t.is_leg(_LEG), _R.id == _LEG.c.device_id),
    sa.select(_R.gateway_host).where(_R.gateway_network_id.in_(_IDS)),
    sa.select(_B.host).where(_F.floating_network_id.in_(_IDS), _B.port_id == _F.port_id, _B.active))


def here(connection: sa.Connection, host: str, networks: Collection[str]) -> set[str]:
    """Those of the networks that have ports on the host, active or prepared."""
    return set(connection.execute(_ON, {"ids": list(networks), "host": host}).scalars()) if networks else set()


def kept(connection: sa.Connection, host: str, networks: Collection[str]) -> set[str]:
    """Those of the networks of which the host is to know where the ports are."""
    found = here(connection, host, networks)
    return found if len(found) == len(networks) else found | set(networks) & set(
        connection.execute(_KEPT, {"host": host}).scalars())


def keepers(connection: sa.Connection, network: str) -> set[str]:
    """The hosts that are to know where the ports of the network are."""
    beside = connection.execute(_BESIDE, {"ids": [network]}).scalars().all()
    gateways = connection.execute(_GATEWAYS, {"ids": [network]}).scalars()
    return {host for _, host in hosts_of_networks(connection, beside or [network])} | {*gateways} - {None, ""}


def hosts_of_networks(connection: sa.Connection, network_ids: Collection[str]) -> list[tuple[str, str]]:
    """(one of its ports, host) for each host of each of the networks."""
    return [(port, host) for port, host in connection.execute(_HOSTS_OF, {"ids": list(network_ids)}) if port]


def neighbours(connection: sa.Connection, host: str) -> set[str]:
    """The hosts that have ports of networks of which this one keeps them, itself too, if it has ports."""
    return set(connection.execute(_SHARING, {"host": host}).scalars())


def tunnels(connection: sa.Connection, host: str) -> dict[str, str]:
    """host -> tunnel address, of its neighbours that have one: to them frames go, and from them they are taken."""
    return {other: address for other, address in tunnel_ips(connection, host).items() if other != host}


def tunnel_ips(connection: sa.Connection, host: str) -> dict[str, str]:
    """As `tunnels`, with its own, if it has ports."""
    return {row.host: row.tunnel_ip for row in connection.execute(_TUNNELS, {"host": host})}


def named_in(places: Iterable[NetworkPorts]) -> set[str]:
    """The hosts that these ports are on, or prepared at."""
    return {host for each in places for port in each.ports.values() for host in (port.host, *port.prepared)} - {""}


def peers(connection: sa.Connection, hosts: Collection[str]) -> dict[str, Peer]:
    """Where frames for these hosts go."""
    at, found = eras.position(connection), connection.execute(_WAYS_TO, {"hosts": list(hosts)}) if hosts else ()
    return {host: Peer(tunnel_ip=ip, n=at.n, era=at.era) for host, ip in found}


def _find(connection: sa.Connection, networks: Collection[str], ports: Collection[str] | None) -> Found[PlacedPort]:
    asked = (_OF_NETWORKS, {"ids": list(networks)}) if ports is None else (_OF_PORTS, {"ports": list(ports)})
    read = dict[str, tuple[str, str, dict[str, bool], set[str]]]()
    for network, port, mac, host, active, address in connection.execute(*asked):
        known = read.get(port) or read.setdefault(port, (network, mac, {}, set()))
        known[2][host] = active
        known[3].update([address] if address else ())
    found: dict[str, dict[str, PlacedPort]] = defaultdict(dict)
    for port, (network, mac, hosts, addresses) in read.items():
        found[network][port] = PlacedPort(
            mac=mac, addresses=tuple(sorted(addresses)), host=next((h for h, active in hosts.items() if active), ""),
            prepared=tuple(sorted(h for h, active in hosts.items() if not active)))
    return found


PLACED = Numbered[NetworkPorts, PlacedPort](t.placed_changes, (t.networks, _B.network_id), NetworkPorts, _find, GONE)
