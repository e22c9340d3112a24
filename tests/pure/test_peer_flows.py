"""Members of groups as flows: each costs what it changes, and what is there at the end is what a fresh start would
make."""

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from nacre.network.contract import GroupFacts, GroupMembers, PortFacts, RuleFacts
from nacre.node.ovs.flows import EGRESS, EGRESS_TRACKED, INGRESS, INGRESS_TRACKED
from nacre.node.ovs.groups.firewall import security_flows
from nacre.node.ovs.groups.members import Members
from nacre.node.ovs.groups.peers import PeerFlows, peer_flow, table, uses

A, B = "a", "b"
NUMBERS = {A: 1, B: 2}


def rule(remote, **more):
    return RuleFacts(**{"direction": "ingress", "ethertype": "IPv4", "remote_group": remote} | more)


def port(*groups):
    return PortFacts(id="p", name="", project_id="x", network_id="n", network_name="n", device_id="d",
                     mac_address="fa:16:3e:00:00:01", fixed_ips=(), security_groups=groups)


def told(group, n, ports, since=None):
    return GroupMembers(id=group, n=n, era="e", since=since, ports=ports)


def lines_of(flows):
    return {f"table={f.table},priority={f.priority},{f.match}": f.actions for f in flows}


def apply(state, lines):
    """As ovs-ofctl would."""
    for line in lines:
        verb, _, flow = line.partition(" ")
        key, _, actions = flow.partition(",actions=")
        key = key.removeprefix("cookie=0x6e616372,")
        if verb == "delete_strict":
            del state[key]
        else:
            state[key] = actions


def test_one_member_more_is_one_flow_however_many_there_are():
    members, flows = Members(), PeerFlows()
    members.apply([told(A, 1, {f"p{n}": (f"10.0.{n >> 8}.{n & 255}/32",) for n in range(2000)})])
    where = uses([port("g")], {"g": GroupFacts(id="g", stateful=True, rules=tuple(
        rule(A, protocol="tcp", port_min=n, port_max=n) for n in range(1, 30)))}, NUMBERS)
    assert len(flows.lines(members, where)) == 2000 == len(flows)
    members.apply_news([told(A, 2, {"new": ("10.9.9.9/32",)}, since=1)])
    assert flows.lines(members, where) == [f"add {peer_flow(INGRESS_TRACKED, '10.9.9.9/32', [1]).text}"]
    members.apply_news([told(A, 3, {"new": (), "p7": ("10.0.0.7/32",)}, since=2)])
    assert flows.lines(members) == [f"delete_strict {peer_flow(INGRESS_TRACKED, '10.9.9.9/32', [1]).key}"]
    assert flows.lines(members) == []


def test_an_address_of_two_ports_stays_until_both_are_gone_and_of_two_groups_is_one_flow():
    members, flows = Members(), PeerFlows()
    where = frozenset({(INGRESS, 1, A), (INGRESS, 2, B), (EGRESS, 2, B)})
    members.apply([told(A, 1, {"p": ("10.0.0.1/32",), "q": ("10.0.0.1/32",)}), told(B, 1, {"r": ("10.0.0.1/32",)})])
    flows.lines(members, where)
    one, two = peer_flow(INGRESS, "10.0.0.1/32", [1, 2]), peer_flow(EGRESS, "10.0.0.1/32", [2])
    assert {f.key: f for f in flows.all()} == {one.key: one, two.key: two}
    assert one.actions == "conjunction(1,1/2),conjunction(2,1/2)" and two.match == "ip,nw_dst=10.0.0.1/32"
    members.apply_news([told(A, 2, {"p": ()}, since=1)])
    assert flows.lines(members) == []
    members.apply_news([told(A, 3, {"q": ()}, since=2)])
    assert flows.lines(members) == [f"add {peer_flow(INGRESS, '10.0.0.1/32', [2]).text}"]


def test_what_is_no_address_is_skipped_alone_and_what_is_no_prefix_is_made_one():
    members, flows = Members(), PeerFlows()
    members.apply([told(A, 1, {"p": ("10.0.0.1,actions=normal", "10.0.0.9/24", "2001:db8::1/128", "0.0.0.0/0")})])
    flows.lines(members, frozenset({(INGRESS, 1, A)}))
    assert {f.match for f in flows.all()} == {"ip,nw_src=10.0.0.0/24", "ipv6,ipv6_src=2001:db8::1/128", "ip"}


_CIDRS = st.sampled_from(["10.0.0.1/32", "10.0.0.2/32", "10.0.0.0/24", "2001:db8::1/128"])
_STEPS = st.lists(st.tuples(st.sampled_from([A, B]), st.sampled_from("pqr"), st.lists(_CIDRS, max_size=2).map(tuple),
                            st.sets(st.sampled_from([(INGRESS, 1, A), (INGRESS, 2, B), (EGRESS_TRACKED, 1, A),
                                                     (EGRESS_TRACKED, 3, A)])), st.booleans()), max_size=12)


@given(_STEPS)
def test_small_steps_come_to_what_a_fresh_start_would_make(steps):
    members, flows, state = Members(), PeerFlows(), {}
    members.apply([told(A, 0, {}), told(B, 0, {})])
    where = frozenset()
    for n, (group, who, cidrs, more, drop) in enumerate(steps, 1):
        others = {g: n for g in (A, B) if g != group}
        members.apply_news([told(group, n, {who: cidrs}, since=n - 1), *(told(g, n, {}, since=n - 1) for g in others)])
        # A group has one number in a table at a time.
        where = frozenset({(t, g): (t, number, g) for t, number, g in sorted(more)}.values())
        if drop:
            members.keep_only({A})
            members.apply([told(B, n, {})])
        apply(state, flows.lines(members, where))
        fresh = PeerFlows()
        other = Members()
        other.apply([told(g, 1, {str(i): (c,) for i, c in enumerate(sorted(members.cidrs(g)))}) for g in (A, B)])
        fresh.lines(other, where)
        assert state == lines_of(fresh.all()) == lines_of(flows.all())


_REMOTES = st.sampled_from([None, A, B])
_RULES = st.lists(st.builds(lambda remote, proto, way: rule(remote, protocol=proto, direction=way), _REMOTES,
                            st.sampled_from([None, "tcp", "udp"]), st.sampled_from(["ingress", "egress"])), max_size=6)


@given(_RULES, st.booleans(), st.sampled_from(["tcp", "udp"]), st.sets(st.sampled_from([A, B])),
       st.sampled_from(["ingress", "egress"]))
def test_conjunctions_let_in_what_the_rules_say_and_nothing_else(rules, stateful, proto, peer, way):
    """A packet of this protocol, whose other end is in these groups, held against the flows as Open vSwitch does."""
    groups = {"g": GroupFacts(id="g", stateful=stateful, rules=tuple(rules))}
    members = Members()
    members.apply([told(g, 1, {"p": ("10.0.0.1/32",)} if g in peer else {"p": ("10.0.0.2/32",)}) for g in (A, B)])
    peers = PeerFlows()
    peers.lines(members, uses([port("g")], groups, NUMBERS))
    place = table(way, stateful)
    flows = [f for f in (*security_flows(port("g"), 7, 40007, groups, NUMBERS), *peers.all()) if f.table == place]
    assert {f.table for f in peers.all()} <= {EGRESS, EGRESS_TRACKED, INGRESS, INGRESS_TRACKED}

    def fits(match, number=None):
        parts = match.split(",")
        side = "nw_src=" if way == "ingress" else "nw_dst="
        return all(p in ("ip", proto, "ct_state=+trk-rpl-inv", "reg5=7", "in_port=7", f"conj_id={number}") or (
            p.startswith(side) and ipaddress.ip_address("10.0.0.1") in ipaddress.ip_network(p[len(side):]))
            for p in parts)

    accepted = [f for f in flows if f.priority == 70 and fits(f.match)]
    halves = {(half, number) for f in flows if f.priority == 71 and f.actions.startswith("conj") and fits(f.match)
              for half in (1, 2) for number in (1, 2) if f"conjunction({number},{half}/2)" in f.actions}
    for number in (1, 2):
        if {(1, number), (2, number)} <= halves:
            done = [f for f in flows if f"conj_id={number}" in f.match and fits(f.match, number)]
            assert len(done) == 1
            accepted += done
    said = any(r.direction == way and r.protocol in (None, proto) and (r.remote_group is None or r.remote_group in peer)
               for r in rules)
    assert bool(accepted) == said
    assert all(("ct(commit,zone=40007)" in f.actions) == stateful for f in accepted)
