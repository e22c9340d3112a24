"""Security groups as flows: connection tracking for stateful groups, plain matches for stateless ones.

Each port has a conntrack zone of its own, so a connection is judged once on the way out of its sender and once on the
way into its receiver. Packets in a connection's original direction are held against the rules every time: a rule that
is taken away ends the traffic it had let in.
"""

from collections.abc import Iterable, Iterator, Mapping

import structlog

from nacre.network.contract import GroupFacts, PortFacts, RuleFacts
from nacre.node.ovs.flows import (
    DELIVER,
    EGRESS,
    EGRESS_TRACKED,
    INGRESS,
    INGRESS_TRACKED,
    MEMBERS,
    OUT,
    RULES,
    TO,
    Flow,
)
from nacre.node.ovs.groups.rules import PoisonedRule, rule_matches

log = structlog.get_logger()

#: ICMPv6 that always reaches a guest: listener queries and reports, router and neighbour advertisement.
_INGRESS_TYPES = (130, 131, 132, 134, 135, 136)


def security_flows(port: PortFacts, ofport: int, zone: int, groups: Mapping[str, GroupFacts],
                   numbers: Mapping[str, int]) -> Iterator[Flow]:
    """The tables EGRESS and INGRESS (and their tracked halves) of a port with port security. numbers: of the groups
    that rules name; the flows of their members are beside these (peers.py)."""
    mine = [groups[group] for group in port.security_groups if group in groups]
    yield from _always_in(ofport)
    for direction in ("egress", "ingress"):
        yield from _Side(direction, ofport, zone, numbers).flows(mine)


def open_flows(ofport: int) -> Iterator[Flow]:
    """The INGRESS table of a port without port security."""
    yield Flow(INGRESS, 100, f"{TO}={ofport}", f"resubmit(,{OUT})")


def firewall_base() -> Iterator[Flow]:
    """What holds for every port."""
    for table in (EGRESS, EGRESS_TRACKED, INGRESS, INGRESS_TRACKED):
        yield Flow(table, 0, "", "drop")


def _always_in(ofport: int) -> Iterator[Flow]:
    me, out = f"{TO}={ofport}", f"resubmit(,{OUT})"
    yield Flow(INGRESS, 100, f"arp,{me}", out)
    yield Flow(INGRESS, 100, f"udp,{me},tp_src=67,tp_dst=68", out)
    yield Flow(INGRESS, 100, f"udp6,{me},tp_src=547,tp_dst=546", out)
    for kind in _INGRESS_TYPES:
        yield Flow(INGRESS, 100, f"icmp6,{me},icmp_type={kind}", out)


class _Side:
    """One direction of one port: its tables, the match that names it, and where allowed frames go."""

    def __init__(self, direction: str, ofport: int, zone: int, numbers: Mapping[str, int]):
        self.direction, self.zone, self.numbers = direction, zone, numbers
        #: (is it tracked, family, match) -> the numbers of the groups from which that may come
        self.shared: dict[tuple[bool, str, str], set[int]] = {}
        if direction == "egress":
            self.table, self.tracked = EGRESS, EGRESS_TRACKED
            self.me, self.onward = f"in_port={ofport}", f"resubmit(,{DELIVER})"
        else:
            self.table, self.tracked = INGRESS, INGRESS_TRACKED
            self.me, self.onward = f"{TO}={ofport}", f"resubmit(,{OUT})"

    def flows(self, groups: Iterable[GroupFacts]) -> Iterator[Flow]:
        stateful = False
        for group in groups:
            stateful = stateful or group.stateful
            for rule in group.rules:
                if rule.direction == self.direction:
                    yield from self._rule(group, rule)
        yield from self._members()
        if stateful:
            yield from self._tracking()

    def _rule(self, group: GroupFacts, rule: RuleFacts) -> Iterator[Flow]:
        try:
            matches = rule_matches(rule)
        except PoisonedRule as error:
            log.warning("security group rule skipped", group=group.id, why=str(error))
            return
        for match in matches:
            if group.stateful:
                match = f"ct_state=+trk-rpl-inv,{match}"
            if rule.remote_group is None:
                yield Flow(self._table(group.stateful), RULES, f"{match},{self.me}", self._accepted(group.stateful))
            elif rule.remote_group in self.numbers:  # else nobody is in it
                family = "ip" if rule.ethertype == "IPv4" else "ipv6"
                self.shared.setdefault((group.stateful, family, match), set()).add(self.numbers[rule.remote_group])

    def _members(self) -> Iterator[Flow]:
        """What may come from groups, and what is done with it."""
        both = set[tuple[bool, str, int]]()
        for (stateful, family, match), numbers in self.shared.items():
            yield Flow(self._table(stateful), MEMBERS, f"{match},{self.me}",
                       ",".join(f"conjunction({number},2/2)" for number in sorted(numbers)))
            both |= {(stateful, family, number) for number in numbers}
        for stateful, family, number in sorted(both):
            yield Flow(self._table(stateful), MEMBERS, f"conj_id={number},{family},{self.me}", self._accepted(stateful))

    def _table(self, stateful: bool) -> int:
        return self.tracked if stateful else self.table

    def _accepted(self, stateful: bool) -> str:
        return f"ct(commit,zone={self.zone}),{self.onward}" if stateful else self.onward

    def _tracking(self) -> Iterator[Flow]:
        alone = "load:0->NXM_NX_REG4[]," if self.direction == "ingress" else ""  # tracked in a pass of its own
        for family in ("ip", "ipv6"):
            yield Flow(self.table, 50, f"{family},{self.me}", f"{alone}ct(table={self.tracked},zone={self.zone})")
        yield Flow(self.tracked, 100, f"ct_state=+trk+inv,{self.me}", "drop")
        yield Flow(self.tracked, 90, f"ct_state=+trk+est-rel+rpl,{self.me}", self.onward)
        yield Flow(self.tracked, 90, f"ct_state=+trk+rel,{self.me}", self.onward)
