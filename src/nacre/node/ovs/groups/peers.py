"""The members of groups that rules name, as flows: one each, however many ports and rules there are.

Open vSwitch's conjunctions: a rule's flow says what may come to a port if it is from a group (2/2), a member's flow
whose address is in which groups (1/2), and a third, on the group's number, what is done where both hold. Each direction
has tables of its own, so a member has a flow in each table in which rules name its group.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from nacre.network.contract import GroupFacts, PortFacts
from nacre.node.ovs.flows import EGRESS, EGRESS_TRACKED, INGRESS, INGRESS_TRACKED, MEMBERS, Flow
from nacre.node.ovs.groups.members import Members

#: In a table, the number here of a group that rules name: (table, number, group).
Uses = frozenset[tuple[int, int, str]]


def uses(ports: Iterable[PortFacts], groups: Mapping[str, GroupFacts], numbers: Mapping[str, int]) -> Uses:
    """Where the rules of these ports name groups."""
    found = set()
    for group in {group for port in ports for group in port.security_groups}:
        for rule in groups[group].rules if group in groups else ():
            if (named := rule.remote_group) and named in numbers:
                found.add((table(rule.direction, groups[group].stateful), numbers[named], named))
    return frozenset(found)


def table(direction: str, stateful: bool) -> int:
    """Where rules of groups stand."""
    if direction == "egress":
        return EGRESS_TRACKED if stateful else EGRESS
    return INGRESS_TRACKED if stateful else INGRESS


def peer_flow(table: int, cidr: str, numbers: Iterable[int]) -> Flow:
    """A member's flow. numbers: of its groups."""
    family, field = ("ipv6", "ipv6") if ":" in cidr else ("ip", "nw")
    side = "src" if table in (INGRESS, INGRESS_TRACKED) else "dst"
    match = family if cidr.endswith("/0") else f"{family},{field}_{side}={cidr}"
    return Flow(table, MEMBERS, match, ",".join(f"conjunction({number},1/2)" for number in numbers))


class PeerFlows:
    """Those that there are, to be kept equal to the members at the cost of what changes."""

    def __init__(self) -> None:
        self._flows: dict[tuple[int, str], tuple[int, ...]] = {}
        self._uses: Uses = frozenset()

    def __len__(self) -> int:
        return len(self._flows)

    def forget(self) -> None:
        """There are none."""
        self._flows, self._uses = {}, frozenset()

    def all(self) -> Sequence[Flow]:
        """Those that there should be now."""
        return [peer_flow(table, cidr, numbers) for (table, cidr), numbers in self._flows.items()]

    def lines(self, members: Members, now: Uses | None = None) -> list[str]:
        """What has to change, as `plan.changes`; it counts as done. now: where rules name groups, if that may be other
        than before."""
        now = self._uses if now is None else now
        touched, members.changed = members.changed, set()
        for _, _, group in self._uses ^ now:
            touched |= members.cidrs(group)
        numbers: dict[int, dict[str, int]] = defaultdict(dict)
        for where, number, group in now:
            numbers[where][group] = number
        places = {where for where, _, _ in self._uses | now}
        self._uses = now
        return [line for where in sorted(places) for cidr in sorted(touched) for line in self._line(where, cidr, tuple(
            sorted(numbers[where][group] for group in members.groups_with(cidr) if group in numbers[where])))]

    def _line(self, where: int, cidr: str, wanted: tuple[int, ...]) -> Iterable[str]:
        before = self._flows.get((where, cidr), ())
        if wanted == before:
            return
        if wanted:
            self._flows[where, cidr] = wanted
            yield f"add {peer_flow(where, cidr, wanted).text}"
        else:
            del self._flows[where, cidr]
            yield f"delete_strict {peer_flow(where, cidr, before).key}"
