"""Routing between a router's networks, on the host of whoever sends: flows for its addresses and for each destination.
Those for each neighbour that is known are near.py's. IPv4."""

import ipaddress
from collections.abc import Iterator, Mapping

from nacre.network.contract import NetworkFacts, RouterFacts, RouterLeg
from nacre.node.ovs.flows import CLASSIFY, DELIVER, DHCP, FROM, OUTSIDE, Flow, Local, entering
from nacre.node.routing.facts import Surroundings
from nacre.node.routing.pipeline import (
    ANYWHERE,
    CARRY,
    ECHO,
    EXPIRED,
    HOP,
    METADATA,
    MINE,
    NEIGHBOUR,
    OWN,
    ROUTE,
    ROUTER,
    ROUTES,
    SOURCE,
    answer_arp,
    echoed,
    from_guest,
    of_network,
    own_mac,
    wire,
    word,
)

METADATA_IP = "169.254.169.254"


class Inside:
    """One router, of which this host knows at least one network."""

    def __init__(self, router: RouterFacts, networks: Mapping[str, NetworkFacts], local: Local, here: Surroundings):
        self.router, self.networks, self.local, self.here = router, networks, local, here
        self.me = f"{ROUTER}={here.numbers[router.id]}"
        self.legs = [leg for leg in router.interfaces if leg.network_id in local.numbers]

    def flows(self) -> Iterator[Flow]:
        for leg in self.router.interfaces:
            if leg in self.legs:
                yield from self._addressed(leg)
            for interface in fours(leg):
                yield self._connected(leg, interface)
        for destination, hop in self.router.routes:
            yield from self._beyond(destination, hop)

    def _addressed(self, leg: RouterLeg) -> Iterator[Flow]:
        """What guests say to the router itself, and what they want routed."""
        number = self.local.numbers[leg.network_id]
        for interface in fours(leg):
            address = str(interface.ip)
            yield Flow(DELIVER, MINE, f"arp,{from_guest(number)},arp_op=1,arp_tpa={address}",
                       answer_arp(address, leg.mac))
            yield Flow(ROUTE, ECHO, f"icmp,{self.me},nw_dst={address},icmp_type=8", echoed(address))
            yield Flow(ROUTE, OWN, f"ip,{self.me},nw_dst={address}", "drop")  # it would be routed to itself, and again
            yield Flow(NEIGHBOUR, 100, f"{of_network(number)},{HOP}={word(address)}",
                       f"mod_dl_dst:{leg.mac},resubmit(,{DELIVER})")
            yield Flow(SOURCE, 20, f"ip,{self.me},{of_network(number)},nw_src={interface.network}",
                       f"resubmit(,{ROUTE})")
            yield Flow(SOURCE, 10, f"ip,{self.me},nw_src={interface.network}", "drop")
        yield from self._entered(leg, number)
        helper = self.here.helpers.get(leg.port_id)
        if helper is not None:  # it makes ICMP errors, and asks for whom they are, among this host's guests
            yield Flow(CLASSIFY, 100, f"in_port={helper},vlan_tci=0x0000",
                       f"load:{number}->NXM_NX_REG6[],load:{DHCP}->NXM_NX_REG7[],resubmit(,{DELIVER})")
            yield Flow(ROUTE, EXPIRED, f"ip,{self.me},{of_network(number)},nw_ttl=1", f"output:{helper}")
            yield Flow(DELIVER, MINE, f"arp,{from_guest(number)},dl_dst={leg.mac},arp_op=2", f"output:{helper}")
        dhcp, network = self.local.dhcp.get(leg.network_id), self.networks.get(leg.network_id)
        if dhcp is not None and network is not None and network.dhcp_mac:
            yield Flow(ROUTE, METADATA, f"ip,{self.me},{from_guest(number)},nw_dst={METADATA_IP}",  # of this host alone
                       f"mod_dl_dst:{network.dhcp_mac},output:{dhcp}")

    def _entered(self, leg: RouterLeg, number: int) -> Iterator[Flow]:
        """What is for the interface's MAC; on the gateway host that which other hosts hand over, too. And what leaves
        for others' hosts by a wire."""
        to = f"load:{self.here.numbers[self.router.id]}->NXM_NX_REG3[],resubmit(,{SOURCE})"
        central = self.router.gateway is not None and self.router.gateway.host == self.here.host
        network = self.networks.get(leg.network_id)
        way, own = wire(network, self.local) if network is not None else None, own_mac(self.here.host, leg.mac)
        yield Flow(DELIVER, MINE, f"ip,{of_network(number) if central and way is None else from_guest(number)},"
                   f"dl_dst={leg.mac}", to)
        if central and network is not None and way is not None:
            yield classify(network, number, way)
            yield Flow(DELIVER, MINE, f"ip,{of_network(number)},{FROM}={OUTSIDE},dl_dst={own}", to)
        if way is not None:
            yield Flow(CARRY, 100, f"{of_network(number)},dl_src={leg.mac}",
                       f"mod_dl_src:{own},{way[0]}output:{way[1]}")

    def _connected(self, leg: RouterLeg, interface: ipaddress.IPv4Interface) -> Flow:
        """To a network of the router's; one that is not known here is not outside for that."""
        return Flow(ROUTE, ROUTES + 10 * interface.network.prefixlen + 1,
                    f"ip,{self.me},nw_dst={interface.network}",
                    self._to(leg, "move:NXM_OF_IP_DST[]->NXM_NX_REG2[]") if leg in self.legs else "drop")

    def _beyond(self, destination: str, hop: str) -> Iterator[Flow]:
        """A route by a neighbour on one of the router's networks. One by the outside is outside.py's."""
        if ":" in destination or (leg := leg_of(self.legs, hop)) is None:
            return
        net = ipaddress.IPv4Network(destination)
        match = f"ip,{self.me}" + (f",nw_dst={net}" if net.prefixlen else "")
        yield Flow(ROUTE, ROUTES + 10 * net.prefixlen, match, self._to(leg, f"load:{word(hop)}->NXM_NX_REG2[]"))

    def _to(self, leg: RouterLeg, asked: str) -> str:
        return (f"dec_ttl,mod_dl_src:{leg.mac},load:{self.local.numbers[leg.network_id]}->NXM_NX_REG6[],{asked},"
                f"{ANYWHERE},resubmit(,{NEIGHBOUR})")


def switched_off(router: RouterFacts, local: Local) -> Iterator[Flow]:
    """Nobody else gets what is for its MACs."""
    for leg in router.interfaces:
        if (number := local.numbers.get(leg.network_id)) is not None:
            yield Flow(DELIVER, MINE, f"ip,{from_guest(number)},dl_dst={leg.mac}", "drop")


def classify(network: NetworkFacts, number: int, way: tuple[str, str]) -> Flow:
    """Frames of the network's wire, as switching takes them where guests are on it."""
    tagged = network.network_type == "vlan"
    match = f"dl_vlan={network.segmentation_id}" if tagged else "vlan_tci=0x0000"
    return Flow(CLASSIFY, 100, f"in_port={way[1]},{match}",
                ("strip_vlan," if tagged else "") + entering(number, OUTSIDE, DELIVER))


def fours(leg: RouterLeg) -> list[ipaddress.IPv4Interface]:
    """The IPv4 addresses of an interface."""
    return [ipaddress.IPv4Interface(address) for address in leg.addresses if ":" not in address]


def leg_of(legs: list[RouterLeg], hop: str) -> RouterLeg | None:
    """The interface on whose network the next hop is."""
    if ":" in hop:
        return None
    address = ipaddress.IPv4Address(hop)
    return next((leg for leg in legs if any(address in interface.network for interface in fours(leg))), None)
