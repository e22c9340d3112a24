"""What hosts say and hear: a poisoned report harms its host alone; who a change concerns is known in its transaction;
and who has lost a story's lease changes nothing."""

import asyncio
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from tests.stories.network_cloud import CALLERS, Cloud

from nacre.base.clock import VirtualClock
from nacre.base.db import Database
from nacre.base.durable import changes
from nacre.base.errors import BadRequest, BuildFailed, Unavailable
from nacre.base.rpc.memory import MemoryHub, MemoryTransport
from nacre.base.rpc.server import Peer
from nacre.base.rpc.stub import stub
from nacre.network import tables as t
from nacre.network.contract import TARGET, AgentReport, Guard, Have, Network, NetworkRequest, PortsOrder
from nacre.network.hosts import notifications
from nacre.network.hosts.notifications import Notice
from nacre.network.manager import NetworkManager, NetworkParts
from nacre.network.ml2.type_drivers import SegmentTypes
from nacre.network.work import NetworkSettings, Work


@pytest.fixture
async def cloud(story_db: Database) -> Cloud:
    made = Cloud(story_db, NetworkSettings(types=SegmentTypes(vlan_ranges={"physnet1": (100, 110)})))
    for n in (1, 2):
        await made.host(f"h{n}", f"192.0.2.{n}")
    return made


def order(server: str, net: str, guard: Guard | None = None) -> PortsOrder:
    return PortsOrder(server_id=server, context=CALLERS["one"], requests=(NetworkRequest(network_id=net),), guard=guard)


async def test_a_poisoned_report_harms_its_host_alone(cloud: Cloud) -> None:
    """By RPC, as a node speaks: it is the one who hears why."""
    hub = MemoryHub(clock=VirtualClock())
    control, node = MemoryTransport(hub), MemoryTransport(hub, me=Peer("h9", "node"))
    control.serve(TARGET, cloud.network, Network, {"agent_report": ("node",)})
    speak = stub(Network, node.client(TARGET))
    net, _ = await cloud.network_with_subnet()
    await cloud.network.plug(order("s1", net), "h1")
    await cloud.network.plug(order("s2", net), "h2")

    async def around() -> Any:
        found = await cloud.network.wiring("h1", known=Have())
        return {host: way.tunnel_ip for host, way in found.peers.items()}, [
            each.ports for each in found.placed], found.ports

    before = await around()
    for tunnel_ip in ("fd00::1", "evil", "224.0.0.1"):
        with pytest.raises(BadRequest, match="tunnel_ip"):
            await speak.agent_report(AgentReport(host="h9", tunnel_ip=tunnel_ip, bridge_mappings={},
                                                 tunnel_types=("vxlan",)))
    with pytest.raises(BuildFailed):
        await cloud.network.plug(order("s3", net), "h9")
    assert await around() == before
    await speak.agent_report(AgentReport(host="h9", tunnel_ip="192.0.2.9", bridge_mappings={}, tunnel_types=("vxlan",)))
    await cloud.network.plug(order("s3", net), "h9")
    assert set((await around())[0].values()) == {"192.0.2.1", "192.0.2.2", "192.0.2.9"}
    await control.close()
    await node.close()


async def test_an_address_that_is_none_is_never_passed_on(cloud: Cloud) -> None:
    """Whatever an agent's row says, as of before reports were checked."""
    net, _ = await cloud.network_with_subnet()
    await cloud.network.plug(order("s1", net), "h1")
    await cloud.network.plug(order("s2", net), "h2")
    a = t.agents.c
    await cloud.db.run(lambda c: c.execute(sa.update(t.agents).where(a.host == "h2", a.tunnel_ip.is_not(None)).values(
        tunnel_ip=None, configurations={"tunnel_ip": "evil", "tunnel_types": ["vxlan"]})))
    wiring = await cloud.network.wiring("h1", known=Have())
    assert wiring.peers.keys() == {"h1"} and len(wiring.ports) == 1


class Seams:
    """What the process around the service gives it, watched."""

    def __init__(self) -> None:
        self.recorded: list[set[str]] = []
        self.during: list[bool] = []
        self.breaks = False

    def record(self, work: Work, hosts: Collection[str]) -> tuple[int, Mapping[str, int]]:
        self.during.append(work.conn.in_transaction())
        self.recorded.append(set(hosts))
        if self.breaks:
            raise Unavailable("cannot be written down")
        return notifications.record(work, hosts)


class Held:
    """A guard of that name."""

    def __init__(self, stands: bool) -> None:
        self.stands = stands

    def check(self, connection: sa.Connection) -> None:
        assert connection.in_transaction()
        if not self.stands:
            raise Unavailable("the lease is lost")


GOOD, LOST = Held(True), Held(False)


@pytest.fixture
async def seams(cloud: Cloud) -> Seams:
    made = Seams()
    cloud.network = NetworkManager(cloud.db, cloud.network.policy, cloud.clock, cloud.network.settings,
                                   NetworkParts(notify=cloud._notify, record=made.record))
    return made


async def test_who_a_change_concerns_is_written_in_its_transaction(cloud: Cloud, seams: Seams) -> None:
    net, _ = await cloud.network_with_subnet()
    assert seams.recorded == []  # nobody has it yet
    await cloud.network.plug(order("s1", net), "h1")
    assert seams.recorded == [{"h1"}]
    await cloud.network.plug(order("s2", net), "h2")
    await cloud.network.wired("h1", (), True)
    assert seams.recorded == [{"h1"}, {"h2"}] and all(seams.during)
    await asyncio.sleep(0.02)
    cloud.notified.clear()
    # What cannot be written down does not happen, and nobody hears of it.
    seams.breaks = True
    with pytest.raises(Unavailable):
        await cloud.network.deallocate("s2")
    await asyncio.sleep(0.02)
    assert len((await cloud.network.wiring("h2", known=Have())).ports) == 1 and cloud.notified == []


async def test_a_host_sees_what_it_has_missed(cloud: Cloud, seams: Seams) -> None:
    """Each notice names the change before it, whoever made that, and a fetched answer the last that it contains."""
    net, _ = await cloud.network_with_subnet()
    start = (await cloud.network.wiring("h2", known=Have())).n
    await cloud.network.plug(order("s1", net), "h1")
    await cloud.network.plug(order("s2", net), "h2")
    await asyncio.sleep(0.02)
    (one,) = [notice for notice in cloud.notices if notice.host == "h2"]
    assert one.before <= start < one.n <= (await cloud.network.wiring("h2", known=Have())).n
    # Another control process, whose notice is lost.
    await cloud.db.run(lambda c: changes.chain(c, datetime(2026, 1, 1), "wiring", ["h2"]))
    missed = (await cloud.network.wiring("h2", known=Have())).n
    cloud.notices.clear()
    await cloud.network.plug(order("s3", net), "h2")
    await asyncio.sleep(0.02)
    (two,) = [notice for notice in cloud.notices if notice.host == "h2"]
    assert one.n < two.before == missed < two.n
    assert one.then(two) == two.then(one) == Notice("h2", one.ports | two.ports, two.n, two.before)
    three = Notice("h2", frozenset({"p"}), two.n + 5, two.n)
    assert two.then(three) == Notice("h2", two.ports | {"p"}, three.n, two.before)
    assert two.then(Notice("h2", frozenset())).ports == frozenset()


async def test_who_lost_the_lease_changes_nothing(cloud: Cloud, seams: Seams) -> None:
    net, _ = await cloud.network_with_subnet()
    with pytest.raises(Unavailable, match="lease"):
        await cloud.network.plug(order("s", net, LOST), "h1")
    assert (await cloud.network.ports_of(("s",)))["s"] == ()
    await cloud.network.plug(order("s", net, GOOD), "h1")

    async def state() -> object:
        return msgspec.json.encode([await cloud.network.wiring(h, known=Have()) for h in ("h1", "h2")])

    before = await state()
    for verb in (lambda: cloud.network.bind("s", "h2", LOST), lambda: cloud.network.unbind("s", "h1", LOST),
                 lambda: cloud.network.activate("s", "h1", LOST), lambda: cloud.network.deallocate("s", LOST)):
        with pytest.raises(Unavailable, match="lease"):
            await verb()
    assert await state() == before
    await cloud.network.bind("s", "h2", GOOD)
    await cloud.network.activate("s", "h2", GOOD)
    await cloud.network.unbind("s", "h1", GOOD)
    await cloud.network.deallocate("s", GOOD)
    assert (await cloud.network.ports_of(("s",)))["s"] == ()


async def test_what_changes_every_port_of_a_network_concerns_all_of_each_host(cloud: Cloud) -> None:
    net, _ = await cloud.network_with_subnet()
    for n, host in enumerate(("h1", "h1", "h2")):
        await cloud.network.plug(order(f"s{n}", net), host)

    async def heard() -> list[tuple[set[str], tuple[str, ...]]]:
        await asyncio.sleep(0.02)
        found, cloud.notified = sorted(cloud.notified, key=str), []
        return found

    await heard()
    slaac = await cloud.call("one", "POST", "/subnets", {"subnet": {
        "network_id": net, "ip_version": 6, "cidr": "2001:db8::/64", "ipv6_ra_mode": "slaac",
        "ipv6_address_mode": "slaac"}})
    assert await heard() == [({"h1"}, ()), ({"h2"}, ())]
    await cloud.call("one", "DELETE", f"/subnets/{slaac['subnet']['id']}")
    assert await heard() == [({"h1"}, ()), ({"h2"}, ())]
    await cloud.call("one", "PUT", f"/networks/{net}", {"network": {"admin_state_up": False}})
    assert await heard() == [({"h1"}, ()), ({"h2"}, ())]
    await cloud.call("one", "PUT", f"/networks/{net}", {"network": {"name": "n"}})
    assert [len(ports) for _, ports in await heard()] == [1, 1]


async def test_other_hosts_hear_of_an_address_that_changed(cloud: Cloud) -> None:
    net, sub = await cloud.network_with_subnet()
    await cloud.network.plug(order("s1", net), "h1")
    plugged = await cloud.network.plug(order("s2", net), "h2")
    await cloud.hear()
    cloud.notices.clear()
    await cloud.call("one", "PUT", f"/ports/{plugged.ports[0].id}", {"port": {"fixed_ips": [{
        "subnet_id": sub, "ip_address": "10.0.0.77"}]}})
    told = await cloud.hear()
    assert {notice.host for notice in cloud.notices} == {"h2"} and {news.host for news in told} == {"h1", "h2"}
    assert {port.addresses for news in told for port in news.placed[net].ports.values()} == {("10.0.0.77",)}
