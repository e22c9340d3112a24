"""Security groups and their rules: a project's default group, normal forms, duplicates."""

from collections import defaultdict
from collections.abc import Sequence

import sqlalchemy as sa
from oslo_utils.uuidutils import is_uuid_like

from nacre.base.db import statements
from nacre.network import tables as t
from nacre.network.addresses import address_groups
from nacre.network.nouns.attributes import Attributes
from nacre.network.nouns.noun import View
from nacre.network.nouns.security_group import (
    PARENT,
    SECURITY_GROUP,
    SECURITY_GROUP_RULE,
    DefaultGroup,
    SecurityGroup,
    SecurityGroupRule,
    rule_view,
    view,
)
from nacre.network.sharing import access, grants
from nacre.network.traffic import default_rules
from nacre.network.traffic.rules import normalise, same
from nacre.network.work import Work, among, conflict, missing, where

#: What a group's new rule has of the default one.
_SAME = ("direction", "ethertype", "protocol", "port_range_min", "port_range_max", "remote_ip_prefix",
         "remote_address_group_id")
_RULE = ("security_group_id", "direction", "ethertype", "protocol", "port_range_min", "port_range_max",
         "remote_ip_prefix", "remote_group_id", "remote_address_group_id")


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
        work.room("security_group_rule", data["project_id"], len(default_rules.for_new(work, default=False)))
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
    made = [SecurityGroupRule(
        **work.new({"project_id": data["project_id"]}), security_group_id=group.id,
        remote_group_id=group.id if rule.remote_group_id == PARENT else rule.remote_group_id,
        **{name: getattr(rule, name) for name in _SAME}) for rule in default_rules.for_new(work, default=default)]
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

