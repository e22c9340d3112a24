"""The routes that a router has beside those to its own subnets."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from nacre.base.errors import BadRequest, QuotaExceeded
from nacre.network import tables as t
from nacre.network.nouns.attributes import Attributes
from nacre.network.work import Work

Route = dict[str, str]
#: As Neutron's max_routes.
MAX_ROUTES = 30


@dataclass(frozen=True)
class Reach:
    """What a router is connected with: its subnets, and its own addresses in them."""

    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]
    addresses: frozenset[str]


def reach(work: Work, router_id: str, owners: Sequence[str]) -> Reach:
    """By its ports of these owners."""
    p, a, s = t.ports.c, t.addresses.c, t.subnets.c
    rows = work.rows(sa.select(s.cidr, a.ip_address).join_from(
        t.ports, t.addresses, a.port_id == p.id).join(t.subnets, s.id == a.subnet_id).where(
            p.device_id == router_id, p.device_owner.in_(owners)))
    return Reach(tuple(ipaddress.ip_network(row["cidr"]) for row in rows),
                 frozenset(row["ip_address"] for row in rows))


def check(routes: Sequence[Attributes], known: Reach) -> None:
    """Raises BadRequest where a next hop is not connected with the router, or is itself; QuotaExceeded for too many."""
    if len(routes) > MAX_ROUTES:
        raise QuotaExceeded("Quota exceeded for resources: ['router_route'].", type="OverQuota")
    for route in routes:
        hop = ipaddress.ip_address(route["nexthop"])
        if not any(hop.version == net.version and hop in net for net in known.networks):
            raise _wrong(routes, "the nexthop is not connected with router")
        if route["nexthop"] in known.addresses:
            raise _wrong(routes, "the nexthop is used by router")


def _wrong(routes: Sequence[Attributes], why: str) -> BadRequest:
    return BadRequest(f"Invalid format for routes: {list(routes)}, {why}", field="routes", type="InvalidRoutes")


def added(old: Sequence[Route], more: Sequence[Route]) -> list[Route]:
    """Both; a route that is there already stays where it is.

    >>> added([{"destination": "10.0.0.0/8", "nexthop": "192.0.2.1"}], [{"destination": "10.0.0.0/8",
    ...     "nexthop": "192.0.2.1"}])
    [{'destination': '10.0.0.0/8', 'nexthop': '192.0.2.1'}]
    """
    return [*old, *(route for route in more if route not in old)]


def removed(old: Sequence[Route], gone: Sequence[Route]) -> list[Route]:
    """Those that are not among `gone`; what is not there is gone already."""
    return [route for route in old if route not in gone]
