"""QoS policies and their rules: what is kept of them, and what the API says of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nacre.network import tables as t
from nacre.network.nouns import checks as c
from nacre.network.nouns.attributes import BOTH, FLAG, Resource, resource
from nacre.network.nouns.attributes import Attribute as A
from nacre.network.nouns.noun import Named, Noun, View

#: The marks that there are (RFC 2474, 2597, 3246, 5865), as Neutron takes them.
DSCP_MARKS = (0, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34, 36, 38, 40, 44, 46, 48, 56)
INGRESS, EGRESS, ANY = "ingress", "egress", "any"
BANDWIDTH_LIMIT, DSCP_MARKING, MINIMUM_BANDWIDTH = "bandwidth_limit", "dscp_marking", "minimum_bandwidth"
PACKET_RATE_LIMIT, MINIMUM_PACKET_RATE = "packet_rate_limit", "minimum_packet_rate"


class QosPolicy(Named, frozen=True):
    """is_default: what a new network of its project gets that names none."""

    TABLE = t.qos_policies
    is_default: bool


class QosRule(Noun, frozen=True):
    """type: a key of KINDS, which says what the value is. direction, burst: "" and None where that kind has none."""

    TABLE = t.qos_rules
    id: str
    policy_id: str
    type: str
    direction: str
    value: int
    burst: int | None


@dataclass(frozen=True)
class Kind:
    """A kind of rule: the attributes that hold its value and burst ("": it has none), and its resource."""

    value: str
    burst: str
    resource: Resource


def _kind(name: str, value: A, burst: str = "", directions: Sequence[str] = (INGRESS, EGRESS)) -> tuple[str, Kind]:
    attributes = [A("id"), value]
    if burst:
        attributes.append(A(burst, c.number(0), default=0, convert=c.integer, **BOTH))
    if directions:
        attributes.append(A("direction", c.one_of(*directions), default=EGRESS, **BOTH))
    return name, Kind(value.name, burst, Resource(f"{name}_rule", f"{name}_rules", {a.name: a for a in attributes}))


def _rate(name: str) -> A:
    return A(name, c.number(0), required=True, convert=c.integer, **BOTH)


def _mark(value: object) -> int:
    found: int = c.one_of(*DSCP_MARKS)(c.integer(value))
    return found


#: The kinds of rules. Rates are in kbit/s and in thousands of packets a second.
KINDS: Mapping[str, Kind] = dict((
    _kind(BANDWIDTH_LIMIT, _rate("max_kbps"), "max_burst_kbps"),
    _kind(DSCP_MARKING, A("dscp_mark", _mark, required=True, convert=c.integer, **BOTH), directions=()),
    _kind(MINIMUM_BANDWIDTH, _rate("min_kbps")),
    _kind(MINIMUM_PACKET_RATE, _rate("min_kpps"), directions=(INGRESS, EGRESS, ANY)),
    _kind(PACKET_RATE_LIMIT, _rate("max_kpps"), "max_burst_kpps"),
))

QOS_POLICY = resource("policy", "policies", [
    A("shared", default=False, sort=False, **FLAG, **BOTH), A("is_default", default=False, sort=False, **FLAG, **BOTH),
    A("rules", filter=False),
], base="qos/policies")


def view(policy: QosPolicy, rules: Sequence[QosRule], *, shared: bool) -> View:
    """shared: with whoever looks."""
    return policy.standard() | {
        "shared": shared, "is_default": policy.is_default,
        "rules": [rule_view(rule) | {"type": rule.type, "qos_policy_id": policy.id} for rule in rules]}


def rule_view(rule: QosRule) -> View:
    kind = KINDS[rule.type]
    found: View = {"id": rule.id, kind.value: rule.value}
    if kind.burst:
        found[kind.burst] = rule.burst
    return found | ({"direction": rule.direction} if rule.direction else {})
