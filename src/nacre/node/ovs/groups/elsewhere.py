"""Ports on other hosts, as flows: kept apart from the rest of the table, and changed by what changes.

For a port one flow to its host's tunnel, and one for each of its addresses that answers who asks for it here (ARP, and
neighbour solicitation; but one that asks whether an address is free goes to everybody, its owner shall say so). For a
network one flow to all hosts that have an active port of it, for what is for everybody or for nobody known; and one for
each host that has any, active or prepared: from others no frame of it is taken.
"""

import ipaddress
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import msgspec
import structlog

from nacre.network.contract import PlacedPort
from nacre.node.ovs.flows import ANSWER, AWAY, CLASSIFY, DELIVER, FROM, GUEST, NET, OUTSIDE, PART, Flow, entering
from nacre.node.ovs.groups.members import Places

log = structlog.get_logger()

#: The most hosts of one flow: it has 40 bytes for each, and an OpenFlow message ends at 64 kB.
MOST_HOSTS = 1000
MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.ASCII | re.IGNORECASE)
_BACK = "move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],set_field:{mac}->eth_src,"
_ARP = _BACK + ("set_field:2->arp_op,move:NXM_NX_ARP_SHA[]->NXM_NX_ARP_THA[],move:NXM_OF_ARP_SPA[]->NXM_OF_ARP_TPA[],"
                "set_field:{mac}->arp_sha,set_field:{address}->arp_spa,in_port")
#: An answer (136), solicited and overriding; the link's address can be set only where it is one already.
_ND = _BACK + ("move:NXM_NX_IPV6_SRC[]->NXM_NX_IPV6_DST[],set_field:{address}->ipv6_src,set_field:2->nd_options_type,"
               f"set_field:0x60000000->nd_reserved,set_field:136->icmpv6_type,resubmit(,{ANSWER})")


class Here(msgspec.Struct, frozen=True):
    """What this host is, and how it reaches the others. networks: of those that go by tunnels, their numbers here and
    on the wire; vxlan: the tunnel port (None: there is none); tunnels: host -> address, its own too."""

    host: str = ""
    vxlan: int | None = None
    networks: Mapping[str, tuple[int, int]] = {}
    tunnels: Mapping[str, str] = {}

    def away(self, host: str) -> str | None:
        """Another host's address."""
        return self.tunnels.get(host) if host != self.host else None


def elsewhere_base() -> Iterator[Flow]:
    """What holds for every port."""
    for table in (AWAY, ANSWER):
        yield Flow(table, 0, "", "drop")
    yield Flow(ANSWER, 100, "icmp6,icmp_type=136", "move:NXM_OF_ETH_SRC[]->NXM_NX_ND_TLL[],in_port")


def port_flows(network: str, port: PlacedPort, here: Here) -> Iterator[Flow]:
    """Those of a port on another host; none of one that is here, or that cannot be reached."""
    address = here.away(port.host)
    if address is None or here.vxlan is None or network not in here.networks:
        return
    if not MAC.fullmatch(port.mac):
        log.error("port without a usable MAC", network=network, host=port.host, mac=port.mac[:64])
        return
    number, segment = here.networks[network]
    me = f"{NET}={number},{FROM}={GUEST}"
    yield Flow(DELIVER, 80, f"{me},dl_dst={port.mac}", tunnelled(here.vxlan, segment, [address]))
    for each in port.addresses if here.host not in port.prepared else ():  # its guest may ask here for itself
        try:
            version = ipaddress.ip_address(each).version
        except ValueError:
            log.error("port without a usable address", network=network, host=port.host, address=each[:64])
            continue
        if version == 4:
            yield Flow(DELIVER, 105, f"arp,{me},dl_dst=ff:ff:ff:ff:ff:ff,arp_op=1,arp_tpa={each}",
                       _ARP.format(mac=port.mac, address=each))
        else:
            yield Flow(DELIVER, 105, f"icmp6,{me},dl_dst=33:33:00:00:00:00/ff:ff:00:00:00:00,icmp_type=135,icmp_code=0,"
                       f"nd_options_type=1,nd_target={each}", _ND.format(mac=port.mac, address=each))


def network_flows(network: str, active: Iterable[str], present: Iterable[str], here: Here) -> Iterator[Flow]:
    """Those of a network. active, present: the hosts that have active ports of it, or any."""
    if here.vxlan is None or network not in here.networks:
        return
    number, segment = here.networks[network]
    for address in sorted({way for host in present if (way := here.away(host))}):  # a frame counts only from these
        yield Flow(CLASSIFY, 100, f"in_port={here.vxlan},tun_id={segment:#x},vlan_tci=0x0000,tun_src={address}",
                   entering(number, OUTSIDE, DELIVER))
    addresses = sorted({way for host in active if (way := here.away(host))})
    for part, start in enumerate(range(0, len(addresses), MOST_HOSTS)):
        more = f",load:{part + 1}->NXM_NX_REG8[],resubmit(,{AWAY})" if start + MOST_HOSTS < len(addresses) else ""
        yield Flow(AWAY, 20 if part else 10, f"{NET}={number}" + (f",{PART}={part}" if part else ""),
                   tunnelled(here.vxlan, segment, addresses[start:start + MOST_HOSTS]) + more)


def tunnelled(vxlan: int, segment: int, addresses: Iterable[str]) -> str:
    """Actions that send a frame to these hosts."""
    outputs = ",".join(f"set_field:{address}->tun_dst,output:{vxlan}" for address in addresses)
    return f"set_field:{segment}->tun_id,{outputs}"


class ElsewhereFlows:
    """Those that there are, to be kept equal to the places at the cost of what changes."""

    def __init__(self) -> None:
        self._flows: dict[str, Flow] = {}
        self._of: dict[tuple[str, str], tuple[Flow, ...]] = {}  # (network, port), or (network, ""): its own
        self._here, self._seen = Here(), dict[tuple[str, str], PlacedPort]()
        self._active = defaultdict[str, Counter[str]](Counter)  # network -> host -> how many ports
        self._present = defaultdict[str, Counter[str]](Counter)  # those that are only prepared there, too

    def __len__(self) -> int:
        return len(self._flows)

    def forget(self) -> None:
        """There are none."""
        self._flows, self._of, self._here, self._seen = {}, {}, Here(), {}
        self._active.clear()
        self._present.clear()

    def all(self) -> Sequence[Flow]:
        """Those that there should be now."""
        return list(self._flows.values())

    def hosts(self, network: str) -> Collection[str]:
        """Those that have a port of the network, active or prepared."""
        return self._present[network].keys() if network in self._present else ()

    def lines(self, places: Places, now: Here) -> list[str]:
        """What has to change, as `plan.changes`; it counts as done."""
        touched = self._touched(places, now)
        self._here, places.changed = now, set()
        for network, port in touched:
            self._see(network, port, places.of(network).get(port))
        gone, fresh = dict[str, Flow](), dict[str, Flow]()
        for place in touched | {(network, "") for network, _ in touched}:
            gone |= {flow.key: flow for flow in self._of.pop(place, ())}
            if wanted := tuple(self._wanted(place, places)):
                self._of[place] = wanted
                fresh |= {flow.key: flow for flow in wanted}
        lines = [f"delete_strict {key}" for key in gone if key not in fresh]
        lines += [f"add {flow.text}" for key, flow in fresh.items() if self._flows.get(key) != flow]
        for key in gone:
            self._flows.pop(key, None)
        self._flows |= fresh
        return lines

    def _wanted(self, place: tuple[str, str], places: Places) -> Iterator[Flow]:
        network, port = place
        if not port:
            yield from network_flows(network, self._active[network], self._present[network], self._here)
        elif (found := places.of(network).get(port)) is not None:
            yield from port_flows(network, found, self._here)

    def _see(self, network: str, port: str, now: PlacedPort | None) -> None:
        """Which hosts have ports of the network follows."""
        for place, by in ((self._seen.pop((network, port), None), -1), (now, 1)):
            if place is not None:
                _count(self._active[network], (place.host,), by)
                _count(self._present[network], (place.host, *place.prepared), by)
        if now is not None:
            self._seen[network, port] = now

    def _touched(self, places: Places, now: Here) -> set[tuple[str, str]]:
        """(network, port) that may have other flows now."""
        before, touched = self._here, set(places.changed)
        if (before.host, before.vxlan) != (now.host, now.vxlan):
            other = {*before.networks, *now.networks}
        else:
            other = {id for id in {*before.networks, *now.networks} if before.networks.get(id) != now.networks.get(id)}
        moved = {host for host, _ in before.tunnels.items() ^ now.tunnels.items()}
        if other or moved:
            every = {*self._of, *((network, port) for network in now.networks for port in places.of(network))}
            touched |= {(network, port) for network, port in every if network in other or not port or (
                (place := places.of(network).get(port)) is not None and place.host in moved)}
            touched |= {(network, "") for network in now.networks}
        return touched


def _count(ports: Counter[str], hosts: Iterable[str], by: int) -> None:
    for host in filter(None, hosts):
        ports[host] += by
        if not ports[host]:
            del ports[host]
