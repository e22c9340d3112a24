"""What hosts route reaches them: each change is told to the hosts that it concerns and to no other, and what they ask
for is what there is."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from tests.stories.network_cloud import CALLERS, Cloud, external, gateway
from tests.stories.test_network_growth import GRAIN, Growing

from nacre.base.clock import settle
from nacre.base.db import Database
from nacre.network.contract import Have, NetworkRequest, PortsOrder, Routing, Served
from nacre.network.hosts import notifications, trimming
from nacre.network.hosts.notifications import News
from nacre.network.hosts.routed import ROUTING
from nacre.network.l2.networks import ROUTED
from nacre.node.ovs.client import WiringClient
from nacre.node.ovs.contract import Standing
from nacre.node.ovs.fake import served
from nacre.node.ovs.flows import Local
from nacre.node.routing.facts import Surroundings
from nacre.node.routing.plan import routing_plan

HOSTS = ("h1", "h2", "h3", "h4", "h5")


class Lab:
    """A router of inner networks a (with ports on h1, h2) and b (h3), a third one (c) on h4 that it does not join yet,
    and another project's router that joins nothing of them (h5). The gateway host is h5."""

    def __init__(self, cloud: Cloud):
        self.cloud, self.call = cloud, cloud.call
        self.ids: dict[str, str] = {}

    async def start(self) -> None:
        ids, cloud = self.ids, self.cloud
        for n in range(1, 5):
            await cloud.host(f"h{n}", f"192.0.2.{n}")
        await gateway(cloud, 5)
        ids["public"] = await external(cloud)
        [ids["outer"]] = [s["id"] for s in (await self.call("admin", "GET", "/subnets"))["subnets"]]
        for n, name in enumerate("abcd"):
            ids[name], ids[f"s{name}"] = await cloud.network_with_subnet(cidr=f"10.0.{n}.0/24")
        ids["router"] = await self.router("one", ids["public"])
        for name in "ab":
            await self.join(name)
        await cloud.network.elections.look()
        for name, net, host in (("p1", "a", "h1"), ("p2", "a", "h2"), ("p3", "b", "h3"), ("p4", "c", "h4"),
                                ("p5", "d", "h5"), ("p6", "a", "h2")):
            ids[name] = await self.plug(name, net, host)
        for name in ("fip", "shared"):
            ids[name] = (await self.call("one", "POST", "/floatingips", {"floatingip": {
                "floating_network_id": ids["public"]}}))["floatingip"]["id"]
        await cloud.hear()

    async def router(self, caller: str, public: str | None = None) -> str:
        info = {"external_gateway_info": {"network_id": public}} if public else {}
        return str((await self.call(caller, "POST", "/routers", {"router": info}))["router"]["id"])

    async def plug(self, server: str, net: str, host: str) -> str:
        return (await self.cloud.network.plug(PortsOrder(server_id=server, context=CALLERS["one"], requests=(
            NetworkRequest(network_id=self.ids[net]),)), host)).ports[0].id

    def join(self, name: str, way: str = "add") -> Awaitable[Any]:
        return self.call("one", "PUT", f"/routers/{self.ids['router']}/{way}_router_interface",
                         {"subnet_id": self.ids[f"s{name}"]})

    def put(self, what: str, id: str, caller: str = "one", **values: Any) -> Callable[[], Awaitable[Any]]:
        return lambda: self.call(caller, "PUT", f"/{what}s/{self.ids[id]}", {what: values})

    async def routing(self) -> dict[str, Routing]:
        found = {host: await self.cloud.network.routing(host) for host in HOSTS}
        return {host: msgspec.structs.replace(each, n=0, peers={}) for host, each in found.items()}

    async def forward(self) -> None:
        made = await self.call("one", "POST", f"/floatingips/{self.ids['shared']}/port_forwardings", {
            "port_forwarding": {"protocol": "tcp", "external_port": 22, "internal_port": 22,
                                "internal_port_id": self.ids["p2"],
                                "internal_ip_address": await self.address("p2")}})
        self.ids["forwarding"] = made["port_forwarding"]["id"]

    async def address(self, port: str) -> str:
        return str((await self.call("one", "GET", f"/ports/{self.ids[port]}"))["port"]["fixed_ips"][0]["ip_address"])


@pytest.fixture
async def lab(story_db: Database) -> Lab:
    made = Lab(Cloud(story_db))
    await made.start()
    return made


def ways(lab: Lab) -> dict[str, tuple[Callable[[], Awaitable[Any]], str]]:
    """What is done -> whose routing that changes, in an order that works."""
    ids, call, verbs, put = lab.ids, lab.call, lab.cloud.network, lab.put
    router = f"/routers/{ids['router']}"

    async def leg(**values: Any) -> None:
        [port] = (await call("admin", "GET", f"/ports?device_id={ids['router']}&network_id={ids['b']}"))["ports"]
        await call("admin", "PUT", f"/ports/{port['id']}", {"port": values})

    async def new_host() -> None:
        await gateway(lab.cloud, 4)
        [l3] = (await call("admin", "GET", "/agents?host=h5&agent_type=L3%20agent"))["agents"]
        await call("admin", "PUT", f"/agents/{l3['id']}", {"agent": {"admin_state_up": False}})
        for _ in range(3):
            await verbs.elections.sweep()

    return {
        "rename the router": (put("router", "router", name="n"), ""),
        "the same gateway": (put("router", "router", external_gateway_info={"network_id": ids["public"]}), ""),
        "rename a port": (put("port", "p1", name="n"), ""),
        "rename a leg": (lambda: leg(name="n"), ""),
        "what no router joins": (put("network", "d", mtu=1300), ""),
        "a floating IP of nothing": (put("floatingip", "fip", description="d"), ""),
        "join c": (lambda: lab.join("c"), "h1 h2 h3 h4 h5"),
        "part c": (lambda: lab.join("c", "remove"), "h1 h2 h3 h4 h5"),
        "another address of a leg": (lambda: leg(fixed_ips=[{"subnet_id": ids["sb"], "ip_address": "10.0.1.77"}]),
                                     "h1 h2 h3 h5"),
        "a leg off": (lambda: leg(admin_state_up=False), "h1 h2 h3 h5"),
        "a leg on": (lambda: leg(admin_state_up=True), "h1 h2 h3 h5"),
        "routes": (put("router", "router", routes=[{"destination": "10.9.0.0/16", "nexthop": "10.0.0.99"}]),
                   "h1 h2 h3 h5"),
        "off": (put("router", "router", admin_state_up=False), "h1 h2 h3 h5"),
        "on": (put("router", "router", admin_state_up=True), "h1 h2 h3 h5"),
        "no SNAT": (put("router", "router", "admin", external_gateway_info={
            "network_id": ids["public"], "enable_snat": False}), "h1 h2 h3 h5"),
        "the MTU of b": (put("network", "b", mtu=1300), "h1 h2 h3 h5"),
        "the next hop outside": (put("subnet", "outer", "admin", gateway_ip=None), "h1 h2 h3 h5"),
        "associate": (put("floatingip", "fip", port_id=ids["p1"]), "h1"),
        "reassociate": (put("floatingip", "fip", port_id=ids["p2"]), "h1 h2"),
        "its port off": (put("port", "p2", admin_state_up=False), "h2"),
        "its port on": (put("port", "p2", admin_state_up=True), "h2"),
        "prepare its move": (lambda: verbs.bind("p2", "h1"), ""),
        "its move": (lambda: verbs.activate("p2", "h1"), "h1 h2"),
        "its former host": (lambda: verbs.unbind("p2", "h2"), ""),
        "its move by the API": (put("port", "p2", "admin", **{"binding:host_id": "h2"}), "h1 h2"),
        "disassociate": (put("floatingip", "fip", port_id=None), "h2"),
        "forward": (lab.forward, "h5"),
        "forward otherwise": (lambda: call("one", "PUT", f"/floatingips/{ids['shared']}/port_forwardings/"
                                           f"{ids['forwarding']}", {"port_forwarding": {"external_port": 23}}), "h5"),
        "no forwarding": (lambda: call("one", "DELETE", f"/floatingips/{ids['shared']}/port_forwardings/"
                                       f"{ids['forwarding']}"), "h5"),
        "another gateway host": (new_host, "h1 h2 h3 h4 h5"),
        "no gateway": (put("router", "router", external_gateway_info=None), "h1 h2 h3 h4"),
        "associate once more": (put("router", "router", name="m"), ""),
        "delete": (lambda: call("one", "DELETE", router, expect=409), "")}


def told(news: list[News]) -> set[str]:
    return {each.host for each in news if each.message().routing}


async def test_whatever_changes_what_hosts_route_is_told_to_those_and_to_no_other(lab: Lab) -> None:
    before = await lab.routing()
    for way, (work, hosts) in ways(lab).items():
        known = {host: (await lab.cloud.network.routing(host)).n for host in HOSTS}
        await work()
        news, now = await lab.cloud.hear(), await lab.routing()
        other = {host for host in HOSTS if now[host] != before[host]}
        assert other <= told(news) == set(hosts.split()), (way, other, told(news))
        # A message that was lost is found by the host's next beat, whatever networks that names.
        await lab.cloud.network.difference_notifier.reload()
        for host in HOSTS:
            networks = dict.fromkeys((lab.ids[name] for name in ("a", "b", "c", "d", "public")), 1 << 40)
            [*_, n] = await lab.cloud.network.difference_notifier.behind(host, {}, networks, known[host])
            assert bool(n) == (host in told(news)), (way, host)
        before = now


async def test_a_host_has_what_its_networks_routers_need_and_nothing_of_others(lab: Lab) -> None:
    ids, found = lab.ids, await lab.routing()
    assert found["h4"] == Routing(era=found["h4"].era)
    [router] = found["h1"].routers
    assert {leg.network_id for leg in router.interfaces} == {ids["a"], ids["b"]}
    assert {address for leg in router.interfaces for address in leg.addresses} == {"10.0.0.1/24", "10.0.1.1/24"}
    assert router.gateway and (router.gateway.host, router.gateway.term) == ("h5", 1)
    assert router.gateway.next_hops == ("203.0.113.1",)
    assert {network.id for network in found["h1"].networks} == {ids["a"], ids["b"]}
    own = {network.id: network.name for network in found["h1"].networks}
    assert own == {ids["a"]: "net", ids["b"]: ""}  # of what it has no port of, nobody's name
    assert {network.id for network in found["h5"].networks} == {ids["a"], ids["b"], ids["public"]}
    assert (await lab.cloud.network.routing("h1")).peers.keys() == {"h5"}


async def test_a_floating_ip_and_forwardings_are_where_they_are_served(lab: Lab) -> None:
    await lab.put("floatingip", "fip", port_id=lab.ids["p1"])()
    await lab.forward()
    found = await lab.routing()
    assert {host: [each.port_id for each in routing.floating] for host, routing in found.items()} == {
        "h1": [lab.ids["p1"]], "h2": [], "h3": [], "h4": [], "h5": []}
    assert lab.ids["public"] in {network.id for network in found["h1"].networks}
    forwards = {host: [each.inner_address for r in routing.routers for each in r.forwardings]
                for host, routing in found.items()}
    assert forwards == {"h1": [], "h2": [], "h3": [], "h4": [], "h5": [await lab.address("p2")]}


async def test_what_a_host_is_told_is_what_its_flows_are_made_of(lab: Lab) -> None:
    """Both sides mean the same by it: nothing of it is left out on the host."""
    port = await lab.plug("here", "a", "h5")
    await lab.put("floatingip", "fip", port_id=port)()
    await lab.forward()
    told = await lab.cloud.network.routing("h5")
    networks = {network.id: network for network in told.networks}
    local = Local(ofports={port: 7}, numbers={id: n for n, id in enumerate(networks, start=1)},
                  uplinks={network.physical_network or "": 8 for network in told.networks}, vxlan=9)
    numbers = {router.id: n for n, router in enumerate(told.routers, start=1)}
    zones = {id: n for n, id in enumerate([*numbers, *(each.id for each in told.floating)], start=100)}
    plan = routing_plan(told.routers, told.floating, networks, local, Surroundings(
        host="h5", numbers=numbers, zones=zones))
    forwarded = {each.floating_id for router in told.routers for each in router.forwardings}
    assert plan.served.gateways == {lab.ids["router"]: 1} and forwarded
    assert set(plan.served.floating) == forwarded | {each.id for each in told.floating}
    assert set(plan.served.routers) == set(numbers)


async def test_ports_of_networks_that_are_joined_are_told_and_may_be_asked_for(lab: Lab) -> None:
    ids = lab.ids
    await lab.plug("s", "b", "h3")
    assert {news.host for news in await lab.cloud.hear() if ids["b"] in news.placed} == {"h1", "h2", "h3", "h5"}
    for host, networks in (("h1", "ab"), ("h5", "abd"), ("h4", "c")):
        answer = await lab.cloud.network.differences(host, (), tuple(ids[name] for name in "abcd"), Have())
        assert {each.id for each in answer.placed} == {ids[name] for name in networks}, host
    assert {"h3", "h5"} <= (await lab.cloud.network.wiring("h1", (), known=Have())).peers.keys() | (
        await lab.cloud.network.routing("h1")).peers.keys()


async def test_statuses_are_what_the_hosts_say_that_serve_and_are_over_at_once(lab: Lab) -> None:
    ids, verbs = lab.ids, lab.cloud.network

    async def status() -> str:
        return str((await lab.call("one", "GET", f"/floatingips/{ids['fip']}"))["floatingip"]["status"])

    async def legs() -> set[tuple[str, str]]:
        found = (await lab.call("admin", "GET", f"/ports?device_id={ids['router']}"))["ports"]
        return {(port["device_owner"].split("_")[-1], port["status"]) for port in found}

    await lab.put("floatingip", "fip", port_id=ids["p1"])()
    for host in ("h2", "h4"):  # who does not serve it may say what it will
        await verbs.routed(host, Served(floating=(ids["fip"],), gateways={ids["router"]: 1}), True)
    assert await status() == "DOWN" and await legs() == {("interface", "DOWN"), ("gateway", "DOWN")}
    for host in HOSTS:
        await verbs.routed(host, served(await verbs.routing(host), host), True)
    assert await status() == "ACTIVE" and await legs() == {("interface", "ACTIVE"), ("gateway", "ACTIVE")}
    written = list[str]()
    sa.event.listen(lab.cloud.db.engine, "before_cursor_execute", lambda c, cur, text, *_: written.append(text))
    await verbs.routed("h1", served(await verbs.routing("h1"), "h1"), True)
    assert not any(text.startswith("UPDATE") for text in written)  # it is so already
    await verbs.routed("h1", Served(floating=(ids["fip"],)), False)
    assert await status() == "DOWN"


async def test_what_is_said_late_of_a_port_that_is_off_counts_no_more(lab: Lab) -> None:
    ids, verbs = lab.ids, lab.cloud.network
    await lab.put("floatingip", "fip", port_id=ids["p1"])()
    said = served(await verbs.routing("h1"), "h1")
    await lab.put("port", "p1", admin_state_up=False)()
    await verbs.routed("h1", said, True)
    found = await lab.call("one", "GET", f"/floatingips/{ids['fip']}")
    assert said.floating == (ids["fip"],) and found["floatingip"]["status"] == "DOWN"


async def test_what_changes_nothing_is_not_written(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where the host would have nothing to say of it, or something of the router is DOWN for another's
    reason: a leg on a network of which no host has a port."""
    ids, verbs, turns = lab.ids, lab.cloud.network, list[object]()
    _, nobody = await lab.cloud.network_with_subnet(cidr="10.0.77.0/24")
    await lab.call("one", "PUT", f"/routers/{ids['router']}/add_router_interface", {"subnet_id": nobody})
    await lab.put("floatingip", "fip", port_id=ids["p1"])()
    for host in HOSTS:
        await verbs.routed(host, served(await verbs.routing(host), host), True)
    write = verbs.write
    monkeypatch.setattr(verbs, "write", lambda *args: turns.append(args) or write(*args))
    for host in HOSTS:
        await verbs.routed(host, served(await verbs.routing(host), host), True)
    await verbs.routed("h4", Served(floating=(ids["fip"],), gateways={ids["router"]: 1}), False)
    await verbs.routed("h5", Served(gateways={ids["router"]: 0}), False)
    assert not turns


class Host:
    """A host's client."""

    def __init__(self, lab: Lab, name: str):
        self.lab, self.name, self.client = lab, name, WiringClient(name, lab.cloud.network)
        self.client.follow(Standing(trusted=True, n=1))

    async def hear(self, news: list[News]) -> None:
        for notice in self.lab.cloud.notices:
            if notice.host == self.name:
                self.client.changed(sorted(notice.ports), notice.n, notice.before)
        for each in news:
            if each.host == self.name:
                self.client.differ(each.message())
        if self.client.whole or self.client.asked or self.client.routing_outdated() or any(self.client.outdated()):
            await self.client.ask()


async def test_hosts_know_what_they_route_of_what_they_are_told(lab: Lab) -> None:
    hosts = [Host(lab, name) for name in HOSTS]
    for host in hosts:
        await host.client.ask()
    for way, (work, _) in ways(lab).items():
        lab.cloud.notices.clear()
        await work()
        news = await lab.cloud.hear()
        for host in hosts:
            await host.hear(news)
            truth = await lab.cloud.network.routing(host.name)
            mine = host.client.routing
            assert msgspec.structs.replace(mine, n=0, peers={}) == msgspec.structs.replace(truth, n=0, peers={}), way
            assert {id for id in host.client.desired.at() if host.client.places.of(id)} >= {
                id for id in {network.id for network in truth.networks} if (await lab.cloud.network.differences(
                    host.name, (), (id,), Have())).placed[0].ports}, (way, host.name)
            assert not host.client.routing_outdated() and not any(host.client.outdated())


async def test_news_of_the_same_routing_rest_and_keep_nothing_else_waiting(
        lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them makes all hosts of a network ask for everything that they route."""
    monkeypatch.setattr(notifications, "REST", (100.0, 100.0))
    cloud, clock = lab.cloud, lab.cloud.clock

    async def route(n: int) -> None:
        await lab.put("router", "router", routes=[{"destination": f"10.9.{n}.0/24", "nexthop": "10.0.0.99"}])()

    await route(0)
    assert told(await cloud.hear()) == {"h1", "h2", "h3", "h5"}
    began = clock.monotonic()
    for n in range(1, 6):
        await route(n)
    await lab.plug("new", "a", "h1")
    while not any(news.placed for news in cloud.told):
        await clock.advance(0.05)
        await asyncio.sleep(0.002)  # the database may have threads
    assert clock.monotonic() - began < 50 and not told(cloud.told)
    heard = [news.host for news in await cloud.hear() if news.routing]
    assert clock.monotonic() - began > 90 and sorted(heard) == ["h1", "h2", "h3", "h5"]


async def test_what_a_host_routes_is_answered_in_turn(lab: Lab) -> None:
    async with lab.cloud.network._large.turn("h2"):
        asked = asyncio.ensure_future(lab.cloud.network.routing("h1"))
        await settle()
        assert not asked.done()
    assert len((await asked).routers) == 1


async def test_a_deleted_network_leaves_no_number(lab: Lab) -> None:
    from nacre.base.durable.changes import latest

    await lab.cloud.network.deallocate("p4")
    await lab.join("c")
    await lab.join("c", "remove")
    assert lab.ids["c"] in await lab.cloud.db.read(lambda c: latest(c, ROUTED))
    await lab.call("one", "DELETE", f"/networks/{lab.ids['c']}")
    assert lab.ids["c"] not in await lab.cloud.db.read(lambda c: latest(c, ROUTED))


async def test_a_removed_host_leaves_no_number(lab: Lab) -> None:
    """Also where something is written of it afterwards: its ports are there as long as its servers."""
    from nacre.base.durable.changes import latest

    await lab.put("floatingip", "fip", port_id=lab.ids["p1"])()
    await lab.cloud.network.forget_host("h1")
    await lab.put("floatingip", "fip", port_id=None)()
    notifier = lab.cloud.network.difference_notifier
    await notifier.reload()
    before = await lab.cloud.db.read(lambda c: latest(c, ROUTING))
    await trimming.forget_hosts(lab.cloud.db, notifier, lambda _, names: set(names) - {"h1"})
    assert "h1" in before and before.keys() - (await lab.cloud.db.read(lambda c: latest(c, ROUTING))).keys() == {"h1"}
    assert notifier.last[ROUTING].keys() == before.keys() - {"h1"}


async def routing_costs(ports: int, routers: int) -> dict[str, int]:
    """Of a host with a port on a network of so many, beside so many routers elsewhere."""
    grown = Growing()
    await grown.start(ports)
    cloud, found = grown.cloud, dict[str, int]()
    cloud.network.settings.quotas.update({"router": -1})
    subnet = (await cloud.call("one", "GET", "/subnets"))["subnets"][0]["id"]
    router = (await cloud.call("one", "POST", "/routers", {"router": {}}))["router"]["id"]
    await cloud.call("one", "PUT", f"/routers/{router}/add_router_interface", {"subnet_id": subnet})
    _, far = await cloud.network_with_subnet(cidr="192.168.0.0/24")
    for _ in range(routers):
        other = (await cloud.call("one", "POST", "/routers", {"router": {}}))["router"]["id"]
        port = (await cloud.call("one", "POST", "/ports", {"port": {"network_id": (await cloud.call(
            "one", "GET", f"/subnets/{far}"))["subnet"]["network_id"]}}))["port"]["id"]
        await cloud.call("one", "PUT", f"/routers/{other}/add_router_interface", {"port_id": port})
    await cloud.hear()
    statements, answers = list[str](), list[Routing]()
    sa.event.listen(grown.db.engine, "before_cursor_execute", lambda c, cur, text, *_: statements.append(text))

    async def ask() -> None:
        answers.append(await cloud.network.routing("h1"))

    found["answer, steps"] = await grown.cost(ask())
    found["answer, statements"] = len(statements)
    found["answer, bytes"] = len(msgspec.msgpack.encode(answers[0]))
    found["change, steps"] = await grown.cost(cloud.call("one", "PUT", f"/routers/{router}", {"router": {
        "admin_state_up": False}}))
    found["told, steps"] = await grown.cost(cloud.hear())
    found["statements"] = len(statements)
    assert len(answers[0].routers) == 1
    await grown.db.close()
    return found


async def test_what_a_host_routes_costs_as_much_beside_many_ports_and_routers_as_beside_few() -> None:
    few, many = await routing_costs(20, 2), await routing_costs(2000, 40)
    for name in ("answer, statements", "answer, bytes", "statements"):
        assert abs(few[name] - many[name]) <= (4 if "bytes" in name else 0), (name, few, many)  # numbers are longer
    assert all(many[name] <= few[name] * 1.25 + 2 * GRAIN for name in few if name != "answer, steps"), {
        n: (few[n], many[n]) for n in few}
