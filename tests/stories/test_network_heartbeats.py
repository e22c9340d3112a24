"""Agents' reports: what is new is written at once, what is repeated seldom and together."""

import asyncio
from datetime import datetime, timedelta

import msgspec
import pytest
import sqlalchemy as sa
from tests.stories.network_cloud import CALLERS, Cloud

from nacre.base.clock import RealClock
from nacre.base.db import Database
from nacre.base.durable.processes import database_now
from nacre.network import tables as t
from nacre.network.contract import DIFFERENCES, AgentReport, NetworkRequest, PortsOrder
from nacre.network.manager import NetworkManager


@pytest.fixture
def cloud(story_db: Database) -> Cloud:
    return Cloud(story_db)


async def report(cloud: Cloud, host: str, tunnel_ip: str) -> None:
    await cloud.network.agent_report(AgentReport(
        host=host, tunnel_ip=tunnel_ip, bridge_mappings={}, tunnel_types=("vxlan",)))
    await asyncio.sleep(0.01)


async def ages(cloud: Cloud) -> dict[str, float]:
    """host -> seconds since its row's heartbeat, but for those that a test takes."""
    def unit(connection: sa.Connection) -> dict[str, float]:
        now = database_now(connection, cloud.clock)
        rows = connection.execute(sa.select(t.agents.c.host, t.agents.c.heartbeat_at)).all()
        return {host: (now - at).total_seconds() // 5 * 5 for host, at in rows}

    return await cloud.db.read(unit)


async def pass_time(cloud: Cloud, seconds: float) -> None:
    """Until what comes due has also reached the database."""
    await cloud.pass_time(seconds)
    await asyncio.sleep(0.2)


async def test_repeated_reports_refresh_the_rows_seldom_but_in_time(cloud: Cloud) -> None:
    for host in ("h1", "h2"):
        await report(cloud, host, "192.0.2." + host[1])
    for seconds in (10, 20, 30):
        await pass_time(cloud, 10)
        for host in ("h1", "h2"):
            await report(cloud, host, "192.0.2." + host[1])
        assert set((await ages(cloud)).values()) == {seconds}
    await pass_time(cloud, 2)
    assert all(age < 2 for age in (await ages(cloud)).values())


class Ahead(RealClock):
    """A machine's clock that is wrong by so many seconds."""

    def __init__(self, seconds: float = 0.0):
        self.seconds = seconds

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self.seconds)


async def plugged(cloud: Cloud, network: NetworkManager, server: str, net: str) -> str | None:
    found = await network.plug(PortsOrder(
        server_id=server, context=CALLERS["one"], requests=(NetworkRequest(network_id=net),)), "h1")
    return found.ports[0].vif_type


async def test_a_wall_clock_that_is_set_costs_no_host_its_agent(story_db: Database) -> None:
    """A machine that slept, a step of its clock: neither before its next beat nor after it."""
    cloud = Cloud(story_db)
    clock = cloud.clock = Ahead()  # type: ignore[assignment]
    cloud.network = NetworkManager(story_db, cloud.network.policy, clock, cloud.network.settings)
    net, _ = await cloud.network_with_subnet()
    await report(cloud, "h1", "192.0.2.1")
    assert await plugged(cloud, cloud.network, "s1", net) == "ovs"
    for n, seconds in enumerate((120.0, -120.0)):
        clock.seconds += seconds
        assert await plugged(cloud, cloud.network, f"u{n}", net) == "ovs"
        await report(cloud, "h1", "192.0.2.1")
        assert await plugged(cloud, cloud.network, f"t{n}", net) == "ovs"


async def test_controls_whose_clocks_differ_agree_on_who_lives(postgres_tables: str) -> None:
    db = Database(postgres_tables)
    cloud = Cloud(db)
    net, _ = await cloud.network_with_subnet()
    one, two = (NetworkManager(db, cloud.network.policy, Ahead(seconds), cloud.network.settings)
                for seconds in (0.0, 120.0))
    said = AgentReport(host="h1", tunnel_ip="192.0.2.1", bridge_mappings={}, tunnel_types=("vxlan",))
    await one.agent_report(said)
    assert await plugged(cloud, two, "s1", net) == "ovs"
    await db.close()


async def test_news_and_the_return_of_a_dead_host_are_written_at_once(cloud: Cloud) -> None:
    await report(cloud, "h1", "192.0.2.1")
    await pass_time(cloud, 5)
    await report(cloud, "h1", "192.0.2.9")
    assert await ages(cloud) == {"h1": 0}
    await pass_time(cloud, 100)
    await report(cloud, "h1", "192.0.2.9")
    assert await ages(cloud) == {"h1": 0}


async def test_an_agent_that_an_operator_removed_comes_back_with_its_next_report(cloud: Cloud) -> None:
    await report(cloud, "h1", "192.0.2.1")
    before = (await cloud.call("admin", "GET", "/agents"))["agents"]
    await cloud.call("admin", "DELETE", f"/agents/{before[0]['id']}")
    await report(cloud, "h1", "192.0.2.1")
    after = (await cloud.call("admin", "GET", "/agents"))["agents"]
    assert {a["agent_type"] for a in after} == {a["agent_type"] for a in before}


async def test_an_agent_that_its_host_does_not_name_any_more_is_gone(cloud: Cloud) -> None:
    """Also to a control process that did not hear of it before; else the host could be elected for ever."""
    router = AgentReport(host="h1", tunnel_ip="192.0.2.1", bridge_mappings={}, tunnel_types=("vxlan",),
                         agents=("Open vSwitch agent", "L3 agent"))
    switch = msgspec.structs.replace(router, agents=("Open vSwitch agent",))

    async def kinds() -> set[str]:
        return {agent["agent_type"] for agent in (await cloud.call("admin", "GET", "/agents?host=h1"))["agents"]}

    await report(cloud, "h2", "192.0.2.2")
    other = NetworkManager(cloud.db, cloud.network.policy, cloud.clock, cloud.network.settings)
    for network in (cloud.network, other):
        await cloud.network.agent_report(router)
        assert await kinds() == {"Open vSwitch agent", "L3 agent"}
        await network.agent_report(switch)
        assert await kinds() == {"Open vSwitch agent"}
        await pass_time(cloud, 60)  # else the first process thinks that its own words stand
    assert len((await cloud.call("admin", "GET", "/agents?host=h2"))["agents"]) == 3


async def test_what_an_operator_switched_off_stays_off_though_its_host_leaves_it_out_for_a_while(cloud: Cloud) -> None:
    """A host must not switch its own agents on again."""
    said = AgentReport(host="h1", tunnel_ip="192.0.2.1", bridge_mappings={}, tunnel_types=("vxlan",),
                       agents=("Open vSwitch agent", "DHCP agent"))
    await cloud.network.agent_report(said)
    for agent in (await cloud.call("admin", "GET", "/agents?host=h1"))["agents"]:
        await cloud.call("admin", "PUT", f"/agents/{agent['id']}", {"agent": {"admin_state_up": False}})
    for agents in ((), said.agents):
        await pass_time(cloud, 60)
        await cloud.network.agent_report(msgspec.structs.replace(said, agents=agents))
        found = (await cloud.call("admin", "GET", "/agents?host=h1"))["agents"]
        assert {agent["agent_type"]: agent["admin_state_up"] for agent in found} == dict.fromkeys(said.agents, False)


async def test_rows_that_are_gone_without_our_knowledge_are_written_anew(cloud: Cloud) -> None:
    await report(cloud, "h1", "192.0.2.1")
    await cloud.db.run(lambda c: c.execute(sa.delete(t.agents)))
    await pass_time(cloud, 30)
    await report(cloud, "h1", "192.0.2.1")  # due, and found to be missing
    await pass_time(cloud, 2)
    await report(cloud, "h1", "192.0.2.1")
    assert await ages(cloud) == {"h1": 0}


async def test_a_hosts_tunnel_address_concerns_those_that_share_its_networks(cloud: Cloud) -> None:
    for n in (1, 2, 3):
        await report(cloud, f"h{n}", f"192.0.2.{n}")
    net, _ = await cloud.network_with_subnet()
    for server, host in (("s1", "h1"), ("s2", "h2")):
        await cloud.network.plug(PortsOrder(server_id=server, context=CALLERS["one"],
                                            requests=(NetworkRequest(network_id=net),)), host)
    await asyncio.sleep(0.1)
    cloud.notified.clear()
    await report(cloud, "h4", "192.0.2.4")  # a new host has no ports: those that get one hear of it then
    await report(cloud, "h3", "192.0.2.33")
    await asyncio.sleep(0.1)
    assert cloud.notified == []
    await report(cloud, "h2", "192.0.2.22")
    await asyncio.sleep(0.1)
    assert cloud.notified == [({"h1"}, ())]
    assert (await cloud.network.wiring("h1")).tunnels == ("192.0.2.22",)
    cloud.notified.clear()
    for said in ({"bridge_mappings": {"physnet1": "br-ex"}}, {"datapath_type": "system"}, {"takes": (DIFFERENCES,)},
                 {"agents": ("Open vSwitch agent", "L3 agent")}, {}):  # which no other host is told
        await cloud.network.agent_report(AgentReport(**({
            "host": "h2", "tunnel_ip": "192.0.2.22", "bridge_mappings": {}, "tunnel_types": ("vxlan",)} | said)))
        await asyncio.sleep(0.1)
    assert cloud.notified == []
    await cloud.network.agent_report(AgentReport(host="h2", tunnel_ip=None, bridge_mappings={}, tunnel_types=()))
    await asyncio.sleep(0.1)
    assert cloud.notified == [({"h1"}, ())]
