"""What a host routes, read in a fixed number of statements however many routers there are."""

import ipaddress
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar

import sqlalchemy as sa

from nacre.base.context import Context, service_context
from nacre.base.durable import eras
from nacre.base.durable.processes import Guard
from nacre.network import tables as t
from nacre.network.contract import (
    FloatingFacts,
    ForwardingFacts,
    GatewayFacts,
    NetworkFacts,
    RouterFacts,
    RouterLeg,
    Routing,
    Served,
    SubnetFacts,
)
from nacre.network.hosts import agents, facts, placed
from nacre.network.hosts.wholes import InTurn
from nacre.network.l3 import reports
from nacre.network.l3.legs import GATEWAY, INTERFACE
from nacre.network.ml2.mechanism_drivers.openvswitch import reaches
from nacre.network.nouns.network import Network, NetworkSegment
from nacre.network.nouns.router import Router
from nacre.network.nouns.subnet import Subnet
from nacre.network.work import Work, columns

T = TypeVar("T")

_B, _P, _R, _F, _W = t.bindings.c, t.ports.c, t.routers.c, t.floatingips.c, t.port_forwardings.c
_HOST = sa.bindparam("host", type_=sa.String)
#: The networks that the host has ports of, and the routers that join one of them, or of which it is the gateway host.
_OWN = sa.select(_B.network_id).distinct().where(_B.host == _HOST, placed.WIRED)
_ROUTERS = sa.select(_P.device_id.label("id")).where(
    _P.network_id.in_(_OWN), t.is_leg(t.ports), _P.admin_state_up).union(
        sa.select(_R.id).where(_R.gateway_host == _HOST)).subquery()
_ROUTER = sa.select(*columns(Router)).where(_R.id.in_(sa.select(_ROUTERS.c.id))).order_by(_R.id)
_LEGS = sa.select(
    _P.device_id, _P.device_owner, _P.id, _P.network_id, _P.mac_address, t.addresses.c.ip_address,
    t.subnets.c.cidr).where(
        _P.device_id.in_(sa.select(_ROUTERS.c.id)), _P.device_owner.in_((INTERFACE, GATEWAY)), _P.admin_state_up
    ).join_from(t.ports, t.addresses, t.addresses.c.port_id == _P.id).join(
        t.subnets, t.subnets.c.id == t.addresses.c.subnet_id).order_by(
            _P.network_id, _P.id, t.addresses.c.position, t.addresses.c.ip_address)
_OUTER, _INNER = t.ports.alias("outer_port"), t.ports.alias("inner_port")
_FLOATING = sa.select(
    _F.id, _F.floating_network_id, _F.floating_ip_address, _OUTER.c.mac_address, _F.port_id, _INNER.c.network_id,
    _F.fixed_ip_address, _F.router_id).where(
        _B.host == _HOST, _B.active, placed.WIRED, _F.port_id == _B.port_id, _F.router_id.is_not(None),
        _INNER.c.id == _F.port_id, _INNER.c.admin_state_up, _OUTER.c.id == _F.floating_port_id).order_by(_F.id)
_FORWARDING = sa.select(
    _F.router_id, _F.id, _F.floating_ip_address, _OUTER.c.mac_address, _W.protocol, _W.external_first,
    _W.external_last, _INNER.c.network_id, _W.internal_ip_address, _W.internal_first, _W.internal_last).where(
        _R.gateway_host == _HOST, _F.router_id == _R.id, _W.floatingip_id == _F.id,
        _OUTER.c.id == _F.floating_port_id, _INNER.c.id == _W.internal_port_id).order_by(
            _F.id, _W.protocol, _W.external_first)


class RoutingVerbs:
    """The contract's verbs of what hosts route, for the manager."""

    _large: InTurn

    async def read(self, context: Context, step: Callable[[Work], T]) -> T:
        """As the manager's."""
        raise NotImplementedError

    async def write(self, context: Context, step: Callable[[Work], T], guard: Guard | None = None) -> T:
        """As the manager's."""
        raise NotImplementedError

    async def routing(self, host: str) -> Routing:
        async with self._large.turn(host):
            return await self.read(service_context(), lambda work: read(work, host))

    async def routed(self, host: str, served: Served, up: bool) -> None:
        if await self.read(service_context(), lambda work: reports.news(work, host, served, up)):
            await self.write(service_context(), lambda work: reports.routed(work, host, served, up))


def read(work: Work, host: str) -> Routing:
    """As the contract's verb, in one consistent read. Of other projects' routers and networks that are joined to one
    that the host has ports of it has what forwarding needs: no names, and nobody's."""
    asked, at = {"host": host}, eras.position(work.conn)
    routers = [Router(*row) for row in work.conn.execute(_ROUTER, asked)]
    legs, gateways = _legs(work.conn.execute(_LEGS, asked))
    floating = tuple(FloatingFacts(
        id=row[0], network_id=row[1], address=row[2], mac=row[3], port_id=row[4], inner_network_id=row[5],
        fixed_ip=row[6], router_id=row[7]) for row in work.conn.execute(_FLOATING, asked))
    forwardings = defaultdict[str, list[ForwardingFacts]](list)
    for row in work.conn.execute(_FORWARDING, asked):
        forwardings[row[0]].append(ForwardingFacts(
            floating_id=row[1], address=row[2], mac=row[3], protocol=row[4], outer=(row[5], row[6]),
            inner_network_id=row[7], inner_address=row[8], inner=(row[9], row[10])))
    hops = _next_hops(work, {leg.network_id for leg in gateways.values()})
    found = tuple(RouterFacts(
        id=router.id, up=router.admin_state_up, interfaces=tuple(legs[router.id]),
        routes=tuple((route["destination"], route["nexthop"]) for route in router.routes),
        gateway=_gateway(router, gateways.get(router.id), hops), forwardings=tuple(forwardings[router.id]))
        for router in routers)
    ids = {leg.network_id for router in found for leg in router.interfaces} | {each.network_id for each in floating} | {
        router.gateway.network_id for router in found if router.gateway and router.gateway.host == host}
    return Routing(
        n=at.n, era=at.era, routers=found, floating=floating, networks=_networks(work, host, ids),
        peers=placed.peers(work.conn, {router.gateway_host for router in routers if router.gateway_host} - {host}))


def _legs(rows: Iterable[Any]) -> tuple[dict[str, list[RouterLeg]], dict[str, RouterLeg]]:
    """Of each router its interfaces, and its gateway as if it were one."""
    legs, gateways, ports = defaultdict[str, list[RouterLeg]](list), dict[str, RouterLeg](), dict[str, list[Any]]()
    for row in rows:
        ports.setdefault(row[2], []).append(row)
    for each in ports.values():
        router, owner, port, network, mac, *_ = each[0]
        leg = RouterLeg(network_id=network, port_id=port, mac=mac, addresses=tuple(
            f"{row[5]}/{row[6].partition('/')[2]}" for row in each))
        if owner == INTERFACE:
            legs[router].append(leg)
        else:
            gateways[router] = leg
    return legs, gateways


def _next_hops(work: Work, networks: Collection[str]) -> dict[str, list[Subnet]]:
    """The subnets of each of these networks that have a gateway."""
    found = defaultdict[str, list[Subnet]](list)
    for subnet in work.select(Subnet, order=("created_at", "id"), network_id=list(networks)) if networks else ():
        if subnet.gateway_ip:
            found[subnet.network_id].append(subnet)
    return found


def _gateway(router: Router, leg: RouterLeg | None, subnets: Mapping[str, list[Subnet]]) -> GatewayFacts | None:
    """next_hops: of the subnets on which it has an address first."""
    if leg is None:
        return None
    own = {ipaddress.ip_interface(address).network for address in leg.addresses}
    around = sorted(subnets.get(leg.network_id, ()), key=lambda subnet: ipaddress.ip_network(subnet.cidr) not in own)
    return GatewayFacts(
        network_id=leg.network_id, port_id=leg.port_id, mac=leg.mac,
        addresses=tuple(address.partition("/")[0] for address in leg.addresses),
        next_hops=tuple(str(subnet.gateway_ip) for subnet in around), snat=router.enable_snat,
        host=router.gateway_host or "", term=router.gateway_term)


def _networks(work: Work, host: str, ids: Collection[str]) -> tuple[NetworkFacts, ...]:
    """As the host reaches them: by the segments of its ports, where it has any; else by that by which it would be
    bound. What it does not reach is left out."""
    if not ids:
        return ()
    own = placed.here(work.conn, host, ids)
    known = facts.networks(work, own, host)
    agent, found = agents.of_hosts(work, [host]).get(host), dict[str, NetworkSegment]()
    others = sorted(set(ids) - {network.id for network in known})
    for segment in work.select(NetworkSegment, order=("position",), network_id=others, dynamic=False) if others else ():
        if agent is not None and reaches(agent, segment.offered()):
            found.setdefault(segment.network_id, segment)
    return tuple(sorted((*known, *_beside(work, found)), key=lambda network: network.id))


def _beside(work: Work, segments: Mapping[str, NetworkSegment]) -> Iterable[NetworkFacts]:
    """Of networks that the host has no ports of, what forwarding needs."""
    if not segments:
        return
    subnets = defaultdict[str, list[SubnetFacts]](list)
    for subnet in work.select(Subnet, order=("created_at", "id"), network_id=list(segments)):
        subnets[subnet.network_id].append(SubnetFacts(
            id=subnet.id, cidr=subnet.cidr, ip_version=subnet.ip_version, gateway_ip=subnet.gateway_ip,
            enable_dhcp=False))
    for network in work.select(Network, id=list(segments)):
        segment = segments[network.id]
        yield NetworkFacts(
            id=network.id, name="", project_id="", mtu=network.mtu, network_type=segment.network_type,
            physical_network=segment.physical_network, segmentation_id=segment.segmentation_id,
            subnets=tuple(subnets[network.id]))
