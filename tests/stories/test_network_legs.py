"""What a router's interface may be and become: no port of a server's, and by no way on what the router cannot be on."""

from typing import Any

import pytest
from tests.stories.network_cloud import CALLERS, Cloud
from tests.stories.test_network_routers import external, port_on, refused, routed

from nacre.base.context import service_context
from nacre.base.db import Database
from nacre.network import ports
from nacre.network.contract import NetworkRequest, PortsOrder
from nacre.network.l3.interfaces import MAX_ABROAD, MAX_JOINED
from nacre.network.work import Work

SERVER = "11111111-2222-4333-8444-555555555555"


@pytest.fixture
def cloud(story_db: Database) -> Cloud:
    return Cloud(story_db)


async def test_a_servers_port_is_no_interface_and_no_subport(cloud):
    """Whatever its owner says that it is."""
    await cloud.host("h1", "192.0.2.1")
    net, _ = await cloud.network_with_subnet()
    port = (await cloud.network.plug(PortsOrder(server_id=SERVER, context=CALLERS["one"], requests=(
        NetworkRequest(network_id=net),)), "h1")).ports[0].id
    router = (await cloud.call("one", "POST", "/routers", {"router": {}}))["router"]["id"]
    parent = (await port_on(cloud, net))["id"]
    trunk = (await cloud.call("one", "POST", "/trunks", {"trunk": {"port_id": parent}}))["trunk"]["id"]
    carried = {"sub_ports": [{"port_id": port, "segmentation_type": "vlan", "segmentation_id": 7}]}
    for _ in range(2):
        assert await refused(cloud, "PUT", f"/routers/{router}/add_router_interface", {"port_id": port}, 409) == (
            "PortInUse")
        assert await refused(cloud, "PUT", f"/trunks/{trunk}/add_subports", carried, 409) == "PortInUse"
        await cloud.call("one", "PUT", f"/ports/{port}", {"port": {"device_id": ""}})
    # Nor is what a host has already.
    bound = (await cloud.call("admin", "POST", "/ports", {"port": {
        "network_id": net, "binding:host_id": "h1", "project_id": "p-one"}}))["port"]["id"]
    carried["sub_ports"][0]["port_id"] = bound
    assert await refused(cloud, "PUT", f"/trunks/{trunk}/add_subports", carried, 409) == "PortInUse"


async def test_an_interface_keeps_the_addresses_that_are_needed(cloud):
    public = await external(cloud)
    router, net, sub = await routed(cloud, public)
    other = (await cloud.call("one", "POST", "/subnets", {"subnet": {
        "network_id": net, "cidr": "10.5.0.0/24", "ip_version": 4}}))["subnet"]["id"]
    _, twin = await cloud.network_with_subnet("one", "10.5.0.0/24")
    [leg] = (await cloud.call("one", "GET", f"/ports?device_id={router}"))["ports"]
    path = f"/ports/{leg['id']}"

    async def put(*fixed: Any, expect: int = 200, who: str = "one") -> Any:
        return await cloud.call(who, "PUT", path, {"port": {"fixed_ips": list(fixed)}}, expect=expect)

    port = await port_on(cloud, net, fixed_ips=[{"subnet_id": sub}])
    floating = (await cloud.call("one", "POST", "/floatingips", {"floatingip": {
        "floating_network_id": public, "port_id": port["id"]}}))["floatingip"]["id"]
    for who in ("one", "admin"):
        assert (await put({"subnet_id": other}, expect=409, who=who))["NeutronError"]["type"] == (
            "RouterInterfaceInUseByFloatingIP")
    await cloud.call("one", "DELETE", f"/floatingips/{floating}")
    route = {"routes": [{"destination": "198.51.100.0/24", "nexthop": "10.0.0.9"}]}
    await cloud.call("one", "PUT", f"/routers/{router}", {"router": route})
    assert (await put({"subnet_id": other}, expect=409))["NeutronError"]["type"] == "RouterInterfaceInUseByRoute"
    await cloud.call("one", "PUT", f"/routers/{router}", {"router": {"routes": []}})
    assert "multiple IPv4" in (await put({"subnet_id": sub}, {"subnet_id": other}, expect=400))["NeutronError"][
        "message"]
    await cloud.call("one", "PUT", f"/routers/{router}/add_router_interface", {"subnet_id": twin})
    assert "overlaps with cidr" in (await put({"subnet_id": other}, expect=400))["NeutronError"]["message"]
    await cloud.call("one", "PUT", f"/routers/{router}/remove_router_interface", {"subnet_id": twin})
    again = await port_on(cloud, net, fixed_ips=[{"subnet_id": other}])
    await cloud.call("one", "PUT", f"/routers/{router}/add_router_interface", {"port_id": again["id"]})
    assert "already has a port on subnet" in (await put({"subnet_id": other}, expect=400))["NeutronError"]["message"]
    await cloud.call("one", "PUT", f"/routers/{router}/remove_router_interface", {"port_id": again["id"]})
    moved = await put({"subnet_id": other})
    assert [each["subnet_id"] for each in moved["port"]["fixed_ips"]] == [other]


async def test_what_a_member_has_inside_holds_up_no_subnet_of_the_operators(cloud):
    """A quarter of all addresses behind one router would else keep them from the external network; it alone is not
    joined to both anew."""
    public = await external(cloud)
    router, _, _ = await routed(cloud, public)
    net = (await cloud.call("one", "POST", "/networks", {"network": {}}))["network"]["id"]
    wide = (await cloud.call("one", "POST", "/subnets", {"subnet": {
        "network_id": net, "cidr": "64.0.0.0/2", "ip_version": 4}}))["subnet"]["id"]
    await cloud.call("one", "PUT", f"/routers/{router}/add_router_interface", {"subnet_id": wide})
    await cloud.call("admin", "POST", "/subnets", {"subnet": {
        "network_id": public, "cidr": "100.64.0.0/24", "ip_version": 4, "enable_dhcp": False}})
    gateway = {"router": {"external_gateway_info": {"network_id": public}}}
    await cloud.call("one", "PUT", f"/routers/{router}", gateway)  # as it is
    await cloud.call("one", "PUT", f"/routers/{router}", {"router": {"external_gateway_info": None}})
    no = await cloud.call("one", "PUT", f"/routers/{router}", gateway, expect=400)
    assert "overlaps with cidr" in no["NeutronError"]["message"]
    await cloud.call("one", "PUT", f"/routers/{router}/remove_router_interface", {"subnet_id": wide})
    await cloud.call("one", "PUT", f"/routers/{router}", gateway)


async def test_hosts_hear_of_the_router_whose_leg_or_gateway_has_another_address(cloud):
    public = await external(cloud)
    router, _, _ = await routed(cloud, public)
    for found in (await cloud.call("admin", "GET", f"/ports?device_id={router}"))["ports"]:
        def step(work: Work, port_id: str = found["id"], sub: str = found["fixed_ips"][0]["subnet_id"]) -> set[str]:
            [port] = ports.Ports().list(work, {"id": [port_id]})
            ports.Ports().update(work, port, {"fixed_ips": [{"subnet_id": sub}]})
            return work.changes.routers

        assert await cloud.network.write(service_context(), step) == {router}, found["device_owner"]


async def test_ipv6_subnets_of_a_network_stay_on_one_interface(cloud):
    net, four = await cloud.network_with_subnet()
    six = [(await cloud.call("one", "POST", "/subnets", {"subnet": {
        "network_id": net, "cidr": f"2001:db8:{n}::/64", "ip_version": 6}}))["subnet"]["id"] for n in range(2)]
    router = (await cloud.call("one", "POST", "/routers", {"router": {}}))["router"]["id"]
    legs = [(await cloud.call("one", "PUT", f"/routers/{router}/add_router_interface", {"subnet_id": sub}))["port_id"]
            for sub in (four, six[0])]
    no = await cloud.call("one", "PUT", f"/ports/{legs[0]}", {"port": {"fixed_ips": [
        {"subnet_id": four}, {"subnet_id": six[1]}]}}, expect=400)
    assert "already contains IPv6 port" in no["NeutronError"]["message"]
    await cloud.call("one", "PUT", f"/ports/{legs[1]}", {"port": {"fixed_ips": [{"subnet_id": s} for s in six]}})


async def test_routers_on_another_projects_network_are_few_and_join_little(cloud: Cloud) -> None:
    """Each host of that network has to route all of it."""
    shared, _ = await cloud.network_with_subnet("admin", "10.9.0.0/24", shared=True)
    own, _ = await cloud.network_with_subnet("one", "10.8.0.0/24")

    async def join(router: str, net: str, expect: int = 200, who: str = "one") -> str:
        port = (await cloud.call(who, "POST", "/ports", {"port": {
            "network_id": net, "project_id": "p-one"}}))["port"]["id"]
        found = await cloud.call(who, "PUT", f"/routers/{router}/add_router_interface", {"port_id": port},
                                 expect=expect)
        return str(found["NeutronError"]["message"] if expect == 409 else "")

    routers = [(await cloud.call("one", "POST", "/routers", {"router": {}}))["router"]["id"]
               for _ in range(MAX_ABROAD + 2)]
    for router in routers:
        await join(router, own)
    for router in routers[:MAX_ABROAD]:
        await join(router, shared)
    assert f"At most {MAX_ABROAD} routers" in await join(routers[-2], shared, 409)
    await join(routers[-1], shared, who="admin")
    for n in range(MAX_JOINED - 2):
        net, _ = await cloud.network_with_subnet("one", f"10.7.{n}.0/24")
        await join(routers[0], net)
        await join(routers[-2], net)
    net, _ = await cloud.network_with_subnet("one", "10.6.0.0/24")
    assert f"at most {MAX_JOINED} interfaces" in await join(routers[0], net, 409)
    for cidr in ("10.5.0.0/24", "10.4.0.0/24"):  # its own networks are its own business
        await join(routers[-2], (await cloud.network_with_subnet("one", cidr))[0])
