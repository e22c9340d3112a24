"""What a host's network agent may say: a report that other hosts' flows could not be made of is refused by name."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nacre.base.errors import BadRequest
from nacre.network.contract import AgentReport
from nacre.network.hosts.agents import MAX_MAPPINGS, parse

GOOD = AgentReport(host="h1", tunnel_ip="192.0.2.1", bridge_mappings={"physnet1": "br-ex"}, tunnel_types=("vxlan",))


def said(**change: Any) -> AgentReport:
    return msgspec.structs.replace(GOOD, **change)


@pytest.mark.parametrize("fine", [
    {}, {"tunnel_ip": "10.0.0.1"}, {"tunnel_ip": None, "tunnel_types": ()}, {"bridge_mappings": {}},
    {"datapath_type": "system"}, {"agents": ("Open vSwitch agent", "L3 agent")},
])
def test_honest_reports_are_taken(fine: dict[str, Any]) -> None:
    report = parse(said(**fine))
    assert str(report.tunnel_ip) == str(said(**fine).tunnel_ip)


@pytest.mark.parametrize(("change", "field", "why"), [
    ({"tunnel_ip": "fd00::1"}, "tunnel_ip", "over IPv6 are not carried yet"),
    ({"tunnel_ip": "::ffff:192.0.2.1"}, "tunnel_ip", "over IPv6"),
    ({"tunnel_ip": "h1.example.org"}, "tunnel_ip", "not an IP address"),
    ({"tunnel_ip": ""}, "tunnel_ip", "not an IP address"),
    ({"tunnel_ip": "192.0.2.1/24"}, "tunnel_ip", "not an IP address"),
    ({"tunnel_ip": "192.0.2.1,output:1"}, "tunnel_ip", "not an IP address"),
    ({"tunnel_ip": "0.0.0.0"}, "tunnel_ip", "no host can have"),
    ({"tunnel_ip": "127.0.0.1"}, "tunnel_ip", "no other host reaches a loopback"),
    ({"tunnel_ip": "::1"}, "tunnel_ip", "over IPv6"),
    ({"tunnel_ip": "224.0.0.1"}, "tunnel_ip", "no host can have"),
    ({"tunnel_ip": "255.255.255.255"}, "tunnel_ip", "no host can have"),
    ({"bridge": "br int"}, "bridge", "1 to 15"),
    ({"tunnel_types": ("gre",)}, "tunnel_types", "known are vxlan"),
    ({"bridge_mappings": {"p" * 65: "br-ex"}}, "bridge_mappings", "1 to 64"),
    ({"bridge_mappings": {"a b": "br-ex"}}, "bridge_mappings", "without spaces"),
    ({"bridge_mappings": {"": "br-ex"}}, "bridge_mappings", "1 to 64"),
    ({"bridge_mappings": {"p": "br ex; rm"}}, "bridge_mappings", "1 to 15"),
    ({"bridge_mappings": {f"p{n}": "b" for n in range(MAX_MAPPINGS + 1)}}, "bridge_mappings", "at most"),
    ({"datapath_type": "x"}, "datapath_type", "known are"), ({"agents": ("Spy agent",)}, "agents", "known are"),
    ({"host": ""}, "host", "1 to 255"), ({"host": "h" * 256}, "host", "1 to 255"),
])
def test_others_are_refused_by_name(change: dict[str, Any], field: str, why: str) -> None:
    with pytest.raises(BadRequest, match=why) as refused:
        parse(said(**change))
    assert refused.value.field == field and len(refused.value.message) < 300


@given(st.builds(
    AgentReport, host=st.text(max_size=5), tunnel_ip=st.none() | st.text(max_size=20) | st.ip_addresses().map(str),
    bridge_mappings=st.dictionaries(st.text(max_size=70), st.text(max_size=20), max_size=3),
    tunnel_types=st.lists(st.text(max_size=5) | st.just("vxlan"), max_size=2).map(tuple),
    datapath_type=st.sampled_from(["netdev", "x"]), agents=st.just(("Open vSwitch agent",))))
def test_whatever_is_said_it_is_a_usable_report_or_a_bad_request(report: AgentReport) -> None:
    try:
        found = parse(report)
    except BadRequest:
        return
    assert found.tunnel_ip is None or (found.tunnel_ip.version == 4 and not found.tunnel_ip.is_loopback)
    assert all(name.isascii() and name.isprintable() for pair in found.bridge_mappings.items() for name in pair)
