"""All flows of routing on a host, from what it is told and what it knows itself."""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice

import msgspec
import structlog

from nacre.network.contract import FloatingFacts, NetworkFacts, RouterFacts, Served
from nacre.node.ovs.flows import Flow, Local, unique
from nacre.node.ovs.groups.elsewhere import MAC
from nacre.node.routing.facts import Surroundings
from nacre.node.routing.inside import Inside, switched_off
from nacre.node.routing.near import Joined, Joint, Near
from nacre.node.routing.outside import Outside
from nacre.node.routing.pipeline import base, wire

log = structlog.get_logger()

#: Of one router on one host: with more all that is done on the host waits for it.
MOST_FLOWS = 20_000


class Out(msgspec.Struct, frozen=True, kw_only=True):
    """An external network that this host speaks on. send: actions that send a frame there. asks: next hops, each with
    the address and MAC that asks. addresses: whose MAC is told there."""

    send: str
    asks: Mapping[str, tuple[str, str]] = {}
    addresses: Mapping[str, str] = {}


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """flows: but those that follow from where ports are: for these, `joined`. served: what works with them. out: by
    external network."""

    flows: tuple[Flow, ...] = ()
    joined: Joined = Joined()
    served: Served = Served()
    out: Mapping[str, Out] = {}


def routing_plan(routers: Iterable[RouterFacts], floating: Iterable[FloatingFacts],
                 networks: Mapping[str, NetworkFacts], local: Local, here: Surroundings) -> Plan:
    """The flows of the tables of routing, and those by which frames come there. A router that has no number here has
    none; a floating IP has where its port is. A router that is not to be expressed is left out alone."""
    made, mine = _Made(networks, local, here), [each for each in floating if each.port_id in local.ofports]
    for router in routers:
        if router.id in here.numbers:
            try:
                made.add(router, [each for each in mine if each.router_id == router.id])
            except Exception as error:  # whatever is wrong with what is said of it, the others are right
                log.error("router left out", router=router.id, why=repr(error))
    return made.plan()


class _Made:
    """What was planned so far."""

    def __init__(self, networks: Mapping[str, NetworkFacts], local: Local, here: Surroundings):
        self.networks, self.local, self.here = networks, local, here
        self.flows, self.near, self.out = list(base()), dict[str, Near](), dict[str, Out]()
        self.joints = dict[str, frozenset[Joint]]()
        self.routers, self.gateways, self.floating = list[str](), dict[str, int](), set[str]()

    def add(self, router: RouterFacts, floating: list[FloatingFacts]) -> None:
        """All of it, or nothing. Raises, if nothing."""
        check(router)
        if not router.up:
            self.flows += switched_off(router, self.local)
            return
        inside, outside = Inside(router, self.networks, self.local, self.here), None
        near, joints = dict(self._near(inside)), dict(_joints(router))
        if router.gateway is not None:
            outside = Outside(router, router.gateway, [each for each in floating if _sound(each)],
                              (self.networks, self.local, self.here))
            if outside.translates:
                near[router.gateway.network_id] = Near(number=outside.number, outside=outside.send()) | near.get(
                    router.gateway.network_id, Near(number=outside.number))
        planned = chain(inside.flows(), outside.flows() if outside is not None else ())
        if len(flows := list(islice(planned, MOST_FLOWS + 1))) > MOST_FLOWS:
            raise ValueError(f"it would have more than {MOST_FLOWS} flows")
        if outside is not None and outside.translates:
            self._speak(outside.gateway.network_id, outside)
        self.flows += flows
        self.near |= {id: each | self.near.get(id, each) for id, each in near.items()}
        self.joints |= {id: each | self.joints.get(id, frozenset()) for id, each in joints.items()}
        self._count(router, inside, outside)

    def _near(self, inside: Inside) -> Iterator[tuple[str, Near]]:
        for leg in inside.legs:
            number, network = self.local.numbers[leg.network_id], self.networks.get(leg.network_id)
            yield leg.network_id, Near(number=number, inside=True, wire=(
                network is not None and wire(network, self.local) is not None))

    def _speak(self, network_id: str, outside: Outside) -> None:
        known = self.out.get(network_id, Out(send=outside.send()))
        self.out[network_id] = Out(send=known.send, asks={**outside.asks(), **known.asks},
                                   addresses={**outside.addresses(), **known.addresses})

    def _count(self, router: RouterFacts, inside: Inside, outside: Outside | None) -> None:
        if inside.legs:
            self.routers.append(router.id)
        if outside is not None:
            self.floating |= outside.served()
            if outside.central and outside.wire is not None:
                self.gateways[router.id] = outside.gateway.term

    def plan(self) -> Plan:
        """All of it."""
        return Plan(flows=unique(self.flows), out=self.out,
                    joined=Joined(host=self.here.host, near=self.near, joints=self.joints),
                    served=Served(routers=tuple(sorted(self.routers)), gateways=self.gateways,
                                  floating=tuple(sorted(self.floating))))


def check(router: RouterFacts) -> None:
    """Raises ValueError: a flow cannot say that, and none of a bundle with such a flow would be taken."""
    addresses = [hop for _, hop in router.routes]
    macs = [leg.mac for leg in router.interfaces]
    if (gateway := router.gateway) is not None:
        addresses += [*gateway.addresses, *gateway.next_hops]
        macs.append(gateway.mac)
    for each in router.forwardings:
        addresses += [each.address, each.inner_address]
        macs.append(each.mac)
        if each.protocol not in ("tcp", "udp", "sctp") or not all(
                1 <= first <= last <= 0xFFFF for first, last in (each.outer, each.inner)):
            raise ValueError(f"{each.protocol} {each.outer} {each.inner} cannot be forwarded")
    _check(addresses, macs)


def _check(addresses: Iterable[str], macs: Iterable[str]) -> None:
    for address in addresses:
        ipaddress.ip_address(address)
    for mac in macs:
        if not MAC.fullmatch(mac):
            raise ValueError(f"{mac[:64]} is no MAC")


def _sound(each: FloatingFacts) -> bool:
    try:
        _check((each.address, each.fixed_ip), (each.mac,))
    except ValueError as error:
        log.error("floating IP left out", floating=each.id, why=str(error))
        return False
    return True


def _joints(router: RouterFacts) -> Iterator[tuple[str, frozenset[Joint]]]:
    gateway = router.gateway.host if router.gateway is not None else ""
    every = frozenset(leg.network_id for leg in router.interfaces)
    for network in every:
        yield network, frozenset(Joint(leg.mac, every - {network}, gateway)
                                 for leg in router.interfaces if leg.network_id == network)
