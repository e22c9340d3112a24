"""Security groups and their rules: what is kept of them, and what the API says of them."""

import ipaddress
from collections.abc import Sequence

from nacre.network import tables as t
from nacre.network.nouns import checks as c
from nacre.network.nouns import rules, shapes
from nacre.network.nouns.attributes import BOTH, FLAG, MUTE, resource
from nacre.network.nouns.attributes import Attribute as A
from nacre.network.nouns.noun import Named, Noun, Standard, View


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


SECURITY_GROUP = resource("security_group", "security_groups", [
    A("name", c.text(255), default="", **BOTH),
    A("stateful", default=True, sort=False, **FLAG, **BOTH),
    A("security_group_rules", **MUTE), A("shared", sort=False, **FLAG),
])

SECURITY_GROUP_RULE = resource("security_group_rule", "security_group_rules", [
    A("security_group_id", c.text(36), post=True, required=True),
    A("direction", c.one_of("ingress", "egress"), post=True, required=True),
    A("ethertype", rules.ethertype, post=True, default="IPv4", convert=rules.ethertype),
    A("protocol", rules.protocol, post=True, default=None, convert=rules.protocol),
    A("port_range_min", rules.port, post=True, default=None, convert=rules.port),
    A("port_range_max", rules.port, post=True, default=None, convert=rules.port),
    A("remote_ip_prefix", rules.prefix, post=True, default=None, convert=rules.prefix),
    A("remote_group_id", shapes.reference, post=True, default=None),
    A("remote_address_group_id", shapes.reference, post=True, default=None),
    A("normalized_cidr"), A("belongs_to_default_sg", sort=False, **FLAG),
    A("description", c.text(255), post=True, default="", sort=False),
    A("tags", visible=False, **MUTE),
], named=False)


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
