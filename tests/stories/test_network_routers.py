"""Routers and floating IPs: rows with Neutron's rules."""

import pytest
from tests.stories.network_cloud import Cloud

from nacre.base.db import Database


@pytest.fixture
def cloud(story_db: Database) -> Cloud:
    return Cloud(story_db)


async def external(cloud: Cloud) -> str:
    net = (await cloud.call("admin", "POST", "/networks", {"network": {
        "name": "public", "router:external": True, "provider:network_type": "flat",
        "provider:physical_network": "physnet1"}}))["network"]["id"]
    await cloud.call("admin", "POST", "/subnets", {"subnet": {
        "network_id": net, "cidr": "203.0.113.0/24", "ip_version": 4, "enable_dhcp": False}})
    return net


async def test_a_router_joins_networks_and_leaves_them(cloud):
    public = await external(cloud)
    net, sub = await cloud.network_with_subnet()
    router = (await cloud.call("one", "POST", "/routers", {"router": {
        "name": "r", "external_gateway_info": {"network_id": public}}}))["router"]
    path = f"/routers/{router['id']}"
    assert router["external_gateway_info"]["external_fixed_ips"][0]["ip_address"].startswith("203.0.113.")
    joined = await cloud.call("one", "PUT", f"{path}/add_router_interface", {"subnet_id": sub})
    assert joined["subnet_id"] == sub
    await cloud.call("one", "PUT", f"{path}/add_router_interface", {"subnet_id": sub}, expect=400)
    await cloud.call("two", "PUT", f"{path}/add_router_interface", {"subnet_id": sub}, expect=404)
    _, theirs = await cloud.network_with_subnet("two", "10.7.0.0/24")
    await cloud.call("one", "PUT", f"{path}/add_router_interface", {"subnet_id": theirs}, expect=404)
    await cloud.call("one", "DELETE", f"/ports/{joined['port_id']}", expect=409)
    await cloud.call("one", "DELETE", path, expect=409)
    port = (await cloud.call("one", "POST", "/ports", {"port": {"network_id": net}}))["port"]
    fip = (await cloud.call("one", "POST", "/floatingips", {"floatingip": {
        "floating_network_id": public, "port_id": port["id"]}}))["floatingip"]
    assert fip["router_id"] == router["id"] and fip["fixed_ip_address"] == port["fixed_ips"][0]["ip_address"]
    await cloud.call("two", "GET", f"/floatingips/{fip['id']}", expect=404)
    busy = await cloud.call("one", "PUT", f"{path}/remove_router_interface", {"subnet_id": sub}, expect=409)
    assert busy["NeutronError"]["type"] == "RouterInterfaceInUseByFloatingIP"
    await cloud.call("one", "PUT", path, {"router": {"external_gateway_info": None}}, expect=409)
    await cloud.call("one", "DELETE", f"/ports/{port['id']}")
    assert (await cloud.call("one", "GET", f"/floatingips/{fip['id']}"))["floatingip"]["port_id"] is None
    await cloud.call("one", "DELETE", f"/floatingips/{fip['id']}")
    await cloud.call("one", "PUT", f"{path}/remove_router_interface", {"subnet_id": sub})
    await cloud.call("one", "DELETE", path)
    left = (await cloud.call("admin", "GET", "/ports"))["ports"]
    assert {p["device_owner"] for p in left} <= {"network:dhcp"}


async def test_a_port_without_a_way_out_gets_no_floating_ip(cloud):
    public = await external(cloud)
    net, _ = await cloud.network_with_subnet()
    port = (await cloud.call("one", "POST", "/ports", {"port": {"network_id": net}}))["port"]
    no = await cloud.call("one", "POST", "/floatingips", {"floatingip": {
        "floating_network_id": public, "port_id": port["id"]}}, expect=404)
    assert no["NeutronError"]["type"] == "ExternalGatewayForFloatingIPNotFound"
    no = await cloud.call("one", "POST", "/floatingips", {"floatingip": {"floating_network_id": net}}, expect=400)
    await cloud.call("one", "POST", "/routers", {"router": {"external_gateway_info": {"network_id": net}}}, expect=400)
    await cloud.call("one", "POST", "/routers", {"router": {
        "external_gateway_info": {"network_id": public, "enable_snat": False}}}, expect=403)


async def test_routes_go_through_what_is_connected(cloud):
    _, sub = await cloud.network_with_subnet()
    router = (await cloud.call("one", "POST", "/routers", {"router": {}}))["router"]["id"]
    await cloud.call("one", "PUT", f"/routers/{router}/add_router_interface", {"subnet_id": sub})
    bad = await cloud.call("one", "PUT", f"/routers/{router}", {"router": {
        "routes": [{"destination": "10.9.0.0/16", "nexthop": "10.8.0.1"}]}}, expect=400)
    assert bad["NeutronError"]["type"] == "InvalidRoutes"
    route = {"destination": "10.9.0.0/16", "nexthop": "10.0.0.9"}
    await cloud.call("one", "PUT", f"/routers/{router}", {"router": {"routes": [route]}})
    await cloud.call("one", "PUT", f"/routers/{router}/remove_router_interface", {"subnet_id": sub}, expect=409)
    await cloud.call("one", "PUT", f"/routers/{router}/remove_extraroutes", {"router": {"routes": [route]}})
    await cloud.call("one", "PUT", f"/routers/{router}/remove_router_interface", {"subnet_id": sub})


async def test_a_routers_port_is_not_estranged_from_it_and_deleted(cloud):
    _, sub = await cloud.network_with_subnet()
    router = (await cloud.call("one", "POST", "/routers", {"router": {}}))["router"]["id"]
    made = await cloud.call("one", "PUT", f"/routers/{router}/add_router_interface", {"subnet_id": sub})
    path = f"/ports/{made['port_id']}"
    for change in ({"device_owner": ""}, {"device_owner": "compute:x"}, {"device_id": ""}, {"device_id": "mine"},
                   {"fixed_ips": []}, {"device_owner": "", "device_id": ""}):
        answer = await cloud.call("one", "PUT", path, {"port": change}, expect=409)
        assert answer["NeutronError"]["type"] == "ServicePortInUse", change
    await cloud.call("one", "PUT", path, {"port": {"name": "mine", "device_id": router}})
    await cloud.call("one", "DELETE", path, expect=409)
    await cloud.call("one", "PUT", f"/routers/{router}/remove_router_interface", {"subnet_id": sub})
