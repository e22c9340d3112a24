"""QoS policies and their rules over HTTP: who may, what goes together, what is in use."""

from typing import Any

import pytest
from tests.stories.network_cloud import CALLERS, Cloud

from nacre.base.db import Database
from nacre.network.contract import Have, NetworkRequest, PortsOrder, Rate
from nacre.network.nouns.qos import KINDS
from nacre.network.traffic import qos_rules
from nacre.network.work import Work


@pytest.fixture
def cloud(story_db: Database) -> Cloud:
    return Cloud(story_db)


async def policy(cloud: Cloud, who: str = "manager", **more: Any) -> str:
    made = await cloud.call(who, "POST", "/qos/policies", {"policy": {"name": "gold", **more}})
    return str(made["policy"]["id"])


async def rule(cloud: Cloud, policy_id: str, kind: str, expect: int = 201, **values: Any) -> Any:
    body = {f"{kind}_rule": values}
    made = await cloud.call("manager", "POST", f"/qos/policies/{policy_id}/{kind}_rules", body, expect=expect)
    return made.get(f"{kind}_rule") or made["NeutronError"]


async def test_a_policy_from_nothing_to_gone(cloud):
    gold = await policy(cloud, description="d")
    path = f"/qos/policies/{gold}"
    seen = (await cloud.call("watcher", "GET", path))["policy"]
    assert seen["rules"] == [] and not seen["shared"] and not seen["is_default"] and seen["revision_number"] == 1
    made = await rule(cloud, gold, "bandwidth_limit", max_kbps="2000")
    assert made == {"id": made["id"], "max_kbps": 2000, "max_burst_kbps": 0, "direction": "egress"}
    below = f"{path}/bandwidth_limit_rules/{made['id']}"
    changed = await cloud.call("manager", "PUT", below, {"bandwidth_limit_rule": {
        "max_kbps": 3000, "direction": "ingress"}})
    assert changed["bandwidth_limit_rule"] == made | {"max_kbps": 3000, "direction": "ingress"}
    alias = f"/qos/alias-bandwidth-limit-rules/{made['id']}"
    assert await cloud.call("watcher", "GET", alias) == await cloud.call("watcher", "GET", below) == changed
    listed = await cloud.call("manager", "GET", f"{path}/bandwidth_limit_rules?direction=ingress&fields=max_kbps")
    assert listed == {"bandwidth_limit_rules": [{"max_kbps": 3000}]}
    seen = (await cloud.call("manager", "GET", path))["policy"]
    assert seen["rules"] == [changed["bandwidth_limit_rule"] | {"type": "bandwidth_limit", "qos_policy_id": gold}]
    assert seen["revision_number"] == 3
    await cloud.call("manager", "DELETE", alias)
    await cloud.call("manager", "GET", below, expect=404)
    await rule(cloud, gold, "dscp_marking", dscp_mark=46)
    await cloud.call("manager", "PUT", f"{path}/tags", {"tags": ["a"]})
    assert [p["id"] for p in (await cloud.call("one", "GET", "/qos/policies?tags=a"))["policies"]] == [gold]
    await cloud.call("manager", "DELETE", path)
    assert (await cloud.call("manager", "GET", path, expect=404))["NeutronError"]["type"] == "QosPolicyNotFound"


async def test_who_may(cloud):
    gold = await policy(cloud)
    limit = await rule(cloud, gold, "bandwidth_limit", max_kbps=1)
    path = f"/qos/policies/{gold}/bandwidth_limit_rules"
    for who, expect in (("one", 403), ("watcher", 403), ("two", 404)):
        await cloud.call(who, "PUT", f"/qos/policies/{gold}", {"policy": {"name": "x"}}, expect=expect)
        await cloud.call(who, "DELETE", f"{path}/{limit['id']}", expect=expect)
        await cloud.call(who, "PUT", f"/qos/alias-bandwidth-limit-rules/{limit['id']}",
                         {"bandwidth_limit_rule": {"max_kbps": 5}}, expect=expect)
        # Whose policy it is, or whether it is there, nobody is told who may give no rule to any.
        await cloud.call(who, "POST", path, {"bandwidth_limit_rule": {"max_kbps": 1}}, expect=403)
    await cloud.call("one", "POST", "/qos/policies", {"policy": {"name": "x"}}, expect=403)
    await cloud.call("one", "GET", "/qos/rule-types/bandwidth_limit", expect=403)
    await cloud.call("admin", "POST", "/qos/policies/nowhere/bandwidth_limit_rules",
                     {"bandwidth_limit_rule": {"max_kbps": 1}}, expect=404)
    await cloud.call("admin", "PUT", f"/qos/policies/{await policy(cloud)}/bandwidth_limit_rules/{limit['id']}",
                     {"bandwidth_limit_rule": {"max_kbps": 1}}, expect=404)


async def test_no_kind_of_rule_is_said_to_be_enforced_before_hosts_do(cloud):
    assert await cloud.call("one", "GET", "/qos/rule-types") == {"rule_types": []}
    every = (await cloud.call("one", "GET", "/qos/rule-types?all_rules=true"))["rule_types"]
    assert [r["type"] for r in every] == list(KINDS)
    shown = await cloud.call("admin", "GET", "/qos/rule-types/dscp_marking")
    assert shown == {"rule_type": {"type": "dscp_marking", "drivers": []}}
    await cloud.call("admin", "GET", "/qos/rule-types/colour", expect=400)
    named = {e["alias"] for e in (await cloud.call("one", "GET", "/extensions"))["extensions"]}
    assert not {alias for alias in named if alias.startswith("qos")}


@pytest.mark.parametrize(("kind", "values", "field"), [
    ("bandwidth_limit", {"max_kbps": -1}, "max_kbps"), ("bandwidth_limit", {"max_kbps": 1 << 31}, "max_kbps"),
    ("bandwidth_limit", {}, "max_kbps"), ("bandwidth_limit", {"max_kbps": "x"}, "max_kbps"),
    ("bandwidth_limit", {"max_kbps": 1, "direction": "any"}, "direction"),
    ("bandwidth_limit", {"max_kbps": 1, "colour": 1}, "colour"), ("dscp_marking", {"dscp_mark": 58}, "dscp_mark"),
    ("dscp_marking", {"dscp_mark": 10, "direction": "egress"}, "direction"),
    ("minimum_bandwidth", {"min_kbps": None}, "min_kbps"), ("minimum_packet_rate", {"direction": "any"}, "min_kpps"),
    ("packet_rate_limit", {"max_kpps": 5, "max_burst_kpps": -1}, "max_burst_kpps")])
async def test_bad_values_are_named(cloud, kind, values, field):
    assert field in (await rule(cloud, await policy(cloud), kind, 400, **values))["message"]


async def test_rules_that_do_not_go_together(cloud):
    gold = await policy(cloud)
    await rule(cloud, gold, "bandwidth_limit", max_kbps=100)
    assert (await rule(cloud, gold, "bandwidth_limit", 409, max_kbps=200))["type"] == "QoSRulesConflict"
    await rule(cloud, gold, "bandwidth_limit", max_kbps=200, direction="ingress")
    assert (await rule(cloud, gold, "minimum_bandwidth", 409, min_kbps=101))["type"] == "QoSRuleParameterConflict"
    least = await rule(cloud, gold, "minimum_bandwidth", min_kbps=101, direction="ingress")
    await cloud.call("manager", "PUT", f"/qos/alias-minimum-bandwidth-rules/{least['id']}",
                     {"minimum_bandwidth_rule": {"min_kbps": 201}}, expect=409)
    await rule(cloud, gold, "minimum_packet_rate", min_kpps=1)
    await rule(cloud, gold, "minimum_packet_rate", 409, min_kpps=1, direction="any")
    await rule(cloud, gold, "minimum_packet_rate", min_kpps=1, direction="ingress")


async def test_networks_and_ports_bear_policies(cloud):
    gold, iron = await policy(cloud), await policy(cloud, "admin")
    net, _ = await cloud.network_with_subnet(qos_policy_id=gold)
    port = (await cloud.call("one", "POST", "/ports", {"port": {"network_id": net}}))["port"]
    assert port["qos_policy_id"] is None and port["qos_network_policy_id"] == gold
    for path, body in ((f"/ports/{port['id']}", "port"), (f"/networks/{net}", "network")):
        for wanted in (iron, "11111111-2222-4333-8444-555555555555"):  # another's is as if it were not there
            answer = await cloud.call("one", "PUT", path, {body: {"qos_policy_id": wanted}}, expect=404)
            assert answer["NeutronError"]["type"] == "QosPolicyNotFound"
        await cloud.call("one", "PUT", path, {body: {"qos_policy_id": "gold"}}, expect=400)
        before = (await cloud.call("one", "GET", path))[body]["revision_number"]
        changed = (await cloud.call("one", "PUT", path, {body: {"qos_policy_id": gold}}))[body]
        assert changed["qos_policy_id"] == gold and changed["revision_number"] > before
        assert (await cloud.call("manager", "DELETE", f"/qos/policies/{gold}", expect=409))[
            "NeutronError"]["type"] == "QosPolicyInUse"
        # What an operator put there, its owner does not take away.
        await cloud.call("admin", "PUT", path, {body: {"qos_policy_id": iron}})
        answer = await cloud.call("one", "PUT", path, {body: {"qos_policy_id": None}}, expect=403)
        assert answer["NeutronError"]["type"] == "PolicyRemoveAuthorizationError"
        await cloud.call("one", "PUT", path, {body: {"name": "x"}})
        await cloud.call("admin", "PUT", f"/qos/policies/{iron}", {"policy": {"shared": True}})
        await cloud.call("one", "PUT", path, {body: {"qos_policy_id": None}})
        await cloud.call("admin", "PUT", f"/qos/policies/{iron}", {"policy": {"shared": False}})
    await cloud.call("manager", "DELETE", f"/qos/policies/{gold}")


async def test_a_new_network_has_its_projects_default(cloud):
    gold = await policy(cloud, is_default=True)
    assert (await cloud.call("manager", "POST", "/qos/policies", {"policy": {"is_default": True}}, expect=409))[
        "NeutronError"]["type"] == "QoSPolicyDefaultAlreadyExists"
    other = await policy(cloud)
    await cloud.call("manager", "PUT", f"/qos/policies/{other}", {"policy": {"is_default": True}}, expect=409)
    for more, found in (({}, gold), ({"qos_policy_id": other}, other), ({"qos_policy_id": None}, gold)):
        assert (await cloud.call("one", "POST", "/networks", {"network": more}))["network"]["qos_policy_id"] == found
    assert (await cloud.call("two", "POST", "/networks", {"network": {}}))["network"]["qos_policy_id"] is None


async def test_sharing_ends_when_nobody_needs_it(cloud):
    iron = await policy(cloud, "admin", shared=True)
    net = (await cloud.call("one", "POST", "/networks", {"network": {"qos_policy_id": iron}}))["network"]["id"]
    answer = await cloud.call("admin", "PUT", f"/qos/policies/{iron}", {"policy": {"shared": False}}, expect=409)
    assert answer["NeutronError"]["type"] == "RbacPolicyInUse"
    single = (await cloud.call("admin", "POST", "/rbac-policies", {"rbac_policy": {
        "object_type": "qos_policy", "object_id": iron, "action": "access_as_shared", "target_tenant": "*"}},
        expect=409))["NeutronError"]["type"]
    assert single == "DuplicatePolicyError"
    await cloud.call("one", "DELETE", f"/networks/{net}")
    await cloud.call("admin", "PUT", f"/qos/policies/{iron}", {"policy": {"shared": False}})
    await cloud.call("one", "GET", f"/qos/policies/{iron}", expect=404)


async def test_policies_are_counted(cloud):
    await cloud.call("admin", "PUT", "/quotas/p-one", {"quota": {"policy": 1}})
    for _ in range(2):
        gold = await policy(cloud)
        answer = await cloud.call("manager", "POST", "/qos/policies", {"policy": {}}, expect=409)
        assert answer["NeutronError"]["type"] == "OverQuota"
        await cloud.call("manager", "DELETE", f"/qos/policies/{gold}")


async def test_what_hosts_will_have_of_it(cloud):
    gold, none = await policy(cloud), await policy(cloud)
    await rule(cloud, gold, "bandwidth_limit", max_kbps=1000, max_burst_kbps=80)
    await rule(cloud, gold, "bandwidth_limit", max_kbps=3000, direction="ingress")
    await rule(cloud, gold, "minimum_bandwidth", min_kbps=10)
    await rule(cloud, gold, "dscp_marking", dscp_mark=46)

    def step(work: Work) -> Any:
        return {f.id: f for f in qos_rules.facts_of(work, [gold, none], 7)}

    found = await cloud.db.read(lambda conn: step(Work(
        conn, None, cloud.clock, cloud.network.settings, cloud.policy, lambda *_: None)))  # type: ignore[arg-type]
    assert found[gold].to_guest == Rate(kbps=3000) and found[gold].from_guest == Rate(kbps=1000, burst_kbit=80)
    assert found[gold].dscp == 46 and found[gold].n == 7
    assert found[none].to_guest is None and found[none].dscp is None
    net, _ = await cloud.network_with_subnet(qos_policy_id=none)
    await cloud.host("h1", "192.0.2.1")
    ports = [(await cloud.call("admin", "POST", "/ports", {"port": {
        "network_id": net, "binding:host_id": "h1", **more}}))["port"]["id"] for more in (
            {}, {"qos_policy_id": gold}, {"device_owner": "network:x"})]
    wired = {port.id: port.qos for port in (await cloud.network.wiring("h1", known=Have())).ports}
    assert [wired[port] for port in ports] == [none, gold, None]


async def test_a_guest_does_not_leave_its_networks_policy(cloud):
    """Neither by what its owner calls the port, nor by a router; what the cloud calls its own has none."""
    await cloud.host("h1", "192.0.2.1")
    net, _ = await cloud.network_with_subnet()
    iron = await policy(cloud, "admin")
    await cloud.call("admin", "PUT", f"/networks/{net}", {"network": {"qos_policy_id": iron}})
    order = PortsOrder(server_id="11111111-2222-4333-8444-555555555555", context=CALLERS["one"], requests=(
        NetworkRequest(network_id=net),))
    guest = (await cloud.network.plug(order, "h1")).ports[0].id
    other = (await cloud.call("admin", "POST", "/ports", {"port": {
        "network_id": net, "project_id": "p-one", "binding:host_id": "h1"}}))["port"]["id"]
    for each in (guest, other):
        await cloud.call("one", "PUT", f"/ports/{each}", {"port": {"device_owner": "neutron:x", "device_id": ""}})
    router = (await cloud.call("one", "POST", "/routers", {"router": {}}))["router"]["id"]
    await cloud.call("one", "PUT", f"/routers/{router}/add_router_interface", {"port_id": guest}, expect=409)
    wired = {port.id: port.qos for port in (await cloud.network.wiring("h1", known=Have())).ports}
    assert wired[guest] == wired[other] == iron


async def test_a_policy_shared_by_its_attribute_counts_as_one_shared_by_a_rule(cloud):
    await cloud.call("admin", "PUT", "/quotas/p-one", {"quota": {"rbac_policy": 1}})
    first = await policy(cloud, shared=True)
    body = {"policy": {"name": "x", "shared": True}}
    for method, path in (("POST", "/qos/policies"), ("PUT", f"/qos/policies/{await policy(cloud)}")):
        answer = await cloud.call("manager", method, path, body, expect=409)
        assert answer["NeutronError"]["type"] == "OverQuota"
    await cloud.call("manager", "PUT", f"/qos/policies/{first}", {"policy": {"shared": True}})
    await cloud.call("manager", "PUT", f"/qos/policies/{first}", {"policy": {"shared": False}})
    await policy(cloud, shared=True)
