"""Security groups and their rules: a project's default group, normal forms, duplicates."""

import ipaddress
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from oslo_utils.uuidutils import is_uuid_like

from nacre.base.db import statements
from nacre.network import tables as t
from nacre.network.addresses import address_groups
from nacre.network.nouns.attributes import Attributes
from nacre.network.nouns.noun import View
from nacre.network.nouns.rules import PROTOCOLS, bad, port, prefix, protocol
from nacre.network.nouns.security_group import (
    SECURITY_GROUP,
    SECURITY_GROUP_RULE,
    DefaultGroup,
    SecurityGroup,
    SecurityGroupRule,
    rule_view,
    view,
)
from nacre.network.sharing import access, grants
from nacre.network.work import Work, among, conflict, missing, where

_WITH_PORTS = (6, 17, 33, 132, 136)
_ONLY_V6 = ("ipv6-encap", "ipv6-frag", "ipv6-icmp", "icmpv6", "ipv6-nonxt", "ipv6-opts", "ipv6-route")
_V6_NUMBERS = {str(PROTOCOLS[name]) for name in _ONLY_V6}
_RULE = ("security_group_id", "direction", "ethertype", "protocol", "port_range_min", "port_range_max",
         "remote_ip_prefix", "remote_group_id", "remote_address_group_id")


def protocol_number(value: str | None) -> int | None:
    """The IP protocol number of a rule's protocol; None for any."""
    if value is None or value == "ip":
        return None
    return PROTOCOLS[value] if value in PROTOCOLS else int(value)


def normalise(data: Attributes) -> Attributes:
    """A rule as it is kept: canonical protocol, ports as integers, prefix as given but checked. Raises BadRequest."""
    rule = dict(data)
    rule["protocol"] = protocol(data["protocol"])
    rule["port_range_min"], rule["port_range_max"] = port(data["port_range_min"]), port(data["port_range_max"])
    if sum(1 for k in ("remote_ip_prefix", "remote_group_id", "remote_address_group_id") if data.get(k)) > 1:
        raise bad("SecurityGroupMultipleRemoteEntites", "Only one of remote_ip_prefix or remote_group_id or "
                   "remote_address_group_id may be provided.", "remote_ip_prefix")
    rule["remote_ip_prefix"] = prefix(data["remote_ip_prefix"])
    _check_family(rule["remote_ip_prefix"], data["ethertype"])
    if (rule["protocol"] in _ONLY_V6 or rule["protocol"] in _V6_NUMBERS) and rule["ethertype"] != "IPv6":
        raise bad("SecurityGroupEthertypeConflictWithProtocol",
                   f"Invalid ethertype {rule['ethertype']} for protocol {rule['protocol']}.", "ethertype")
    _check_ports(rule)
    return rule


def _check_family(prefix: str | None, ethertype: str) -> None:
    if prefix and ipaddress.ip_interface(prefix).version != (4 if ethertype == "IPv4" else 6):
        raise bad("SecurityGroupRuleParameterConflict", f"Conflicting value ethertype {ethertype} for CIDR {prefix}",
                  "remote_ip_prefix")


def _check_ports(rule: Attributes) -> None:
    low, high, number = rule["port_range_min"], rule["port_range_max"], protocol_number(rule["protocol"])
    if low is None and high is None:
        return
    if rule["protocol"] is None:
        raise bad("SecurityGroupProtocolRequiredWithPorts", "Must also specify protocol if port range is given.",
                   "protocol")
    if number in (1, 58):
        for value, name, words in ((low, "port_range_min", "type"), (high, "port_range_max", "code")):
            if value is not None and not 0 <= value <= 255:
                raise bad("SecurityGroupInvalidIcmpValue", f"Invalid value for ICMP {words} ({name}) {value}. "
                           "It must be 0 to 255.", name)
        if low is None:
            raise bad("SecurityGroupMissingIcmpType", f"ICMP code (port-range-max) {high} is provided but ICMP type "
                       "(port-range-min) is missing.", "port_range_min")
        return
    if number not in _WITH_PORTS:
        raise bad("SecurityGroupInvalidProtocolForPort", f"Ports cannot be specified for protocol {rule['protocol']}. "
                   "Ports are only supported for dccp, sctp, tcp, udp and udplite.", "port_range_min")
    if low is None or high is None or low > high or (number in (6, 17) and low == 0 and high == 0):
        raise bad("SecurityGroupInvalidPortRange", "For TCP/UDP protocols, port_range_min must be <= port_range_max",
                   "port_range_min")


def same(rule: SecurityGroupRule) -> tuple[Any, ...]:
    """What two rules of a group may not have in common."""
    prefix = rule.remote_ip_prefix
    net = str(ipaddress.ip_network(prefix, strict=False)) if prefix else None
    return (rule.direction, rule.ethertype, protocol_number(rule.protocol), rule.port_range_min, rule.port_range_max,
            None if net in ("0.0.0.0/0", "::/0") else net, rule.remote_group_id, rule.remote_address_group_id)


def may_use(work: Work) -> sa.ColumnElement[bool]:
    """The groups that the caller may see and put on ports: its own and those shared with it."""
    return access.visible(work, t.security_groups, "security_group")


class SecurityGroups:
    """The store behind /security-groups."""

    resource = SECURITY_GROUP

    def list(self, work: Work, filters: Attributes) -> list[SecurityGroup]:
        return work.search(SecurityGroup, may_use(work), *where(t.security_groups, filters))

    def views(self, work: Work, found: Sequence[SecurityGroup]) -> Sequence[View]:
        rules = defaultdict[str, list[View]](list)
        if ids := [group.id for group in found]:
            for rule in work.search(SecurityGroupRule, among(t.security_group_rules.c.security_group_id, ids)):
                rules[rule.security_group_id].append(rule_view(rule, default=False))
        shared = access.shared(work, "security_group")
        return [view(group, rules[group.id], shared=group.id in shared) for group in found]

    def target(self, work: Work, data: Attributes) -> Attributes:
        return {}

    def create(self, work: Work, data: Attributes) -> View:
        if data["name"].lower() == "default":
            raise conflict("SecurityGroupDefaultAlreadyExists", "Default security group already exists.")
        ensure_default(work, data["project_id"])
        work.room("security_group", data["project_id"])
        work.room("security_group_rule", data["project_id"], 2)
        group, rules = _create(work, data, default=False)
        return view(group, [rule_view(rule, default=False) for rule in rules], shared=False)

    def update(self, work: Work, current: SecurityGroup, data: Attributes) -> None:
        if data.get("name", "").lower() == "default":
            raise conflict("SecurityGroupDefaultAlreadyExists", "Default security group already exists.")
        if "name" in data and current.name == "default":
            raise conflict("SecurityGroupCannotUpdateDefault", "Updating default security group not allowed.")
        if "stateful" in data and data["stateful"] != current.stateful:
            self._refuse_used(work, current.id)
        work.change(t.security_groups, current.id, data)

    def _refuse_used(self, work: Work, group_id: str) -> None:
        if work.row(sa.select(t.port_groups.c.port_id).where(t.port_groups.c.group_id == group_id).limit(1)):
            raise conflict("SecurityGroupInUse", f"Security Group {group_id} in use.")

    def delete(self, work: Work, current: SecurityGroup) -> None:
        if current.name == "default" and not work.context.is_admin:
            raise conflict("SecurityGroupCannotRemoveDefault",
                           "Insufficient rights for removing default security group.")
        self._refuse_used(work, current.id)
        rules = t.security_group_rules
        using = work.conn.execute(sa.select(rules.c.security_group_id).where(
            rules.c.remote_group_id == current.id)).scalars()
        work.changes.groups.update(using)
        work.remove(rules, security_group_id=current.id)
        work.remove(rules, remote_group_id=current.id)
        work.conn.execute(sa.delete(t.default_groups).where(t.default_groups.c.group_id == current.id))
        grants.forget(work, current.id)
        statements.delete(work.conn, t.member_changes, group_id=current.id)
        work.remove(t.security_groups, id=current.id)


class SecurityGroupRules:
    """The store behind /security-group-rules."""

    resource = SECURITY_GROUP_RULE

    def list(self, work: Work, filters: Attributes) -> list[SecurityGroupRule]:
        rules = t.security_group_rules
        mine = sa.select(t.security_groups.c.id).where(access.own(work, t.security_groups))
        return work.search(SecurityGroupRule, sa.or_(access.own(work, rules), rules.c.security_group_id.in_(mine)),
                           *where(rules, filters))

    def views(self, work: Work, found: Sequence[SecurityGroupRule]) -> Sequence[View]:
        d = t.default_groups.c.group_id
        default = set(work.conn.execute(sa.select(d).where(among(
            d, {rule.security_group_id for rule in found}))).scalars())
        return [rule_view(rule, default=rule.security_group_id in default) for rule in found]

    def target(self, work: Work, data: Attributes) -> Attributes:
        # A rule belongs to whom its group belongs to.
        group = work.row(sa.select(t.security_groups.c.project_id).where(
            t.security_groups.c.id == data["security_group_id"], access.own(work, t.security_groups)))
        if group is None:
            raise missing("security_group", data["security_group_id"])
        return {"project_id": group["project_id"]}

    def create(self, work: Work, data: Attributes) -> View:
        wanted = normalise(data)
        rule = SecurityGroupRule(**work.new(wanted), **{name: wanted[name] for name in _RULE})
        group = work.first(SecurityGroup, access.own(work, t.security_groups), id=rule.security_group_id)
        if group is None:
            raise missing("security_group", rule.security_group_id)
        self._check_remote(work, rule)
        work.room("security_group_rule", rule.project_id)
        key = same(rule)
        for other in work.select(SecurityGroupRule, security_group_id=group.id):
            if same(other) == key:
                raise conflict("SecurityGroupRuleExists",
                               f"Security group rule already exists. Rule id is {other.id}.")
        work.add(rule)
        if rule.remote_address_group_id:
            address_groups.check_named(work, group.id)
        work.touch(t.security_groups, group.id)
        work.changes.groups.add(group.id)
        return rule_view(rule, default=group.name == "default")

    def _check_remote(self, work: Work, rule: SecurityGroupRule) -> None:
        if (remote := rule.remote_group_id) and not work.row(
                sa.select(t.security_groups.c.id).where(t.security_groups.c.id == remote, may_use(work))):
            raise missing("security_group", remote)
        a = t.address_groups.c
        if (remote := rule.remote_address_group_id) and not work.row(
                sa.select(a.id).where(a.id == remote, access.visible(work, t.address_groups, "address_group"))):
            raise missing("address_group", remote)

    def update(self, work: Work, current: SecurityGroupRule, data: Attributes) -> None:
        work.change(t.security_group_rules, current.id, data)

    def delete(self, work: Work, current: SecurityGroupRule) -> None:
        work.remove(t.security_group_rules, id=current.id)
        work.touch(t.security_groups, current.security_group_id)
        work.changes.groups.add(current.security_group_id)


class DefaultGroups:
    """A project has its default group when its groups, or their rules, are asked for: one's own project, or another's
    that an administrator names."""

    def __init__(self, filters: Attributes):
        self._named = filters.get("project_id") or []

    def _project(self, work: Work) -> str:
        named = self._named[0] if self._named and work.context.is_admin else None
        return named if named and len(named) <= 36 and is_uuid_like(named) else work.context.project_id or ""

    def lacking(self, work: Work) -> bool:
        project = self._project(work)
        return bool(project) and default_of(work, project) is None

    def prepare(self, work: Work) -> None:
        ensure_default(work, self._project(work))


def default_of(work: Work, project_id: str) -> str | None:
    """The id of the project's default group, if it has one by now."""
    found = work.first(DefaultGroup, project_id=project_id)
    return found.group_id if found else None


def ensure_default(work: Work, project_id: str) -> str:
    """The id of the project's default group, made on demand: all egress, ingress from its own members."""
    if found := default_of(work, project_id):
        return found
    data = {"name": "default", "description": "Default security group", "project_id": project_id, "stateful": True}
    group, _ = _create(work, data, default=True)
    work.add(DefaultGroup(project_id=project_id, group_id=group.id))
    return group.id


def _create(work: Work, data: Attributes, *, default: bool) -> tuple[SecurityGroup, list[SecurityGroupRule]]:
    group = work.add(SecurityGroup(**work.new(data), name=data["name"], stateful=data["stateful"]))
    rules: list[tuple[str, str, str | None]] = [("egress", kind, None) for kind in ("IPv4", "IPv6")]
    if default:
        rules += [("ingress", kind, group.id) for kind in ("IPv4", "IPv6")]
    made = [SecurityGroupRule(
        **work.new({"project_id": data["project_id"]}), security_group_id=group.id, direction=direction, ethertype=kind,
        protocol=None, port_range_min=None, port_range_max=None, remote_ip_prefix=None, remote_group_id=remote,
        remote_address_group_id=None) for direction, kind, remote in rules]
    work.add_all(SecurityGroupRule, made)
    return group, made


def choose(work: Work, wanted: list[str] | None, project_id: str) -> list[str]:
    """The ids of a new port's groups: those asked for, or the project's default. Raises NotFound."""
    if wanted is None:
        return [ensure_default(work, project_id)]
    if wanted:
        found = dict(work.conn.execute(sa.select(t.security_groups.c.id, t.security_groups.c.stateful).where(
            t.security_groups.c.id.in_(wanted), may_use(work))).all())
        if gone := [g for g in wanted if g not in found]:
            raise missing("security_group", gone[0])
        if len(set(found.values())) > 1:
            raise conflict("SecurityGroupConflict", "Error Cannot apply both stateful and stateless security groups on "
                           "the same port while attempting the operation.")
    return wanted

