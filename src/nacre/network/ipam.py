"""The choice of addresses: pure functions over subnets, pools and what is taken."""

import ipaddress
import random
import socket
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Pool = tuple[Address, Address]
#: A range of addresses: the first and the last, as numbers.
Span = tuple[int, int]

#: IPv6 modes in which the guest derives its own address from the prefix and its MAC.
AUTO_MODES = ("slaac", "dhcpv6-stateless")


def eui64(cidr: str, mac: str) -> str:
    """The IPv6 address that a guest with this MAC gives itself in the prefix (RFC 4291).

    >>> eui64("2001:db8::/64", "fa:16:3e:00:00:01")
    '2001:db8::f816:3eff:fe00:1'
    """
    raw = bytes.fromhex(mac.replace(":", ""))
    interface = bytes([raw[0] ^ 2]) + raw[1:3] + b"\xff\xfe" + raw[3:]
    network = ipaddress.IPv6Network(cidr)
    return str(network.network_address + int.from_bytes(interface, "big"))


def is_auto(subnet: dict[str, object]) -> bool:
    """Whether addresses of the subnet come from the guest's MAC (SLAAC, stateless DHCPv6)."""
    return subnet["ipv6_address_mode"] in AUTO_MODES


def default_pools(cidr: str, gateway: str | None) -> list[dict[str, str]]:
    """The whole subnet without network and broadcast address and the gateway, as start-end pairs."""
    net = ipaddress.ip_network(cidr)
    first, last = int(net.network_address), int(net.broadcast_address)
    if net.version == 4 and net.prefixlen < 31:
        first, last = first + 1, last - 1
    elif net.version == 6 and net.prefixlen < 127:
        first += 1  # the subnet-router anycast address
    kind = type(net.network_address)
    gate = int(ipaddress.ip_address(gateway)) if gateway else None
    outside = gate is None or not first <= gate <= last
    ranges = [(first, last)] if gate is None or outside else [(first, gate - 1), (gate + 1, last)]
    return [{"start": str(kind(a)), "end": str(kind(b))} for a, b in ranges if a <= b]


def default_gateway(cidr: str) -> str:
    """The subnet's first usable address."""
    net = ipaddress.ip_network(cidr)
    alone = net.prefixlen >= net.max_prefixlen - 1
    return str(net.network_address if alone else net.network_address + 1)


def usable(address: str, cidr: str) -> bool:
    """Whether a port may have this address in this subnet: inside it, not its network or broadcast address."""
    ip, net = ipaddress.ip_address(address), ipaddress.ip_network(cidr)
    if ip.version != net.version or ip not in net:
        return False
    if net.version == 4 and net.prefixlen < 31:
        return ip not in (net.network_address, net.broadcast_address)
    return net.version == 4 or net.prefixlen >= 127 or ip != net.network_address


def spans(pools: Iterable[dict[str, str]]) -> list[tuple[int, int]]:
    return [(int(ipaddress.ip_address(p["start"])), int(ipaddress.ip_address(p["end"]))) for p in pools]


def size(pools: Iterable[dict[str, str]]) -> int:
    """How many addresses the pools hold."""
    return sum(end - start + 1 for start, end in spans(pools))


def candidates(pools: Sequence[dict[str, str]], version: int, rng: random.Random, tries: int) -> list[str]:
    """Some random addresses of the pools, different from one another: the caller asks which of them are taken.

    Random, not the first free one: a freed address is not given out again at once, and concurrent creators
    seldom want the same.
    """
    ranges = spans(pools)
    total = sum(end - start + 1 for start, end in ranges)
    # With a 2**64 pool range() still works, sample() does not build it.
    picks = (rng.sample(range(total), min(tries, total)) if total < 1 << 62
             else [rng.randrange(total) for _ in range(tries)])
    kind = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
    found = []
    for pick in picks:
        for start, end in ranges:
            if pick <= end - start:
                found.append(str(kind(start + pick)))
                break
            pick -= end - start + 1
    return list(dict.fromkeys(found))


def walk(pools: Sequence[dict[str, str]], version: int) -> Iterator[str]:
    """The addresses of the pools, lowest first within each."""
    kind = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
    for start, end in spans(pools):
        for value in range(start, end + 1):
            yield str(kind(value))


def overlap(cidr: str, others: Iterable[str]) -> str | None:
    """The first of the other networks that shares addresses with this one."""
    net = ipaddress.ip_network(cidr)
    return next((o for o in others if (n := ipaddress.ip_network(o)).version == net.version and net.overlaps(n)), None)


def new_mac(rng: random.Random, base: str = "fa:16:3e") -> str:
    """A MAC address of the cloud's own range."""
    return f"{base}:" + ":".join(f"{rng.randrange(256):02x}" for _ in range(3))


def span(cidr: str) -> Span:
    """The addresses of a network in its canonical form. Much quicker than `ip_network`: pools have many."""
    address, _, length = cidr.partition("/")
    family, bits = (socket.AF_INET6, 128) if ":" in address else (socket.AF_INET, 32)
    first = int.from_bytes(socket.inet_pton(family, address))
    return first, first + (1 << (bits - int(length))) - 1


def merged(cidrs: Iterable[str]) -> list[Span]:
    """What these networks of one IP version cover together: in order, and no two touch."""
    found: list[Span] = []
    for first, last in sorted(map(span, cidrs)):
        if found and first <= found[-1][1] + 1:
            found[-1] = found[-1][0], max(found[-1][1], last)
        else:
            found.append((first, last))
    return found


def _before(spans: Sequence[Span], number: int) -> int:
    """The index of the last of the spans that begins at this number or below; -1: none does."""
    return bisect_right(spans, number, key=lambda each: each[0]) - 1


def meets(spans: Sequence[Span], other: Span) -> bool:
    """Whether the span shares an address with one of those, which are in order."""
    at = _before(spans, other[1])
    return at >= 0 and spans[at][1] >= other[0]


def covers(spans: Sequence[Span], other: Span) -> bool:
    """Whether the span lies in one of those, which are in order."""
    at = _before(spans, other[0])
    return at >= 0 and spans[at][1] >= other[1]


def among(spans: Sequence[Span], other: Span) -> Iterator[Span]:
    """Those of the spans, in order, that share an address with this one."""
    for at in range(max(_before(spans, other[0]), 0), len(spans)):
        if spans[at][0] > other[1]:
            return
        if spans[at][1] >= other[0]:
            yield spans[at]


def without(spans: Iterable[Span], gone: Sequence[Span]) -> Iterator[Span]:
    """What of the spans is in none of `gone`. Both are in order."""
    for first, last in spans:
        for start, end in among(gone, (first, last)):
            if start > first:
                yield first, start - 1
            first = end + 1
        if first <= last:
            yield first, last


def networks(spans: Iterable[Span], version: int) -> Iterator[str]:
    """The fewest networks that cover the spans, one after the other."""
    for first, last in spans:
        ends = (ipaddress.IPv4Address(first), ipaddress.IPv4Address(last)) if version == 4 else (
            ipaddress.IPv6Address(first), ipaddress.IPv6Address(last))
        for net in ipaddress.summarize_address_range(*ends):
            yield str(net)
