"""The whole flow table of a small host, as reviewed text. NACRE_GOLDEN=write rewrites it."""

import os
import re
from pathlib import Path

import msgspec
import pytest

from nacre.network.contract import (
    AddressPair,
    FixedIp,
    GroupFacts,
    GroupMembers,
    HostWiring,
    NetworkFacts,
    NetworkPorts,
    PlacedPort,
    PortFacts,
    RuleFacts,
    SubnetFacts,
)
from nacre.node.ovs.flows import Local, Meter, meters, unique
from nacre.node.ovs.groups.elsewhere import ElsewhereFlows, Here
from nacre.node.ovs.groups.members import Members, Places
from nacre.node.ovs.groups.peers import PeerFlows, uses
from nacre.node.ovs.plan import changes
from nacre.node.ovs.switching import flow_table
from nacre.node.servers.limits import Rate

HERE = Path(__file__).parent / "flows"


def port(number, network, **more):
    return PortFacts(**{"id": f"port{number}", "name": "", "project_id": "p", "network_id": network,
                        "network_name": network, "device_id": f"server{number}",
                        "mac_address": f"fa:16:3e:00:00:{number:02x}", "security_groups": ("web",),
                        "fixed_ips": (FixedIp(subnet_id="s4", ip_address=f"10.0.0.{number}"),)} | more)


def network(name, kind, **more):
    subnet = SubnetFacts(id="s4", cidr="10.0.0.0/24", ip_version=4, gateway_ip="10.0.0.1", enable_dhcp=True,
                         dhcp_ip="10.0.0.2")
    return NetworkFacts(**{"id": name, "name": name, "project_id": "p", "mtu": 1450, "network_type": kind,
                           "physical_network": None, "segmentation_id": None, "subnets": (subnet,),
                           "dhcp_mac": "fa:16:3e:00:00:fe"} | more)


WEB = GroupFacts(id="web", stateful=True, rules=(
    RuleFacts(direction="egress", ethertype="IPv4"), RuleFacts(direction="egress", ethertype="IPv6"),
    RuleFacts(direction="ingress", ethertype="IPv4", protocol="tcp", port_min=80, port_max=80),
    RuleFacts(direction="ingress", ethertype="IPv4", protocol="icmp", remote=("10.0.0.9/32",))))
PLAIN = GroupFacts(id="plain", stateful=False, rules=(
    RuleFacts(direction="ingress", ethertype="IPv4", protocol="udp", port_min=53, port_max=53),))
# From two groups the same, from one group more, and the other way; from anywhere a little.
FRIENDS = GroupFacts(id="friends", stateful=True, rules=(
    RuleFacts(direction="ingress", ethertype="IPv4", remote_group="friends"),
    RuleFacts(direction="ingress", ethertype="IPv6", remote_group="friends"),
    RuleFacts(direction="ingress", ethertype="IPv4", protocol="tcp", port_min=22, port_max=23, remote_group="admins"),
    RuleFacts(direction="ingress", ethertype="IPv4", protocol="tcp", port_min=22, port_max=23, remote_group="friends"),
    RuleFacts(direction="ingress", ethertype="IPv4", protocol="tcp", port_min=80, port_max=80),
    RuleFacts(direction="egress", ethertype="IPv4", remote_group="friends"),
    RuleFacts(direction="egress", ethertype="IPv4", remote_group="unheard of")))
MEMBERS = (
    GroupMembers(id="friends", n=7, era="e", ports={
        "port5": ("10.0.0.5/32", "2001:db8::5/128"), "port6": ("10.0.0.6/32",),
        "away": ("10.0.0.9/32", "10.8.0.0/16")}),
    GroupMembers(id="admins", n=7, era="e", ports={"admin": ("10.0.0.9/32",)}))
ZONES = {"port5": 32805, "port6": 32806}

CASES = {
    "vxlan": (HostWiring(whole=True, ports=(port(5, "n"), port(6, "n", port_security=False)), groups=(WEB,),
                         networks=(network("n", "vxlan", segmentation_id=77),)),
              Local(ofports={"port5": 11, "port6": 12}, zones=ZONES, numbers={"n": 1}, dhcp={"n": 20}, vxlan=2)),
    "vlan": (HostWiring(whole=True, groups=(PLAIN,), networks=(
                 network("v", "vlan", physical_network="phys", segmentation_id=100),),
                 ports=(port(5, "v", security_groups=("plain",), allowed_pairs=(
                     AddressPair(ip_address="10.0.0.100", mac_address="00:00:5e:00:01:01"),
                     AddressPair(ip_address="not an address"))),)),
             Local(ofports={"port5": 11}, zones=ZONES, numbers={"v": 3}, uplinks={"phys": 4})),
    "limited": (HostWiring(whole=True, groups=(WEB,), networks=(network("f", "flat", physical_network="phys"),),
                           ports=(port(5, "f"), port(6, "f"))),
                Local(ofports={"port5": 11, "port6": 12}, zones=ZONES, numbers={"f": 3}, uplinks={"phys": 4},
                      rates={"port5": Rate(1000, 2000, burst_from=1), "port6": Rate(to_guest=500, burst_to=9000),
                             "away": Rate(1, 1)})),
    # Port 6 is prepared here for a move: it is still at h2.
    "prepared": (HostWiring(whole=True, ports=(port(5, "n"), port(6, "n", active=False)), groups=(WEB,),
                            networks=(network("n", "vxlan", segmentation_id=77),)),
                 Local(ofports={"port5": 11, "port6": 12}, zones=ZONES, numbers={"n": 1}, dhcp={"n": 20}, vxlan=2)),
    "flat": (HostWiring(whole=True, groups=(WEB,), networks=(network("f", "flat", physical_network="phys"),),
                        ports=(port(5, "f"), port(6, "f", admin_state_up=False))),
             Local(ofports={"port5": 11, "port6": 12}, zones=ZONES, numbers={"f": 3}, uplinks={"phys": 4},
                   dhcp={"f": 9})),
}


#: The ports of the networks that go by tunnels, on this host (h1) and others. At h3 port 8 is only prepared.
PLACES = {
    "vxlan": {"port5": PlacedPort(mac="fa:16:3e:00:00:05", addresses=("10.0.0.5",), host="h1"),
              "port7": PlacedPort(mac="fa:16:3e:00:00:07", addresses=("10.0.0.7", "2001:db8::7"), host="h2"),
              "port8": PlacedPort(mac="fa:16:3e:00:00:08", addresses=("10.0.0.8",), host="h2", prepared=("h3",)),
              "port9": PlacedPort(mac="fa:16:3e:00:00:09", addresses=("10.0.0.9",), host="no tunnel")},
    "prepared": {"port5": PlacedPort(mac="fa:16:3e:00:00:05", addresses=("10.0.0.5",), host="h1"),
                 "port6": PlacedPort(mac="fa:16:3e:00:00:06", addresses=("10.0.0.6",), host="h2", prepared=("h1",))}}
HERE_IS = Here(host="h1", vxlan=2, networks={"n": (1, 77)}, tunnels={
    "h1": "172.31.0.1", "h2": "172.31.0.2", "h3": "172.31.0.3", "h4": "172.31.0.4"})


def beside(ports):
    """The flows of these ports of network n."""
    places, flows = Places(), ElsewhereFlows()
    places.apply([NetworkPorts(id="n", n=1, era="e", ports=ports)])
    lines = flows.lines(places, HERE_IS)
    assert sorted(lines) == sorted(f"add {flow.text}" for flow in flows.all())
    return flows.all()


@pytest.mark.parametrize("name", CASES)
def test_flow_table(name):
    _golden(name, unique([*flow_table(*CASES[name]), *beside(PLACES.get(name, {}))]))


def _golden(name, flows):
    text = "\n".join(flow.text.partition(",")[2] for flow in flows) + "\n"
    path = HERE / f"{name}.txt"
    if os.environ.get("NACRE_GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


def test_members_beside_the_rules_that_name_their_groups():
    groups, numbers, peers, members = {"friends": FRIENDS}, {"friends": 1, "admins": 2}, PeerFlows(), Members()
    ports = [port(n, "f", security_groups=("friends",)) for n in (5, 6)]
    members.apply(MEMBERS)
    lines = peers.lines(members, uses(ports, groups, numbers))
    flows = flow_table(
        HostWiring(whole=True, ports=tuple(ports), groups=(FRIENDS,), networks=(
            network("f", "flat", physical_network="phys"),)),
        Local(ofports={"port5": 11, "port6": 12}, zones=ZONES, numbers={"f": 3}, uplinks={"phys": 4}, groups=numbers))
    _golden("members", unique(f for f in (*flows, *peers.all()) if f.table in (21, 51)))
    assert len(lines) == len(peers) == 5 + 5  # one a member in each table, however many ports


def test_every_meter_of_the_flows_is_made_and_no_other():
    local = CASES["limited"][1]
    named = {int(n) for flow in flow_table(*CASES["limited"]) for n in re.findall(r"meter:(\d+)", flow.actions)}
    assert meters(local) == {22: Meter(1000, 800), 23: Meter(2000, 1600), 25: Meter(500, 9000)}
    assert named == set(meters(local))


def test_changes_turn_one_table_into_the_other():
    wiring, local = CASES["vxlan"]
    everything = flow_table(wiring, local)
    assert changes(everything, everything) == []
    fewer = flow_table(wiring, Local(ofports={"port5": 11}, zones=ZONES, numbers={"n": 1}, dhcp={"n": 20}, vxlan=2))
    lines = changes(everything, fewer)
    assert any(line.startswith("delete_strict table=0,priority=100,in_port=12") for line in lines)
    assert not any("in_port=12" in flow.text or "output:12" in flow.text for flow in fewer)
    assert changes((), fewer) == [f"add {flow.text}" for flow in fewer]


def test_no_flow_of_a_port_that_is_not_here():
    wiring, _ = CASES["vxlan"]
    flows = flow_table(wiring, Local(numbers={"n": 1}))
    assert all("fa:16:3e:00:00:05" not in flow.text for flow in flows)


def test_no_flow_of_a_port_without_a_conntrack_zone():
    wiring, local = CASES["vxlan"]
    flows = flow_table(wiring, msgspec.structs.replace(local, zones={"port6": 32806}))
    assert any("fa:16:3e:00:00:06" in flow.text for flow in flows)
    assert all("fa:16:3e:00:00:05" not in flow.text for flow in flows)


def test_a_host_without_a_tunnel_switches_vxlan_networks_among_its_own_guests():
    wiring, local = CASES["vxlan"]
    alone = msgspec.structs.replace(local, vxlan=None)
    assert not any("tun_" in flow.text for flow in flow_table(wiring, alone))
    assert any("dl_dst=fa:16:3e:00:00:05" in flow.text for flow in flow_table(wiring, alone))


@pytest.mark.parametrize("bad", [
    PlacedPort(mac=mac, addresses=("10.0.0.66",), host="h2") for mac in (
        "garbage", "0/0\ntable=11,priority=65535,actions=NORMAL", "", "fa:16:3e:00:00:07,x=1")])
def test_a_port_elsewhere_whose_mac_is_none_is_left_out_and_the_rest_stands(bad):
    assert beside({"bad": bad} | PLACES["vxlan"]) == beside(PLACES["vxlan"])


def test_an_address_elsewhere_that_is_none_is_not_answered_for_and_the_rest_stands():
    bad = PlacedPort(mac="fa:16:3e:00:00:42", addresses=("10.0.0.1,actions=NORMAL",), host="h2")
    more = set(beside({"bad": bad} | PLACES["vxlan"])) - set(beside(PLACES["vxlan"]))
    assert [flow.match for flow in more] == ["reg6=1,reg7=0,dl_dst=fa:16:3e:00:00:42"]
