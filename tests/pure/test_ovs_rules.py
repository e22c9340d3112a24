"""Security group rules as matches: ranges by masks are exact, poisoned rules are refused alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nacre.network.contract import FixedIp, GroupFacts, PortFacts, RuleFacts
from nacre.node.ovs.antispoof import identities, link_local
from nacre.node.ovs.groups.firewall import security_flows
from nacre.node.ovs.groups.rules import PoisonedRule, port_masks, rule_matches

PORT = PortFacts(id="p", name="", project_id="x", network_id="n", network_name="n", device_id="d",
                 mac_address="fa:16:3e:00:00:01", fixed_ips=(FixedIp(subnet_id="s", ip_address="10.0.0.5"),),
                 security_groups=("g",))


def rule(**more):
    return RuleFacts(**{"direction": "ingress", "ethertype": "IPv4", **more})


@given(st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF)).map(sorted), st.integers(0, 0xFFFF))
def test_masks_cover_exactly_the_range(ends, port):
    low, high = ends
    masks = port_masks(low, high)
    assert any(port & mask == value for value, mask in masks) == (low <= port <= high)
    assert len(masks) <= 30


@pytest.mark.parametrize(("facts", "matches"), [
    (rule(), ["ip"]),
    (rule(protocol="tcp", port_min=22, port_max=22), ["tcp,tp_dst=22"]),
    (rule(protocol="6", port_min=1, port_max=65535), ["tcp"]),
    (rule(protocol="udp", port_min=10, port_max=13), ["udp,tp_dst=0xa/0xfffe", "udp,tp_dst=0xc/0xfffe"]),
    (rule(protocol="icmp", port_min=8, port_max=0), ["icmp,icmp_type=8,icmp_code=0"]),
    (rule(ethertype="IPv6", protocol="icmp", port_min=128), ["icmp6,icmp_type=128"]),
    (rule(protocol="vrrp"), ["ip,nw_proto=112"]),
    (rule(remote=("0.0.0.0/0", "10.0.0.0/8")), ["ip"]),
    (rule(remote=("10.0.0.5/32",)), ["ip,nw_src=10.0.0.5/32"]),
    (rule(direction="egress", ethertype="IPv6", remote=("2001:db8::/64",)), ["ipv6,ipv6_dst=2001:db8::/64"]),
    (rule(remote=()), []),
])
def test_matches(facts, matches):
    assert rule_matches(facts) == matches


@pytest.mark.parametrize("facts", [
    rule(protocol="vrrp", port_min=1, port_max=2), rule(protocol="tcp", port_min=9, port_max=3),
    rule(protocol="tcp", port_min=-1, port_max=70000), rule(remote=("10.0.0.0/99",)), rule(remote=("::/0",)),
    rule(remote=("10.0.0.1,actions=normal",)), rule(protocol="nonsense"), rule(protocol="999"),
    rule(protocol="6,actions=normal"), rule(port_min=5, port_max=5), rule(ethertype="IPX"),
    rule(protocol="icmp", port_min=300), rule(protocol="icmp", port_max=3),
])
def test_poisoned_rules_are_refused(facts):
    with pytest.raises(PoisonedRule):
        rule_matches(facts)


def test_a_poisoned_rule_does_not_stop_the_others():
    group = GroupFacts(id="g", stateful=True, rules=(
        rule(protocol="vrrp", port_min=1, port_max=2), rule(protocol="tcp", port_min=22, port_max=22)))
    texts = [flow.text for flow in security_flows(PORT, 7, 40007, {"g": group}, {})]
    assert any("tcp,tp_dst=22,reg5=7" in text for text in texts) and not any("112" in text for text in texts)


def test_stateless_groups_track_nothing():
    group = GroupFacts(id="g", stateful=False, rules=(rule(protocol="tcp"), rule(direction="egress")))
    assert not any("ct(" in flow.actions for flow in security_flows(PORT, 7, 40007, {"g": group}, {}))


def test_link_local_addresses_and_identities():
    assert link_local("fa:16:3e:00:00:01") == "fe80::f816:3eff:fe00:1"
    assert identities(PORT) == {"fa:16:3e:00:00:01": (["10.0.0.5"], ["fe80::f816:3eff:fe00:1"])}
