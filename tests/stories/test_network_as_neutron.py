"""What Neutron does and its clients count on: conflicts, revisions, what follows from what."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from tests.stories.network_cloud import CALLERS, THREE, Cloud

from nacre.base.db import Database
from nacre.base.errors import BadRequest
from nacre.network.contract import AgentReport, Have, NetworkRequest, PortsOrder
from nacre.network.manager import NetworkManager


@pytest.fixture
def cloud(story_db: Database) -> Cloud:
    return Cloud(story_db)


def kind(answer: Any) -> str:
    return str(answer["NeutronError"]["type"])


async def made(cloud: Cloud, what: str, body: dict[str, Any], who: str = "one") -> dict[str, Any]:
    plural = {"rbac_policy": "rbac-policies"}.get(what, what.replace("_", "-") + "s")
    found: dict[str, Any] = (await cloud.call(who, "POST", f"/{plural}", {what: body}))[what]
    return found


async def revision(cloud: Cloud, path: str) -> int:
    [found] = (await cloud.call("admin", "GET", path)).values()
    return int(found["revision_number"])


async def test_words_and_digits_of_clients_are_taken(cloud: Cloud) -> None:
    net = (await made(cloud, "network", {"admin_state_up": "yes", "port_security_enabled": 1}))["id"]
    subnet = await made(cloud, "subnet", {"network_id": net, "ip_version": "4", "cidr": "10.0.0.7/24",
                                          "enable_dhcp": "off"})
    assert (subnet["ip_version"], subnet["cidr"], subnet["enable_dhcp"]) == (4, "10.0.0.0/24", False)
    group = (await made(cloud, "security_group", {"name": "g"}))["id"]
    rule = await made(cloud, "security_group_rule", {
        "security_group_id": group, "direction": "ingress", "ethertype": "ipv4", "protocol": "TCP",
        "port_range_min": "22", "port_range_max": "23", "remote_ip_prefix": "10.0.0.0/255.0.0.0"})
    assert (rule["ethertype"], rule["protocol"], rule["port_range_min"], rule["remote_ip_prefix"]) == (
        "IPv4", "tcp", 22, "10.0.0.0/8")
    for query in ("subnets?ip_version=4&enable_dhcp=no", f"security-group-rules?ethertype=ipv4&protocol=TCP"
                  f"&security_group_id={group}", "networks?admin_state_up=on"):
        [found] = (await cloud.call("one", "GET", f"/{query}")).values()
        assert len(found) == 1, query


async def test_a_remote_group_that_is_none_is_not_found(cloud: Cloud) -> None:
    group = (await made(cloud, "security_group", {"name": "g"}))["id"]
    for remote in ("web", str(uuid4()), 5):
        for field, name in (("remote_group_id", "SecurityGroupNotFound"),
                            ("remote_address_group_id", "AddressGroupNotFound")):
            no = await cloud.call("one", "POST", "/security-group-rules", {"security_group_rule": {
                "security_group_id": group, "direction": "ingress", field: remote}}, expect=404)
            assert kind(no) == name
    no = await cloud.call("one", "POST", "/security-group-rules", {"security_group_rule": {
        "security_group_id": "mine", "direction": "ingress"}}, expect=404)
    assert kind(no) == "SecurityGroupNotFound"


async def test_ipv6_needs_an_mtu_of_1280(cloud: Cloud) -> None:
    small = (await made(cloud, "network", {"mtu": 1200}))["id"]
    six = {"ip_version": 6, "cidr": "2001:db8::/64"}
    no = await cloud.call("one", "POST", "/subnets", {"subnet": six | {"network_id": small}}, expect=409)
    assert kind(no) == "NetworkMTUSubnetConflict"
    await made(cloud, "subnet", {"network_id": small, "ip_version": 4, "cidr": "10.0.0.0/24"})
    net = (await made(cloud, "network", {}))["id"]
    await made(cloud, "subnet", six | {"network_id": net})
    assert kind(await cloud.call("one", "PUT", f"/networks/{net}", {"network": {"mtu": 1279}}, expect=409)) == (
        "NetworkMTUSubnetConflict")
    await cloud.call("one", "PUT", f"/networks/{net}", {"network": {"mtu": "1280"}})
    back = await cloud.call("one", "PUT", f"/networks/{net}", {"network": {"mtu": 0}})
    assert back["network"]["mtu"] == 1450


async def test_prefixes_are_one_pools_within_an_address_scope(cloud: Cloud) -> None:
    scope = (await made(cloud, "address_scope", {"ip_version": "4", "name": "s"}))["id"]
    one = {"name": "a", "prefixes": ["10.0.0.0/16"], "address_scope_id": scope, "min_prefixlen": "24"}
    pool = (await made(cloud, "subnetpool", one))["id"]
    for prefixes in (["10.0.0.0/8"], ["10.0.7.0/24"], ["10.9.0.0/16", "10.0.0.0/16"]):
        no = await cloud.call("one", "POST", "/subnetpools", {"subnetpool": one | {"prefixes": prefixes}}, expect=409)
        assert kind(no) == "AddressScopePrefixConflict"
    other = (await made(cloud, "subnetpool", one | {"prefixes": ["10.1.0.0/16"]}))["id"]
    alone = (await made(cloud, "subnetpool", one | {"address_scope_id": None}))["id"]
    for path, body in ((f"/subnetpools/{other}", {"subnetpool": {"prefixes": ["10.0.0.0/15"]}}),
                       (f"/subnetpools/{alone}", {"subnetpool": {"address_scope_id": scope}}),
                       (f"/subnetpools/{other}/add_prefixes", {"prefixes": ["10.0.9.0/24"]})):
        assert kind(await cloud.call("one", "PUT", path, body, expect=409)) == "AddressScopePrefixConflict"
    net = (await made(cloud, "network", {}))["id"]
    await made(cloud, "subnet", {"network_id": net, "ip_version": 4, "subnetpool_id": pool})
    shown = (await cloud.call("one", "GET", f"/networks/{net}"))["network"]
    assert (shown["ipv4_address_scope"], shown["ipv6_address_scope"]) == (scope, None)


async def test_prefixes_are_taken_from_a_pool_again(cloud: Cloud) -> None:
    pool = (await made(cloud, "subnetpool", {"name": "a", "prefixes": ["10.0.0.0/16"], "min_prefixlen": 24}))["id"]
    net = (await made(cloud, "network", {}))["id"]
    await made(cloud, "subnet", {"network_id": net, "ip_version": 4, "subnetpool_id": pool, "cidr": "10.0.0.0/24"})
    path = f"/subnetpools/{pool}/remove_prefixes"
    used = await cloud.call("one", "PUT", path, {"prefixes": ["10.0.0.0/20"]}, expect=400)
    assert kind(used) == "IllegalSubnetPoolPrefixUpdate"
    assert await cloud.call("one", "PUT", path, {"prefixes": ["10.0.128.0/17"]}) == {"prefixes": ["10.0.0.0/17"]}
    assert await cloud.call("one", "PUT", path, {"prefixes": ["192.0.2.0/24"]}) == {"prefixes": ["10.0.0.0/17"]}


@pytest.mark.parametrize(("what", "its", "used_by", "how"), [
    ("address_group", {"name": "a", "addresses": ["192.0.2.1/32"]}, "security_group_rule", "remote_address_group_id"),
    ("security_group", {"name": "a"}, "port", "security_groups"),
    ("address_scope", {"name": "a", "ip_version": 4}, "subnetpool", "address_scope_id"),
    ("subnetpool", {"name": "a", "prefixes": ["10.0.0.0/16"], "default_prefixlen": 24}, "subnet", "subnetpool_id")])
async def test_what_another_project_uses_stays_shared(
        cloud: Cloud, what: str, its: dict[str, Any], used_by: str, how: str) -> None:
    thing = (await made(cloud, what, its, "admin"))["id"]
    share = {"object_type": what, "object_id": thing, "action": "access_as_shared"}
    policy = (await made(cloud, "rbac_policy", share | {"target_tenant": THREE}, "admin"))["id"]
    net = (await made(cloud, "network", {}, "three"))["id"]
    group = (await made(cloud, "security_group", {"name": "mine"}, "three"))["id"]
    user = await made(cloud, used_by, {
        "security_group_rule": {"security_group_id": group, "direction": "ingress", "ethertype": "IPv4", how: thing},
        "port": {"network_id": net, how: [thing]}, "subnet": {"network_id": net, "ip_version": 4, how: thing},
        "subnetpool": {"name": "b", "prefixes": ["10.1.0.0/16"], how: thing}}[used_by], "three")
    path = f"/rbac-policies/{policy}"
    assert kind(await cloud.call("admin", "DELETE", path, expect=409)) == "RbacPolicyInUse"
    narrowed = {"rbac_policy": {"target_tenant": str(uuid4())}}
    assert kind(await cloud.call("admin", "PUT", path, narrowed, expect=409)) == "RbacPolicyInUse"
    wide = (await made(cloud, "rbac_policy", share | {"target_tenant": "*"}, "admin"))["id"]
    await cloud.call("admin", "DELETE", path)
    assert kind(await cloud.call("admin", "DELETE", f"/rbac-policies/{wide}", expect=409)) == "RbacPolicyInUse"
    await cloud.call("three", "DELETE", f"/{used_by.replace('_', '-')}s/{user['id']}")
    await cloud.call("admin", "DELETE", f"/rbac-policies/{wide}")


async def test_a_policy_makes_a_network_external_and_back(cloud: Cloud) -> None:
    net, _ = await cloud.network_with_subnet("admin")
    policy = {"object_type": "network", "object_id": net, "action": "access_as_external"}

    async def external(who: str = "admin") -> bool:
        return bool((await cloud.call(who, "GET", f"/networks/{net}"))["network"]["router:external"])

    mine = (await made(cloud, "rbac_policy", policy | {"target_tenant": THREE}, "admin"))["id"]
    assert await external() and await external("three")
    await cloud.call("two", "GET", f"/networks/{net}", expect=404)
    router = (await made(cloud, "router", {"external_gateway_info": {"network_id": net}}, "three"))["id"]
    used = await cloud.call("admin", "DELETE", f"/rbac-policies/{mine}", expect=409)
    assert kind(used) == "RbacPolicyInUse"
    wide = (await made(cloud, "rbac_policy", policy | {"target_tenant": "*"}, "admin"))["id"]
    await cloud.call("admin", "DELETE", f"/rbac-policies/{mine}")
    assert await external("two")
    await cloud.call("admin", "DELETE", f"/rbac-policies/{wide}", expect=409)
    await cloud.call("three", "DELETE", f"/routers/{router}")
    await cloud.call("admin", "DELETE", f"/rbac-policies/{wide}")
    assert not await external()
    await cloud.call("two", "GET", f"/networks/{net}", expect=404)
    last = (await made(cloud, "rbac_policy", policy | {"target_tenant": THREE}, "admin"))["id"]
    await made(cloud, "router", {"external_gateway_info": {"network_id": net}}, "admin")  # the owner's own
    assert kind(await cloud.call("admin", "DELETE", f"/rbac-policies/{last}", expect=409)) == "ExternalNetworkInUse"


async def test_a_network_that_is_external_no_more_is_so_for_nobody(cloud: Cloud) -> None:
    net, _ = await cloud.network_with_subnet("admin", **{"router:external": True})
    await made(cloud, "rbac_policy", {"object_type": "network", "object_id": net, "action": "access_as_external",
                                      "target_tenant": THREE}, "admin")
    await cloud.call("admin", "PUT", f"/networks/{net}", {"network": {"router:external": False}})
    assert not (await cloud.call("admin", "GET", f"/rbac-policies?object_id={net}"))["rbac_policies"]
    await cloud.call("three", "GET", f"/networks/{net}", expect=404)


async def test_a_networks_revision_grows_with_its_subnets_and_who_sees_it(cloud: Cloud) -> None:
    net, sub = await cloud.network_with_subnet()
    path, seen = f"/networks/{net}", [1]

    async def grew(by: int = 1) -> None:
        seen.append(await revision(cloud, path))
        assert seen[-1] == seen[-2] + by, seen

    await grew()
    await cloud.call("one", "PUT", f"/subnets/{sub}", {"subnet": {"name": "n"}})
    await grew()
    await cloud.call("one", "POST", "/ports", {"port": {"network_id": net}})
    await grew(0)
    shared = await made(cloud, "rbac_policy", {"object_type": "network", "object_id": net, "target_tenant": THREE,
                                               "action": "access_as_shared"})
    await grew()
    await cloud.call("one", "PUT", f"/rbac-policies/{shared['id']}", {"rbac_policy": {"target_tenant": str(uuid4())}})
    await grew()
    await cloud.call("one", "DELETE", f"/rbac-policies/{shared['id']}")
    await grew()
    await cloud.call("one", "PUT", f"{path}/tags/x", expect=201)
    await grew()
    [port] = (await cloud.call("one", "GET", f"/ports?network_id={net}&device_owner="))["ports"]
    await cloud.call("one", "DELETE", f"/ports/{port['id']}")
    await cloud.call("one", "DELETE", f"/subnets/{sub}")
    await grew()
    late = {"If-Match": f"revision_number={seen[-2]}"}
    await cloud.call("one", "PUT", path, {"network": {"name": "late"}}, headers=late, expect=412)


async def test_a_routers_revision_grows_with_its_interfaces_and_a_groups_with_its_rules(cloud: Cloud) -> None:
    net, sub = await cloud.network_with_subnet()
    router = f"/routers/{(await made(cloud, 'router', {}))['id']}"
    await cloud.call("one", "PUT", f"{router}/add_router_interface", {"subnet_id": sub})
    assert await revision(cloud, router) == 2
    await cloud.call("one", "PUT", f"{router}/remove_router_interface", {"subnet_id": sub})
    assert await revision(cloud, router) == 3
    port = await made(cloud, "port", {"network_id": net})
    await cloud.call("one", "PUT", f"{router}/add_router_interface", {"port_id": port["id"]})
    assert await revision(cloud, router) == 4 and await revision(cloud, f"/ports/{port['id']}") > 1
    group = f"/security-groups/{(await made(cloud, 'security_group', {'name': 'g'}))['id']}"
    rule = await made(cloud, "security_group_rule", {"security_group_id": group[17:], "direction": "ingress"})
    assert await revision(cloud, group) == 2
    await cloud.call("one", "DELETE", f"/security-group-rules/{rule['id']}")
    assert await revision(cloud, group) == 3


async def test_a_port_that_is_switched_off_is_down(cloud: Cloud) -> None:
    await cloud.host("h1", "192.0.2.1")
    net, _ = await cloud.network_with_subnet()
    order = PortsOrder(server_id="s1", context=CALLERS["one"], requests=(NetworkRequest(network_id=net),))
    [port] = (await cloud.network.plug(order, "h1")).ports
    path = f"/ports/{port.id}"

    async def put(up: Any) -> str:
        return str((await cloud.call("one", "PUT", path, {"port": {"admin_state_up": up}}))["port"]["status"])

    await cloud.network.wired("h1", (port.id,), True)
    assert await put("false") == "DOWN"
    await cloud.network.wired("h1", (port.id,), True)
    assert (await cloud.call("one", "GET", path))["port"]["status"] == "DOWN"
    assert await put(True) == "ACTIVE"
    await cloud.network.wired("h1", (port.id,), False)
    assert await put(False) == "DOWN" and await put(True) == "DOWN"
    [dhcp] = (await cloud.call("one", "GET", f"/ports?network_id={net}&device_owner=network:dhcp"))["ports"]
    path = f"/ports/{dhcp['id']}"
    assert await put(False) == "DOWN" and await put(True) == "ACTIVE"


async def test_a_new_projects_default_group_is_there_when_its_groups_are_listed(cloud: Cloud) -> None:
    rules = (await cloud.call("two", "GET", "/security-group-rules"))["security_group_rules"]
    assert len(rules) == 4 and all(r["belongs_to_default_sg"] for r in rules)
    project = uuid4().hex
    [group] = (await cloud.call("admin", "GET", f"/security-groups?project_id={project}&name=default"))[
        "security_groups"]
    assert group["project_id"] == project and len(group["security_group_rules"]) == 4
    other = uuid4().hex
    await cloud.call("one", "GET", f"/security-groups?tenant_id={other}")
    every = (await cloud.call("admin", "GET", "/security-groups?fields=project_id"))["security_groups"]
    assert other not in {g["project_id"] for g in every}, "only an administrator's question makes another project's"
    assert {g["project_id"] for g in every} >= {project, "p-two", "p-one", "p-admin"}


async def test_the_default_group_keeps_its_name(cloud: Cloud) -> None:
    [group] = (await cloud.call("one", "GET", "/security-groups"))["security_groups"]
    for name in ("default", "Default", "other"):
        await cloud.call("one", "PUT", f"/security-groups/{group['id']}", {"security_group": {"name": name}},
                         expect=409)
    await cloud.call("one", "PUT", f"/security-groups/{group['id']}", {"security_group": {"description": "d"}})


async def test_a_limit_below_what_is_used_must_be_forced(cloud: Cloud) -> None:
    for _ in range(2):
        await made(cloud, "network", {})
    await cloud.call("admin", "PUT", "/quotas/p-one", {"quota": {"network": 1}}, expect=400)
    await cloud.call("admin", "PUT", "/quotas/p-one", {"quota": {"network": 1, "force": "true"}})
    await cloud.call("admin", "PUT", "/quotas/p-one", {"quota": {"network": -1}})


async def test_there_is_no_choice_of_service_providers(cloud: Cloud) -> None:
    assert await cloud.call("one", "GET", "/service-providers?service_type=L3_ROUTER_NAT") == {"service_providers": []}
    await cloud.call("one", "GET", "/service-providers?colour=red", expect=400)


async def test_an_address_of_another_host_is_refused(cloud: Cloud) -> None:
    """Frames for that one's guests would go to who claims it."""
    network: NetworkManager = cloud.network
    net, _ = await cloud.network_with_subnet()
    for n in (1, 2):
        await cloud.host(f"h{n}", f"192.0.2.{n}")
        await network.plug(PortsOrder(server_id=f"s{n}", context=CALLERS["one"],
                                      requests=(NetworkRequest(network_id=net),)), f"h{n}")
    before = await network.wiring("h1", known=Have())

    def claim(host: str, address: str) -> AgentReport:
        return AgentReport(host=host, tunnel_ip=address, bridge_mappings={}, tunnel_types=("vxlan",))

    for host, address in (("h9", "192.0.2.2"), ("h1", "192.0.2.2"), ("h9", "127.0.0.1")):
        with pytest.raises(BadRequest, match="tunnel_ip"):
            await network.agent_report(claim(host, address))
    after = await network.wiring("h1", known=Have())
    assert (after.peers, after.placed) == (before.peers, before.placed) != ({}, ())
    both = await asyncio.gather(network.agent_report(claim("h9", "192.0.2.1")), network.agent_report(
        claim("h8", "192.0.2.8")), return_exceptions=True)  # heard together, judged alone
    assert isinstance(both[0], BadRequest) and both[1] is None
    await cloud.host("h2", "192.0.2.22")  # who moves gives its address back
    await network.agent_report(claim("h9", "192.0.2.2"))
    await network.forget_host("h2")
    await network.agent_report(claim("h3", "192.0.2.22"))
