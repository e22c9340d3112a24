"""The tables of routing, beside those of ovs/flows.py, and what several of them write.

What is for a router's MAC leaves DELIVER for SOURCE (is it from an address of that network?) and ROUTE (which network,
by the longest prefix), then NEIGHBOUR (whose MAC), and is delivered there like any frame of that network; what goes to
another host by a wire of its own goes by CARRY (with which MAC). What is for the outside goes from ROUTE to TRANSLATE
(its source address) and LEAVE; what comes from there, by DELIVER to ENTER (its destination address) and SOURCE: nobody
outside has an inner address. In HEARD lie the answers of next hops, for the host to read: no frame comes there.
"""

import hashlib
import ipaddress
import zlib
from collections.abc import Iterator

from nacre.network.contract import NetworkFacts
from nacre.node.ovs.flows import FROM, GUEST, NET, Flow, Local

ROUTE, NEIGHBOUR, TRANSLATE, LEAVE, ENTER, SOURCE, HEARD, CARRY = 70, 71, 72, 73, 74, 75, 76, 77
#: Registers: the address that is asked for next, and the router's number.
HOP, ROUTER = "reg2", "reg3"
#: Priorities in DELIVER: before all that is switched.
MINE = 120
#: Priorities in ROUTE. A route's grows with its prefix; a network of the router's own is before a route to the same.
ECHO, OWN, METADATA, EXPIRED, SPENT, ROUTES, NEVER, OWN_SOURCE, OUT_THERE = (
    3100, 3090, 3050, 3010, 3000, 1000, 902, 901, 900)
#: What is of a link, or of a machine, alone, and is nobody's outside: there it would be the next machine's own.
NOWHERE = "169.254.0.0/16", "127.0.0.0/8"

#: Seconds for which an answer of a next hop is to be read, and what marks it among flows.
ANSWERS_LAST, HEARD_COOKIE = 8, 0x68656172

AS_OURS = f"load:{GUEST}->NXM_NX_REG7[]"  # it may go wherever what a guest of this host sends may
ANYWHERE = "load:0xffff->NXM_OF_IN_PORT[]"  # also to where it came from


def base() -> Iterator[Flow]:
    """What holds for every router. OpenFlow makes no ICMP errors: what has no hop left ends here, unless a helper is
    before it."""
    for table in (ROUTE, NEIGHBOUR, TRANSLATE, LEAVE, ENTER, CARRY):
        yield Flow(table, 0, "", "drop")
    yield Flow(SOURCE, 0, "", f"resubmit(,{ROUTE})")
    for ttl in (0, 1):
        yield Flow(ROUTE, SPENT, f"ip,nw_ttl={ttl}", "drop")
    for nowhere in NOWHERE:
        yield Flow(ROUTE, NEVER, f"ip,nw_dst={nowhere}", "drop")


def own_mac(host: str, mac: str) -> str:
    """What a router's interface is on the wire of a network that has one, as it is on that host: were it the same MAC
    from each, switches would look for it where a host spoke last (Neutron gives each host one, for the same reason)."""
    octets = hashlib.sha256(f"{host} {mac}".encode()).digest()[:5]
    return ":".join(f"{octet:02x}" for octet in (0x0A, *octets))


def network_word(network_id: str) -> int:
    """A network as a register has it, whatever its number here: the same for ever."""
    return zlib.crc32(network_id.encode())


def word(address: str) -> str:
    """An IPv4 address as a register has it."""
    return f"{int(ipaddress.IPv4Address(address)):#x}"


def answer_arp(address: str, mac: str, out: str = "in_port") -> str:
    """Actions that turn a request for the address into its answer."""
    layer = "0x" + mac.replace(":", "")
    return ("move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[]," f"mod_dl_src:{mac}," "load:2->NXM_OF_ARP_OP[],"
            "move:NXM_NX_ARP_SHA[]->NXM_NX_ARP_THA[],move:NXM_OF_ARP_SPA[]->NXM_OF_ARP_TPA[],"
            f"load:{layer}->NXM_NX_ARP_SHA[],load:{word(address)}->NXM_OF_ARP_SPA[],{out}")


_ECHO = "move:NXM_OF_IP_SRC[]->NXM_OF_IP_DST[],load:{}->NXM_OF_IP_SRC[],load:0->NXM_OF_ICMP_TYPE[]"


def echoed(address: str) -> str:
    """Actions that turn an echo request for the router's address into its answer, which is routed."""
    return f"{_ECHO.format(word(address))},load:65->NXM_NX_IP_TTL[],resubmit(,{ROUTE})"


def answer_echo(address: str, mac: str, out: str) -> str:
    """As `echoed`, for who sent it and by the way that it came."""
    return ("move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[]," f"mod_dl_src:{mac}," f"{_ECHO.format(word(address))},"
            f"load:64->NXM_NX_IP_TTL[],{out}")


def wire(network: NetworkFacts, local: Local) -> tuple[str, str] | None:
    """The network's own wire on this host: what to do with a frame before it goes there, and which port that is."""
    uplink, tag = local.uplinks.get(network.physical_network or ""), network.segmentation_id
    if uplink is not None and network.network_type == "flat":
        return "", str(uplink)
    if uplink is not None and network.network_type == "vlan" and tag is not None and 0 < tag < 4095:
        return f"push_vlan:0x8100,set_field:{4096 + tag}->vlan_vid,", str(uplink)
    return None


def of_network(number: int) -> str:
    return f"{NET}={number}"


def from_guest(number: int) -> str:
    return f"{NET}={number},{FROM}={GUEST}"
