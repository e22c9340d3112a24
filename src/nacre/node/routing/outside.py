"""The way out and in: floating IPs on the host of their port, everything else on the router's gateway host. Addresses
are translated by ct(nat), each floating IP in a zone of its own and each gateway in one: so a connection from one to
another of the same host is translated twice."""

import ipaddress
from collections.abc import Iterator, Mapping, Sequence

from nacre.network.contract import FloatingFacts, ForwardingFacts, GatewayFacts, NetworkFacts, RouterFacts
from nacre.node.ovs.flows import DELIVER, FROM, OUTSIDE, Flow, Local
from nacre.node.ovs.groups.rules import port_masks
from nacre.node.routing.facts import Surroundings
from nacre.node.routing.inside import classify, leg_of
from nacre.node.routing.pipeline import (
    ANSWERS_LAST,
    AS_OURS,
    ENTER,
    HEARD,
    HEARD_COOKIE,
    LEAVE,
    MINE,
    OUT_THERE,
    OWN_SOURCE,
    ROUTE,
    ROUTER,
    SOURCE,
    TRANSLATE,
    answer_arp,
    answer_echo,
    network_word,
    of_network,
    own_mac,
    wire,
)

#: From which ports connections that many guests share an address for are sent.
PORTS = "1024-65535"


class Outside:
    """One router with a gateway. floating: those of its that stand for ports of this host."""

    def __init__(self, router: RouterFacts, gateway: GatewayFacts, floating: Sequence[FloatingFacts],
                 place: tuple[Mapping[str, NetworkFacts], Local, Surroundings]):
        self.router, self.gateway = router, gateway
        self.networks, self.local, self.here = place
        self.me = f"{ROUTER}={self.here.numbers[router.id]}"
        self.mark = f"load:{self.here.numbers[router.id]}->NXM_NX_REG3[]"
        network = self.networks.get(gateway.network_id)
        self.wire = wire(network, self.local) if network and gateway.network_id in self.local.numbers else None
        self.central = gateway.host == self.here.host and router.id in self.here.zones
        self.floating = [each for each in floating
                         if each.id in self.here.zones and each.inner_network_id in self.local.numbers
                         and self._reaches(each.inner_network_id, each.fixed_ip)]
        self.number = self.local.numbers.get(gateway.network_id, 0)

    def _reaches(self, network_id: str, address: str) -> bool:
        """Whether the router is where the address is: on another network the same one is another's."""
        return leg_of([leg for leg in self.router.interfaces if leg.network_id == network_id], address) is not None

    @property
    def translates(self) -> bool:
        """Whether addresses outside are answered for here."""
        return self.wire is not None and (self.central or bool(self.floating))

    def flows(self) -> Iterator[Flow]:
        if self.wire is None:
            yield from self._to_gateway_host()
            return
        if self.translates:
            yield classify(self.networks[self.gateway.network_id], self.number, self.wire)
        for each in self.floating:
            yield from self._floating(each)
        if self.central:
            yield from self._gateway()
        else:
            yield from self._to_gateway_host()
        yield from self._leaving()
        yield from self._heard()

    def addresses(self) -> dict[str, str]:
        """Whose MAC is told outside: address -> MAC."""
        if self.wire is None:
            return {}
        found = {each.address: each.mac for each in self.floating}
        if self.central:
            found |= {address: self.gateway.mac for address in self.gateway.addresses if ":" not in address}
            found |= {each.address: each.mac for each in self._forwardings()}
        return found

    def served(self) -> set[str]:
        """The floating IPs that work here, or their forwardings."""
        if self.wire is None:
            return set()
        return {each.id for each in self.floating} | {
            each.floating_id for each in (self._forwardings() if self.central else ())}

    def asks(self) -> dict[str, tuple[str, str]]:
        """The next hops outside that are to be asked for their MAC, each with the address and MAC that asks."""
        own = self.addresses()
        inside = [leg for leg in self.router.interfaces if leg.network_id in self.local.numbers]
        hops = [*self.gateway.next_hops, *(hop for destination, hop in self.router.routes
                                           if ":" not in destination and leg_of(inside, hop) is None)]
        return {hop: next(iter(own.items())) for hop in hops if ":" not in hop} if own else {}

    def send(self) -> str:
        """Actions that send a frame on the external network's wire."""
        first, uplink = self.wire or ("", "")
        return f"{first}output:{uplink}"

    def _forwardings(self) -> list[ForwardingFacts]:
        return [each for each in self.router.forwardings if self._reaches(each.inner_network_id, each.inner_address)]

    def _floating(self, each: FloatingFacts) -> Iterator[Flow]:
        zone, tracked = self.here.zones[each.id], f"ip,{self.me},ct_zone={self.here.zones[each.id]}"
        yield from self._answered(each.address, each.mac)
        yield from self._entering(each.address, each.mac, zone)
        yield Flow(ENTER, 100, f"{tracked},ct_state=+trk+new,nw_dst={each.address}",
                   f"ct(commit,zone={zone},nat(dst={each.fixed_ip}),table={SOURCE})")
        # In user space Open vSwitch translates at once what follows on a first packet that nobody has answered yet; in
        # the kernel such a packet is as the first.
        for state in ("+trk+new+dnat", "+trk+est"):
            yield Flow(ENTER, 90, f"{tracked},ct_state={state}", f"resubmit(,{SOURCE})")
        inner = of_network(self.local.numbers[each.inner_network_id])
        yield Flow(ROUTE, OWN_SOURCE, f"ip,{self.me},{inner},nw_src={each.fixed_ip}",
                   f"ct(zone={zone},nat,table={TRANSLATE})")
        yield from self._translated(zone, each.mac, each.address)

    def _gateway(self) -> Iterator[Flow]:
        zone, gateway = self.here.zones[self.router.id], self.gateway
        four = [address for address in gateway.addresses if ":" not in address]
        for address in four:
            yield from self._answered(address, gateway.mac)
            yield Flow(DELIVER, MINE + 2, f"icmp,{of_network(self.number)},dl_dst={gateway.mac},nw_dst={address},"
                       "icmp_type=8", answer_echo(address, gateway.mac, self._back()))
            yield from self._entering(address, gateway.mac, zone)
        yield Flow(ENTER, 90, f"ip,{self.me},ct_zone={zone},ct_state=+trk+est+rpl", f"resubmit(,{SOURCE})")
        for forwarding in self._forwardings():
            yield from self._forwarded(forwarding, zone)
        yield Flow(ROUTE, OUT_THERE, f"ip,{self.me}", f"ct(zone={zone},nat,table={TRANSLATE})")
        if not gateway.snat:  # who is outside knows the way to the addresses inside
            yield Flow(DELIVER, MINE, f"ip,{of_network(self.number)},dl_dst={gateway.mac}",
                       f"{self.mark},{AS_OURS},resubmit(,{SOURCE})")
        if four:
            yield from self._translated(zone, gateway.mac, f"{four[0]}:{PORTS}" if gateway.snat else "")

    def _answered(self, address: str, mac: str) -> Iterator[Flow]:
        yield Flow(DELIVER, MINE, f"arp,{of_network(self.number)},{FROM}={OUTSIDE},arp_op=1,arp_tpa={address}",
                   answer_arp(address, mac, self._back()))

    def _entering(self, address: str, mac: str, zone: int) -> Iterator[Flow]:
        """From outside, and from what leaves here for an address that is here, too."""
        to = f"{self.mark},{AS_OURS},ct(zone={zone},nat,table={ENTER})"
        yield Flow(DELIVER, MINE + 1, f"ip,{of_network(self.number)},dl_dst={mac},nw_dst={address}", to)
        yield Flow(LEAVE, 200, f"ip,{of_network(self.number)},nw_dst={address}", to)
        yield Flow(ENTER, 90, f"ip,{self.me},ct_zone={zone},ct_state=+trk+rel", f"resubmit(,{SOURCE})")

    def _translated(self, zone: int, mac: str, source: str) -> Iterator[Flow]:
        """What leaves. source: what it says that it is from; "": itself."""
        tracked = f"ip,{self.me},ct_zone={zone}"
        ready = f"dec_ttl,load:{self.number}->NXM_NX_REG6[],mod_dl_src:{mac}"
        yield Flow(TRANSLATE, 100, f"{tracked},ct_state=+trk+new", f"{ready}," + (
            f"ct(commit,zone={zone},nat(src={source}),table={LEAVE})" if source else f"resubmit(,{LEAVE})"))
        for state in ("+trk+new+snat", "+trk+est", "+trk+rel"):  # the first of these as in `_floating`
            yield Flow(TRANSLATE, 110 if "new" in state else 90, f"{tracked},ct_state={state}",
                       f"{ready},resubmit(,{LEAVE})")

    def _forwarded(self, each: ForwardingFacts, zone: int) -> Iterator[Flow]:
        yield from self._answered(each.address, each.mac)
        yield from self._entering(each.address, each.mac, zone)
        for ports, inner in forwarded_ports(each):
            yield Flow(ENTER, 100, f"{each.protocol},{self.me},ct_zone={zone},ct_state=+trk+new,"
                       f"nw_dst={each.address},{ports}",
                       f"ct(commit,zone={zone},nat(dst={each.inner_address}{inner}),table={SOURCE})")
        for ports in masked(*each.inner):  # what follows on that: as long as it is forwarded, not longer
            yield Flow(ENTER, 95, f"{each.protocol},{self.me},ct_zone={zone},ct_state=+trk+dnat-rpl,"
                       f"ct_nw_dst={each.address},nw_dst={each.inner_address},{ports}", f"resubmit(,{SOURCE})")

    def _beyond(self, destination: str, hop: str) -> Iterator[Flow]:
        """A route by a next hop outside: as what leaves, to another MAC."""
        mac = self.here.hops.get(self.gateway.network_id, {}).get(hop)
        if mac is None or ":" in destination:
            return
        net = ipaddress.IPv4Network(destination)
        yield Flow(LEAVE, 100 + net.prefixlen, f"ip,{self.me},{of_network(self.number)},nw_dst={net}",
                   f"mod_dl_dst:{mac},{self.send()}")

    def _back(self) -> str:
        """Actions that send a frame back out where it came in."""
        return f"{(self.wire or ('', ''))[0]}in_port"

    def _leaving(self) -> Iterator[Flow]:
        """To whom what leaves is sent: next hops that answered, the router's own addresses on another host, others by
        the first next hop that answered. Neighbours whose ports are known are near.py's."""
        if not self.translates:
            return
        known, number = self.here.hops.get(self.gateway.network_id, {}), of_network(self.number)
        own = dict.fromkeys(self.gateway.addresses, self.gateway.mac) | {
            each.address: each.mac for each in self.router.forwardings}
        for address, mac in {**({} if self.central else own), **known}.items():
            if ":" in address:
                continue
            yield Flow(LEAVE, 140, f"ip,{number},nw_dst={address}", f"mod_dl_dst:{mac},{self.send()}")
        for destination, hop in self.router.routes:
            yield from self._beyond(destination, hop)
        if (upstream := next((known[hop] for hop in self.gateway.next_hops if hop in known), None)) is not None:
            yield Flow(LEAVE, 10, f"ip,{self.me},{number}", f"mod_dl_dst:{upstream},{self.send()}")

    def _heard(self) -> Iterator[Flow]:
        """The answers of next hops: only of whom was asked, to whom asked, and only for a while."""
        for hop, (address, mac) in self.asks().items():
            yield Flow(DELIVER, MINE + 3, f"arp,{of_network(self.number)},{FROM}={OUTSIDE},dl_dst={mac},arp_op=2,"
                       f"arp_spa={hop},arp_tpa={address}",
                       f"learn(table={HEARD},hard_timeout={ANSWERS_LAST},priority=1,cookie={HEARD_COOKIE:#x},"
                       f"NXM_NX_REG1[]={network_word(self.gateway.network_id):#x},NXM_NX_REG2[]=NXM_OF_ARP_SPA[],"
                       "load:NXM_NX_ARP_SHA[]->NXM_OF_ETH_DST[])")

    def _to_gateway_host(self) -> Iterator[Flow]:
        """By the network of the sender, as it is: all that is done to it is done there."""
        if self.gateway.host in ("", self.here.host):
            return
        peer = self.here.peers.get(self.gateway.host)
        for leg in self.router.interfaces:
            number, network = self.local.numbers.get(leg.network_id), self.networks.get(leg.network_id)
            if number is None or network is None:
                continue
            match = f"ip,{self.me},{of_network(number)}"
            if network.network_type == "vxlan" and self.local.vxlan is not None and peer:
                yield Flow(ROUTE, OUT_THERE, match, f"set_field:{network.segmentation_id}->tun_id,"
                           f"set_field:{peer}->tun_dst,output:{self.local.vxlan}")
            elif (way := wire(network, self.local)) is not None:
                yield Flow(ROUTE, OUT_THERE, match,
                           f"mod_dl_dst:{own_mac(self.gateway.host, leg.mac)},{way[0]}output:{way[1]}")


def masked(first: int, last: int) -> Iterator[str]:
    """Matches of the destination ports."""
    for value, mask in port_masks(first, last):
        yield f"tp_dst={value}" if mask == 0xFFFF else f"tp_dst={value:#x}/{mask:#x}"


def forwarded_ports(each: ForwardingFacts) -> Iterator[tuple[str, str]]:
    """(match of outer ports, ":port" of the inner one or nothing where it stays the same): a range that keeps its
    numbers, and one that leads to one port, is a few masks; one that is shifted is port by port."""
    first, last = each.outer
    single = each.inner[0] == each.inner[1]
    if not single and each.inner != each.outer:
        yield from ((f"tp_dst={port}", f":{each.inner[0] + port - first}") for port in range(first, last + 1))
        return
    for ports in masked(first, last):
        yield ports, f":{each.inner[0]}" if single else ""
