"""Hosts hear of what is theirs to know, and of no more; and what is gone leaves nothing."""

import asyncio
from typing import Any

import pytest
import sqlalchemy as sa
from tests.stories.network_cloud import Cloud
from tests.stories.test_network_places import plug

from nacre.base.db import Database
from nacre.base.durable.tables import changes as rows_of_changes
from nacre.base.errors import BuildFailed, Interrupted
from nacre.network import tables as t
from nacre.network.contract import DIFFERENCES, AgentReport, Differences, Have, NetworkPorts, Peer, PlacedPort
from nacre.network.hosts import trimming
from nacre.network.hosts.notifications import MOST_IN_ONE, News
from nacre.network.work import NetworkSettings


@pytest.fixture
async def cloud(story_db: Database) -> Cloud:
    made = Cloud(story_db, NetworkSettings())
    for n in (1, 2, 3, 4):
        await made.host(f"h{n}", f"192.0.2.{n}")
    return made


async def rows(cloud: Cloud, table: sa.Table) -> list[Any]:
    return list(await cloud.db.read(lambda c: c.execute(sa.select(table)).all()))


async def test_a_port_that_nothing_could_bind_is_on_no_host(cloud: Cloud) -> None:
    """Else hosts flood to it, and take frames from it, and it is told of a network that it has nothing of."""
    await cloud.network.agent_report(AgentReport(
        host="bare", tunnel_ip="192.0.2.99", bridge_mappings={}, tunnel_types=(), takes=(DIFFERENCES,)))
    net, _ = await cloud.network_with_subnet()
    await plug(cloud, "s1", net, "h1")
    with pytest.raises(BuildFailed):
        await plug(cloud, "s2", net, "bare")
    assert {news.host for news in await cloud.hear() if news.placed} == {"h1"}
    answer = await cloud.network.wiring("h1", (), known=Have())
    assert {port.host for each in answer.placed for port in each.ports.values()} == {"h1"}
    assert await cloud.network.differences("bare", (), (net,), Have()) == Differences()


async def test_a_host_hears_how_to_reach_those_that_share_its_networks_alone(cloud: Cloud) -> None:
    """Also where two networks change in the same moment."""
    mine, _ = await cloud.network_with_subnet()
    theirs, _ = await cloud.network_with_subnet(cidr="10.2.0.0/24")
    for n, net in ((1, mine), (2, mine), (3, theirs), (4, theirs)):
        await plug(cloud, f"s{n}", net, f"h{n}")
    said = {news.host: news.message() for news in await cloud.hear()}
    assert {host: set(message.peers) for host, message in said.items()} == {
        "h1": {"h1", "h2"}, "h2": {"h1", "h2"}, "h3": {"h3", "h4"}, "h4": {"h3", "h4"}}


def test_a_message_that_is_too_large_names_no_peers_of_what_it_leaves_out() -> None:
    ports = {f"p{n}": PlacedPort(mac="fa:16:3e:00:00:01", host=f"h{n}") for n in range(MOST_IN_ONE + 1)}
    peers = {f"h{n}": Peer(tunnel_ip="192.0.2.1", n=5, era="e") for n in range(MOST_IN_ONE + 1)}
    small = NetworkPorts(id="small", n=5, era="e", since=4, ports={"p": PlacedPort(mac="", host="h7")})
    large = NetworkPorts(id="large", n=5, era="e", since=4, ports=ports)
    said = News("h7", {}, {"large": large, "small": small}, peers).message()
    assert set(said.peers) == {"h7"} and [len(each.ports) for each in said.placed] == [0, 1]


async def test_the_answer_to_a_beat_is_of_the_hosts_own_alone(cloud: Cloud) -> None:
    """When others' networks change is not its to know: neither by their number, nor by whether there is one."""
    net, _ = await cloud.network_with_subnet()
    port = await plug(cloud, "s1", net, "h1")
    group = (await cloud.call("one", "GET", f"/ports/{port}"))["port"]["security_groups"][0]
    notifier = cloud.network.difference_notifier
    await notifier.reload()
    groups, networks, _ = await notifier.behind("h1", {group: 0, "nothing": 0}, {net: 0, "nothing": 0})
    assert groups.keys() == {group} and networks.keys() == {net}
    assert await notifier.behind("h1", groups, networks) == ({}, {}, 0)
    assert await notifier.behind("h2", {group: 0}, {net: 0}) == ({}, {}, 0)
    together = await asyncio.gather(*(notifier.behind(host, {group: 0}, {net: 0}) for host in ("h2", "h1", "h3")))
    assert together == [({}, {}, 0), (groups, networks, 0), ({}, {}, 0)]


async def test_a_beat_counts_though_the_database_is_away(cloud: Cloud) -> None:
    """Else every host that is behind looks dead as long as it is."""
    net, _ = await cloud.network_with_subnet()
    await plug(cloud, "s1", net, "h1")
    notifier = cloud.network.difference_notifier
    await notifier.reload()
    with pytest.MonkeyPatch.context() as patch:
        async def away(*_: Any) -> None:
            raise Interrupted("The database does not answer.")

        patch.setattr(cloud.db, "read", away)
        assert await notifier.behind("h1", {}, {net: 0}) == ({}, {}, 0)
    assert (await notifier.behind("h1", {}, {net: 0}))[1].keys() == {net}


async def test_a_network_that_is_gone_leaves_no_rows(cloud: Cloud) -> None:
    net, _ = await cloud.network_with_subnet()
    await plug(cloud, "s1", net, "h1")
    await cloud.network.difference_notifier.reload()
    assert await rows(cloud, t.placed_changes)
    await cloud.network.deallocate("s1")
    await cloud.call("one", "DELETE", f"/networks/{net}")
    assert await rows(cloud, t.placed_changes) == []
    assert net in cloud.network.difference_notifier.last["network"]
    await trimming.trim(cloud.db, cloud.network.difference_notifier)
    assert cloud.network.difference_notifier.last["network"] == {}


async def test_rows_of_what_is_gone_are_trimmed_and_not_read(cloud: Cloud) -> None:
    """Those that an earlier release left; more than one transaction takes."""
    net, _ = await cloud.network_with_subnet()
    await plug(cloud, "s1", net, "h1")
    count = trimming.AT_ONCE + 5

    def fill(connection: sa.Connection) -> None:
        for table, key in ((t.placed_changes, "network_id"), (t.member_changes, "group_id")):
            connection.execute(sa.insert(table), [{key: f"gone-{n}", "n": 1, "port_id": "p" if n % 2 else ""}
                                                  for n in range(count)])
        connection.execute(sa.delete(rows_of_changes).where(
            rows_of_changes.c.n < sa.select(sa.func.max(rows_of_changes.c.n)).scalar_subquery()))

    await cloud.db.run(fill)
    await cloud.network.difference_notifier.reload()
    assert cloud.network.difference_notifier.last["network"].keys() == {net}
    await trimming.trim(cloud.db, cloud.network.difference_notifier)
    assert {row.network_id for row in await rows(cloud, t.placed_changes)} == {net}
    assert not any(row.group_id.startswith("gone") for row in await rows(cloud, t.member_changes))
