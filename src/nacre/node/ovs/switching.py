"""Who gets a frame: the flow table of the integration bridge from the wiring and this host's own numbers."""

from collections.abc import Iterator, Mapping, Sequence

import structlog

from nacre.network.contract import GroupFacts, HostWiring, NetworkFacts, PortFacts
from nacre.node.ovs.antispoof import antispoof_base, antispoof_flows, identities
from nacre.node.ovs.flows import (
    ANTISPOOF,
    AWAY,
    CLASSIFY,
    DELIVER,
    DHCP,
    FLOOD,
    FROM,
    GUEST,
    NET,
    OUT,
    OUTSIDE,
    SHARED,
    TO,
    UNKNOWN,
    Flow,
    Local,
    entering,
    to_port,
    unique,
)
from nacre.node.ovs.groups.elsewhere import MAC, elsewhere_base
from nacre.node.ovs.groups.firewall import firewall_base, open_flows, security_flows
from nacre.node.servers.limits import Rate

log = structlog.get_logger()

METADATA_IP, METADATA_IP6 = "169.254.169.254", "fe80::a9fe:a9fe"
_MULTICAST = "dl_dst=01:00:00:00:00:00/01:00:00:00:00:00"


def flow_table(wiring: HostWiring, local: Local) -> tuple[Flow, ...]:
    """Every flow of the bridge, but those of members of groups (groups/peers.py) and of ports elsewhere
    (groups/elsewhere.py). Ports without an OpenFlow port and a zone here have none."""
    flows: list[Flow] = [*antispoof_base(), *firewall_base(), *elsewhere_base()]
    flows += [Flow(table, 0, "", "drop") for table in (CLASSIFY, DELIVER, UNKNOWN, FLOOD, OUT)]
    groups = {group.id: group for group in wiring.groups}
    sound = [port for port in wiring.ports if _sound(port)]
    for network in wiring.networks:
        if network.id not in local.numbers:
            continue
        ports = [port for port in sound if port.network_id == network.id and port.admin_state_up
                 and port.id in local.ofports and port.id in local.zones]
        flows += _Switch(network, ports, local).flows()
        for port in ports:
            flows += _guarded(port, local, groups)
    return unique(flows)


def _sound(port: PortFacts) -> bool:
    """A port whose MAC cannot be written as a match gets no flows; the others do."""
    if MAC.fullmatch(port.mac_address):
        return True
    log.error("port without a usable MAC", port=port.id, network=port.network_id, mac=port.mac_address[:64])
    return False


def _guarded(port: PortFacts, local: Local, groups: Mapping[str, GroupFacts]) -> list[Flow]:
    ofport = local.ofports[port.id]
    if not port.port_security:
        return list(open_flows(ofport))
    return [*antispoof_flows(port, ofport),
            *security_flows(port, ofport, local.zones[port.id], groups, local.groups)]


class _Switch:
    """One network on this host."""

    def __init__(self, network: NetworkFacts, ports: list[PortFacts], local: Local):
        self.network, self.ports, self.local = network, ports, local
        #: What is for a port that is only prepared here goes to its present host; it may send as soon as it runs.
        self.active = [port for port in ports if port.active]
        self.net = f"{NET}={local.numbers[network.id]}"
        self.dhcp = local.dhcp.get(network.id)
        self.uplink = local.uplinks.get(network.physical_network or "") \
            if network.network_type in {"flat", "vlan"} else None
        self.vxlan = local.vxlan if network.network_type == "vxlan" else None

    def flows(self) -> Iterator[Flow]:
        yield from self._classify()
        yield from self._known()
        yield from self._to_dhcp()
        yield from self._flood()

    def _enter(self, match: str, source: int, table: int, first: str = "") -> Flow:
        return Flow(CLASSIFY, 100, match, first + entering(self.local.numbers[self.network.id], source, table))

    def _classify(self) -> Iterator[Flow]:
        for port in self.ports:
            table, number = ANTISPOOF if port.port_security else DELIVER, self.local.ofports[port.id]
            rate, out = self.local.rates.get(port.id, Rate()), f"output:{number}"
            yield self._enter(f"in_port={number},vlan_tci=0x0000", GUEST, table,
                              f"meter:{2 * number}," if rate.from_guest else "")
            if rate.to_guest:  # a meter drops a frame for all who would get it after this port, in the same pass
                yield Flow(OUT, 110, f"{TO}={number},{SHARED}=1", out)
            yield Flow(OUT, 100, f"{TO}={number}", f"meter:{2 * number + 1},{out}" if rate.to_guest else out)
        if self.dhcp is not None:
            yield self._enter(f"in_port={self.dhcp},vlan_tci=0x0000", DHCP, DELIVER)
        outside = None
        if self.vxlan is not None:
            outside = f"in_port={self.vxlan},tun_id={self.network.segmentation_id:#x},vlan_tci=0x0000"
        elif self.uplink is not None and self.network.network_type == "vlan":
            outside = f"in_port={self.uplink},dl_vlan={self.network.segmentation_id}"
            yield self._enter(outside, OUTSIDE, DELIVER, "strip_vlan,")
        elif self.uplink is not None:
            outside = f"in_port={self.uplink},vlan_tci=0x0000"
            yield self._enter(outside, OUTSIDE, DELIVER)
        if outside and self.network.dhcp_mac:  # the distributed DHCP port never speaks from elsewhere
            yield Flow(CLASSIFY, 110, f"{outside},dl_src={self.network.dhcp_mac}", "drop")

    def _known(self) -> Iterator[Flow]:
        for port in self.active:
            yield Flow(DELIVER, 100, f"{self.net},dl_dst={port.mac_address}", to_port(self.local.ofports[port.id]))

    def _to_dhcp(self) -> Iterator[Flow]:
        """What is for the distributed DHCP port stays on this host."""
        if self.dhcp is None:
            return
        guest, out = f"{self.net},{FROM}={GUEST}", f"output:{self.dhcp}"
        yield Flow(DELIVER, 100, f"{guest},dl_dst={self.network.dhcp_mac}", out)
        served = {subnet.ip_version for subnet in self.network.subnets if subnet.enable_dhcp}
        if 4 in served:
            yield Flow(DELIVER, 110, f"udp,{guest},tp_src=68,tp_dst=67", out)
        if 6 in served:
            yield Flow(DELIVER, 110, f"udp6,{guest},tp_src=546,tp_dst=547", out)
            yield Flow(DELIVER, 110, f"icmp6,{guest},icmp_type=133", f"{out},resubmit(,{FLOOD})")
        addresses = [subnet.dhcp_ip for subnet in self.network.subnets if subnet.dhcp_ip]
        for address in (*addresses, METADATA_IP, METADATA_IP6):
            match = f"icmp6,{guest},icmp_type=135,nd_target" if ":" in address else f"arp,{guest},arp_op=1,arp_tpa"
            yield Flow(DELIVER, 110, f"{match}={address}", out)

    def _flood(self) -> Iterator[Flow]:
        everyone = self._all(self.active)
        yield Flow(DELIVER, 90, f"{self.net},{_MULTICAST}", f"resubmit(,{FLOOD})")
        yield Flow(DELIVER, 50, self.net, f"resubmit(,{UNKNOWN})")
        yield from self._spread(FLOOD, 20, "", everyone)
        # Unicast to a MAC that is no port's own: those who may answer to it, and the other hosts.
        unbound = [port for port in self.active if not port.port_security]
        claimed: dict[str, list[PortFacts]] = {}
        for port in self.active:
            for mac in identities(port) if port.port_security else ():
                if mac != port.mac_address:
                    claimed.setdefault(mac, []).append(port)
        for mac, ports in claimed.items():
            yield from self._spread(UNKNOWN, 40, f",dl_dst={mac}",
                                    self._all((*ports, *unbound)))
        yield from self._spread(UNKNOWN, 20, "", self._all(unbound))

    def _all(self, ports: Sequence[PortFacts]) -> list[str]:
        slow = any(self.local.rates.get(port.id, Rate()).to_guest for port in ports)
        return [to_port(self.local.ofports[port.id], shared=slow) for port in ports]

    def _spread(self, table: int, priority: int, more: str, outputs: list[str]) -> Iterator[Flow]:
        away = self._away()
        if outputs:
            yield Flow(table, priority, f"{self.net}{more}", ",".join(outputs))
        if outputs or away:
            yield Flow(table, priority + 5, f"{self.net},{FROM}={GUEST}{more}",
                       ",".join([*outputs, away] if away else outputs))

    def _away(self) -> str:
        """Actions that send a guest's frame to all other hosts; they come last, for they change the frame."""
        if self.vxlan is not None:
            return f"resubmit(,{AWAY})"
        if self.uplink is None:
            return ""
        if self.network.network_type == "vlan":
            return f"push_vlan:0x8100,set_field:{4096 + (self.network.segmentation_id or 0)}->vlan_vid," \
                   f"output:{self.uplink}"
        return f"output:{self.uplink}"
