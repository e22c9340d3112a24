"""Routers and floating IPs: rows with Neutron's rules."""

from typing import Any

import pytest
from tests.stories.network_cloud import THREE, Cloud, elected, external, gateway

from nacre.base.context import service_context
from nacre.base.db import Database
from nacre.network.contract import Served
from nacre.network.l3 import reports
from nacre.network.l3.gateway_hosts import MISSED
from nacre.network.nouns.router import Router


@pytest.fixture
def cloud(story_db: Database) -> Cloud:
    return Cloud(story_db)


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


async def refused(cloud: Cloud, method: str, path: str, body: Any, expect: int, who: str = "one") -> str:
    """The kind of error."""
    return str((await cloud.call(who, method, path, body, expect=expect))["NeutronError"]["type"])


async def routed(cloud: Cloud, public: str, cidr: str = "10.0.0.0/24") -> tuple[str, str, str]:
    """A router with a way out, and the network and subnet behind it."""
    net, sub = await cloud.network_with_subnet("one", cidr)
    router = (await cloud.call("one", "POST", "/routers", {"router": {
        "external_gateway_info": {"network_id": public}}}))["router"]["id"]
    await cloud.call("one", "PUT", f"/routers/{router}/add_router_interface", {"subnet_id": sub})
    return router, net, sub


async def port_on(cloud: Cloud, net: str, **more: Any) -> dict[str, Any]:
    return dict((await cloud.call("one", "POST", "/ports", {"port": {"network_id": net, **more}}))["port"])


async def test_a_gateway_keeps_its_port_while_it_stays_on_its_network(cloud):
    public = await external(cloud)
    router, net, _ = await routed(cloud, public)

    async def gateway(info: Any, expect: int = 200) -> Any:
        found = await cloud.call("admin", "PUT", f"/routers/{router}", {"router": {"external_gateway_info": info}},
                                 expect=expect)
        return found["router"]["external_gateway_info"] if expect == 200 else found["NeutronError"]["type"]

    async def port() -> Any:
        [found] = (await cloud.call("admin", "GET", f"/ports?device_id={router}&device_owner=network:router_gateway"))[
            "ports"]
        return found

    first = await port()
    assert (await gateway({"network_id": public}))["external_fixed_ips"][0] == first["fixed_ips"][0]
    moved = await gateway({"network_id": public, "external_fixed_ips": [{"ip_address": "203.0.113.77"}],
                           "enable_snat": False})
    assert moved["external_fixed_ips"][0]["ip_address"] == "203.0.113.77" and moved["enable_snat"] is False
    assert (await port())["id"] == first["id"] and (await gateway({"network_id": public}))["enable_snat"] is True
    assert await gateway({"network_id": public, "external_fixed_ips": [{"ip_address": "203.0.113.1"}]}, 400)
    assert await gateway({"network_id": net}, 400) == "HTTPBadRequest"
    route = {"destination": "198.51.100.0/24", "nexthop": "203.0.113.9"}
    await cloud.call("one", "PUT", f"/routers/{router}/add_extraroutes", {"router": {"routes": [route]}})
    assert await gateway(None, 400) == "InvalidRoutes"
    await cloud.call("one", "PUT", f"/routers/{router}/remove_extraroutes", {"router": {"routes": [route]}})
    assert await gateway(None) is None


async def test_no_two_subnets_of_a_router_have_an_address_in_common(cloud):
    public = await external(cloud)
    router, net, sub = await routed(cloud, public)
    path = f"/routers/{router}/add_router_interface"
    for cidr in ("10.0.0.128/25", "203.0.113.0/25"):
        _, other = await cloud.network_with_subnet("one", cidr)
        no = await cloud.call("one", "PUT", path, {"subnet_id": other}, expect=400)
        assert "overlaps with cidr" in no["NeutronError"]["message"]
    twin = await cloud.network_with_subnet("admin", "10.0.0.0/8", **{"router:external": True})
    no = await cloud.call("one", "PUT", f"/routers/{router}", {"router": {"external_gateway_info": {
        "network_id": twin[0]}}}, expect=400)
    assert "overlaps with cidr 10.0.0.0/24" in no["NeutronError"]["message"]
    again = await port_on(cloud, net)
    no = await cloud.call("one", "PUT", path, {"port_id": again["id"]}, expect=400)
    assert no["NeutronError"]["message"] == f"Bad router request: Router already has a port on subnet {sub}."


async def test_ports_join_a_router_if_they_are_free_and_have_one_ipv4_subnet(cloud):
    router = (await cloud.call("one", "POST", "/routers", {"router": {}}))["router"]["id"]
    path = f"/routers/{router}/add_router_interface"
    net, sub = await cloud.network_with_subnet()
    await cloud.call("one", "PUT", path, {}, expect=400)
    await cloud.call("one", "PUT", path, {"subnet_id": sub, "port_id": sub}, expect=400)
    busy = await port_on(cloud, net, device_id="something")
    assert await refused(cloud, "PUT", path, {"port_id": busy["id"]}, 409) == "PortInUse"
    bare = await port_on(cloud, net, fixed_ips=[])
    assert "fixed IP" in (await cloud.call("one", "PUT", path, {"port_id": bare["id"]}, expect=400))[
        "NeutronError"]["message"]
    await cloud.call("one", "POST", "/subnets", {"subnet": {"network_id": net, "cidr": "10.5.0.0/24", "ip_version": 4}})
    two = await port_on(cloud, net, fixed_ips=[{"ip_address": "10.0.0.5"}, {"ip_address": "10.5.0.5"}])
    no = await cloud.call("one", "PUT", path, {"port_id": two["id"]}, expect=400)
    assert "multiple IPv4 subnets" in no["NeutronError"]["message"]
    await cloud.call("two", "PUT", path, {"port_id": busy["id"]}, expect=404)
    free = await port_on(cloud, net, fixed_ips=[{"ip_address": "10.0.0.6"}])
    joined = await cloud.call("one", "PUT", path, {"port_id": free["id"]})
    assert joined["port_id"] == free["id"] and joined["subnet_ids"] == [sub]
    away = path.replace("add_", "remove_")
    other = (await cloud.network_with_subnet("one", "10.6.0.0/24"))[1]
    assert await refused(cloud, "PUT", away, {"port_id": free["id"], "subnet_id": other}, 400) == (
        "SubnetMismatchForPort")
    assert await refused(cloud, "PUT", away, {"subnet_id": other}, 404) == "RouterInterfaceNotFoundForSubnet"
    await cloud.call("one", "PUT", away, {"port_id": free["id"], "subnet_id": sub})


async def test_ipv6_subnets_of_a_network_share_the_routers_port(cloud):
    net, first = await cloud.network_with_subnet("one", "2001:db8::/64")
    second = (await cloud.call("one", "POST", "/subnets", {"subnet": {
        "network_id": net, "cidr": "2001:db8:1::/64", "ip_version": 6}}))["subnet"]["id"]
    router = (await cloud.call("one", "POST", "/routers", {"router": {}}))["router"]["id"]
    path = f"/routers/{router}/add_router_interface"
    one, two = [await cloud.call("one", "PUT", path, {"subnet_id": s}) for s in (first, second)]
    assert one["port_id"] == two["port_id"]
    port = (await cloud.call("one", "GET", f"/ports/{one['port_id']}"))["port"]
    assert {f["ip_address"] for f in port["fixed_ips"]} == {"2001:db8::1", "2001:db8:1::1"}
    left = await cloud.call("one", "PUT", path.replace("add_", "remove_"), {"subnet_id": first})
    assert left["subnet_ids"] == [first]
    port = (await cloud.call("one", "GET", f"/ports/{one['port_id']}"))["port"]
    assert [f["subnet_id"] for f in port["fixed_ips"]] == [second]


async def test_routes_are_added_and_removed_one_by_one(cloud):
    router, _, _ = await routed(cloud, await external(cloud))
    path = f"/routers/{router}"
    routes = [{"destination": f"10.{n}.0.0/16", "nexthop": "10.0.0.9"} for n in range(40, 72)]

    async def change(verb: str, some: list[Any], expect: int = 200) -> Any:
        found = await cloud.call("one", "PUT", f"{path}/{verb}_extraroutes", {"router": {"routes": some}},
                                 expect=expect)
        return found["router"]["routes"] if expect == 200 else found["NeutronError"]["type"]

    assert await change("add", routes[:2]) == routes[:2] == await change("add", routes[1:2])
    twice = {**routes[1], "nexthop": "10.0.0.8"}
    assert await change("add", [twice]) == [*routes[:2], twice]
    assert await change("remove", [*routes[:2], routes[30]]) == [twice]
    assert await change("add", routes, 409) == "OverQuota"
    for hop, why in (("10.0.0.1", "is used by router"), ("192.0.2.1", "is not connected")):
        no = await cloud.call("one", "PUT", path, {"router": {"routes": [
            {"destination": "10.90.0.0/16", "nexthop": hop}]}}, expect=400)
        assert why in no["NeutronError"]["message"]


async def test_what_a_floating_ip_stands_for(cloud):
    public = await external(cloud)
    router, net, sub = await routed(cloud, public)

    async def floating(expect: int = 201, **more: Any) -> Any:
        found = await cloud.call("one", "POST", "/floatingips", {"floatingip": {
            "floating_network_id": public, **more}}, expect=expect)
        return found["floatingip"] if expect == 201 else found["NeutronError"]["type"]

    two = await port_on(cloud, net, fixed_ips=[{"ip_address": "10.0.0.50"}, {"ip_address": "10.0.0.51"}])
    port = await port_on(cloud, net)  # anywhere else
    fip = await floating(port_id=port["id"])
    assert fip["status"] == "DOWN" and fip["router_id"] == router
    path = f"/floatingips/{fip['id']}"

    async def put(expect: int = 200, **values: Any) -> Any:
        found = await cloud.call("one", "PUT", path, {"floatingip": values}, expect=expect)
        return found["floatingip"]["port_id"] if expect == 200 else found["NeutronError"]["type"]

    assert await floating(409, port_id=port["id"]) == "FloatingIPPortAlreadyAssociated"
    assert await floating(400, port_id=two["id"]) == "HTTPBadRequest"  # which of its addresses?
    assert (await floating(port_id=two["id"], fixed_ip_address="10.0.0.51"))["fixed_ip_address"] == "10.0.0.51"
    assert await floating(400, port_id=two["id"], fixed_ip_address="10.0.0.99") == "HTTPBadRequest"
    assert await put(description="mine") == port["id"]  # says nothing of the port
    assert await put(400, fixed_ip_address="10.0.0.50") == "HTTPBadRequest"
    assert await put(port_id=two["id"], fixed_ip_address="10.0.0.50") == two["id"]
    assert await put() is None  # says nothing at all
    assert await put(port_id=port["id"]) == port["id"]
    assert await refused(cloud, "PUT", f"/ports/{port['id']}", {"port": {"fixed_ips": [
        {"ip_address": "10.0.0.60"}]}}, 400) == "HTTPBadRequest"
    other = (await cloud.call("one", "POST", "/routers", {"router": {}}))["router"]["id"]
    assert await put(409, router_id=other, port_id=port["id"]) == "HTTPConflict"
    busy = await refused(cloud, "PUT", f"/routers/{router}/remove_router_interface", {"subnet_id": sub}, 409)
    assert busy == "RouterInterfaceInUseByFloatingIP"
    # An address may have one of each external network.
    outside = await cloud.network_with_subnet("admin", "198.51.100.0/24", **{"router:external": True})
    await cloud.call("one", "PUT", f"/routers/{other}", {"router": {"external_gateway_info": {
        "network_id": outside[0]}}})
    inner = await port_on(cloud, net)
    await cloud.call("one", "PUT", f"/routers/{other}/add_router_interface", {"port_id": inner["id"]})
    made = await floating(floating_network_id=outside[0], port_id=port["id"])
    assert made["router_id"] == other


async def test_another_projects_floating_ip_keeps_the_port(cloud):
    public = await external(cloud)
    _, net, _ = await routed(cloud, public)
    port = await port_on(cloud, net)
    await cloud.call("admin", "POST", "/floatingips", {"floatingip": {
        "floating_network_id": public, "port_id": port["id"]}})
    assert await refused(cloud, "DELETE", f"/ports/{port['id']}", None, 409) == "FipAssociated"
    await cloud.call("admin", "DELETE", f"/ports/{port['id']}")


async def test_what_hosts_say_is_the_status_and_only_of_what_is_theirs(cloud):
    public = await external(cloud)
    for n in (1, 2):
        await gateway(cloud, n)
    router, net, _ = await routed(cloud, public)
    await cloud.network.elections.look()
    port = await port_on(cloud, net)
    await cloud.call("admin", "PUT", f"/ports/{port['id']}", {"port": {"binding:host_id": "h1"}})
    fip = (await cloud.call("one", "POST", "/floatingips", {"floatingip": {
        "floating_network_id": public, "port_id": port["id"]}}))["floatingip"]["id"]

    async def write(step: Any) -> Any:
        return await cloud.network.write(service_context(), step)

    async def statuses() -> set[str]:
        found = (await cloud.call("admin", "GET", f"/ports?device_id={router}"))["ports"]
        return {f"{p['device_owner'].rpartition('_')[2]} {p['status']}" for p in found} | {
            (await cloud.call("one", "GET", f"/floatingips/{fip}"))["floatingip"]["status"]}

    found = await write(lambda work: work.first(Router, id=router))
    host, term = found.gateway_host, found.gateway_term
    assert {host} < {"h1", "h2"} and term == 1
    other = "h2" if host == "h1" else "h1"
    await write(lambda work: (reports.routed(work, "h2", Served(routers=(router,), floating=(fip,)), True),
                              reports.routed(work, other, Served(gateways={router: 1}), True),
                              reports.routed(work, host, Served(gateways={router: 0}), True)))
    assert await statuses() == {"interface DOWN", "gateway DOWN", "DOWN"}
    await write(lambda work: (reports.routed(work, "h1", Served(routers=(router,), floating=(fip,)), True),
                              reports.routed(work, host, Served(gateways={router: 1}), True)))
    assert await statuses() == {"interface ACTIVE", "gateway ACTIVE", "ACTIVE"}
    await cloud.call("one", "PUT", f"/floatingips/{fip}", {"floatingip": {"port_id": None}})
    assert "DOWN" in await statuses()
    # Its host falls silent: another takes over, and its word alone counts.
    await cloud.pass_time(100)
    await gateway(cloud, int(other[1]))
    for _ in range(MISSED):
        assert await elected(cloud, router) == (host, 1)
        await cloud.network.elections.sweep()
    assert await elected(cloud, router) == (other, 2) and "gateway DOWN" in await statuses()
    await write(lambda work: reports.routed(work, host, Served(gateways={router: 2}), True))
    assert "gateway DOWN" in await statuses()
    await write(lambda work: reports.routed(work, other, Served(gateways={router: 2}), True))
    assert "gateway ACTIVE" in await statuses()


async def test_an_external_network_stays_open_to_those_who_need_it(cloud):
    """Who has a router on it; and everybody, if it is the default one."""
    public = await external(cloud)
    await cloud.call("three", "POST", "/routers", {"router": {"external_gateway_info": {"network_id": public}}})
    [policy] = (await cloud.call("admin", "GET", f"/rbac-policies?object_id={public}"))["rbac_policies"]
    path = f"/rbac-policies/{policy['id']}"
    other = {"rbac_policy": {"target_tenant": "4" * 32}}
    assert await refused(cloud, "PUT", path, other, 409, "admin") == "RbacPolicyInUse"
    assert await refused(cloud, "DELETE", path, None, 409, "admin") == "RbacPolicyInUse"
    await cloud.call("admin", "PUT", path, {"rbac_policy": {"target_tenant": THREE}})  # the one that needs it
    default = (await cloud.call("admin", "POST", "/networks", {"network": {
        "router:external": True, "is_default": True}}))["network"]["id"]
    [policy] = (await cloud.call("admin", "GET", f"/rbac-policies?object_id={default}"))["rbac_policies"]
    assert await refused(cloud, "DELETE", f"/rbac-policies/{policy['id']}", None, 409, "admin") == "RbacPolicyInUse"
