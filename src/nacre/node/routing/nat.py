"""The public network behind the machine's own address: which range is free on this machine, the nftables rules, and
which interface may be plugged in instead. Pure."""

import ipaddress
from collections.abc import Iterable, Mapping

import msgspec

from nacre.base.errors import Conflict

#: What is tried after the range that the options name: the first two numbers of an address, and which third ones.
ROWS = (("172.24", range(4, 255)), ("192.168", range(200, 255)), ("10.224", range(4, 255)))
#: The machine's ends of all clouds' links, in nft's words.
ALL = "nat-*"
#: What no router passes on (RFC 3927): there a machine in somebody's cloud is told its own keys and user data.
LINK_LOCAL = "169.254.0.0/16"


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A link of the machine. networks: that its addresses and routes name (link-local ones of IPv6 do not count).
    addresses: its own. default: packets to everywhere leave by it. bridge: what has it as a port ("": nothing)."""

    kind: str = ""
    addresses: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    default: bool = False
    bridge: str = ""
    loopback: bool = False
    up: bool = False


def choose(links: Mapping[str, Link], own: str, wanted: str, *, only: bool = False) -> str:
    """The network to use: the one that is wanted if no link but `own` has an address in it or a route to it, else the
    first of ROWS that is free. only: no other than the wanted one will do. Raises Conflict."""
    holder = overlapped(links, own, wanted)
    if holder and only:
        raise Conflict(f"{wanted}, the public network's range, is not free on this machine: {holder}. Take that away, "
                       "or start with `--external none`.")
    if not holder:
        return wanted
    for start, numbers in ROWS:
        for number in numbers:
            if not overlapped(links, own, candidate := f"{start}.{number}.0/24"):
                return candidate
    raise Conflict("No range for a public network is free on this machine: name one with NACRE_NETWORK_PUBLIC_CIDR.")


def check(links: Mapping[str, Link], ends: tuple[str, str], cidr: str) -> None:
    """Raises Conflict where a link with these ends (the machine's first) cannot have the range, or is another's."""
    here, there = ends
    choose(links, here, cidr, only=True)
    kinds = {links[name].kind for name in ends if name in links}
    if kinds - {"veth"} or (here in links) != (there in links):
        raise Conflict(f"There is a link {here} or {there} already that is not this cloud's: `ip link del` it.")


def overlapped(links: Mapping[str, Link], own: str, cidr: str) -> str:
    """Which link has something in that network; "": none but `own`."""
    wanted = ipaddress.IPv4Network(cidr)
    return next((f"{name} has {network}" for name, link in sorted(links.items()) if name != own
                 for network in link.networks if wanted.overlaps(ipaddress.IPv4Network(network))), "")


def gateway(cidr: str) -> str:
    """The machine's address in the network: the first, as a subnet's gateway."""
    return str(ipaddress.IPv4Network(cidr)[1])


def range_of(text: str) -> str:
    """A range that the options name, as it is used. Raises Conflict."""
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError as error:
        raise Conflict(f"network.public_cidr: {error}: a public network behind this machine's address is one of "
                       "IPv4.") from None
    if network.prefixlen > 28 or network.prefixlen < 8:
        raise Conflict(f"network.public_cidr: {network}: name a range of /8 to /28.")
    if network.overlaps(ipaddress.IPv4Network(LINK_LOCAL)):
        raise Conflict(f"network.public_cidr: {network} is link-local, which leads nowhere: name another range.")
    return str(network)


def unfit(links: Mapping[str, Link], name: str, bridge: str) -> str:
    """Why this interface is not plugged into the bridge, with what to do; "": it may be."""
    link = links.get(name)
    if link is None:
        return f"there is no interface {name} here; there are: {', '.join(sorted(links))}"
    if link.bridge == bridge:
        return ""
    if link.loopback or link.kind in ("bridge", "openvswitch", "tun"):
        return f"{name} is no network card, nor a link to one"
    if link.bridge:
        return f"{name} is a port of {link.bridge}: take it out there first"
    if link.default:
        return (f"{name} is this machine's own way to everywhere, which would be cut: name another interface, or use "
                "`--external nat`")
    if link.addresses:
        return (f"{name} has the address {link.addresses[0]}, which would not be reached any more: take it away (`ip "
                f"address flush dev {name}`, and out of the machine's network configuration), or name another")
    return ""


def rules(table: str, link: str, cidr: str, opened: Iterable[str]) -> str:
    """nft's input that makes the table translate what leaves the network, and nothing else. link: the machine's end.
    What is for LINK_LOCAL ends there before anybody translates it, be it for this machine itself or one beyond it, as
    does what has no address of the network. opened: interfaces that forward only since clouds need it: what comes in by
    them goes to clouds, as an answer, or where another's translation sends it, and no way that it could not go before.
    """
    ways = "".join(f'    iifname "{way}" {rule}\n' for way in sorted(opened) for rule in (
        "ct state established,related accept", "ct status dnat accept", f'oifname != "{ALL}" drop'))
    return (f"table ip {table}\ndelete table ip {table}\ntable ip {table} {{\n"
            "  chain prerouting {\n    type filter hook prerouting priority -300; policy accept;\n"
            f'    iifname "{link}" ip saddr != {cidr} drop\n    iifname "{link}" ip daddr {LINK_LOCAL} drop\n  }}\n'
            f"  chain forward {{\n    type filter hook forward priority 0; policy accept;\n{ways}  }}\n"
            "  chain postrouting {\n    type nat hook postrouting priority 100; policy accept;\n"
            f'    ip saddr {cidr} oifname != "{link}" masquerade\n  }}\n}}\n')


def none(table: str) -> str:
    """nft's input after which there is no such table, whether there was one or not."""
    return f"table ip {table}\ndelete table ip {table}\n"
