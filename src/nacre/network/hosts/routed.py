"""Whose routing a change concerns: the hosts with ports of networks that routers join, gateway hosts, and the hosts of
ports with floating IPs. Each change writes down, under its number, the networks (ROUTED) and the hosts by themselves
(ROUTING), both as they were before it and after it. A host asks for all that it routes when one of its own is news."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

import sqlalchemy as sa

from nacre.base.bounds import pieces
from nacre.base.durable import changes as outbox
from nacre.network import tables as t
from nacre.network.hosts import placed
from nacre.network.work import MANY, Work

#: Kinds of `last_changes`: what hosts with ports of a network route, and what a host routes beside that.
ROUTED, ROUTING = "routed", "routing"

_R, _P, _B, _F = t.routers.c, t.ports.c, t.bindings.c, t.floatingips.c
_IDS: sa.BindParameter[str] = sa.bindparam("ids", expanding=True)
_JOINING = sa.select(_P.device_id).where(_P.network_id.in_(_IDS), t.is_leg(t.ports)).union(
    sa.select(_R.id).where(_R.gateway_network_id.in_(_IDS)))
_LEGS = sa.select(_P.network_id).distinct().where(_P.device_id.in_(_IDS), t.is_leg(t.ports))
_GATEWAYS = sa.select(_R.gateway_host).distinct().where(_R.id.in_(_IDS), _R.gateway_host.is_not(None))
_AT = sa.select(_B.host).distinct().where(_B.port_id.in_(_IDS), _B.active, _B.host != "")


def marks(work: Work) -> dict[str, set[str]]:
    """kind -> what the unit of work concerns."""
    changes = work.changes
    routers = changes.routers | _read(work, _JOINING, changes.networks)
    hosts = changes.routing | _read(work, _GATEWAYS, routers | changes.forwarding) | _read(work, _AT, changes.floated)
    hosts |= {host for host, ports in changes.left.items() if ports & changes.floated}
    found = {ROUTED: changes.routed | _read(work, _LEGS, routers), ROUTING: hosts - {""}}
    return {kind: ids for kind, ids in found.items() if ids}


def _read(work: Work, statement: sa.Select[str] | sa.CompoundSelect[str], ids: Collection[str]) -> set[str]:
    return {each for some in pieces(ids, MANY) for each in work.conn.execute(statement, {"ids": some}).scalars()}


def write(work: Work, found: Mapping[str, Collection[str]], n: int) -> None:
    """Under that number."""
    for kind, ids in found.items():
        for some in pieces(sorted(ids), MANY):
            outbox.chain(work.conn, work.now, kind, some, n)


def told(connection: sa.Connection, things: Iterable[tuple[str, str]]
         ) -> tuple[dict[str, int], dict[tuple[str, str], int]]:
    """host -> up to which change there is news of what it routes, because of these (kind, id); and how many hosts each
    of these concerns, with those that changed with it."""
    ids, found = defaultdict[str, list[str]](list), dict[str, int]()
    counts = dict.fromkeys(things, 1)
    for kind, id in counts:
        ids[kind].append(id)
    for some in pieces(ids[ROUTING], MANY):
        found |= outbox.latest(connection, ROUTING, ids=some)
    for some in pieces(ids[ROUTED], MANY):
        networks = defaultdict[int, list[str]](list)
        for network, n in outbox.latest(connection, ROUTED, ids=some).items():
            networks[n].append(network)
        for n, each in networks.items():
            hosts = {host for _, host in placed.hosts_of_networks(connection, each)}
            found |= {host: max(n, found.get(host, 0)) for host in hosts}
            counts |= {(ROUTED, network): len(hosts) for network in each}
    return found, counts


def newest(connection: sa.Connection, host: str, networks: Mapping[str, int], own: int) -> int:
    """The number of the last change that concerns the host. networks: those of which something is news; own: of the
    host itself."""
    return max((own, *(networks[id] for id in placed.here(connection, host, networks))))
