"""Subnet pools, address scopes and address groups: what is kept of them, and what the API says of them."""

from typing import Any

from nacre.network import tables as t
from nacre.network.nouns import checks as c
from nacre.network.nouns.attributes import BOTH, FLAG, MUTE, VERSION, resource
from nacre.network.nouns.attributes import Attribute as A
from nacre.network.nouns.noun import Named, View


class SubnetPool(Named, frozen=True):
    """Prefixes from which the ranges of subnets are cut."""

    TABLE = t.subnetpools
    ip_version: int
    prefixes: list[str]
    default_prefixlen: int
    min_prefixlen: int
    max_prefixlen: int
    default_quota: int | None
    is_default: bool
    address_scope_id: str | None


class AddressScope(Named, frozen=True):
    """Pools of which no two have an address in common."""

    TABLE = t.address_scopes
    ip_version: int


class AddressGroup(Named, frozen=True):
    """CIDRs that rules of security groups refer to."""

    TABLE = t.address_groups
    addresses: list[str]


_LENGTH: dict[str, Any] = {"check": c.number(0, 128), "convert": c.integer}

SUBNETPOOL = resource("subnetpool", "subnetpools", [
    A("name", c.not_empty, post=True, put=True, required=True),
    A("prefixes", c.cidrs, post=True, put=True, required=True, **MUTE), A("ip_version", convert=c.integer),
    A("default_quota", c.number(0), convert=c.integer, **BOTH),
    A("default_prefixlen", **_LENGTH, **BOTH), A("min_prefixlen", **_LENGTH, **BOTH),
    A("max_prefixlen", **_LENGTH, **BOTH),
    A("is_default", default=False, guard=True, **FLAG, **BOTH),
    A("shared", post=True, default=False, guard=True, **FLAG),
    A("address_scope_id", c.maybe(c.uuid_), default=None, **BOTH),
])

ADDRESS_SCOPE = resource("address_scope", "address_scopes", [
    A("ip_version", post=True, required=True, **VERSION),
    A("shared", default=False, guard=True, **FLAG, **BOTH),
    A("tags", visible=False, **MUTE), A("description", visible=False, **MUTE),
])

ADDRESS_GROUP = resource("address_group", "address_groups", [
    A("addresses", c.cidrs, post=True, default=[], **MUTE), A("shared", visible=False, **MUTE),
    A("tags", visible=False, **MUTE),
])


def pool_view(pool: SubnetPool, *, shared: bool) -> View:
    """shared: with whoever looks. The lengths are strings in this API's answers, whatever they were in the request."""
    return pool.standard() | {
        "ip_version": pool.ip_version, "prefixes": pool.prefixes, "default_prefixlen": str(pool.default_prefixlen),
        "min_prefixlen": str(pool.min_prefixlen), "max_prefixlen": str(pool.max_prefixlen),
        "default_quota": pool.default_quota, "is_default": pool.is_default, "address_scope_id": pool.address_scope_id,
        "shared": shared}


def scope_view(scope: AddressScope, *, shared: bool) -> View:
    """shared: as of a pool."""
    return scope.standard() | {"ip_version": scope.ip_version, "shared": shared}


def group_view(group: AddressGroup) -> View:
    return group.standard() | {"addresses": group.addresses}
