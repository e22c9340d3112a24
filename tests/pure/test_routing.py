"""Laws of routing's flows: the longest prefix wins, an address is answered for once, nothing goes between routers that
share no network."""

import ipaddress
import re
from collections import Counter
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from nacre.network.contract import (
    FloatingFacts,
    ForwardingFacts,
    GatewayFacts,
    NetworkFacts,
    RouterFacts,
    RouterLeg,
)
from nacre.node.ovs.flows import Flow, Local
from nacre.node.routing.facts import Surroundings
from nacre.node.routing.outside import forwarded_ports
from nacre.node.routing.pipeline import NEIGHBOUR, ROUTE
from nacre.node.routing.plan import routing_plan

#: Networks that no two of have an address in common, as a router's have not.
CIDRS = ("10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/23", "10.1.0.0/16", "192.168.0.0/29")
NUMBERS = {f"n{i}": i + 1 for i in range(len(CIDRS))} | {"out": 40}
NETWORKS = {name: NetworkFacts(
    id=name, name=name, project_id="p", mtu=1450, network_type="flat" if name == "out" else "vxlan",
    physical_network="public" if name == "out" else None, segmentation_id=None if name == "out" else number)
    for name, number in NUMBERS.items()}
LOCAL = Local(numbers=NUMBERS, uplinks={"public": 4}, vxlan=2)


def leg(router: int, index: int) -> RouterLeg:
    net = ipaddress.ip_network(CIDRS[index])
    return RouterLeg(network_id=f"n{index}", port_id=f"p{router}-{index}", mac=f"fa:16:3e:00:{router:02x}:{index:02x}",
                     addresses=(f"{net.network_address + 1 + router}/{net.prefixlen}",))


def routers(count: int) -> st.SearchStrategy[list[RouterFacts]]:
    def build(number: int, indexes: set[int], routes: list[tuple[int, int, int]]) -> RouterFacts:
        legs = tuple(leg(number, index) for index in sorted(indexes))
        found = []
        for base, length, at in routes:
            hop = ipaddress.ip_interface(legs[at % len(legs)].addresses[0]).network.network_address + 5
            found.append((str(ipaddress.ip_network((base << 16, length), strict=False)), str(hop)))
        return RouterFacts(id=f"r{number}", interfaces=legs, routes=tuple(dict(found).items()))

    one = st.tuples(st.sets(st.integers(0, len(CIDRS) - 1), min_size=1), st.lists(
        st.tuples(st.integers(0, 0xFFFF), st.integers(0, 32), st.integers(0, 4)), max_size=5))
    return st.lists(one, min_size=count, max_size=count).map(
        lambda drawn: [build(number, *each) for number, each in enumerate(drawn)])


def here(host: str = "h", **more: object) -> Surroundings:
    return Surroundings(host=host, numbers={f"r{n}": n + 1 for n in range(4)}, **more)  # type: ignore[arg-type]


def routing_flows(made: Iterable[RouterFacts], floating: Iterable[FloatingFacts], local: Local = LOCAL,
                  around: Surroundings | None = None) -> tuple[Flow, ...]:
    return routing_plan(made, floating, NETWORKS, local, around or here()).flows


def routed(flows: tuple[Flow, ...], router: int, address: ipaddress.IPv4Address) -> Flow | None:
    """The flow of the table ROUTE for a frame of the router with hops left."""
    found = []
    for flow in flows:
        match = dict(part.partition("=")[::2] for part in flow.match.split(","))
        if flow.table != ROUTE or match.get("reg3") != str(router + 1) or "icmp" in match or "nw_ttl" in match:
            continue
        if "nw_dst" not in match or address in ipaddress.ip_network(match["nw_dst"]):
            found.append(flow)
    best = max(found, key=lambda flow: flow.priority, default=None)
    assert best is None or Counter(flow.priority for flow in found)[best.priority] == 1, "two of one priority"
    return best


ADDRESSES = st.one_of(st.integers(0, 2**32 - 1), st.sampled_from(CIDRS).flatmap(
    lambda cidr: st.integers(0, 7).map(lambda n: int(ipaddress.ip_network(cidr).network_address) + n))).map(
        ipaddress.IPv4Address)


@settings(deadline=None, max_examples=60)
@given(routers(1), st.lists(ADDRESSES, min_size=1, max_size=8))
def test_the_longest_prefix_wins(made: list[RouterFacts], addresses: list[ipaddress.IPv4Address]) -> None:
    router, = made
    flows = routing_flows(made, ())
    own = [(ipaddress.ip_interface(each.addresses[0]).network, each, None) for each in router.interfaces]
    far = [(ipaddress.ip_network(destination), next(
        each for each in router.interfaces if ipaddress.ip_address(hop) in ipaddress.ip_interface(
            each.addresses[0]).network), hop) for destination, hop in router.routes]
    for address in addresses:
        fitting = [(net.prefixlen, hop is None, by, hop) for net, by, hop in (*own, *far) if address in net]
        flow = routed(flows, 0, address)
        if any(ipaddress.ip_interface(each.addresses[0]).ip == address for each in router.interfaces):
            assert flow is not None and flow.actions == "drop", "what it does not answer is not routed to itself"
            continue
        if not fitting:
            assert flow is None
            continue
        _, _, by, hop = max(fitting, key=lambda each: each[:2])
        assert flow is not None and f"mod_dl_src:{by.mac}," in flow.actions
        assert (f"load:{int(ipaddress.ip_address(hop)):#x}->NXM_NX_REG2[]" if hop else "move:NXM_OF_IP_DST[]"
                ) in flow.actions


@settings(deadline=None, max_examples=60)
@given(routers(3))
def test_nothing_goes_between_routers_that_share_no_network(made: list[RouterFacts]) -> None:
    flows = routing_flows(made, ())
    owner = {each.mac: (router.id, each.network_id) for router in made for each in router.interfaces}
    for flow in flows:
        to = re.search(r"load:(\d+)->NXM_NX_REG6\[\].*resubmit\(,71\)", flow.actions)
        if flow.table == ROUTE and to:
            number = int(re.search(r"reg3=(\d+)", flow.match)[1])  # type: ignore[index]
            router = next(each for each in made if each.id == f"r{number - 1}")
            assert int(to[1]) in {NUMBERS[each.network_id] for each in router.interfaces}
        if flow.table == NEIGHBOUR and flow.priority:  # a neighbour's MAC is of its own network
            mac = re.search(r"mod_dl_dst:([0-9a-f:]+)", flow.actions)[1]  # type: ignore[index]
            net = int(re.search(r"reg6=(\d+)", flow.match)[1])  # type: ignore[index]
            assert mac not in owner or NUMBERS[owner[mac][1]] == net


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=8, unique_by=lambda each: each[0]),
       st.integers(0, 2), st.integers(0, 2))
def test_an_outer_address_is_answered_for_by_one_host(floating: list[tuple[int, bool]], gateway: int,
                                                      forwarded: int) -> None:
    """Whatever hosts the ports are on: the floating IP by the port's, the gateway and forwardings by the elected."""
    facts = [FloatingFacts(id=f"f{n}", network_id="out", address=f"203.0.113.{10 + n}", mac=f"fa:16:3e:22:00:{n:02x}",
                           port_id=f"port{n}", inner_network_id="n0", fixed_ip=f"10.0.0.{20 + n}", router_id="r0")
             for n, _ in floating]
    router = RouterFacts(id="r0", interfaces=(leg(0, 0),), gateway=GatewayFacts(
        network_id="out", port_id="g", mac="fa:16:3e:22:01:00", addresses=("203.0.113.5",), host=f"h{gateway}"),
        forwardings=tuple(ForwardingFacts(
            floating_id=f"p{n}", address=f"203.0.113.{50 + n}", mac=f"fa:16:3e:22:02:{n:02x}", protocol="tcp",
            outer=(80, 80), inner_network_id="n0", inner_address="10.0.0.30", inner=(80, 80))
            for n in range(forwarded)))
    answers, entered = Counter[str](), Counter[str]()
    for host in range(3):
        ports = {f"port{n}": 10 + n for n, _ in floating if n == host}
        flows = routing_flows((router,), facts, Local(
            ofports=ports, numbers=NUMBERS, uplinks={"public": 4}, vxlan=2), here(
                f"h{host}", zones={"r0": 1, **{f"f{n}": 10 + n for n in range(3)}}))
        for flow in flows:
            if found := re.search(r"reg6=40,reg7=1,arp_op=1,arp_tpa=(\S+)$", flow.match):
                answers[found[1]] += 1
            if found := re.search(r"^ip,reg6=40,dl_dst=\S+,nw_dst=(\S+)$", flow.match):
                entered[found[1]] += 1
    wanted = {each.address for each in facts} | {"203.0.113.5"} | {each.address for each in router.forwardings}
    assert answers == entered == Counter(wanted)


def test_the_same_address_on_another_network_is_anothers() -> None:
    """A floating IP's port, and what is forwarded, lie on a network of the router; who names a router that is only on
    one with the same addresses does not come to what has the address there."""
    router = RouterFacts(id="r0", interfaces=(leg(0, 0),), gateway=GatewayFacts(
        network_id="out", port_id="g", mac="fa:16:3e:22:01:00", addresses=("203.0.113.5",), host="h"),
        forwardings=(ForwardingFacts(
            floating_id="p", address="203.0.113.50", mac="fa:16:3e:22:02:00", protocol="tcp", outer=(80, 80),
            inner_network_id="n9", inner_address="10.0.0.30", inner=(80, 80)),))
    floating = FloatingFacts(id="f", network_id="out", address="203.0.113.10", mac="fa:16:3e:22:00:00", port_id="port",
                             inner_network_id="n9", fixed_ip="10.0.0.20", router_id="r0")
    flows = routing_flows((router,), (floating,), Local(
        ofports={"port": 10}, numbers=NUMBERS, uplinks={"public": 4}, vxlan=2), here("h", zones={"r0": 1, "f": 2}))
    assert any("203.0.113.5" in flow.match for flow in flows)
    assert not [flow for flow in flows if re.search(r"203\.0\.113\.(10|50)\b|10\.0\.0\.[23]0\b", str(flow))]


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 65535), st.integers(1, 60), st.integers(1, 65535), st.booleans())
def test_each_outer_port_leads_to_its_inner_one(first: int, width: int, inner: int, single: bool) -> None:
    last = min(first + width, 65535)
    to = (inner, inner if single else min(inner + last - first, 65535))
    if not single and to[1] - to[0] != last - first:
        to = (first, last)
    each = ForwardingFacts(floating_id="f", address="203.0.113.9", mac="m", protocol="tcp", outer=(first, last),
                           inner_network_id="n0", inner_address="10.0.0.9", inner=to)
    for port in range(max(first - 2, 0), min(last + 3, 65536)):
        found = []
        for match, target in forwarded_ports(each):
            value, _, mask = match.removeprefix("tp_dst=").partition("/")
            if port & int(mask or "0xffff", 16) == int(value, 0):
                found.append(target)
        if not first <= port <= last:
            assert not found
            continue
        one = to[0] if single else to[0] + port - first
        assert len(found) == 1 and found[0] in (f":{one}", "" if one == port else f":{one}")
