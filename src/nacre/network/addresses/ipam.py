"""IP address management. `choose` says which addresses a port gets: the ones asked for, or one per IP version and every
automatic one. Below it, pure functions over subnets, pools and what is taken."""

import ipaddress
import itertools
import random
import socket
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import netaddr
import sqlalchemy as sa

from nacre.base.errors import BadRequest, Conflict
from nacre.network import tables as t
from nacre.network.nouns.port import PortAddress
from nacre.network.nouns.subnet import Subnet
from nacre.network.work import Work, conflict

#: A range of addresses: the first and the last, as numbers.
Span = tuple[int, int]

MAX_FIXED_IPS = 5
#: How many random addresses are tried, round by round, before all that is taken is read.
ROUNDS = (8, 64, 512)


@dataclass(frozen=True)
class AddressRequest:
    """What a port asks for. wanted None: choose; `kept`: what it has already (subnet_id, ip_address)."""

    network_id: str
    mac: str
    device_owner: str
    wanted: Sequence[dict[str, str]] | None
    kept: tuple[tuple[str, str], ...] = ()

    @property
    def router(self) -> bool:
        return self.device_owner.startswith("network:router")


def choose(work: Work, request: AddressRequest) -> list[tuple[str, str]]:
    """(subnet id, address) of each address of the port, in order. Raises BadRequest, Conflict where full or taken."""
    if len(request.wanted or ()) > MAX_FIXED_IPS and not request.device_owner.startswith("network:"):
        raise BadRequest(f"Exceeded maximum amount of fixed ips per port ({MAX_FIXED_IPS}).", field="fixed_ips",
                         type="InvalidInput")
    subnets = [s for s in work.select(Subnet, order=("created_at", "id"), network_id=request.network_id)
               if not s.service_types or request.device_owner in s.service_types]
    chosen = _chosen(work, request, subnets) if request.wanted is None else _wanted(work, request, subnets)
    if not request.router:
        there = {s for s, _ in chosen}
        chosen += [(s.id, eui64(s.cidr, request.mac)) for s in subnets
                   if s.automatic and s.id not in there]
    return list(dict.fromkeys(chosen))


def _chosen(work: Work, request: AddressRequest, subnets: list[Subnet]) -> list[tuple[str, str]]:
    found = []
    for version in (4, 6):
        fitting = [s for s in subnets if s.ip_version == version and not s.automatic]
        if not fitting:
            continue
        work.rng.shuffle(fitting) if len(fitting) > 1 and version == 6 else None
        for subnet in fitting:
            if address := random_free(work, subnet, set()):
                found.append((subnet.id, address))
                break
        else:
            raise _full(request)
    return found


def _full(request: AddressRequest) -> Conflict:
    return conflict("IpAddressGenerationFailure", f"No more IP addresses available on network {request.network_id}.")


def random_free(work: Work, subnet: Subnet, besides: set[str]) -> str | None:
    """A free address of the subnet's pools, not one of `besides`; None when they are full. The fuller they are the
    more are tried at once, so that hardly ever all that is taken must be read."""
    for tries in ROUNDS:
        some = candidates(subnet.allocation_pools, subnet.ip_version, work.rng, tries)
        if free := _free(work, subnet, [x for x in some if x not in besides]):
            return free
    return lowest_free(work, subnet, besides)


def lowest_free(work: Work, subnet: Subnet, besides: Collection[str] = ()) -> str | None:
    """The first free address of the subnet's pools: what a network's own services get, as with Neutron, so that they
    seldom sit on an address that somebody asks for by number."""
    pools, version = subnet.allocation_pools, subnet.ip_version
    first = list(itertools.islice(walk(pools, version), ROUNDS[-1]))
    if free := _free(work, subnet, [x for x in first if x not in besides]):
        return free
    a = t.addresses.c
    taken = set(work.conn.execute(sa.select(a.ip_address).where(a.subnet_id == subnet.id)).scalars())
    return next((x for x in walk(pools, version) if x not in taken and x not in besides), None)


def _free(work: Work, subnet: Subnet, tries: Sequence[str]) -> str | None:
    """The first of these addresses that nobody has."""
    if not tries:
        return None
    taken = {taken.ip_address for taken in work.select(PortAddress, subnet_id=subnet.id, ip_address=tries)}
    return next((x for x in tries if x not in taken), None)


def _wanted(work: Work, request: AddressRequest, subnets: list[Subnet]) -> list[tuple[str, str]]:
    by_id = {s.id: s for s in subnets}
    found: list[tuple[str, str]] = []
    spare = list(request.kept)
    exact = {w["ip_address"] for w in request.wanted or () if "ip_address" in w}
    for item in request.wanted or ():
        subnet = _subnet_of(request, item, by_id)
        if "ip_address" in item:
            found.append(_exact(work, request, subnet, item["ip_address"]))
            continue
        old = next((k for k in spare if k[0] == subnet.id and k[1] not in exact), None)
        if old:
            spare.remove(old)
            found.append(old)
        elif subnet.automatic and not request.router:
            found.append((subnet.id, eui64(subnet.cidr, request.mac)))
        elif address := random_free(work, subnet, {a for _, a in found} | exact):
            found.append((subnet.id, address))
        else:
            raise _full(request)
    return found


def _subnet_of(request: AddressRequest, item: dict[str, str], by_id: dict[str, Subnet]) -> Subnet:
    address = item.get("ip_address")
    if subnet_id := item.get("subnet_id"):
        if subnet_id not in by_id:
            raise BadRequest(f"Invalid input for operation: Failed to create port on network {request.network_id}, "
                             f"because fixed_ips included invalid subnet {subnet_id}.", field="fixed_ips",
                             type="InvalidInput")
        subnet = by_id[subnet_id]
        if address and not usable(address, subnet.cidr):
            raise BadRequest(f"IP address {address} is not a valid IP for the specified subnet.", field="fixed_ips",
                             type="InvalidIpForSubnet")
        return subnet
    if address is None:
        raise BadRequest("Invalid input for operation: IP allocation requires subnet_id or ip_address.",
                         field="fixed_ips", type="InvalidInput")
    for subnet in by_id.values():
        if usable(address, subnet.cidr):
            return subnet
    raise BadRequest(f"IP address {address} is not a valid IP for any of the subnets on the specified network.",
                     field="fixed_ips", type="InvalidIpForNetwork")


def _exact(work: Work, request: AddressRequest, subnet: Subnet, address: str) -> tuple[str, str]:
    one = (subnet.id, address)
    if one in request.kept:
        return one
    if subnet.automatic and not request.router and address != eui64(subnet.cidr, request.mac):
        raise BadRequest(f"Invalid input for operation: IPv6 address {address} can not be directly assigned to a "
                         f"port on subnet {subnet.id} since the subnet is configured for automatic addresses.",
                         field="fixed_ips", type="AllocationOnAutoAddressSubnet")
    if work.first(PortAddress, subnet_id=subnet.id, ip_address=address):
        raise conflict("IpAddressAlreadyAllocated", f"IP address {address} already allocated in subnet {subnet.id}")
    return one


def eui64(cidr: str, mac: str) -> str:
    """The IPv6 address that a guest with this MAC gives itself in the prefix (RFC 4291).

    >>> eui64("2001:db8::/64", "fa:16:3e:00:00:01")
    '2001:db8::f816:3eff:fe00:1'
    """
    return str(netaddr.EUI(mac).ipv6(netaddr.IPNetwork(cidr).first))


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
