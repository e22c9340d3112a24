"""The rules that new security groups get: Nacre's own, as long as no operator took them away, and operators'."""

import uuid
from collections.abc import Sequence

import msgspec
import sqlalchemy as sa

from nacre.base.db import statements
from nacre.base.errors import QuotaExceeded
from nacre.network import tables as t
from nacre.network.nouns.attributes import Attributes
from nacre.network.nouns.noun import View
from nacre.network.nouns.security_group import DEFAULT_RULE, PARENT, DefaultRule, default_rule_view
from nacre.network.traffic.rules import normalise, same
from nacre.network.work import Work, conflict, missing

#: The most that there are at once: each new group costs as many rows.
MOST = 100


def _own(direction: str, ethertype: str, remote: str | None) -> DefaultRule:
    """Their ids are the same in every cloud."""
    return DefaultRule(
        id=str(uuid.uuid5(uuid.NAMESPACE_OID, f"nacre default rule {direction} {ethertype}")),
        description=f"Legacy default SG rule for {direction} traffic", direction=direction, ethertype=ethertype,
        protocol=None, port_range_min=None, port_range_max=None, remote_ip_prefix=None, remote_group_id=remote,
        remote_address_group_id=None, used_in_default_sg=True, used_in_non_default_sg=remote is None)


#: All that a guest sends; what members of a project's default group send to each other.
OWN = {rule.id: rule for rule in (
    *(_own("egress", ethertype, None) for ethertype in ("IPv4", "IPv6")),
    *(_own("ingress", ethertype, PARENT) for ethertype in ("IPv4", "IPv6")))}


def of(work: Work) -> list[DefaultRule]:
    """Those that count."""
    rows = {rule.id: rule for rule in work.select(DefaultRule)}
    return [rule for rule in (OWN | rows).values() if rule.used_in_default_sg or rule.used_in_non_default_sg]


def for_new(work: Work, *, default: bool) -> list[DefaultRule]:
    """Those of a new group; default: that is its project's default one. What names a group or a list that is gone is
    left out: it opens nothing."""
    found = [rule for rule in of(work) if (rule.used_in_default_sg if default else rule.used_in_non_default_sg)]
    named = {name for rule in found for name in (rule.remote_group_id, rule.remote_address_group_id)
             if name and name != PARENT}
    there = {PARENT, None} | (_there(work, named) if named else set())
    return [rule for rule in found if {rule.remote_group_id, rule.remote_address_group_id} <= there]


def _there(work: Work, ids: set[str]) -> set[str | None]:
    return {found for table in (t.security_groups, t.address_groups)
            for found in work.conn.execute(sa.select(table.c.id).where(table.c.id.in_(ids))).scalars()}


class DefaultRules:
    """The store behind /default-security-group-rules."""

    resource = DEFAULT_RULE

    def list(self, work: Work, filters: Attributes) -> list[DefaultRule]:
        return [rule for rule in of(work) if rule.id in filters.get("id", (rule.id,))]

    def views(self, work: Work, found: Sequence[DefaultRule]) -> Sequence[View]:
        return [default_rule_view(rule) for rule in found]

    def target(self, work: Work, data: Attributes) -> Attributes:
        return {}

    def create(self, work: Work, data: Attributes) -> View:
        wanted = normalise(data)
        rule = DefaultRule(id=str(uuid.uuid4()), **{
            name: wanted[name] for name in DefaultRule.__struct_fields__ if name != "id"})
        named = {rule.remote_group_id, rule.remote_address_group_id} - {None, PARENT}
        if lacking := named - _there(work, {str(name) for name in named}):
            raise missing("address_group" if rule.remote_address_group_id else "security_group", str(lacking.pop()))
        known = of(work)
        for other in known:
            both = (rule.used_in_default_sg and other.used_in_default_sg) or (
                rule.used_in_non_default_sg and other.used_in_non_default_sg)
            if both and same(other) == same(rule):
                raise conflict("DefaultSecurityGroupRuleExists",
                               f"Default Security group rule already exists. Rule id is {other.id}.")
        if len(known) >= MOST:
            raise QuotaExceeded(f"There are {MOST} default security group rules, and no more are taken.",
                                type="OverQuota")
        return default_rule_view(work.add(rule))

    def update(self, work: Work, current: DefaultRule, data: Attributes) -> None:
        raise NotImplementedError  # there is no such route

    def delete(self, work: Work, current: DefaultRule) -> None:
        statements.delete(work.conn, t.default_rules, id=current.id)
        if current.id in OWN:
            work.add(msgspec.structs.replace(current, used_in_default_sg=False, used_in_non_default_sg=False))
