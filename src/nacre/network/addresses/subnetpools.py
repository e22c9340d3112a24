"""Subnet pools and address scopes: prefixes from which the ranges of subnets are cut."""

import ipaddress
import itertools
from collections.abc import Iterable, Iterator, Sequence

import sqlalchemy as sa
from msgspec.structs import replace

from nacre.base.errors import BadRequest, NotBuilt, NotFound
from nacre.network import tables as t
from nacre.network.addresses import ipam
from nacre.network.nouns.address import (
    ADDRESS_SCOPE,
    SUBNETPOOL,
    AddressScope,
    SubnetPool,
    pool_view,
    scope_view,
)
from nacre.network.nouns.attributes import Attributes
from nacre.network.nouns.noun import View
from nacre.network.nouns.subnet import Subnet
from nacre.network.sharing import access, grants
from nacre.network.sharing.access import SHARED
from nacre.network.work import Work, conflict, missing, where

_PLAIN = ("name", "prefixes", "default_prefixlen", "min_prefixlen", "max_prefixlen", "default_quota", "is_default",
          "address_scope_id")


#: What a pool may have after any change; one that has more already may only have fewer.
MAX_PREFIXES = 1000
_LENGTHS = ("min_prefixlen", "max_prefixlen", "default_prefixlen")


def _bad(kind: str, message: str, field: str | None = None) -> BadRequest:
    return BadRequest(message, field=field, type=kind)


class Subnetpools:
    """The store behind /subnetpools."""

    resource = SUBNETPOOL

    def list(self, work: Work, filters: Attributes) -> list[SubnetPool]:
        return work.search(SubnetPool, access.visible(work, t.subnetpools, "subnetpool"),
                           *where(t.subnetpools, filters))

    def views(self, work: Work, found: Sequence[SubnetPool]) -> Sequence[View]:
        shared = access.shared(work, "subnetpool")
        return [pool_view(pool, shared=pool.id in shared) for pool in found]

    def target(self, work: Work, data: Attributes) -> Attributes:
        return {}

    def create(self, work: Work, data: Attributes) -> View:
        work.room("subnetpool", data["project_id"])
        version, prefixes = _merged(data["prefixes"])
        bits = 32 if version == 4 else 128
        low = data.get("min_prefixlen", 8 if version == 4 else 64)
        lengths = {"min_prefixlen": low, "max_prefixlen": data.get("max_prefixlen", bits),
                   "default_prefixlen": data.get("default_prefixlen", low)}
        _check_lengths(lengths, bits)
        self._check_default(work, data, version)
        self._check_scope(work, data, version)
        _check_unique(work, data.get("address_scope_id"), prefixes)
        pool = work.add(SubnetPool(
            **work.new(data), **lengths, name=data["name"], ip_version=version, prefixes=prefixes,
            default_quota=data.get("default_quota"), is_default=data["is_default"],
            address_scope_id=data["address_scope_id"]))
        if data["shared"]:
            grants.open_to_all(work, "subnetpool", pool, SHARED)
        return self.views(work, [pool])[0]

    def _check_default(self, work: Work, data: Attributes, version: int, but: str = "") -> None:
        p = t.subnetpools.c
        if data.get("is_default") and work.row(sa.select(p.id).where(p.is_default, p.ip_version == version,
                                                                     p.id != but)):
            raise BadRequest(f"Invalid input for operation: A default subnetpool for IPv{version} has already been "
                             "set.",
                             field="is_default", type="InvalidInput")

    def _check_scope(self, work: Work, data: Attributes, version: int) -> None:
        if not (scope_id := data.get("address_scope_id")):
            return
        scope = next(iter(AddressScopes().list(work, {"id": [scope_id]})), None)
        if scope is None:
            raise missing("address_scope", scope_id)
        if scope.ip_version != version:
            raise _bad("IllegalSubnetPoolIpVersionAssociation", f"Illegal subnetpool association: subnetpool cannot be "
                       f"associated with address scope {scope_id} because their ip_version differ.", "address_scope_id")

    def update(self, work: Work, current: SubnetPool, data: Attributes) -> None:
        version, values = current.ip_version, {k: data[k] for k in (*_PLAIN, "description") if k in data}
        if "prefixes" in data:
            new, values["prefixes"] = _merged(data["prefixes"], len(current.prefixes))
            spans = ipam.merged(values["prefixes"])
            if new != version or not all(ipam.covers(spans, ipam.span(p)) for p in current.prefixes):
                raise _bad("IllegalSubnetPoolPrefixUpdate", "Illegal update to prefixes: existing prefixes cannot be "
                           f"removed from the subnet pool; it has {current.prefixes}.", "prefixes")
        new_pool = replace(current, **values)
        _check_lengths({k: getattr(new_pool, k) for k in _LENGTHS}, 32 if version == 4 else 128)
        self._check_default(work, data, version, current.id)
        self._check_scope(work, data, version)
        if values.keys() & {"prefixes", "address_scope_id"}:
            _check_unique(work, new_pool.address_scope_id, new_pool.prefixes, current.id)
        work.change(t.subnetpools, current.id, values)

    def remove_prefixes(self, work: Work, current: SubnetPool, prefixes: Iterable[str]) -> None:
        """Takes prefixes, or parts of them, from a pool; those that it has not are none. Raises BadRequest where a
        subnet has some of it."""
        version = current.ip_version
        has, gone = ipam.merged(current.prefixes), ipam.merged(p for p in prefixes if (":" in p) == (version == 6))
        if not any(ipam.meets(has, span) for span in gone):
            return
        if any(ipam.meets(gone, ipam.span(subnet.cidr)) for subnet in work.select(
                Subnet, subnetpool_id=current.id)):
            raise _bad("IllegalSubnetPoolPrefixUpdate", "Illegal update to prefixes: One or more the prefixes to be "
                       "removed is in use by a subnet.", "prefixes")
        left = _few(ipam.networks(ipam.without(has, gone), version), len(current.prefixes))
        work.change(t.subnetpools, current.id, {"prefixes": left})

    def delete(self, work: Work, current: SubnetPool) -> None:
        if work.first(Subnet, subnetpool_id=current.id):
            raise _bad("SubnetPoolDeleteError",
                       "Unable to delete subnet pool: Subnet pool has existing allocations.")
        grants.forget(work, current.id)
        work.remove(t.subnetpools, id=current.id)


class AddressScopes:
    """The store behind /address-scopes."""

    resource = ADDRESS_SCOPE

    def list(self, work: Work, filters: Attributes) -> list[AddressScope]:
        return work.search(AddressScope, access.visible(work, t.address_scopes, "address_scope"),
                           *where(t.address_scopes, filters))

    def views(self, work: Work, found: Sequence[AddressScope]) -> Sequence[View]:
        shared = access.shared(work, "address_scope")
        return [scope_view(scope, shared=scope.id in shared) for scope in found]

    def target(self, work: Work, data: Attributes) -> Attributes:
        return {}

    def create(self, work: Work, data: Attributes) -> View:
        work.room("address_scope", data["project_id"])
        scope = work.add(AddressScope(**work.new(data), name=data["name"], ip_version=data["ip_version"]))
        if data["shared"]:
            grants.open_to_all(work, "address_scope", scope, SHARED)
        return self.views(work, [scope])[0]

    def update(self, work: Work, current: AddressScope, data: Attributes) -> None:
        if "shared" in data and data["shared"] != (current.id in access.shared(work, "address_scope")):
            if not data["shared"]:
                raise _bad("AddressScopeUpdateError", f"Unable to update address scope {current.id}: Shared address "
                           "scope can't be unshared.", "shared")
            grants.open_to_all(work, "address_scope", current, SHARED)
        work.change(t.address_scopes, current.id, {k: data[k] for k in ("name",) if k in data})

    def delete(self, work: Work, current: AddressScope) -> None:
        if work.first(SubnetPool, address_scope_id=current.id):
            raise conflict("AddressScopeInUse", f"Unable to complete operation on address scope {current.id}. There "
                           "are one or more subnet pools in use on the address scope.")
        grants.forget(work, current.id)
        work.remove(t.address_scopes, id=current.id)


def choose(work: Work, data: Attributes) -> str | None:
    """The pool that a new subnet's range comes from, if any; sets data["cidr"] where the client left it to the pool."""
    pool_id = data.get("subnetpool_id")
    if data.get("use_default_subnetpool"):
        p = t.subnetpools.c
        pool_id = work.conn.execute(sa.select(p.id).where(p.is_default, p.ip_version == data["ip_version"])).scalar()
        if pool_id is None:
            raise NotFound("No default subnetpool found for IPv" + str(data["ip_version"]), type="NoDefaultSubnetPool")
    if not pool_id:
        return None
    if pool_id == "prefix_delegation":
        raise NotBuilt("Prefix delegation is not built: name a subnet pool or a cidr.")
    pool = next(iter(Subnetpools().list(work, {"id": [pool_id]})), None)
    if pool is None:
        raise missing("subnetpool", pool_id)
    if pool.ip_version != data["ip_version"]:
        raise _bad("BadRequest", "Bad subnets request: Cannot associate a subnet with a pool of another ip_version.",
                   "ip_version")
    cidr = data.get("cidr")
    length: int = ipaddress.ip_network(cidr).prefixlen if cidr else (
        data.get("prefixlen", pool.default_prefixlen))
    low, high = pool.min_prefixlen, pool.max_prefixlen
    if not low <= length <= high:
        edge, kind = ((low, "MinPrefixSubnetAllocationError") if length < low
                      else (high, "MaxPrefixSubnetAllocationError"))
        raise _bad(kind, f"Unable to allocate subnet with prefix length {length}, the allowed prefix at that end is "
                   f"{edge}.", "prefixlen")
    taken = list(work.conn.execute(sa.select(t.subnets.c.cidr).where(t.subnets.c.subnetpool_id == pool_id)).scalars())
    if cidr:
        fits = ipam.covers(ipam.merged(pool.prefixes), ipam.span(cidr)) and not ipam.overlap(cidr, taken)
    found = (cidr if fits else None) if cidr else next(_free(pool.prefixes, length, taken), None)
    if found is None:
        raise conflict("SubnetAllocationError", "Failed to allocate subnet: Cannot allocate requested subnet from the "
                       "available set of prefixes.")
    data["cidr"] = found
    return pool.id


def _free(prefixes: Iterable[str], length: int, taken: list[str]) -> Iterator[str]:
    """The free networks of that length, lowest first of each prefix: one pass over what is taken."""
    busy = ipam.merged(taken)
    for prefix in prefixes:
        net = ipaddress.ip_network(prefix)
        if net.prefixlen > length:
            continue
        step, at, end = 1 << (net.max_prefixlen - length), int(net.network_address), int(net.broadcast_address)
        for first, last in [*(b for b in ipam.among(busy, (at, end))), (end + 1, end + 1)]:
            while at + step - 1 < first and at + step - 1 <= end:
                yield f"{type(net.network_address)(at)}/{length}"
                at += step
            if last >= at:  # what is taken is jumped over at once
                at = (last // step + 1) * step


def _merged(prefixes: Sequence[str], most: int = MAX_PREFIXES) -> tuple[int, list[str]]:
    """The version of the prefixes, and the fewest prefixes that cover the same. Raises BadRequest."""
    if not prefixes:
        raise _bad("EmptySubnetPoolPrefixList", "Empty subnet pool prefix list.", "prefixes")
    sixes = sum(":" in prefix for prefix in prefixes)
    if 0 < sixes < len(prefixes):
        raise _bad("PrefixVersionMismatch", "Cannot mix IPv4 and IPv6 prefixes in a subnet pool.", "prefixes")
    version = 6 if sixes else 4
    return version, _few(ipam.networks(ipam.merged(prefixes), version), most)


def _few(prefixes: Iterable[str], had: int) -> list[str]:
    """The prefixes that a pool shall have from now on. Raises BadRequest where they are too many."""
    most = max(MAX_PREFIXES, had)
    found = list(itertools.islice(prefixes, most + 1))
    if len(found) > most:
        raise _bad("IllegalSubnetPoolPrefixUpdate", f"A subnet pool has at most {MAX_PREFIXES} prefixes, and this "
                   "would leave more.", "prefixes")
    return found


def _check_unique(work: Work, scope_id: str | None, prefixes: Iterable[str], but: str = "") -> None:
    """Within an address scope an address is one pool's. Raises Conflict."""
    if not scope_id:
        return
    own = ipam.merged(prefixes)
    if any(ipam.meets(own, ipam.span(prefix)) for pool in work.select(SubnetPool, address_scope_id=scope_id)
           if pool.id != but for prefix in pool.prefixes):
        raise conflict("AddressScopePrefixConflict", "Failed to associate address scope: subnetpools within an address "
                       "scope must have unique prefixes.")


def _check_lengths(lengths: dict[str, int], bits: int) -> None:
    low, default, high = lengths["min_prefixlen"], lengths["default_prefixlen"], lengths["max_prefixlen"]
    for name, value in lengths.items():
        if not 0 <= value <= bits:
            raise _bad("UnsupportedMinSubnetPoolPrefix" if name == "min_prefixlen" else "IllegalSubnetPoolPrefixBounds",
                       f"Prefix '{value}' not supported in this pool: {name} is 0 to {bits}.", name)
    if not low <= default <= high:
        raise _bad("IllegalSubnetPoolPrefixBounds", f"Illegal prefix bounds: min_prefixlen={low}, default_prefixlen="
                   f"{default}, max_prefixlen={high}; they must not fall.", "default_prefixlen")
