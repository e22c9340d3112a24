"""Which addresses a port gets: the ones asked for, or one per IP version and every automatic one."""

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from nacre.base.errors import BadRequest, Conflict
from nacre.network import ipam
from nacre.network import tables as t
from nacre.network.work import Row, Work, conflict

MAX_FIXED_IPS = 5
#: How many random addresses are tried, round by round, before all that is taken is read.
ROUNDS = (8, 64, 512)


@dataclass(frozen=True)
class Wish:
    """A port's wish for addresses. wanted None: choose; `kept`: what it has already (subnet_id, ip_address)."""

    network_id: str
    mac: str
    device_owner: str
    wanted: Sequence[dict[str, str]] | None
    kept: tuple[tuple[str, str], ...] = ()

    @property
    def router(self) -> bool:
        return self.device_owner.startswith("network:router")


def choose(work: Work, wish: Wish) -> list[tuple[str, str]]:
    """(subnet id, address) of each address of the port, in order. Raises BadRequest, Conflict where full or taken."""
    if wish.wanted is not None and len(wish.wanted) > MAX_FIXED_IPS and not wish.device_owner.startswith("network:"):
        raise BadRequest(f"Exceeded maximum amount of fixed ips per port ({MAX_FIXED_IPS}).", field="fixed_ips",
                         type="InvalidInput")
    subnets = [s for s in work.find(t.subnets, ("created_at", "id"), network_id=wish.network_id)
               if not s["service_types"] or wish.device_owner in s["service_types"]]
    chosen = _chosen(work, wish, subnets) if wish.wanted is None else _wanted(work, wish, subnets)
    if not wish.router:
        there = {s for s, _ in chosen}
        chosen += [(s["id"], ipam.eui64(s["cidr"], wish.mac)) for s in subnets
                   if ipam.is_auto(s) and s["id"] not in there]
    return list(dict.fromkeys(chosen))


def _chosen(work: Work, wish: Wish, subnets: list[Row]) -> list[tuple[str, str]]:
    found = []
    for version in (4, 6):
        fitting = [s for s in subnets if s["ip_version"] == version and not ipam.is_auto(s)]
        if not fitting:
            continue
        work.rng.shuffle(fitting) if len(fitting) > 1 and version == 6 else None
        for subnet in fitting:
            if address := take(work, subnet, set()):
                found.append((subnet["id"], address))
                break
        else:
            raise _full(wish)
    return found


def _full(wish: Wish) -> Conflict:
    return conflict("IpAddressGenerationFailure", f"No more IP addresses available on network {wish.network_id}.")


def take(work: Work, subnet: Row, besides: set[str]) -> str | None:
    """A free address of the subnet's pools, not one of `besides`; None when they are full. The fuller they are the
    more are tried at once, so that hardly ever all that is taken must be read."""
    for tries in ROUNDS:
        some = ipam.candidates(subnet["allocation_pools"], subnet["ip_version"], work.rng, tries)
        if free := _free(work, subnet, [x for x in some if x not in besides]):
            return free
    return lowest(work, subnet, besides)


def lowest(work: Work, subnet: Row, besides: Collection[str] = ()) -> str | None:
    """The first free address of the subnet's pools: what a network's own services get, as with Neutron, so that they
    seldom sit on an address that somebody asks for by number."""
    pools, version = subnet["allocation_pools"], subnet["ip_version"]
    first = list(itertools.islice(ipam.walk(pools, version), ROUNDS[-1]))
    if free := _free(work, subnet, [x for x in first if x not in besides]):
        return free
    a = t.addresses.c
    taken = set(work.conn.execute(sa.select(a.ip_address).where(a.subnet_id == subnet["id"])).scalars())
    return next((x for x in ipam.walk(pools, version) if x not in taken and x not in besides), None)


def _free(work: Work, subnet: Row, tries: Sequence[str]) -> str | None:
    """The first of these addresses that nobody has."""
    if not tries:
        return None
    taken = {row["ip_address"] for row in work.find(t.addresses, subnet_id=subnet["id"], ip_address=tries)}
    return next((x for x in tries if x not in taken), None)


def _wanted(work: Work, wish: Wish, subnets: list[Row]) -> list[tuple[str, str]]:
    by_id = {s["id"]: s for s in subnets}
    found: list[tuple[str, str]] = []
    spare = list(wish.kept)
    exact = {w["ip_address"] for w in wish.wanted or () if "ip_address" in w}
    for item in wish.wanted or ():
        subnet = _subnet_of(wish, item, by_id)
        if "ip_address" in item:
            found.append(_exact(work, wish, subnet, item["ip_address"]))
            continue
        old = next((k for k in spare if k[0] == subnet["id"] and k[1] not in exact), None)
        if old:
            spare.remove(old)
            found.append(old)
        elif ipam.is_auto(subnet) and not wish.router:
            found.append((subnet["id"], ipam.eui64(subnet["cidr"], wish.mac)))
        elif address := take(work, subnet, {a for _, a in found} | exact):
            found.append((subnet["id"], address))
        else:
            raise _full(wish)
    return found


def _subnet_of(wish: Wish, item: dict[str, str], by_id: dict[str, Row]) -> Row:
    address = item.get("ip_address")
    if subnet_id := item.get("subnet_id"):
        if subnet_id not in by_id:
            raise BadRequest(f"Invalid input for operation: Failed to create port on network {wish.network_id}, "
                             f"because fixed_ips included invalid subnet {subnet_id}.", field="fixed_ips",
                             type="InvalidInput")
        subnet = by_id[subnet_id]
        if address and not ipam.usable(address, subnet["cidr"]):
            raise BadRequest(f"IP address {address} is not a valid IP for the specified subnet.", field="fixed_ips",
                             type="InvalidIpForSubnet")
        return subnet
    if address is None:
        raise BadRequest("Invalid input for operation: IP allocation requires subnet_id or ip_address.",
                         field="fixed_ips", type="InvalidInput")
    for subnet in by_id.values():
        if ipam.usable(address, subnet["cidr"]):
            return subnet
    raise BadRequest(f"IP address {address} is not a valid IP for any of the subnets on the specified network.",
                     field="fixed_ips", type="InvalidIpForNetwork")


def _exact(work: Work, wish: Wish, subnet: Row, address: str) -> tuple[str, str]:
    one = (subnet["id"], address)
    if one in wish.kept:
        return one
    if ipam.is_auto(subnet) and not wish.router and address != ipam.eui64(subnet["cidr"], wish.mac):
        raise BadRequest(f"Invalid input for operation: IPv6 address {address} can not be directly assigned to a "
                         f"port on subnet {subnet['id']} since the subnet is configured for automatic addresses.",
                         field="fixed_ips", type="AllocationOnAutoAddressSubnet")
    a = t.addresses.c
    if work.row(sa.select(a.port_id).where(a.subnet_id == subnet["id"], a.ip_address == address)):
        raise conflict("IpAddressAlreadyAllocated", f"IP address {address} already allocated in subnet {subnet['id']}")
    return one
