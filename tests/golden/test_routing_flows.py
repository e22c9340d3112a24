"""The flows of routers on small hosts, as reviewed text. NACRE_GOLDEN=write rewrites it."""

import os
from pathlib import Path

import msgspec
import pytest

from nacre.network.contract import (
    FloatingFacts,
    ForwardingFacts,
    GatewayFacts,
    NetworkFacts,
    RouterFacts,
    RouterLeg,
)
from nacre.node.ovs.flows import Local
from nacre.node.routing.facts import Surroundings
from nacre.node.routing.pipeline import CARRY, own_mac
from nacre.node.routing.plan import routing_plan

HERE = Path(__file__).parent / "routing"


def network(name, kind, **more):
    return NetworkFacts(**{"id": name, "name": name, "project_id": "p", "mtu": 1450, "network_type": kind,
                           "physical_network": None, "segmentation_id": None} | more)


NETWORKS = {n.id: n for n in (
    network("a", "vxlan", segmentation_id=77, dhcp_mac="fa:16:3e:00:00:fe"), network("b", "vxlan", segmentation_id=78),
    network("out", "flat", physical_network="public"),
    network("tagged", "vlan", physical_network="public", segmentation_id=9))}
LEGS = (RouterLeg(network_id="a", port_id="leg-a", mac="fa:16:3e:aa:00:01", addresses=("10.1.0.1/24",)),
        RouterLeg(network_id="b", port_id="leg-b", mac="fa:16:3e:aa:00:02",
                  addresses=("10.2.0.1/24", "2001:db8::1/64")))
GATEWAY = GatewayFacts(network_id="out", port_id="gw", mac="fa:16:3e:ee:00:10", addresses=("203.0.113.10",),
                       next_hops=("203.0.113.1",), host="m3", term=1)
ROUTER = RouterFacts(id="r", interfaces=LEGS)
FLOATING = FloatingFacts(id="f", network_id="out", address="203.0.113.11", mac="fa:16:3e:ee:00:11", port_id="a1",
                         inner_network_id="a", fixed_ip="10.1.0.11", router_id="r")
FORWARDINGS = tuple(ForwardingFacts(
    floating_id="p", address="203.0.113.12", mac="fa:16:3e:ee:00:12", protocol=protocol, outer=outer,
    inner_network_id="b", inner_address="10.2.0.12", inner=inner) for protocol, outer, inner in (
        ("tcp", (2222, 2222), (22, 22)), ("udp", (60, 67), (60, 67)), ("tcp", (80, 81), (8080, 8081)),
        ("tcp", (90, 95), (9, 9))))
SEND = "push_vlan:0x8100,set_field:4105->vlan_vid,output:4"  # of the tagged network
HOPS = {"203.0.113.1": "fa:16:3e:ff:00:01"}
LOCAL = Local(ofports={"a1": 11}, numbers={"a": 1, "b": 2, "out": 3}, dhcp={"a": 20}, uplinks={"public": 4}, vxlan=2)
ME = Surroundings(host="m1", numbers={"r": 5}, zones={"f": 40001, "r": 40002}, hops={"out": HOPS},
                  peers={"m2": "172.31.0.2", "m3": "172.31.0.3"})

CASES = {
    # Two networks, a route by a guest of one of them, a helper for what has no hop left.
    "inside": (msgspec.structs.replace(ROUTER, routes=(("10.9.0.0/16", "10.2.0.12"), ("0.0.0.0/0", "10.1.0.12"))), (),
               LOCAL, msgspec.structs.replace(ME, helpers={"leg-a": 31})),
    # A floating IP here; what else goes out goes to the gateway host.
    "floating": (msgspec.structs.replace(ROUTER, gateway=GATEWAY), (FLOATING,), LOCAL, ME),
    # The gateway host, with forwardings and a route by the outside.
    "gateway": (msgspec.structs.replace(ROUTER, gateway=GATEWAY, forwardings=FORWARDINGS, routes=(
        ("198.51.100.0/24", "203.0.113.1"),)), (), msgspec.structs.replace(LOCAL, ofports={}),
        msgspec.structs.replace(ME, host="m3")),
    # No translation, and a tagged network outside.
    "open": (msgspec.structs.replace(ROUTER, gateway=msgspec.structs.replace(
        GATEWAY, snat=False, network_id="tagged")), (), msgspec.structs.replace(
            LOCAL, numbers={"a": 1, "b": 2, "tagged": 3}), msgspec.structs.replace(
                ME, host="m3", hops={"tagged": HOPS})),
}


def flows_of(name):
    router, floating, local, here = CASES[name]
    return planned((router,), floating, local, here).flows


def planned(routers, floating, local, here):
    return routing_plan(routers, floating, NETWORKS, local, here)


@pytest.mark.parametrize("name", CASES)
def test_routing(name):
    text = "\n".join(flow.text.partition(",")[2] for flow in flows_of(name)) + "\n"
    path = HERE / f"{name}.txt"
    if os.environ.get("NACRE_GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


def test_a_router_that_has_no_number_has_no_flows_and_what_is_for_one_that_is_off_goes_nowhere():
    _, _, local, here = CASES["gateway"]
    nothing = planned((), (), local, here)
    assert planned((msgspec.structs.replace(ROUTER, id="other"),), (), local, here) == nothing
    off = planned((msgspec.structs.replace(CASES["gateway"][0], up=False),), (), local, here)
    assert off.served == nothing.served and off.joined == nothing.joined and off.out == nothing.out
    more = set(off.flows) - set(nothing.flows)
    assert {flow.actions for flow in more} == {"drop"} and len(more) == len(LEGS)


@pytest.mark.parametrize("bad", [{"routes": (("10.9.0.0/99", "10.1.0.12"),)}, {"interfaces": (
    msgspec.structs.replace(LEGS[0], addresses=("nonsense",)),)}, {"gateway": msgspec.structs.replace(
        GATEWAY, host="m1", addresses=(), next_hops=("?",))}, {"interfaces": (None,)}, {
            "gateway": msgspec.structs.replace(GATEWAY, host="m1"), "forwardings": tuple(msgspec.structs.replace(
                FORWARDINGS[0], floating_id=f"p{n}", outer=(first, first + 127), inner=(first + 1, first + 128))
                for n in range(50) for first in range(1024, 14024, 130))}],
    ids=("route", "address", "hop", "nothing", "flows"))
def test_one_that_cannot_be_expressed_harms_no_other(bad):
    wrong = msgspec.structs.replace(ROUTER, **{"id": "bad"} | bad)
    here = msgspec.structs.replace(ME, numbers={"r": 5, "bad": 6}, zones=ME.zones | {"bad": 40003})
    assert planned((wrong, ROUTER), (), LOCAL, here) == planned((ROUTER,), (), LOCAL, here)


def test_a_tagged_network_without_a_number_has_no_wire():
    """A flow that cannot be written would be the whole bundle's end."""
    router, _, local, here = CASES["open"]
    networks = NETWORKS | {"tagged": network("tagged", "vlan", physical_network="public")}
    found = routing_plan((router,), (), networks, local, here)
    assert found.served.routers == ("r",) and not found.served.gateways
    assert not [flow for flow in found.flows if "dl_vlan" in flow.text or "push_vlan" in flow.text]


def test_what_leaves_by_a_wire_has_a_mac_of_this_hosts_own():
    _, _, local, here = CASES["open"]
    router = msgspec.structs.replace(ROUTER, interfaces=(msgspec.structs.replace(LEGS[0], network_id="tagged"),))
    found = planned((router,), (), local, here)
    own, = (flow for flow in found.flows if flow.table == CARRY and flow.priority)
    assert own.match == f"reg6=3,dl_src={LEGS[0].mac}"
    assert own.actions == f"mod_dl_src:{own_mac('m3', LEGS[0].mac)},{SEND}"
    assert found.joined.near["tagged"].wire


def test_an_interface_on_a_network_that_is_not_known_here_is_not_outside():
    router, _, local, here = CASES["gateway"]
    local = msgspec.structs.replace(local, numbers={"a": 1, "out": 3})
    found = [flow for flow in planned((router,), (), local, here).flows if "nw_dst=10.2.0.0/24" in flow.match]
    assert [flow.actions for flow in found] == ["drop"]
