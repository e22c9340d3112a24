"""What is opened to others is closed when nobody needs it; what another shares is not changed."""

import pytest
from tests.stories.network_cloud import CALLERS, Cloud

from nacre.base.db import Database


@pytest.fixture
def cloud(story_db: Database) -> Cloud:
    return Cloud(story_db)


async def external(cloud: Cloud) -> tuple[str, str]:
    """An external network, and the path of the policy that opens it to all."""
    net, _ = await cloud.network_with_subnet("admin", "203.0.113.0/24", **{"router:external": True})
    [policy] = (await cloud.call("admin", "GET", f"/rbac-policies?object_id={net}"))["rbac_policies"]
    return net, f"/rbac-policies/{policy['id']}"


async def test_an_external_network_is_narrowed_to_those_who_use_it(cloud):
    net, path = await external(cloud)
    await cloud.call("three", "POST", "/routers", {"router": {"external_gateway_info": {"network_id": net}}})
    user = str(CALLERS["three"].project_id)
    await cloud.call("admin", "PUT", path, {"rbac_policy": {"target_tenant": "f" * 32}}, expect=409)
    narrowed = await cloud.call("admin", "PUT", path, {"rbac_policy": {"target_tenant": user}})
    assert narrowed["rbac_policy"]["target_tenant"] == user
    await cloud.call("admin", "DELETE", path, expect=409)
    assert (await cloud.call("admin", "GET", f"/networks/{net}"))["network"]["router:external"]


async def test_a_shared_network_is_narrowed_to_those_who_use_it(cloud):
    """Where Neutron counts to whom it is opened instead for external networks alone."""
    net, _ = await cloud.network_with_subnet("admin", "10.9.0.0/24", shared=True)
    [policy] = (await cloud.call("admin", "GET", f"/rbac-policies?object_id={net}"))["rbac_policies"]
    path, user = f"/rbac-policies/{policy['id']}", str(CALLERS["three"].project_id)
    await cloud.call("three", "POST", "/ports", {"port": {"network_id": net}})
    for target, expect in (("f" * 32, 409), (user, 200), ("f" * 32, 409), ("*", 200)):
        await cloud.call("admin", "PUT", path, {"rbac_policy": {"target_tenant": target}}, expect=expect)
    await cloud.call("admin", "DELETE", path, expect=409)


async def test_the_default_external_network_is_everybodys(cloud):
    net, path = await external(cloud)
    await cloud.call("admin", "PUT", f"/networks/{net}", {"network": {"is_default": True}})
    for method, body in (("DELETE", None), ("PUT", {"rbac_policy": {"target_tenant": "f" * 32}})):
        answer = await cloud.call("admin", method, path, body, expect=409)
        assert answer["NeutronError"]["type"] == "RbacPolicyInUse"
    await cloud.call("admin", "PUT", f"/networks/{net}", {"network": {"is_default": False}})
    await cloud.call("admin", "DELETE", path)


async def test_an_address_group_of_others_is_looked_at_and_not_there_to_be_changed(cloud):
    made = (await cloud.call("admin", "POST", "/address-groups", {"address_group": {}}))["address_group"]["id"]
    await cloud.call("admin", "POST", "/rbac-policies", {"rbac_policy": {
        "object_type": "address_group", "object_id": made, "action": "access_as_shared", "target_tenant": "*"}})
    path = f"/address-groups/{made}"
    await cloud.call("two", "GET", path)
    for method, where, body in (("PUT", path, {"address_group": {"name": "x"}}), ("DELETE", path, None),
                                ("PUT", f"{path}/add_addresses", {"addresses": ["192.0.2.0/24"]})):
        await cloud.call("two", method, where, body, expect=404)
    own = (await cloud.call("one", "POST", "/address-groups", {"address_group": {}}))["address_group"]["id"]
    await cloud.call("watcher", "PUT", f"/address-groups/{own}", {"address_group": {"name": "x"}}, expect=403)
    await cloud.call("one", "PUT", f"/address-groups/{own}", {"address_group": {"name": "x"}})
    await cloud.call("one", "DELETE", f"/address-groups/{own}")


async def test_a_pool_is_shared_with_those_who_have_its_scope(cloud):
    scope = (await cloud.call("one", "POST", "/address-scopes", {"address_scope": {
        "name": "s", "ip_version": 4}}))["address_scope"]["id"]
    pool = (await cloud.call("one", "POST", "/subnetpools", {"subnetpool": {
        "name": "p", "prefixes": ["10.0.0.0/8"], "address_scope_id": scope}}))["subnetpool"]["id"]
    target = str(CALLERS["three"].project_id)

    async def share(kind: str, thing: str, expect: int) -> None:
        await cloud.call("one", "POST", "/rbac-policies", {"rbac_policy": {
            "object_type": kind, "object_id": thing, "action": "access_as_shared", "target_tenant": target}},
            expect=expect)

    await share("subnetpool", pool, 400)
    await share("address_scope", scope, 201)
    await share("subnetpool", pool, 201)
