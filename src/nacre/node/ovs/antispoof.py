"""What a guest may say it is: its own MAC and addresses (and its allowed pairs) and nothing else."""

import ipaddress
from collections.abc import Iterator

import structlog

from nacre.network.contract import PortFacts
from nacre.node.ovs.flows import ANTISPOOF, DELIVER, EGRESS, ND, Flow

log = structlog.get_logger()

#: ICMPv6 a guest may send before it has an address (router and neighbour solicitation, multicast listener reports).
_UNSPECIFIED_TYPES = (131, 132, 133, 135, 143)
#: Those that no security group is asked about (neighbour discovery is checked further in table ND).
_ALWAYS_TYPES = (131, 132, 133, 143)


def link_local(mac: str) -> str:
    """The IPv6 link-local address made from a MAC (modified EUI-64)."""
    octets = [int(part, 16) for part in mac.split(":")]
    octets[0] ^= 2
    interface = [*octets[:3], 0xFF, 0xFE, *octets[3:]]
    return str(ipaddress.IPv6Address(bytes([0xFE, 0x80, *[0] * 6, *interface])))


def identities(port: PortFacts) -> dict[str, tuple[list[str], list[str]]]:
    """By MAC: the IPv4 and the IPv6 addresses (or prefixes) it may use. An allowed pair that is no address is
    skipped with a log."""
    found: dict[str, tuple[list[str], list[str]]] = {port.mac_address: ([], [])}
    claims = [(port.mac_address, fixed.ip_address) for fixed in port.fixed_ips]
    claims += [(pair.mac_address or port.mac_address, pair.ip_address) for pair in port.allowed_pairs]
    for mac, address in claims:
        try:
            network = ipaddress.ip_network(address, strict=False)
            link_local(mac)
        except ValueError as error:
            log.warning("address pair skipped", port=port.id, address=address, why=str(error))
            continue
        four, six = found.setdefault(mac.lower(), ([], []))
        text = str(network.network_address) if network.num_addresses == 1 else str(network)
        (four if network.version == 4 else six).append(text)
    for mac, (_, six) in found.items():
        six.append(link_local(mac))
    return found


def antispoof_flows(port: PortFacts, ofport: int) -> Iterator[Flow]:
    """Tables ANTISPOOF and ND of a port with port security."""
    here = f"in_port={ofport}"
    for server in ("udp,{},tp_src=67,tp_dst=68", "udp6,{},tp_src=547,tp_dst=546", "icmp6,{},icmp_type=134"):
        yield Flow(ANTISPOOF, 100, server.format(here), "drop")
    for mac, (four, six) in identities(port).items():
        yield from _four(f"{here},dl_src={mac}", mac, four)
        yield from _six(f"{here},dl_src={mac}", mac, six)


def _four(me: str, mac: str, addresses: list[str]) -> Iterator[Flow]:
    on, out = f"resubmit(,{EGRESS})", f"resubmit(,{DELIVER})"
    yield Flow(ANTISPOOF, 90, f"udp,{me},nw_src=0.0.0.0,tp_src=68,tp_dst=67", out)
    if addresses:
        yield Flow(ANTISPOOF, 90, f"arp,{me},arp_op=1,arp_spa=0.0.0.0,arp_sha={mac}", out)
    for address in addresses:
        yield Flow(ANTISPOOF, 90, f"arp,{me},arp_spa={address},arp_sha={mac}", out)
        yield Flow(ANTISPOOF, 90, f"udp,{me},nw_src={address},tp_src=68,tp_dst=67", out)
        yield Flow(ANTISPOOF, 80, f"ip,{me},nw_src={address}", on)


def _six(me: str, mac: str, addresses: list[str]) -> Iterator[Flow]:
    out = f"resubmit(,{DELIVER})"
    for kind in _UNSPECIFIED_TYPES:
        yield Flow(ANTISPOOF, 90, f"icmp6,{me},ipv6_src=::,icmp_type={kind}", f"resubmit(,{ND})")
    for address in addresses:
        yield Flow(ANTISPOOF, 90, f"udp6,{me},ipv6_src={address},tp_src=546,tp_dst=547", out)
        yield Flow(ANTISPOOF, 80, f"ipv6,{me},ipv6_src={address}", f"resubmit(,{ND})")
        for layer in (mac, "00:00:00:00:00:00"):  # zero: the option is absent
            yield Flow(ND, 100, f"icmp6,{me},icmp_type=136,nd_target={address},nd_tll={layer}", out)
    for layer in (mac, "00:00:00:00:00:00"):
        yield Flow(ND, 100, f"icmp6,{me},icmp_type=135,nd_sll={layer}", out)
    for kind in _ALWAYS_TYPES:
        yield Flow(ND, 100, f"icmp6,{me},icmp_type={kind}", out)


def antispoof_base() -> Iterator[Flow]:
    """What holds for every port."""
    yield Flow(ANTISPOOF, 0, "", "drop")
    yield Flow(ND, 90, "icmp6,icmp_type=135", "drop")
    yield Flow(ND, 90, "icmp6,icmp_type=136", "drop")
    yield Flow(ND, 0, "", f"resubmit(,{EGRESS})")
