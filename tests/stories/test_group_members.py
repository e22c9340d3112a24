"""Hosts hear of a security group's members as differences: of every change that the API can make, at a cost that does
not grow with the group."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from tests.stories.network_cloud import CALLERS, Cloud
from tests.stories.test_network_growth import GRAIN, Growing

from nacre.base.db import Database
from nacre.base.durable import changes, eras
from nacre.base.durable.tables import changes as rows_of_changes
from nacre.base.errors import NotFound
from nacre.cloud.control import tell_differences
from nacre.network import tables as t
from nacre.network.contract import GroupMembers, Have, NetworkRequest, PortsOrder, Versions
from nacre.network.hosts import trimming
from nacre.network.hosts.notifications import News, joined
from nacre.network.work import NetworkSettings
from nacre.node.ovs.client import WiringClient
from nacre.node.ovs.contract import Standing


class Host:
    """What a host makes of what it hears."""

    def __init__(self, cloud: Cloud, name: str):
        self.name, self.cloud, self.client = name, cloud, WiringClient(name, cloud.network)
        self.client.follow(Standing(trusted=True, n=1))

    async def hear(self, told: list[News]) -> None:
        for news in told:
            if news.host == self.name:
                self.client.differ(news.message())

    async def truth(self) -> dict[str, set[str]]:
        """group -> CIDRs, by whoever knows nothing."""
        fresh = Host(self.cloud, self.name)
        await fresh.client.ask()
        return fresh.known()

    def known(self) -> dict[str, set[str]]:
        return {group: self.client.members.cidrs(group) for group in sorted(self.client.desired.named())}


@pytest.fixture
async def cloud(story_db: Database) -> Cloud:
    made = Cloud(story_db, NetworkSettings())
    for n in (1, 2):
        await made.host(f"h{n}", f"192.0.2.{n}")
    return made


async def known_to(cloud: Cloud, host: str, groups: tuple[str, ...], have: Versions) -> tuple[GroupMembers, ...]:
    return (await cloud.network.differences(host, groups, (), Have(groups=have))).members


async def plug(cloud: Cloud, server: str, net: str, host: str) -> str:
    plugged = await cloud.network.plug(PortsOrder(server_id=server, context=CALLERS["one"], requests=(
        NetworkRequest(network_id=net),)), host)
    return plugged.ports[0].id


async def test_every_way_to_change_members_is_heard(cloud: Cloud) -> None:
    """Nothing is asked again: what was told alone makes the host's members those of the database."""
    net, sub = await cloud.network_with_subnet()
    await plug(cloud, "s1", net, "h1")
    here = Host(cloud, "h1")
    await here.client.ask()
    await cloud.hear()
    [group] = here.known()
    port = await plug(cloud, "s2", net, "h2")
    other = (await cloud.call("one", "POST", "/security-groups", {"security_group": {"name": "g"}}))["security_group"]
    subnet: dict[str, Any] = {"network_id": net, "cidr": "2001:db8::/64", "ip_version": 6,
                              "ipv6_address_mode": "slaac", "ipv6_ra_mode": "slaac"}
    six: list[str] = []

    async def put(**values: Any) -> None:
        await cloud.call("one", "PUT", f"/ports/{port}", {"port": values})

    async def readdress() -> None:
        ports = (await cloud.call("one", "GET", f"/ports?network_id={net}"))["ports"]
        taken = {fixed["ip_address"] for p in ports for fixed in p["fixed_ips"]}
        free = next(ip for n in range(100, 200) if (ip := f"10.0.0.{n}") not in taken)
        await put(fixed_ips=[{"subnet_id": sub, "ip_address": free}])

    async def add_subnet() -> None:
        six.append((await cloud.call("one", "POST", "/subnets", {"subnet": subnet}))["subnet"]["id"])

    async def another_mac() -> None:
        await cloud.call("admin", "PUT", f"/ports/{loose['id']}", {"port": {"mac_address": "fa:16:3e:aa:bb:cc"}})

    loose = (await cloud.call("one", "POST", "/ports", {"port": {"network_id": net}}))["port"]
    ways: dict[str, Callable[[], Awaitable[Any]]] = {
        "create": lambda: plug(cloud, "s3", net, "h2"),
        "api create": lambda: cloud.call("one", "POST", "/ports", {"port": {"network_id": net}}),
        "readdress": readdress,
        "pairs": lambda: put(allowed_address_pairs=[{"ip_address": "10.9.0.0/16"}]),
        "no pairs": lambda: put(allowed_address_pairs=[]),
        "leave": lambda: put(security_groups=[other["id"]]),
        "come back": lambda: put(security_groups=[group, other["id"]]),
        "slaac": add_subnet, "another MAC": another_mac,
        "no slaac": lambda: cloud.call("one", "DELETE", f"/subnets/{six[0]}"),
        "insecure": lambda: put(security_groups=[], port_security_enabled=False),
        "secure": lambda: put(security_groups=[group], port_security_enabled=True),
        "delete": lambda: cloud.call("one", "DELETE", f"/ports/{port}"),
        "deallocate": lambda: cloud.network.deallocate("s3")}
    await here.hear(await cloud.hear())
    for way, work in ways.items():
        before = here.known()
        await work()
        told = await cloud.hear()
        await here.hear(told)
        assert not here.client.outdated()[0], way
        assert here.known() == await here.truth() != before, way


async def test_a_host_hears_of_the_groups_that_its_rules_name_and_of_no_other(cloud: Cloud) -> None:
    net, _ = await cloud.network_with_subnet()
    await plug(cloud, "s1", net, "h1")
    [group] = (await cloud.network.wiring("h1", known=Have())).groups
    assert {n.host for n in await cloud.hear() if n.members} == {"h1"}
    assert await known_to(cloud, "h2", (group.id,), {}) == ()
    [mine] = await known_to(cloud, "h1", (group.id, "nothing"), {})
    assert mine.since is None and len(mine.ports) == 1
    lone = (await cloud.call("two", "POST", "/security-groups", {"security_group": {"name": "x"}}))["security_group"]
    assert await known_to(cloud, "h1", (lone["id"],), {}) == ()


async def test_a_host_of_the_release_before_has_the_members_in_its_rules(cloud: Cloud) -> None:
    """It does not say what it knows of groups, and knows no message about members: then it asks for everything."""
    await cloud.host("h1", "192.0.2.1", before=True)
    net, _ = await cloud.network_with_subnet()
    await plug(cloud, "s1", net, "h1")
    await plug(cloud, "s2", net, "h2")
    addresses = {fixed["ip_address"] for port in (await cloud.call("one", "GET", "/ports?device_owner=compute:nova"))[
        "ports"] for fixed in port["fixed_ips"]}

    async def named(have: dict[str, dict[str, int]] | None) -> list[tuple[str, ...] | None]:
        [group] = (await cloud.network.wiring("h1", (), have)).groups
        return [rule.remote for rule in group.rules if rule.remote_group and rule.ethertype == "IPv4"]

    assert [set(remote or ()) for remote in await named(None)] == [{f"{address}/32" for address in addresses}]
    assert await named({}) == [()]


async def test_a_host_that_knows_no_message_about_members_asks_for_everything() -> None:
    class Node:
        rewired: tuple[Any, ...] = ()

        async def differ(self, _: Any) -> None:
            raise NotFound("Nobody answers node.differ here.")

        regroup = differ

        async def rewire(self, *what: Any) -> None:
            self.rewired = what

    node = Node()
    await tell_differences(node, News("h1", {"g": GroupMembers(id="g", n=1, era="e")}, {}, {}))  # type: ignore[arg-type]
    assert node.rewired == ((), 0, 0)


async def test_many_changes_are_one_message(cloud: Cloud) -> None:
    net, _ = await cloud.network_with_subnet()
    for n in range(5):
        await plug(cloud, f"s{n}", net, f"h{n % 2 + 1}")
    told = await cloud.hear()
    assert sorted(n.host for n in told) == ["h1", "h2"]
    assert {len(news.ports) for n in told for news in n.members.values()} == {5}
    await plug(cloud, "s5", net, "h1")
    assert {len(news.ports) for n in await cloud.hear() for news in n.members.values()} == {1}


async def test_differences_join_or_show_the_gap(cloud: Cloud) -> None:
    net, _ = await cloud.network_with_subnet()
    told = []
    for n in range(3):
        await plug(cloud, f"s{n}", net, "h1")
        told += [news for notice in await cloud.hear() for news in notice.members.values()]
    one, two, three = told
    both = joined(two, one)
    assert (both.since, both.n, both.ports) == (one.since, two.n, one.ports | two.ports)
    assert joined(one, three) == three  # what lies between is asked for
    [group] = {news.id for news in told}
    assert News("h1", {group: one}, {}, {}).then(News("h1", {group: two}, {}, {})).members == {group: both}


async def test_what_is_too_old_is_told_whole(cloud: Cloud) -> None:
    net, _ = await cloud.network_with_subnet()
    await plug(cloud, "s1", net, "h1")
    [first] = (await cloud.network.wiring("h1", known=Have())).members
    await plug(cloud, "s2", net, "h1")
    [second] = (await cloud.network.wiring("h1", known=Have())).members
    await cloud.db.run(lambda c: changes.number(c, cloud.clock.now().replace(tzinfo=None), "server"))
    # As Changes does when they were there long enough.
    await cloud.db.run(lambda c: c.execute(sa.delete(rows_of_changes).where(rows_of_changes.c.n <= second.n)))
    for _ in range(2):
        await trimming.trim(cloud.db, cloud.network.difference_notifier)
        rows = await cloud.db.read(lambda c: c.execute(sa.select(t.member_changes)).all())
        assert [(row.port_id, row.n) for row in rows] == [("", second.n)]

    async def since(n: int) -> int | None:
        [found] = await known_to(cloud, "h1", (first.id,), {first.era: {first.id: n}})
        return found.since

    assert await since(first.n) is None and await since(second.n) == second.n
    await plug(cloud, "s3", net, "h1")
    assert await since(first.n) is None and await since(second.n) == second.n


async def test_an_older_database_tells_whole(cloud: Cloud) -> None:
    net, _ = await cloud.network_with_subnet()
    await plug(cloud, "s1", net, "h1")

    def begin(connection: sa.Connection) -> None:
        changes.number(connection, cloud.clock.now().replace(tzinfo=None), "process")
        eras.begin(connection)

    await cloud.db.run(begin)
    [now] = (await cloud.network.wiring("h1", known=Have())).members

    async def since(era: str, n: int) -> int | None:
        [found] = await known_to(cloud, "h1", (now.id,), {era: {now.id: n}})
        return found.since

    assert now.era and await since(now.era, now.n) == now.n
    assert await since(now.era, now.n + 1) is None  # it has seen more of this era than there is
    assert await since("of another history", now.n) is None and await since("", now.n) is None
    assert await since("", now.n - 1) == now.n - 1


async def create_costs(others: int) -> dict[str, int]:
    """What hosts are told and answered because of one create: rows, bytes, and steps of SQLite for those."""
    lab = Growing()
    await lab.start(others)
    cloud, found = lab.cloud, dict[str, int]()
    await lab.cloud.db.run(lambda c: c.execute(sa.delete(t.member_changes)))
    hosts = [Host(cloud, name) for name in ("h0", "h1", "h2", "h3")]
    for host in hosts:
        await host.client.ask()
    await cloud.hear()
    # The port is on a network of its own, so that only the group is large.
    net, _ = await cloud.network_with_subnet(cidr="192.168.0.0/24")
    port = await plug(cloud, "the one", net, "h1")
    told: list[News] = []

    async def hear() -> None:
        told.extend(await cloud.hear())

    found["told, steps"] = await lab.cost(hear())
    assert {n.host for n in told} == {"h0", "h1", "h2", "h3"}
    found["told, rows"] = sum(len(news.ports) for n in told for news in n.members.values())
    found["told, bytes"] = len(msgspec.msgpack.encode([n.message().members for n in told]))
    answers = []

    async def ask() -> None:
        answers.append(await cloud.network.wiring(
            "h1", (port,), known=Have(groups=hosts[1].client.members.versions())))

    found["answer, steps"] = await lab.cost(ask())
    found["answer, rows"] = sum(len(news.ports) for news in answers[0].members)
    found["answer, bytes"] = len(msgspec.msgpack.encode(answers[0]))
    for host in hosts:
        await host.hear(told)
        assert not host.client.outdated()[0] and host.known() == await host.truth()
        (cidrs,) = host.known().values()
        assert len(cidrs) == others + 5
    await lab.db.close()
    return found


async def test_one_create_tells_as_much_in_a_group_of_two_thousand_as_in_one_of_twenty() -> None:
    few, many = await create_costs(20), await create_costs(2000)
    assert (few["told, rows"], few["answer, rows"]) == (4, 1) == (many["told, rows"], many["answer, rows"])
    assert all(many[name] <= few[name] * 1.05 + 2 * GRAIN for name in few), {n: (few[n], many[n]) for n in few}
