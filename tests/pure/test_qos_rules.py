"""Which rules of a QoS policy go together."""

from hypothesis import given
from hypothesis import strategies as st

from nacre.base.errors import Conflict
from nacre.network.nouns.qos import ANY, BANDWIDTH_LIMIT, DSCP_MARKING, KINDS, MINIMUM_BANDWIDTH, MINIMUM_PACKET_RATE
from nacre.network.nouns.qos import QosRule as Rule
from nacre.network.traffic.qos_rules import check, facts

DIRECTIONS = {kind: ([""] if kind == DSCP_MARKING else ["ingress", "egress", ANY] if kind == MINIMUM_PACKET_RATE
                     else ["ingress", "egress"]) for kind in KINDS}
ONE = st.sampled_from(sorted(KINDS)).flatmap(lambda kind: st.tuples(
    st.just(kind), st.sampled_from(DIRECTIONS[kind]), st.integers(0, 5)))


@given(st.lists(ONE, max_size=12))
def test_what_was_taken_one_by_one_holds_together(wanted):
    rules: list[Rule] = []
    for number, (kind, direction, value) in enumerate(wanted):
        rule = Rule(str(number), "p", kind, direction, value, None)
        try:
            check(rule, rules)
        except Conflict:
            continue
        rules.append(rule)
    by = {(rule.type, rule.direction): rule.value for rule in rules}
    assert len(by) == len(rules)
    for direction in ("ingress", "egress"):
        low, high = by.get((MINIMUM_BANDWIDTH, direction)), by.get((BANDWIDTH_LIMIT, direction))
        assert low is None or high is None or low <= high
    rates = {direction for kind, direction in by if kind == MINIMUM_PACKET_RATE}
    assert ANY not in rates or rates == {ANY}
    for rule in rules:  # and each goes with the others, in whatever order they are looked at
        check(rule, rules)
    made = facts("p", 1, rules)
    assert (made.to_guest is not None) == ((BANDWIDTH_LIMIT, "ingress") in by)
    assert (made.from_guest is not None) == ((BANDWIDTH_LIMIT, "egress") in by)
