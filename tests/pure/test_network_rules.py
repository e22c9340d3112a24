"""Security group rules in their normal form."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nacre.base.errors import BadRequest
from nacre.network.nouns.noun import Standard
from nacre.network.nouns.security_group import SecurityGroupRule
from nacre.network.traffic.rules import normalise, same

BASE = {"direction": "ingress", "ethertype": "IPv4", "protocol": None, "port_range_min": None, "port_range_max": None,
        "remote_ip_prefix": None, "remote_group_id": None, "remote_address_group_id": None}


@pytest.mark.parametrize(("change", "kind"), [
    ({"protocol": "bogus"}, "SecurityGroupRuleInvalidProtocol"),
    ({"protocol": 256}, "SecurityGroupRuleInvalidProtocol"),
    ({"protocol": True}, "SecurityGroupRuleInvalidProtocol"), ({"protocol": {}}, "SecurityGroupRuleInvalidProtocol"),
    ({"port_range_min": 80, "port_range_max": 80}, "SecurityGroupProtocolRequiredWithPorts"),
    ({"protocol": "vrrp", "port_range_min": 80, "port_range_max": 80}, "SecurityGroupInvalidProtocolForPort"),
    ({"protocol": "tcp", "port_range_min": 81, "port_range_max": 80}, "SecurityGroupInvalidPortRange"),
    ({"protocol": "tcp", "port_range_min": 80}, "SecurityGroupInvalidPortRange"),
    ({"protocol": "tcp", "port_range_min": 70000, "port_range_max": 70000}, "SecurityGroupInvalidPortValue"),
    ({"protocol": "icmp", "port_range_min": 300}, "SecurityGroupInvalidIcmpValue"),
    ({"protocol": "icmp", "port_range_max": 1}, "SecurityGroupMissingIcmpType"),
    ({"protocol": "ipv6-icmp"}, "SecurityGroupEthertypeConflictWithProtocol"),
    ({"remote_ip_prefix": "10.0.0.0/33"}, "InvalidCIDR"), ({"remote_ip_prefix": "fe80::1%eth0/64"}, "InvalidCIDR"),
    ({"remote_ip_prefix": "::/0"}, "SecurityGroupRuleParameterConflict"),
    ({"remote_ip_prefix": "::/0", "remote_group_id": "x"}, "SecurityGroupMultipleRemoteEntites"),
])
def test_bad_rules_are_refused_by_neutrons_names(change, kind):
    with pytest.raises(BadRequest) as refused:
        normalise(BASE | change)
    assert refused.value.type == kind


def test_equal_rules_are_seen_as_equal():
    one = normalise(BASE | {"protocol": "TCP", "port_range_min": "22", "port_range_max": 22})
    two = normalise(BASE | {"protocol": 6, "port_range_min": 22, "port_range_max": 22, "remote_ip_prefix": "0.0.0.0/0"})
    assert same(rule(one)) == same(rule(two)) != same(rule(one | {"direction": "egress"}))
    assert normalise(BASE | {"protocol": "any"})["protocol"] is None


def rule(values: dict[str, Any]) -> SecurityGroupRule:
    standard = dict.fromkeys(Standard.__struct_fields__) | {"security_group_id": "g"}
    return SecurityGroupRule(**standard | values)


junk = st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.floats() | st.lists(st.integers())


@given(junk, junk, junk)
def test_anything_is_normal_or_refused(protocol, low, high):
    try:
        found = normalise(BASE | {"protocol": protocol, "port_range_min": low, "port_range_max": high})
    except BadRequest:
        return
    assert found["port_range_min"] is None or 0 <= found["port_range_min"] <= 65535
    assert normalise(found) == found
