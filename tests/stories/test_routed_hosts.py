"""A simulated host routes what it is told, over the whole cloud: floating IPs and gateways become ACTIVE by it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.stories.test_images_of_hosts import image, server
from tests.stories.whole_cloud import WholeCloud, whole_cloud


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[WholeCloud]:
    async with whole_cloud(tmp_path) as running:
        yield running


async def call(cloud: WholeCloud, user: str, method: str, path: str, body: Any = None) -> Any:
    answer = await cloud.ask(user, method, "network", path, body)
    assert answer.status_code < 300, answer.text
    return answer.json() if answer.content else None


async def made(cloud: WholeCloud, user: str, kind: str, **values: Any) -> str:
    path = "/floatingips" if kind == "floatingip" else f"/{kind}s"
    return str((await call(cloud, user, "POST", path, {kind: values}))[kind]["id"])


async def until(cloud: WholeCloud, path: str, wanted: str) -> None:
    """Waits until everything that is listed there has that status."""
    async with asyncio.timeout(30):
        while True:
            [found] = (await call(cloud, "admin", "GET", path)).values()
            if {each["status"] for each in (found if isinstance(found, list) else [found])} == {wanted}:
                return
            await asyncio.sleep(0.05)


async def test_a_simulated_host_serves_routers_and_floating_ips(cloud: WholeCloud) -> None:
    async with asyncio.timeout(20):
        while not (agents := (await call(cloud, "admin", "GET", "/agents?agent_type=L3%20agent"))["agents"]):
            await asyncio.sleep(0.05)
    for agent in agents:
        await call(cloud, "admin", "PUT", f"/agents/{agent['id']}", {"agent": {"admin_state_up": True}})
    [public] = [net["id"] for net in (await call(cloud, "admin", "GET", "/networks?router:external=true"))["networks"]]
    if not (await call(cloud, "admin", "GET", f"/subnets?network_id={public}"))["subnets"]:
        await made(cloud, "admin", "subnet", network_id=public, cidr="203.0.113.0/24", ip_version=4, enable_dhcp=False)
    net = await made(cloud, "demo", "network")
    sub = await made(cloud, "demo", "subnet", network_id=net, cidr="10.7.0.0/24", ip_version=4)
    router = await made(cloud, "demo", "router", external_gateway_info={"network_id": public})
    await call(cloud, "demo", "PUT", f"/routers/{router}/add_router_interface", {"subnet_id": sub})
    guest = (await cloud.ask("demo", "POST", "compute", "/servers", {"server": {
        "name": "s", "imageRef": await image(cloud), "flavorRef": "42", "networks": [{"uuid": net}]}})).json()
    await server(cloud, guest["server"]["id"], "ACTIVE")
    [port] = (await call(cloud, "demo", "GET", f"/ports?device_id={guest['server']['id']}"))["ports"]
    floating = await made(cloud, "demo", "floatingip", floating_network_id=public, port_id=port["id"])
    await until(cloud, f"/floatingips/{floating}", "ACTIVE")
    await until(cloud, f"/ports?device_id={router}", "ACTIVE")
    for up, status in ((False, "DOWN"), (True, "ACTIVE")):  # what is back as it was is said again
        await call(cloud, "demo", "PUT", f"/routers/{router}", {"router": {"admin_state_up": up}})
        await until(cloud, f"/floatingips/{floating}", status)
        await until(cloud, f"/ports?device_id={router}", status)
