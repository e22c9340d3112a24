"""Gateway hosts: who may be one, when elections are held, and what the statuses say of who was."""

import asyncio
from typing import Any

import pytest
import sqlalchemy as sa
from tests import schema
from tests.stories.network_cloud import CALLERS, Cloud, elected, external, gateway

from nacre.base.context import service_context
from nacre.base.db import Database
from nacre.network.contract import AgentReport, NetworkRequest, PortsOrder, Served
from nacre.network.l3 import reports
from nacre.network.l3.gateway_hosts import LOOK, MISSED, SWEEP
from nacre.network.work import NetworkSettings


@pytest.fixture
def cloud(story_db: Database) -> Cloud:
    return Cloud(story_db)


async def routed(cloud: Cloud) -> str:
    return str((await cloud.call("one", "POST", "/routers", {"router": {"external_gateway_info": {
        "network_id": await external(cloud)}}}))["router"]["id"])


async def test_a_host_is_elected_only_if_it_says_so_and_an_operator_agrees(cloud: Cloud) -> None:
    """As Neutron's L3 agents with enable_new_agents off. What a host says of its bridges is its own word alone."""
    await cloud.host("plain", "192.0.2.9")
    await gateway(cloud, 1, enabled=False)
    router = await routed(cloud)
    for _ in range(2):
        await cloud.network.elections.look()
        await cloud.network.elections.sweep()
        assert await elected(cloud, router) == (None, 0)
    [l3] = (await cloud.call("admin", "GET", "/agents?agent_type=L3%20agent"))["agents"]
    assert l3["host"] == "h1" and l3["admin_state_up"] is False
    await cloud.call("admin", "PUT", f"/agents/{l3['id']}", {"agent": {"admin_state_up": True}})
    await gateway(cloud, 1, enabled=False)  # it reports again, which changes nothing
    await cloud.network.elections.sweep()
    assert await elected(cloud, router) == ("h1", 1)
    await cloud.call("admin", "PUT", f"/agents/{l3['id']}", {"agent": {"admin_state_up": False}})
    await gateway(cloud, 2)
    for _ in range(MISSED):
        await cloud.network.elections.sweep()
    assert await elected(cloud, router) == ("h2", 2)


async def test_the_host_of_the_machine_itself_is_switched_on_once(story_db: Database) -> None:
    """`nacre up` starts it: nobody else's word is needed, and an operator's counts from then on."""
    cloud = Cloud(story_db, NetworkSettings(own_host="h1"))
    for n in (1, 2):
        await gateway(cloud, n, enabled=False)
    agents = (await cloud.call("admin", "GET", "/agents?agent_type=L3%20agent"))["agents"]
    assert {a["host"]: a["admin_state_up"] for a in agents} == {"h1": True, "h2": False}
    router = await routed(cloud)
    await cloud.network.elections.look()
    assert await elected(cloud, router) == ("h1", 1)
    [own] = [a["id"] for a in agents if a["host"] == "h1"]
    await cloud.call("admin", "PUT", f"/agents/{own}", {"agent": {"admin_state_up": False}})
    for _ in range(2):
        await cloud.pass_time(100)
        await gateway(cloud, 1, enabled=False)
    assert (await cloud.call("admin", "GET", f"/agents/{own}"))["agent"]["admin_state_up"] is False


async def test_a_gateway_that_was_set_before_any_host_came_gets_one(cloud: Cloud) -> None:
    router = await routed(cloud)
    await cloud.network.elections.look()
    await gateway(cloud, 1)
    await cloud.network.elections.sweep()
    assert await elected(cloud, router) == ("h1", 1)


async def test_one_missed_report_elects_nobody(cloud: Cloud) -> None:
    for n in (1, 2):
        await gateway(cloud, n)
    router = await routed(cloud)
    await cloud.network.elections.look()
    [host, _] = await elected(cloud, router)
    await cloud.pass_time(100)
    await gateway(cloud, 2 if host == "h1" else 1)
    for _ in range(MISSED - 1):
        await cloud.network.elections.sweep()
    await gateway(cloud, int(host[1]))
    for _ in range(MISSED):
        await cloud.network.elections.sweep()
    assert await elected(cloud, router) == (host, 1)


async def test_who_serves_is_replaced_by_no_change_of_the_router(cloud: Cloud) -> None:
    """Silent for a moment: three sweeps judge that, whatever is set meanwhile."""
    for n in (1, 2):
        await gateway(cloud, n)
    router = await routed(cloud)
    await cloud.network.elections.look()
    [host, _] = await elected(cloud, router)
    await cloud.pass_time(100)
    await gateway(cloud, 2 if host == "h1" else 1)
    await cloud.call("one", "PUT", f"/routers/{router}", {"router": {"name": "other"}})
    _, sub = await cloud.network_with_subnet()
    await cloud.call("one", "PUT", f"/routers/{router}/add_router_interface", {"subnet_id": sub})
    await cloud.network.elections.look()
    assert await elected(cloud, router) == (host, 1)


async def test_a_control_that_starts_elects_where_nobody_serves_and_judges_nobody_yet(story_db: Database) -> None:
    before = Cloud(story_db)
    await gateway(before, 1)
    served = await routed(before)
    await before.network.elections.look()
    public = (await before.call("one", "GET", f"/routers/{served}"))["router"]["external_gateway_info"]["network_id"]
    vacant = (await before.call("one", "POST", "/routers", {"router": {"external_gateway_info": {
        "network_id": public}}}))["router"]["id"]
    await before.pass_time(100)
    after = Cloud(story_db)
    await after.clock.advance(100)
    await gateway(after, 2)
    task = asyncio.create_task(after.network.elections.run())
    await asyncio.sleep(0)
    await pass_slowly(after, SWEEP, 0.02)
    assert await elected(after, vacant) == ("h2", 1)
    await pass_slowly(after, (MISSED + 1) * SWEEP, 0.02)
    assert await elected(after, served) == ("h1", 1)
    task.cancel()


async def test_elections_go_on_by_themselves() -> None:
    cloud = Cloud(schema.in_memory())
    for n in (1, 2):
        await gateway(cloud, n)
    task = asyncio.create_task(cloud.network.elections.run())
    await asyncio.sleep(0)
    router = await routed(cloud)
    await pass_slowly(cloud, 2 * LOOK)
    [host, _] = await elected(cloud, router)
    assert host
    other = 2 if host == "h1" else 1
    for _ in range(int((2 * cloud.network.settings.agent_down_after + (MISSED + 1) * SWEEP) // SWEEP)):
        await pass_slowly(cloud, SWEEP)
        await gateway(cloud, other)
    assert await elected(cloud, router) == (f"h{other}", 2)
    task.cancel()
    await cloud.db.close()


async def pass_slowly(cloud: Cloud, seconds: float, each: float = 0.001) -> None:
    for _ in range(int(seconds)):
        await cloud.clock.advance(1)
        await asyncio.sleep(each)  # the database may have threads


async def test_a_removed_host_is_no_gateway_host_and_what_it_said_is_over(cloud: Cloud) -> None:
    await gateway(cloud, 1)
    router = await routed(cloud)
    await cloud.network.elections.look()
    await cloud.network.routed("h1", Served(gateways={router: 1}), True)
    assert await status(cloud, router) == "ACTIVE"
    await cloud.network.forget_host("h1")
    assert await elected(cloud, router) == (None, 1) and await status(cloud, router) == "DOWN"
    await gateway(cloud, 2)
    await cloud.network.elections.look()
    assert await elected(cloud, router) == ("h2", 2) and await status(cloud, router) == "DOWN"


async def status(cloud: Cloud, router: str, owner: str = "network:router_gateway") -> str:
    [port] = (await cloud.call("admin", "GET", f"/ports?device_id={router}&device_owner={owner}"))["ports"]
    return str(port["status"])


async def test_a_router_that_is_switched_off_has_nothing_that_is_up(cloud: Cloud) -> None:
    await gateway(cloud, 1)
    router = await routed(cloud)
    await cloud.network.elections.look()
    net, sub = await cloud.network_with_subnet()
    await cloud.call("one", "PUT", f"/routers/{router}/add_router_interface", {"subnet_id": sub})
    await plug(cloud, net, "h1")
    leg = "network:router_interface"

    def say(work: Any) -> None:
        reports.routed(work, "h1", Served(routers=(router,), gateways={router: 1}), True)

    await cloud.network.write(service_context(), say)
    assert (await status(cloud, router), await status(cloud, router, leg)) == ("ACTIVE", "ACTIVE")
    await cloud.call("one", "PUT", f"/routers/{router}", {"router": {"admin_state_up": False}})
    assert (await status(cloud, router), await status(cloud, router, leg)) == ("DOWN", "DOWN")
    await cloud.network.write(service_context(), say)  # it has not heard yet
    assert (await status(cloud, router), await status(cloud, router, leg)) == ("DOWN", "DOWN")


async def plug(cloud: Cloud, net: str, host: str) -> str:
    plugged = await cloud.network.plug(PortsOrder(server_id="s", context=CALLERS["one"], requests=(
        NetworkRequest(network_id=net),)), host)
    return plugged.ports[0].id


@pytest.mark.parametrize("way", ["move", "unbind", "bind by the API", "forget", "fail", "switch off"])
async def test_a_floating_ip_is_down_as_soon_as_its_port_is_elsewhere(cloud: Cloud, way: str) -> None:
    """The former host has no word in it any more, and the new one has said nothing yet."""
    for n in (1, 2):
        await gateway(cloud, n)
    router = await routed(cloud)
    public = (await cloud.call("one", "GET", f"/routers/{router}"))["router"]["external_gateway_info"]["network_id"]
    net, sub = await cloud.network_with_subnet()
    await cloud.call("one", "PUT", f"/routers/{router}/add_router_interface", {"subnet_id": sub})
    port = await plug(cloud, net, "h1")
    fip = (await cloud.call("one", "POST", "/floatingips", {"floatingip": {
        "floating_network_id": public, "port_id": port}}))["floatingip"]["id"]
    await cloud.network.routed("h1", Served(floating=(fip,)), True)

    async def says() -> str:
        return str((await cloud.call("one", "GET", f"/floatingips/{fip}"))["floatingip"]["status"])

    await cloud.call("admin", "PUT", f"/ports/{port}", {"port": {"binding:host_id": "h1"}})
    assert await says() == "ACTIVE"  # it is where it was
    if way == "move":
        await cloud.network.bind("s", "h2")
        assert await says() == "ACTIVE"
        await cloud.network.activate("s", "h2")
    elif way == "unbind":
        await cloud.network.unbind("s", "h1")
    elif way == "forget":
        await cloud.network.forget_host("h1")
    elif way == "fail":  # bound anew where it was, which nothing can
        failed = await cloud.call("admin", "PUT", f"/ports/{port}", {"port": {"binding:vnic_type": "direct"}})
        assert failed["port"]["binding:vif_type"] == "binding_failed"
    elif way == "switch off":
        await cloud.call("one", "PUT", f"/routers/{router}", {"router": {"admin_state_up": False}})
    else:
        await cloud.call("admin", "PUT", f"/ports/{port}", {"port": {"binding:host_id": "h2"}})
    assert await says() == "DOWN"
    if way in ("fail", "switch off"):
        await cloud.network.routed("h1", Served(floating=(fip,)), True)
        assert await says() == "DOWN"
    await cloud.network.routed("h2", Served(floating=(fip,)), True)
    assert await says() == ("ACTIVE" if way in ("move", "bind by the API") else "DOWN")


async def test_the_put_of_a_gateway_reads_no_host_in_its_transaction(cloud: Cloud) -> None:
    """Nor does the election, but for those that say that they reach the network."""
    for n in (1, 2):
        await gateway(cloud, n)
    router = await routed(cloud)
    gateways = (await cloud.call("one", "GET", f"/routers/{router}"))["router"]["external_gateway_info"]
    await cloud.network.elections.look()
    asked = list[str]()
    sa.event.listen(cloud.db.engine, "before_cursor_execute", lambda c, cur, text, *_: asked.append(text))
    await cloud.call("one", "PUT", f"/routers/{router}", {"router": {"external_gateway_info": {
        "network_id": gateways["network_id"]}}})
    assert asked and not any("network_agents" in text for text in asked)
    before = len(asked)
    await cloud.network.elections.look()
    assert not any(text.startswith(("UPDATE", "INSERT")) for text in asked[before:])


async def test_what_changed_while_an_election_was_held_stands(cloud: Cloud) -> None:
    await gateway(cloud, 1)
    router = await routed(cloud)
    public = (await cloud.call("one", "GET", f"/routers/{router}"))["router"]["external_gateway_info"]["network_id"]
    held = cloud.network.write

    async def late(*args: Any) -> Any:
        cloud.network.write = held  # type: ignore[method-assign]
        await cloud.call("one", "PUT", f"/routers/{router}", {"router": {"external_gateway_info": None}})
        return await held(*args)

    cloud.network.write = late  # type: ignore[method-assign,assignment]
    await cloud.network.elections.look()
    assert await elected(cloud, router) == (None, 0)
    await cloud.call("one", "PUT", f"/routers/{router}", {"router": {"external_gateway_info": {"network_id": public}}})
    await cloud.network.elections.look()
    assert await elected(cloud, router) == ("h1", 1)


async def test_a_host_that_reaches_what_is_inside_takes_over_when_a_router_joins_that(cloud: Cloud) -> None:
    """h1 has no tunnels, and is the only one at first."""
    await cloud.network.agent_report(AgentReport(
        host="h1", tunnel_ip=None, bridge_mappings={"physnet1": "br-ex"}, tunnel_types=(),
        agents=("Open vSwitch agent", "L3 agent")))
    [l3] = (await cloud.call("admin", "GET", "/agents?host=h1&agent_type=L3%20agent"))["agents"]
    await cloud.call("admin", "PUT", f"/agents/{l3['id']}", {"agent": {"admin_state_up": True}})
    router = await routed(cloud)
    await cloud.network.elections.look()
    await gateway(cloud, 2)
    _, sub = await cloud.network_with_subnet()
    assert await elected(cloud, router) == ("h1", 1)
    await cloud.call("one", "PUT", f"/routers/{router}/add_router_interface", {"subnet_id": sub})
    await cloud.network.elections.look()
    assert await elected(cloud, router) == ("h2", 2)
