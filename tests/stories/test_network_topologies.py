"""A project asks for "a network", and gets one with everything around it, or a reason."""

from typing import Any

import msgspec
import pytest
from tests.stories.network_cloud import CALLERS, THREE, Cloud

from nacre.base.db import Database
from nacre.base.errors import BadRequest, Forbidden
from nacre.network.contract import AUTO, PortsOrder

MINE = "/auto-allocated-topology/p-one"


@pytest.fixture
def cloud(story_db: Database) -> Cloud:
    return Cloud(story_db)


async def ready(cloud: Cloud) -> None:
    """What an operator has to name."""
    await cloud.network_with_subnet("admin", "203.0.113.0/24", **{"router:external": True, "is_default": True})
    for prefix, length in (("10.64.0.0/16", 24), ("2001:db8::/48", 64)):
        await cloud.call("admin", "POST", "/subnetpools", {"subnetpool": {
            "name": "p", "prefixes": [prefix], "default_prefixlen": length, "is_default": True, "shared": True}})


async def names(cloud: Cloud) -> dict[str, list[str]]:
    return {kind: sorted(each["name"] for each in (await cloud.call("one", "GET", f"/{kind}?project_id=p-one"))[kind])
            for kind in ("networks", "subnets", "routers")}


async def get(cloud: Cloud, path: str = MINE, who: str = "one", expect: int = 200) -> Any:
    return (await cloud.call(who, "GET", path, expect=expect)).popitem()[1]


async def test_it_is_made_once_and_deleted_as_a_whole(cloud):
    await ready(cloud)
    assert (await get(cloud, f"{MINE}?fields=dry-run"))["id"] == "dry-run=pass"
    assert (await names(cloud))["networks"] == []
    made = await get(cloud)
    assert made == await get(cloud) == await get(cloud, "/auto-allocated-topology/None") and (
        made["project_id"] == "p-one")
    assert await names(cloud) == {
        "networks": ["auto_allocated_network"], "routers": ["auto_allocated_router"],
        "subnets": ["auto_allocated_subnet_v4", "auto_allocated_subnet_v6"]}
    port = (await cloud.call("one", "POST", "/ports", {"port": {"network_id": made["id"]}}))["port"]
    assert len(port["fixed_ips"]) == 2
    await cloud.call("one", "DELETE", MINE, expect=409)
    await cloud.call("one", "DELETE", f"/ports/{port['id']}")
    await cloud.call("one", "DELETE", MINE)
    assert await names(cloud) == {"networks": [], "subnets": [], "routers": []}
    await cloud.call("one", "DELETE", MINE)


async def test_what_is_lacking_is_said_and_nothing_is_left(cloud):
    assert "No default router:external network" in (await get(cloud, expect=409))["message"]
    await ready(cloud)
    await cloud.call("admin", "PUT", "/quotas/p-one", {"quota": {"router": 0}})
    assert (await get(cloud, expect=409))["type"] == "OverQuota"
    assert await names(cloud) == {"networks": [], "subnets": [], "routers": []}
    assert "colour" in (await get(cloud, f"{MINE}?fields=colour", expect=400))["message"]


async def test_whose(cloud):
    await ready(cloud)
    await get(cloud, who="two", expect=403)
    made = await get(cloud, f"/auto-allocated-topology/{THREE}", who="admin")
    assert (await cloud.call("three", "GET", f"/networks/{made['id']}"))["network"]["project_id"] == THREE
    mine = await get(cloud)
    await cloud.call("watcher", "DELETE", MINE, expect=403)
    assert await get(cloud, who="watcher") == mine


async def test_it_is_some_projects(cloud, monkeypatch):
    """An administrator's may be another's; nobody's would be the cloud's own."""
    await ready(cloud)
    monkeypatch.setitem(CALLERS, "admin", msgspec.structs.replace(CALLERS["admin"], project_id=None))
    for named in ("None", "*", "%0a", "p-one"):
        for query in ("", "?fields=dry-run"):
            path = f"/auto-allocated-topology/{named}{query}"
            assert "auto_allocate request" in (await get(cloud, path, "admin", 400))["message"]
    assert (await names(cloud))["networks"] == []


async def test_it_is_deleted_whatever_was_taken_apart(cloud):
    await ready(cloud)
    for change in ("subnet", "interface", "router"):
        net = (await get(cloud))["id"]
        [router] = (await cloud.call("one", "GET", "/routers"))["routers"]
        first, second = (await cloud.call("one", "GET", f"/subnets?network_id={net}"))["subnets"]
        off = f"/routers/{router['id']}/remove_router_interface"
        if change == "subnet":
            await cloud.call("one", "POST", "/subnets", {"subnet": {
                "network_id": net, "ip_version": 4, "cidr": "192.168.7.0/24"}})
        if change in ("interface", "router"):
            await cloud.call("one", "PUT", off, {"subnet_id": first["id"]})
        if change == "router":
            await cloud.call("one", "PUT", off, {"subnet_id": second["id"]})
            await cloud.call("one", "DELETE", f"/routers/{router['id']}")
        await cloud.call("one", "DELETE", MINE)
        assert await names(cloud) == {"networks": [], "subnets": [], "routers": []}


async def test_a_server_gets_one(cloud):
    order = PortsOrder(server_id="11111111-2222-4333-8444-555555555555", context=CALLERS["one"], requests=(AUTO,))
    with pytest.raises(BadRequest, match="No default router:external network"):
        await cloud.network.check(order, 1)
    await ready(cloud)
    await cloud.host("h1", "192.0.2.1")
    assert await cloud.network.check(order, 1) == 1 and (await names(cloud))["networks"] == []
    plugged = await cloud.network.plug(order, "h1")
    assert [port.network_name for port in plugged.ports] == ["auto_allocated_network"]
    assert (await get(cloud))["id"] == plugged.ports[0].network_id


async def test_a_server_gets_one_where_its_user_may_ask_for_one(cloud, monkeypatch):
    """The same rule as the route's, when the server is asked for and when its ports are made."""
    await ready(cloud)
    await cloud.host("h1", "192.0.2.1")
    order = PortsOrder(server_id="11111111-2222-4333-8444-555555555555", context=CALLERS["one"], requests=(AUTO,))
    asked, allows = list[Any](), cloud.policy.allows

    def forbidden(context: Any, rule: str, target: Any = None) -> bool:
        if rule != "get_auto_allocated_topology":
            return allows(context, rule, target)
        asked.append(target)
        return False

    monkeypatch.setattr(cloud.policy, "allows", forbidden)
    for step in (cloud.network.check(order, 1), cloud.network.plug(order, "h1")):
        with pytest.raises(Forbidden, match="get_auto_allocated_topology"):
            await step
    assert asked == [{"project_id": "p-one"}] * 2
    assert await names(cloud) == {"networks": [], "subnets": [], "routers": []}
