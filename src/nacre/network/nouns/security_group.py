"""Security groups and their rules: what is kept of them, which values a rule may have, and what the API says of them.

A rule's value that is wrong raises BadRequest by the name that Neutron gives it.
"""

import ipaddress
from collections.abc import Sequence
from typing import Any

import msgspec

from nacre.base.errors import BadRequest
from nacre.base.serving.inputs import whole_number
from nacre.network import tables as t
from nacre.network.nouns import checks as c
from nacre.network.nouns import shapes
from nacre.network.nouns.attributes import BOTH, FLAG, MUTE, Resource, resource
from nacre.network.nouns.attributes import Attribute as A
from nacre.network.nouns.noun import Named, Noun, Standard, View

PROTOCOLS = {
    "ah": 51, "dccp": 33, "egp": 8, "esp": 50, "gre": 47, "hopopt": 0, "icmp": 1, "igmp": 2, "ip": 0, "ipip": 4,
    "ipv6-encap": 41, "ipv6-frag": 44, "ipv6-icmp": 58, "icmpv6": 58, "ipv6-nonxt": 59, "ipv6-opts": 60,
    "ipv6-route": 43, "ospf": 89, "pgm": 113, "rsvp": 46, "sctp": 132, "tcp": 6, "udp": 17, "udplite": 136,
    "vrrp": 112,
}
ETHERTYPES = ("IPv4", "IPv6")


def bad(kind: str, message: str, field: str) -> BadRequest:
    return BadRequest(message, field=field, type=kind)


def protocol(value: Any) -> str | None:
    """A protocol's name in lower case, or its number as a string; None for any. Raises BadRequest."""
    if value in (None, "any"):
        return None
    word = str(value).lower()
    number = whole_number(word)
    if not isinstance(value, bool) and (word in PROTOCOLS or (number is not None and number <= 255)):
        return word if word in PROTOCOLS else str(number)
    raise bad("SecurityGroupRuleInvalidProtocol", f"Security group rule protocol {str(value)[:64]} not supported. Only "
              f"protocol values {[None, 'any', *PROTOCOLS]} and integer representations [0 to 255] are supported.",
              "protocol")


def port(value: Any) -> int | None:
    """An end of a range of ports (or an ICMP type or code). Raises BadRequest."""
    try:
        if value is None or 0 <= int(value) <= 65535:
            return None if value is None else int(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise bad("SecurityGroupInvalidPortValue", f"Invalid value for port {str(value)[:64]}", "port_range_min")


def ethertype(value: Any) -> str:
    """"IPv4" or "IPv6", in whatever letters. Raises BadRequest."""
    found = next((e for e in ETHERTYPES if isinstance(value, str) and e.lower() == value.lower()), None)
    if found is None:
        raise bad("SecurityGroupRuleInvalidEtherType", f"Security group rule for ethertype '{str(value)[:64]}' not "
                  f"supported. Allowed values are {list(ETHERTYPES)}.", "ethertype")
    return found


def prefix(value: Any) -> str | None:
    """An address or a network as a CIDR that keeps its host bits; None for anything empty. Raises BadRequest."""
    if not value:
        return None
    try:
        if not isinstance(value, str) or "%" in value:
            raise ValueError
        interface = ipaddress.ip_interface(value)
    except ValueError:
        raise bad("InvalidCIDR", f"Invalid CIDR {str(value)[:64]} given as IP prefix.", "remote_ip_prefix") from None
    return f"{interface.ip}/{interface.network.prefixlen}"


class SecurityGroup(Named, frozen=True):
    TABLE = t.security_groups
    stateful: bool


class DefaultGroup(Noun, frozen=True):
    """Which of a project's groups is its default."""

    TABLE = t.default_groups
    project_id: str
    group_id: str


class SecurityGroupRule(Standard, frozen=True):
    """protocol: a name or a number; None: any. Of the three remotes one at most; none: anywhere."""

    TABLE = t.security_group_rules
    security_group_id: str
    direction: str
    ethertype: str
    protocol: str | None
    port_range_min: int | None
    port_range_max: int | None
    remote_ip_prefix: str | None
    remote_group_id: str | None
    remote_address_group_id: str | None


class DefaultRule(Noun, frozen=True):
    """A rule that new groups get. remote_group_id: PARENT is the new group itself. Neither of the uses: a rule that
    Nacre has by itself, and that an operator took away."""

    TABLE = t.default_rules
    id: str
    description: str
    direction: str
    ethertype: str
    protocol: str | None
    port_range_min: int | None
    port_range_max: int | None
    remote_ip_prefix: str | None
    remote_group_id: str | None
    remote_address_group_id: str | None
    used_in_default_sg: bool
    used_in_non_default_sg: bool


#: In the place of a group's id: the group that gets the rule.
PARENT = "PARENT"

SECURITY_GROUP = resource("security_group", "security_groups", [
    A("name", c.text(255), default="", **BOTH),
    A("stateful", default=True, sort=False, **FLAG, **BOTH),
    A("security_group_rules", **MUTE), A("shared", sort=False, **FLAG),
])

SECURITY_GROUP_RULE = resource("security_group_rule", "security_group_rules", [
    A("security_group_id", c.text(36), post=True, required=True),
    A("direction", c.one_of("ingress", "egress"), post=True, required=True),
    A("ethertype", ethertype, post=True, default="IPv4", convert=ethertype),
    A("protocol", protocol, post=True, default=None, convert=protocol),
    A("port_range_min", port, post=True, default=None, convert=port),
    A("port_range_max", port, post=True, default=None, convert=port),
    A("remote_ip_prefix", prefix, post=True, default=None, convert=prefix),
    A("remote_group_id", shapes.reference, post=True, default=None),
    A("remote_address_group_id", shapes.reference, post=True, default=None),
    A("normalized_cidr"), A("belongs_to_default_sg", sort=False, **FLAG),
    A("description", c.text(255), post=True, default="", sort=False),
    A("tags", visible=False, **MUTE),
], named=False)

#: A rule's own attributes, without what it belongs to.
_FORM = ("direction", "ethertype", "protocol", "port_range_min", "port_range_max", "remote_ip_prefix",
         "remote_group_id", "remote_address_group_id", "description")
_USED: dict[str, Any] = {"check": c.boolean, "convert": c.boolean, "post": True, "required": True}

DEFAULT_RULE = Resource("default_security_group_rule", "default_security_group_rules", {a.name: a for a in (
    A("id"), *(SECURITY_GROUP_RULE.attributes[name] for name in _FORM),
    A("used_in_default_sg", **_USED), A("used_in_non_default_sg", **_USED),
    A("project_id", c.text(64), post=True, visible=False, **MUTE))})


def view(group: SecurityGroup, rules: Sequence[View], *, shared: bool) -> View:
    """shared: with whoever looks."""
    return group.standard() | {"stateful": group.stateful, "shared": shared, "security_group_rules": list(rules)}


def rule_view(rule: SecurityGroupRule, *, default: bool) -> View:
    """default: of a project's default group."""
    prefix = rule.remote_ip_prefix
    return rule.standard() | {
        "security_group_id": rule.security_group_id, "direction": rule.direction, "ethertype": rule.ethertype,
        "protocol": rule.protocol, "port_range_min": rule.port_range_min, "port_range_max": rule.port_range_max,
        "remote_ip_prefix": prefix, "remote_group_id": rule.remote_group_id,
        "remote_address_group_id": rule.remote_address_group_id,
        "normalized_cidr": str(ipaddress.ip_network(prefix, strict=False)) if prefix else None,
        "belongs_to_default_sg": default}


def default_rule_view(rule: DefaultRule) -> View:
    return msgspec.structs.asdict(rule)
