"""Where the ports of a network are is kept by its hosts as differences: every change that there is is written down."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from tests.stories.network_cloud import CALLERS, Cloud
from tests.stories.test_network_growth import GRAIN, HOSTS, Growing

from nacre.base.db import Database
from nacre.base.durable import changes, eras
from nacre.base.durable.tables import changes as rows_of_changes
from nacre.base.errors import Forbidden
from nacre.network import tables as t
from nacre.network.contract import (
    Differences,
    Have,
    HostWiring,
    NetworkPorts,
    NetworkRequest,
    PlacedPort,
    PortsOrder,
    RemotePort,
)
from nacre.network.hosts import trimming
from nacre.network.hosts.notifications import News, Notice
from nacre.network.hosts.placed import PLACED
from nacre.network.work import NetworkSettings
from nacre.node.ovs.client import WiringClient
from nacre.node.ovs.contract import Standing

Places = dict[str, PlacedPort]


@pytest.fixture
async def cloud(story_db: Database) -> Cloud:
    made = Cloud(story_db, NetworkSettings())
    for n in (1, 2, 3):
        await made.host(f"h{n}", f"192.0.2.{n}")
    return made


async def plug(cloud: Cloud, server: str, net: str, host: str) -> str:
    plugged = await cloud.network.plug(PortsOrder(server_id=server, context=CALLERS["one"], requests=(
        NetworkRequest(network_id=net),)), host)
    return plugged.ports[0].id


async def read(cloud: Cloud, net: str, n: int | None = None) -> NetworkPorts:
    """What somebody lacks who has that number; None: who has nothing."""
    def unit(connection: sa.Connection) -> NetworkPorts:
        at = eras.position(connection)
        [found] = PLACED.read(connection, [net], {} if n is None else {at.era: {net: n}})
        return found

    return await cloud.db.read(unit)


def after(before: Places, difference: NetworkPorts) -> Places:
    both = before | difference.ports
    return {id: port for id, port in both.items() if port.host or port.prepared}


async def ways_of(cloud: Cloud, net: str, sub: str) -> dict[str, Callable[[], Awaitable[Any]]]:
    """All that changes what others see of a port, of two servers and a loose port, in an order that works."""
    subnet: dict[str, Any] = {"network_id": net, "cidr": "2001:db8::/64", "ip_version": 6,
                              "ipv6_address_mode": "slaac", "ipv6_ra_mode": "slaac"}
    six: list[str] = []
    one, loose = await plug(cloud, "s1", net, "h1"), await plug(cloud, "s2", net, "h2")
    verbs, call = cloud.network, cloud.call

    async def add_subnet() -> None:
        six.append((await call("one", "POST", "/subnets", {"subnet": subnet}))["subnet"]["id"])

    def put(port: str, **values: Any) -> Callable[[], Awaitable[Any]]:
        return lambda: call("admin", "PUT", f"/ports/{port}", {"port": values})

    bindings = f"/ports/{loose}/bindings"
    return {
        "plug": lambda: plug(cloud, "s3", net, "h2"),
        "readdress": put(one, fixed_ips=[{"subnet_id": sub, "ip_address": "10.0.0.77"}]),
        "slaac": add_subnet,
        "no slaac": lambda: call("one", "DELETE", f"/subnets/{six[0]}"),
        "prepare": lambda: verbs.bind("s1", "h3"),
        "activate": lambda: verbs.activate("s1", "h3"),
        "unbind the former": lambda: verbs.unbind("s1", "h1"),
        "unbind": lambda: verbs.unbind("s1", "h3"),
        "bind by the API": put(one, **{"binding:host_id": "h1"}),
        "to another by the API": put(one, **{"binding:host_id": "h2"}),
        "to none by the API": put(one, **{"binding:host_id": ""}),
        "prepare by the API": lambda: call("admin", "POST", bindings, {"binding": {"host": "h1"}}),
        "activate by the API": lambda: call("admin", "PUT", f"{bindings}/h1/activate", expect=200),
        "drop by the API": lambda: call("admin", "DELETE", f"{bindings}/h2"),
        "delete": lambda: call("one", "DELETE", f"/ports/{loose}"),
        "plug anew": lambda: plug(cloud, "s1", net, "h3"),
        "deallocate": lambda: verbs.deallocate("s3")}


async def test_every_way_to_change_a_ports_place_is_written_down(cloud: Cloud) -> None:
    net, sub = await cloud.network_with_subnet()
    ways = await ways_of(cloud, net, sub)
    known = await read(cloud, net)
    assert known.since is None and {port.host for port in known.ports.values()} == {"h1", "h2"}
    places = dict(known.ports)
    for way, work in ways.items():
        await work()
        news, now = await read(cloud, net, known.n), await read(cloud, net)
        assert news.since == known.n and after(places, news) == now.ports != places, way
        places, known = dict(now.ports), now


async def test_what_others_do_not_see_is_not_written_down(cloud: Cloud) -> None:
    net, _ = await cloud.network_with_subnet()
    port = await plug(cloud, "s1", net, "h1")
    known = await read(cloud, net)
    await cloud.call("one", "PUT", f"/ports/{port}", {"port": {"name": "n", "security_groups": []}})
    await cloud.call("one", "POST", "/ports", {"port": {"network_id": net}})
    await cloud.network.wired("h1", (port,), True)
    assert (await read(cloud, net, known.n)).ports == {}


async def test_a_create_writes_one_number_for_its_group_and_its_network(cloud: Cloud) -> None:
    net, _ = await cloud.network_with_subnet()
    await plug(cloud, "s1", net, "h1")

    def rows(table: sa.Table) -> Any:
        return cloud.db.read(lambda c: c.execute(sa.select(table)).all())

    [(place, n, port)], [(_, same, member)] = await rows(t.placed_changes), await rows(t.member_changes)
    assert (place, n, port) == (net, same, member)


async def test_what_is_too_old_or_of_another_history_is_told_whole(cloud: Cloud) -> None:
    net, _ = await cloud.network_with_subnet()
    await plug(cloud, "s1", net, "h1")
    first = await read(cloud, net)
    await plug(cloud, "s2", net, "h1")
    second = await read(cloud, net)
    await cloud.db.run(lambda c: changes.number(c, cloud.clock.now().replace(tzinfo=None), "server"))
    # As Changes does when they were there long enough.
    await cloud.db.run(lambda c: c.execute(sa.delete(rows_of_changes).where(rows_of_changes.c.n <= second.n)))
    for _ in range(2):
        await trimming.trim(cloud.db, cloud.network.difference_notifier)
        kept = await cloud.db.read(lambda c: c.execute(sa.select(t.placed_changes)).all())
        assert [(row.port_id, row.n) for row in kept] == [("", second.n)]
    assert (await read(cloud, net, first.n)).since is None
    assert (await read(cloud, net, second.n)).since == second.n
    [stranger] = await cloud.db.read(lambda c: PLACED.read(c, [net], {"of another history": {net: second.n}}))
    assert stranger.since is None and stranger.ports == second.ports


class Host:
    """What a host makes of what it hears, and asks for because of that."""

    def __init__(self, cloud: Cloud, name: str):
        self.cloud, self.name, self.client = cloud, name, WiringClient(name, cloud.network)
        self.client.follow(Standing(trusted=True, n=1))

    async def hear(self, notices: Sequence[Notice], news: Sequence[News]) -> None:
        for notice in notices:
            if notice.host == self.name:
                self.client.changed(sorted(notice.ports), notice.n, notice.before)
        for each in news:
            if each.host == self.name:
                self.client.differ(each.message())
        if self.client.whole or self.client.asked:
            await self.client.ask()

    def known(self) -> Any:
        client = self.client
        return (client.desired, {net: dict(client.places.of(net)) for net in client.desired.at()},
                {host: peer.tunnel_ip for host, peer in client.peers.items()
                 if host in {port.host for _, port in client.places.all()} - {self.name}})

    async def truth(self) -> Any:
        """By whoever knows nothing."""
        fresh = Host(self.cloud, self.name)
        await fresh.client.ask()
        return fresh.known()


async def test_whatever_happens_hosts_know_it_of_what_they_are_told(cloud: Cloud) -> None:
    """By notices of their own ports and by differences: of a port elsewhere no host asks."""
    dice, hosts, servers = random.Random(7), [Host(cloud, f"h{n}") for n in (1, 2, 3)], list[str]()
    nets = [(await cloud.network_with_subnet(cidr=f"10.0.{n}.0/24"))[0] for n in range(2)]

    async def make() -> None:
        servers.append(f"s{len(servers)}-{dice.random()}")
        await plug(cloud, servers[-1], dice.choice(nets), dice.choice(hosts).name)

    async def move() -> None:
        server, host = dice.choice(servers), dice.choice(hosts).name
        await cloud.network.bind(server, host)
        await cloud.network.activate(server, host)

    async def leave() -> None:
        await cloud.network.unbind(dice.choice(servers), dice.choice(hosts).name)

    async def end() -> None:
        await cloud.network.deallocate(servers.pop(dice.randrange(len(servers))))

    async def readdress() -> None:
        ports = (await cloud.network.ports_of((dice.choice(servers),))).values()
        for port in next(iter(ports)):
            subnet = port.fixed_ips[0].subnet_id
            await cloud.call("one", "PUT", f"/ports/{port.id}", {"port": {"fixed_ips": [{"subnet_id": subnet}]}})

    async def tunnel() -> None:
        await cloud.host("h3", f"192.0.2.{dice.randrange(100, 200)}")

    for host in hosts:
        await host.client.ask()
    for n in range(40):
        await dice.choice((make, move, leave, end, readdress, tunnel) if len(servers) > 3 and n > 5 else (make,))()
        news, notices = await cloud.hear(), list(cloud.notices)
        cloud.notices.clear()
        for host in hosts:
            await host.hear(notices, news)
            assert not any(host.client.outdated()) and host.known() == await host.truth()


async def test_a_port_elsewhere_is_a_message_and_no_question(cloud: Cloud) -> None:
    net, _ = await cloud.network_with_subnet()
    await plug(cloud, "s1", net, "h1")
    here = Host(cloud, "h1")
    await here.client.ask()
    await cloud.hear()
    cloud.notices.clear()
    port = await plug(cloud, "s2", net, "h2")
    told = await cloud.hear()
    assert {notice.host for notice in cloud.notices} == {"h2"} and sorted(news.host for news in told) == ["h1", "h2"]
    await here.hear(cloud.notices, told)
    assert here.client.places.of(net)[port].host == "h2" and here.client.peers["h2"].tunnel_ip == "192.0.2.2"


async def test_a_host_of_the_release_before_is_told_every_port_elsewhere(cloud: Cloud) -> None:
    """It knows no difference of a network: it asks, as it is told of each change, and has all in the answer."""
    await cloud.host("h3", "192.0.2.3", before=True)
    net, _ = await cloud.network_with_subnet()
    await plug(cloud, "s3", net, "h3")
    await cloud.hear()
    cloud.notices.clear()
    port = await plug(cloud, "s1", net, "h1")
    await cloud.hear()
    assert {notice.host for notice in cloud.notices} == {"h1", "h3"}
    answer = await cloud.network.wiring("h3", (), {})
    facts = (await cloud.call("one", "GET", f"/ports/{port}"))["port"]
    assert answer.placed == () and answer.peers == {} and answer.tunnels == ("192.0.2.1",)
    assert answer.remotes == (RemotePort(
        network_id=net, mac_address=facts["mac_address"], tunnel_ip="192.0.2.1",
        ip_addresses=(facts["fixed_ips"][0]["ip_address"],)),)
    assert await cloud.network.members("h3", (), {}) == ()
    cloud.notices.clear()
    await cloud.host("h3", "192.0.2.3")  # it was upgraded: nobody else has to do with that
    for question in (cloud.network.wiring("h3", (), {}), cloud.network.wiring("h3", (port,)),
                     cloud.network.members("h3", (), {})):
        with pytest.raises(Forbidden, match="takes differences"):
            await question
    await plug(cloud, "s2", net, "h2")
    await cloud.hear()
    assert {notice.host for notice in cloud.notices} == {"h2"}


async def test_whatever_is_answered_whole_comes_in_turn(cloud: Cloud) -> None:
    """Also for one port of a host of the release before: it has all ports of its network around it."""
    await cloud.host("h3", "192.0.2.3", before=True)
    net, _ = await cloud.network_with_subnet()
    port, new = await plug(cloud, "s3", net, "h3"), await plug(cloud, "s1", net, "h1")
    async with cloud.network._large.turn("h2"):
        waiting = asyncio.create_task(cloud.network.wiring("h3", (port,), {}))
        assert len((await cloud.network.wiring("h1", (new,), known=Have())).ports) == 1
        await asyncio.sleep(0.1)
        assert not waiting.done()
    assert len((await waiting).ports) == 1


async def test_a_dhcp_port_that_is_made_again_is_heard_of_on_every_host(cloud: Cloud) -> None:
    net, _ = await cloud.network_with_subnet()
    await plug(cloud, "s1", net, "h1")
    [dhcp] = (await cloud.call("admin", "GET", f"/ports?network_id={net}&device_owner=network:dhcp"))["ports"]
    await cloud.call("admin", "DELETE", f"/ports/{dhcp['id']}")
    await cloud.hear()
    cloud.notices.clear()
    await plug(cloud, "s2", net, "h2")
    await cloud.hear()
    assert {notice.host for notice in cloud.notices} == {"h1", "h2"}


async def test_nobody_is_told_of_networks_that_a_host_has_nothing_of(cloud: Cloud) -> None:
    net, _ = await cloud.network_with_subnet()
    await plug(cloud, "s1", net, "h1")
    here, other = [await cloud.network.differences(host, (), (net, "nothing"), Have()) for host in ("h1", "h2")]
    assert [each.id for each in here.placed] == [net] and other == Differences()


async def create_costs(others: int) -> dict[str, int]:
    """What hosts are told and answered because of one create: rows, bytes, and steps of SQLite for those."""
    lab = Growing()
    await lab.start(others)
    cloud, found = lab.cloud, dict[str, int]()
    hosts = [Host(cloud, name) for name in HOSTS]
    for host in hosts:
        await host.client.ask()
    await cloud.hear()
    cloud.notices.clear()
    statements = list[str]()
    sa.event.listen(lab.db.engine, "before_cursor_execute", lambda c, cur, text, *_: statements.append(text))
    server = await lab.plug("h1")
    [port] = (await cloud.network.ports_of((server,)))[server]
    found["create, statements"] = len(statements)
    told: list[News] = []

    async def hear() -> None:
        told.extend(await cloud.hear())

    found["told, steps"] = await lab.cost(hear())
    assert sorted(news.host for news in told) == HOSTS and {notice.host for notice in cloud.notices} == {"h1"}
    messages = [news.message() for news in told]
    found["told, rows"] = sum(len(each.ports) for said in messages for each in (*said.members, *said.placed))
    found["told, bytes"] = len(msgspec.msgpack.encode(messages))
    known, answers = hosts[1].client, list[HostWiring]()
    have = Have(groups=known.members.versions(), networks=known.places.versions())

    async def ask() -> None:
        answers.append(await cloud.network.wiring("h1", (port.id,), known=have))

    found["answer, steps"] = await lab.cost(ask())
    found["answer, bytes"] = len(msgspec.msgpack.encode(answers[0]))
    found["answer, rows"] = sum(len(each.ports) for each in (*answers[0].members, *answers[0].placed))
    found["statements"] = len(statements)
    for host in hosts:
        await host.hear(cloud.notices, told)
        assert not any(host.client.outdated()) and len(host.client.places.of(lab.network)) == others + 5
        assert host.known() == await host.truth()
    await lab.db.close()
    return found


async def test_one_create_costs_as_much_on_a_network_of_two_thousand_ports_as_on_one_of_twenty() -> None:
    few, many = await create_costs(20), await create_costs(2000)
    for name in ("told, rows", "answer, rows", "create, statements", "statements"):
        assert few[name] == many[name], name
    assert (few["told, rows"], few["answer, rows"]) == (8, 2)
    assert all(many[name] <= few[name] * 1.05 + 2 * GRAIN for name in few), {n: (few[n], many[n]) for n in few}
