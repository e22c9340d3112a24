"""The rules of QoS policies: which go together, and what a host has to know of them."""

import uuid
from collections.abc import Collection, Iterable, Sequence

from msgspec.structs import replace

from nacre.base.errors import Conflict, NotFound
from nacre.network import tables as t
from nacre.network.contract import QosFacts, Rate
from nacre.network.nouns.attributes import Attributes
from nacre.network.nouns.qos import (
    ANY,
    BANDWIDTH_LIMIT,
    DSCP_MARKING,
    INGRESS,
    KINDS,
    MINIMUM_BANDWIDTH,
    MINIMUM_PACKET_RATE,
    QosPolicy,
    QosRule,
)
from nacre.network.work import Work, conflict

#: A minimum and the limit that may not be below it: what is promised must be allowed.
_BOUNDS = {MINIMUM_BANDWIDTH: BANDWIDTH_LIMIT, BANDWIDTH_LIMIT: MINIMUM_BANDWIDTH}


def of(work: Work, policy_id: str, kind: str) -> list[QosRule]:
    """A policy's rules of that kind."""
    return work.select(QosRule, order=("direction",), policy_id=policy_id, type=kind)


def missing(rule_id: str, policy_id: str | None) -> NotFound:
    return NotFound(f"QoS rule {rule_id[:64]} for policy {policy_id} could not be found.", type="QosRuleNotFound")


def get(work: Work, rule_id: str, kind: str, policy_id: str | None = None) -> QosRule:
    """That rule. Raises NotFound."""
    found = work.first(QosRule, id=rule_id, type=kind)
    if found is None or policy_id not in (None, found.policy_id):
        raise missing(rule_id, policy_id)
    return found


def add(work: Work, policy: QosPolicy, kind: str, data: Attributes) -> QosRule:
    """A new rule of the policy. Raises Conflict."""
    has = KINDS[kind]
    rule = QosRule(id=str(uuid.uuid4()), policy_id=policy.id, type=kind, direction=data.get("direction", ""),
                   value=data[has.value], burst=data.get(has.burst))
    check(rule, work.select(QosRule, policy_id=policy.id))
    work.add(rule)
    work.touch(t.qos_policies, policy.id)
    return rule


def change(work: Work, rule: QosRule, data: Attributes) -> QosRule:
    """The rule with other values. Raises Conflict."""
    has = KINDS[rule.type]
    new = replace(rule, value=data.get(has.value, rule.value), burst=data.get(has.burst, rule.burst),
                  direction=data.get("direction", rule.direction))
    check(new, work.select(QosRule, policy_id=rule.policy_id))
    work.conn.execute(t.qos_rules.update().where(t.qos_rules.c.id == rule.id).values(
        value=new.value, burst=new.burst, direction=new.direction))
    work.touch(t.qos_policies, rule.policy_id)
    return new


def drop(work: Work, rule: QosRule) -> None:
    work.conn.execute(t.qos_rules.delete().where(t.qos_rules.c.id == rule.id))
    work.touch(t.qos_policies, rule.policy_id)


def check(rule: QosRule, rules: Iterable[QosRule]) -> None:
    """Whether the rule goes with the others of its policy: one of a kind and direction; no minimum above a limit; a
    minimum of packets for both directions together, or for each. Raises Conflict."""
    for other in rules:
        if other.id == rule.id:
            continue
        if other.type == rule.type and other.direction == rule.direction:
            raise conflict("QoSRulesConflict", f"Rule {rule.type} conflicts with rule {other.id} which already exists "
                           f"in QoS Policy {rule.policy_id}.")
        if rule.type == other.type == MINIMUM_PACKET_RATE and ANY in (rule.direction, other.direction):
            raise _parameter(rule, other, rule.direction, other.direction)
        if _BOUNDS.get(rule.type) == other.type and other.direction == rule.direction:
            low, high = (rule, other) if rule.type == MINIMUM_BANDWIDTH else (other, rule)
            if low.value > high.value:
                raise _parameter(rule, other, rule.value, other.value)


def _parameter(rule: QosRule, other: QosRule, value: object, existing: object) -> Conflict:
    return conflict("QoSRuleParameterConflict", f"Unable to add the rule with value {value} to the policy "
                    f"{rule.policy_id} as the existing rule of type {other.type} has value {existing}.")


def facts(policy_id: str, n: int, rules: Sequence[QosRule]) -> QosFacts:
    """What a host enforces of a policy with these rules. Minimums are for who places guests; of the directions, as
    Neutron's, ingress is to the guest. Pure."""
    limits = {rule.direction: Rate(kbps=rule.value, burst_kbit=rule.burst or None)
              for rule in rules if rule.type == BANDWIDTH_LIMIT}
    marks = [rule.value for rule in rules if rule.type == DSCP_MARKING]
    return QosFacts(id=policy_id, n=n, to_guest=limits.pop(INGRESS, None), from_guest=next(iter(limits.values()), None),
                    dscp=marks[0] if marks else None)


def facts_of(work: Work, policy_ids: Collection[str], n: int) -> tuple[QosFacts, ...]:
    """As `facts`, of these policies, in one statement. n: how far the database is."""
    found: dict[str, list[QosRule]] = {policy_id: [] for policy_id in sorted(policy_ids)}
    for rule in work.select(QosRule, policy_id=list(found)) if found else ():
        found[rule.policy_id].append(rule)
    return tuple(facts(policy_id, n, rules) for policy_id, rules in found.items())
