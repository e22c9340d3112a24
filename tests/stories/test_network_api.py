"""Networks, subnets, ports, security groups and quotas over HTTP, by two projects."""

from uuid import uuid4

import pytest
from tests.stories.network_cloud import THREE, Cloud

from nacre.base.db import Database


@pytest.fixture
def cloud(story_db: Database) -> Cloud:
    return Cloud(story_db)


async def test_version_documents_need_no_token(cloud):
    async with cloud.client() as client:
        assert (await client.get("/")).json()["versions"][0]["id"] == "v2.0"
        assert (await client.get("/v2.0/")).status_code == 200
        refused = await client.get("/v2.0/networks")
        assert refused.status_code == 401
        assert "WWW-Authenticate" in refused.headers


async def test_a_network_from_create_to_delete(cloud):
    made = (await cloud.call("one", "POST", "/networks", {"network": {"name": "a", "description": "d"}}))["network"]
    assert made["status"] == "ACTIVE" and made["shared"] is False and made["mtu"] == 1450
    assert made["project_id"] == made["tenant_id"] == "p-one"
    assert "provider:network_type" not in made
    seen = (await cloud.call("admin", "GET", f"/networks/{made['id']}"))["network"]
    assert seen["provider:network_type"] == "vxlan" and seen["provider:segmentation_id"] == 1
    changed = (await cloud.call("one", "PUT", f"/networks/{made['id']}", {"network": {"name": "b"}}))["network"]
    assert changed["name"] == "b" and changed["revision_number"] == 2
    await cloud.call("one", "DELETE", f"/networks/{made['id']}")
    gone = await cloud.call("one", "GET", f"/networks/{made['id']}", expect=404)
    assert gone["NeutronError"] == {"type": "NetworkNotFound", "detail": "",
                                    "message": f"Network {made['id']} could not be found."}


@pytest.mark.parametrize(("body", "message"), [
    ({"network": {"bogus": 1}}, "Unrecognized attribute(s) 'bogus'"),
    ({"network": {"status": "x"}}, "Attribute 'status' not allowed in POST"),
    ({"network": {"admin_state_up": "perhaps"}}, "Invalid input for admin_state_up"),
    ({"network": {"name": "x" * 256}}, "exceeds maximum length of 255"),
    ({"network": {"name": 5}}, "not a valid string"),
    ({"net": {}}, "Unable to find 'network' in request body"),
    ({"network": []}, "not a dictionary"),
    ({"networks": []}, "must be a list of 1 to"),
    ([], "Resource body required"),
])
async def test_bad_networks_are_refused_by_name(cloud, body, message):
    answer = await cloud.call("one", "POST", "/networks", body, expect=400)
    assert message in answer["NeutronError"]["message"]
    assert answer["NeutronError"]["type"] == "HTTPBadRequest"


@pytest.mark.parametrize(("change", "kind"), [
    ({"cidr": "10.0.0.300/24"}, "HTTPBadRequest"), ({"cidr": "10.0.0.0"}, "InvalidInput"),
    ({"ip_version": 6}, "InvalidInput"), ({"ip_version": 5}, "HTTPBadRequest"),
    ({"gateway_ip": "10.0.0.0"}, "InvalidInput"), ({"gateway_ip": "nope"}, "HTTPBadRequest"),
    ({"allocation_pools": [{"start": "10.0.0.9", "end": "10.0.0.2"}]}, "InvalidAllocationPool"),
    ({"allocation_pools": [{"start": "10.0.0.9", "end": "10.0.1.2"}]}, "OutOfBoundsAllocationPool"),
    ({"dns_nameservers": ["1.1.1.1", "1.1.1.1"]}, "HTTPBadRequest"),
    ({"host_routes": [{"destination": "10.9.0.0/16"}]}, "HTTPBadRequest"),
    ({"ipv6_ra_mode": "slaac"}, "InvalidInput"), ({"cidr": "0.0.0.0/0"}, "InvalidInput"),
])
async def test_bad_subnets_are_refused(cloud, change, kind):
    net = (await cloud.call("one", "POST", "/networks", {"network": {}}))["network"]["id"]
    body = {"network_id": net, "cidr": "10.0.0.0/24", "ip_version": 4} | change
    answer = await cloud.call("one", "POST", "/subnets", {"subnet": body}, expect=400)
    assert answer["NeutronError"]["type"] == kind, answer


async def test_subnets_do_not_overlap_and_stay_while_used(cloud):
    net, sub = await cloud.network_with_subnet()
    clash = await cloud.call("one", "POST", "/subnets", {"subnet": {
        "network_id": net, "cidr": "10.0.0.128/25", "ip_version": 4}}, expect=400)
    assert "overlaps" in clash["NeutronError"]["message"]
    port = (await cloud.call("one", "POST", "/ports", {"port": {"network_id": net}}))["port"]
    assert port["fixed_ips"][0]["subnet_id"] == sub
    used = await cloud.call("one", "DELETE", f"/subnets/{sub}", expect=409)
    assert used["NeutronError"]["type"] == "SubnetInUse"
    used = await cloud.call("one", "DELETE", f"/networks/{net}", expect=409)
    assert used["NeutronError"]["type"] == "NetworkInUse"
    await cloud.call("one", "DELETE", f"/ports/{port['id']}")
    await cloud.call("one", "DELETE", f"/networks/{net}")
    await cloud.call("one", "GET", f"/subnets/{sub}", expect=404)


async def test_ports_get_the_addresses_they_ask_for(cloud):
    net, sub = await cloud.network_with_subnet()
    create = {"network_id": net, "fixed_ips": [{"ip_address": "10.0.0.77"}], "mac_address": "FA-16-3E-00-00-01"}
    port = (await cloud.call("one", "POST", "/ports", {"port": create}))["port"]
    assert port["fixed_ips"] == [{"subnet_id": sub, "ip_address": "10.0.0.77"}]
    assert port["mac_address"] == "fa:16:3e:00:00:01" and len(port["security_groups"]) == 1
    taken = await cloud.call("one", "POST", "/ports", {"port": create | {"mac_address": None}}, expect=409)
    assert taken["NeutronError"]["type"] == "IpAddressAlreadyAllocated"
    taken = await cloud.call("one", "POST", "/ports", {"port": create | {"fixed_ips": []}}, expect=409)
    assert taken["NeutronError"]["type"] == "MacAddressInUse"
    bad = await cloud.call("one", "POST", "/ports", {"port": {
        "network_id": net, "fixed_ips": [{"ip_address": "10.9.0.7"}]}}, expect=400)
    assert bad["NeutronError"]["type"] == "InvalidIpForNetwork"
    moved = (await cloud.call("one", "PUT", f"/ports/{port['id']}", {"port": {
        "fixed_ips": [{"ip_address": "10.0.0.78"}, {"subnet_id": sub}]}}))["port"]
    assert moved["fixed_ips"][0]["ip_address"] == "10.0.0.78" and len(moved["fixed_ips"]) == 2


async def test_a_slaac_subnet_gives_the_address_of_the_mac(cloud):
    net = (await cloud.call("one", "POST", "/networks", {"network": {}}))["network"]["id"]
    await cloud.call("one", "POST", "/subnets", {"subnet": {
        "network_id": net, "cidr": "2001:db8::/64", "ip_version": 6, "ipv6_ra_mode": "slaac",
        "ipv6_address_mode": "slaac"}})
    port = (await cloud.call("one", "POST", "/ports", {"port": {
        "network_id": net, "mac_address": "fa:16:3e:00:00:01"}}))["port"]
    assert port["fixed_ips"][0]["ip_address"] == "2001:db8::f816:3eff:fe00:1"


async def test_a_full_subnet_says_so(cloud):
    net, _ = await cloud.network_with_subnet(cidr="10.0.0.0/29")
    for _ in range(4):  # of six addresses the gateway and DHCP have one each
        await cloud.call("one", "POST", "/ports", {"port": {"network_id": net}})
    full = await cloud.call("one", "POST", "/ports", {"port": {"network_id": net}}, expect=409)
    assert full["NeutronError"]["type"] == "IpAddressGenerationFailure"


async def test_bulk_is_all_or_nothing(cloud):
    net, _ = await cloud.network_with_subnet()
    made = await cloud.call("one", "POST", "/ports", {"ports": [{"network_id": net}, {"network_id": net}]})
    assert len(made["ports"]) == 2
    await cloud.call("one", "POST", "/ports", {"ports": [{"network_id": net}, {"network_id": str(uuid4())}]},
                     expect=404)
    assert len((await cloud.call("one", "GET", "/ports?device_owner="))["ports"]) == 2


async def test_lists_filter_sort_page_and_pick_fields(cloud):
    for name in ("c", "a", "b"):
        await cloud.call("one", "POST", "/networks", {"network": {"name": name}})
    names = [n["name"] for n in (await cloud.call("one", "GET", "/networks?sort_key=name&sort_dir=desc"))["networks"]]
    assert names == ["c", "b", "a"]
    page = await cloud.call("one", "GET", "/networks?sort_key=name&limit=2&fields=name&fields=id")
    assert [n["name"] for n in page["networks"]] == ["a", "b"]
    assert set(page["networks"][0]) == {"name", "id"}
    rest = {link["rel"]: link["href"] for link in page["networks_links"]}
    last = await cloud.call("one", "GET", rest["next"].split("/v2.0")[1])
    assert [n["name"] for n in last["networks"]] == ["c"]
    assert [n["name"] for n in (await cloud.call("one", "GET", "/networks?name=b&name=c&shared=False"))["networks"]
            ] in (["b", "c"], ["c", "b"])
    await cloud.call("one", "GET", "/networks?colour=red", expect=400)
    await cloud.call("one", "GET", "/networks?limit=-1", expect=400)
    await cloud.call("one", "GET", f"/networks?marker={uuid4()}&limit=1", expect=404)


async def test_another_project_sees_nothing(cloud):
    net, sub = await cloud.network_with_subnet()
    port = (await cloud.call("one", "POST", "/ports", {"port": {"network_id": net}}))["port"]
    group = (await cloud.call("one", "POST", "/security-groups", {"security_group": {"name": "g"}}))["security_group"]
    rule = group["security_group_rules"][0]["id"]
    for path, name in ((f"/networks/{net}", "network"), (f"/subnets/{sub}", "subnet"), (f"/ports/{port['id']}", "port"),
                       (f"/security-groups/{group['id']}", "security_group")):
        await cloud.call("two", "GET", path, expect=404)
        await cloud.call("two", "PUT", path, {name: {"name": "mine"}}, expect=404)
        await cloud.call("two", "DELETE", path, expect=404)
        await cloud.call("two", "PUT", f"{path}/tags/x", expect=404)
        await cloud.call("two", "GET", f"{path}/tags", expect=404)
    await cloud.call("two", "DELETE", f"/security-group-rules/{rule}", expect=404)
    await cloud.call("two", "POST", "/ports", {"port": {"network_id": net}}, expect=404)
    await cloud.call("two", "POST", "/subnets", {"subnet": {
        "network_id": net, "cidr": "10.1.0.0/24", "ip_version": 4}}, expect=404)
    await cloud.call("two", "POST", "/security-group-rules", {"security_group_rule": {
        "security_group_id": group["id"], "direction": "ingress"}}, expect=404)
    mine, _ = await cloud.network_with_subnet("two")
    await cloud.call("two", "POST", "/ports", {"port": {
        "network_id": mine, "security_groups": [group["id"]]}}, expect=404)
    for plural in ("networks", "subnets", "ports"):
        assert all(r["project_id"] == "p-two" for r in (await cloud.call("two", "GET", f"/{plural}"))[plural])
    assert not (await cloud.call("two", "GET", "/networks?project_id=p-one"))["networks"]


async def test_privileges_are_refused_to_tenants(cloud):
    for given in ({"shared": True}, {"router:external": True}, {"provider:network_type": "vlan"}):
        await cloud.call("one", "POST", "/networks", {"network": given}, expect=403)
    await cloud.call("one", "POST", "/networks", {"network": {"project_id": "p-two"}}, expect=400)
    net, _ = await cloud.network_with_subnet()
    for given in ({"device_owner": "network:dhcp"}, {"binding:host_id": "h"}, {"binding:profile": {"a": 1}}):
        await cloud.call("one", "POST", "/ports", {"port": {"network_id": net} | given}, expect=403)
    port = (await cloud.call("one", "POST", "/ports", {"port": {"network_id": net}}))["port"]
    assert "binding:host_id" not in port
    await cloud.call("one", "PUT", f"/ports/{port['id']}", {"port": {"device_owner": "network:router_interface"}},
                     expect=403)
    await cloud.call("watcher", "POST", "/networks", {"network": {}}, expect=403)
    await cloud.call("watcher", "DELETE", f"/ports/{port['id']}", expect=403)
    assert (await cloud.call("one", "GET", "/agents"))["agents"] == []


async def test_a_shared_network_may_be_used_but_not_changed(cloud):
    net, subnet = await cloud.network_with_subnet("admin", shared=True)
    assert (await cloud.call("two", "GET", f"/networks/{net}"))["network"]["shared"] is True
    mine = (await cloud.call("two", "POST", "/ports", {"port": {
        "network_id": net, "fixed_ips": [{"subnet_id": subnet}]}}))["port"]
    await cloud.call("two", "PUT", f"/ports/{mine['id']}", {"port": {"fixed_ips": [{"subnet_id": subnet}]}}, expect=403)
    await cloud.call("two", "DELETE", f"/ports/{mine['id']}")
    await cloud.call("two", "PUT", f"/networks/{net}", {"network": {"name": "x"}}, expect=403)
    await cloud.call("two", "PUT", f"/networks/{net}/tags/x", expect=403)
    port = (await cloud.call("two", "POST", "/ports", {"port": {"network_id": net}}))["port"]
    await cloud.call("two", "POST", "/ports", {"port": {
        "network_id": net, "fixed_ips": [{"ip_address": "10.0.0.9"}]}}, expect=403)
    await cloud.call("two", "POST", "/ports", {"port": {
        "network_id": net, "allowed_address_pairs": [{"ip_address": "10.0.0.1"}]}}, expect=403)
    used = await cloud.call("admin", "PUT", f"/networks/{net}", {"network": {"shared": False}}, expect=409)
    assert used["NeutronError"]["type"] == "InvalidSharedSetting"
    await cloud.call("two", "DELETE", f"/ports/{port['id']}")
    await cloud.call("admin", "PUT", f"/networks/{net}", {"network": {"shared": False}})
    await cloud.call("two", "GET", f"/networks/{net}", expect=404)


async def test_pages_of_agents(cloud):
    for n in range(3, 8):
        await cloud.host(f"h{n}", f"192.0.2.{n}")
    whole = (await cloud.call("admin", "GET", "/agents?sort_key=host&sort_dir=desc&fields=id&fields=host"))["agents"]
    assert [set(each) for each in whole] == [{"id", "host"}] * len(whole)
    assert [a["host"] for a in whole] == sorted((a["host"] for a in whole), reverse=True)
    found, path = [], "/agents?limit=3"
    while path:
        page = await cloud.call("admin", "GET", path)
        assert len(page["agents"]) <= 3
        found += [a["id"] for a in page["agents"]]
        after = [each["href"] for each in page["agents_links"] if each["rel"] == "next"]
        path = after[0].partition("/v2.0")[2] if after else ""
    assert found == sorted(a["id"] for a in whole)
    living = (await cloud.call("admin", "GET", "/agents?alive=yes&limit=100"))["agents"]
    assert len(living) == len(whole) and not (await cloud.call("admin", "GET", "/agents?alive=False"))["agents"]
    await cloud.call("admin", "GET", "/agents?marker=nope&limit=1", expect=404)
    for wrong in ("colour=red", "limit=x", "sort_key=configurations", "alive=maybe"):
        await cloud.call("admin", "GET", f"/agents?{wrong}", expect=400)


async def test_control_characters_never_reach_a_host(cloud):
    net, _ = await cloud.network_with_subnet()
    for given in ({"extra_dhcp_opts": [{"opt_name": "server-ip", "opt_value": "x\ndhcp-script=/bin/sh"}]},
                  {"extra_dhcp_opts": [{"opt_name": "a\nb", "opt_value": "x"}]},
                  {"dns_name": "a\nb"}, {"device_id": "a\nb"}, {"device_owner": "compute:\n"}):
        await cloud.call("one", "POST", "/ports", {"port": {"network_id": net} | given}, expect=400)
    await cloud.call("one", "POST", "/networks", {"network": {"dns_domain": "a\nb."}}, expect=400)


async def test_port_security_and_groups_go_together(cloud):
    net, _ = await cloud.network_with_subnet()
    port = (await cloud.call("one", "POST", "/ports", {"port": {"network_id": net}}))["port"]
    path = f"/ports/{port['id']}"
    no = await cloud.call("one", "PUT", path, {"port": {"port_security_enabled": False}}, expect=409)
    assert no["NeutronError"]["type"] == "PortSecurityPortHasSecurityGroup"
    await cloud.call("one", "PUT", path, {"port": {"port_security_enabled": False, "security_groups": []}})
    no = await cloud.call("one", "PUT", path, {"port": {
        "allowed_address_pairs": [{"ip_address": "10.0.0.0/24"}]}}, expect=409)
    assert no["NeutronError"]["type"] == "AddressPairAndPortSecurityRequired"


async def test_security_groups_have_neutrons_defaults_and_no_doubles(cloud):
    groups = (await cloud.call("one", "GET", "/security-groups"))["security_groups"]
    assert [g["name"] for g in groups] == ["default"] and len(groups[0]["security_group_rules"]) == 4
    await cloud.call("one", "DELETE", f"/security-groups/{groups[0]['id']}", expect=409)
    await cloud.call("one", "POST", "/security-groups", {"security_group": {"name": "default"}}, expect=409)
    group = (await cloud.call("one", "POST", "/security-groups", {"security_group": {"name": "web"}}))["security_group"]
    assert {r["direction"] for r in group["security_group_rules"]} == {"egress"}
    rule = {"security_group_id": group["id"], "direction": "ingress", "protocol": "TCP", "port_range_min": 80,
            "port_range_max": "80", "remote_ip_prefix": "10.0.0.5/8"}
    made = (await cloud.call("one", "POST", "/security-group-rules", {"security_group_rule": rule}))
    made = made["security_group_rule"]
    assert made["protocol"] == "tcp" and made["port_range_max"] == 80 and made["normalized_cidr"] == "10.0.0.0/8"
    twice = await cloud.call("one", "POST", "/security-group-rules", {"security_group_rule": rule | {
        "protocol": 6, "remote_ip_prefix": "10.0.0.0/8"}}, expect=409)
    assert twice["NeutronError"]["type"] == "SecurityGroupRuleExists"
    await cloud.call("one", "DELETE", f"/security-group-rules/{made['id']}")
    await cloud.call("one", "DELETE", f"/security-groups/{group['id']}")


async def test_quotas_bind_and_are_the_operators(cloud):
    await cloud.call("one", "PUT", "/quotas/p-one", {"quota": {"network": 1}}, expect=403)
    set_ = await cloud.call("admin", "PUT", "/quotas/p-one", {"quota": {"network": 1, "port": "7"}})
    assert set_["quota"]["network"] == 1 and set_["quota"]["port"] == 7
    await cloud.call("one", "POST", "/networks", {"network": {}})
    over = await cloud.call("one", "POST", "/networks", {"network": {}}, expect=409)
    assert over["NeutronError"]["type"] == "OverQuota"
    details = await cloud.call("one", "GET", "/quotas/p-one/details.json")
    assert details["quota"]["network"] == {"limit": 1, "used": 1, "reserved": 0}
    await cloud.call("two", "GET", "/quotas/p-one", expect=403)
    await cloud.call("admin", "DELETE", "/quotas/p-one")
    assert (await cloud.call("one", "GET", "/quotas/p-one"))["quota"]["network"] == 100
    for bad in ({"bogus": 1}, {"network": -2}, {"network": None}, {"network": 2**40}):
        await cloud.call("admin", "PUT", "/quotas/p-one", {"quota": bad}, expect=400)


async def test_tags_and_revisions(cloud):
    net, _ = await cloud.network_with_subnet()
    path = f"/networks/{net}/tags"
    await cloud.call("one", "PUT", path, {"tags": ["b", "a", "a"]}, expect=400)
    assert (await cloud.call("one", "PUT", path, {"tags": ["b", "a"]}))["tags"] == ["a", "b"]
    await cloud.call("one", "PUT", f"{path}/c", expect=201)
    await cloud.call("one", "GET", f"{path}/c", expect=204)
    await cloud.call("one", "DELETE", f"{path}/a")
    await cloud.call("one", "DELETE", f"{path}/a", expect=404)
    assert (await cloud.call("one", "GET", path))["tags"] == ["b", "c"]
    assert len((await cloud.call("one", "GET", "/networks?tags=b,c"))["networks"]) == 1
    assert not (await cloud.call("one", "GET", "/networks?not-tags-any=b,x"))["networks"]
    await cloud.call("one", "PUT", f"/networks/{net}", {"network": {"name": "n"}},
                     headers={"If-Match": "revision_number=1"}, expect=412)


async def test_subnets_are_found_by_whether_they_are_shared(cloud):
    _, mine = await cloud.network_with_subnet()
    net = (await cloud.call("admin", "POST", "/networks", {"network": {"shared": True}}))["network"]["id"]
    shared = (await cloud.call("admin", "POST", "/subnets", {"subnet": {
        "network_id": net, "cidr": "10.9.0.0/24", "ip_version": 4}}))["subnet"]
    assert "shared" not in shared
    for who in ("one", "admin"):
        found = {flag: {s["id"] for s in (await cloud.call(who, "GET", f"/subnets?shared={flag}"))["subnets"]}
                 for flag in ("True", "False")}
        assert shared["id"] in found["True"] - found["False"] and mine in found["False"] - found["True"]


async def test_what_is_shared_with_a_project_is_not_the_projects_to_share(cloud):
    net = (await cloud.call("admin", "POST", "/networks", {"network": {"shared": True}}))["network"]["id"]
    hidden = (await cloud.call("admin", "POST", "/networks", {"network": {}}))["network"]["id"]
    policy = {"object_type": "network", "action": "access_as_shared", "target_tenant": THREE}
    await cloud.call("one", "POST", "/rbac-policies", {"rbac_policy": policy | {"object_id": net}}, expect=400)
    await cloud.call("one", "POST", "/rbac-policies", {"rbac_policy": policy | {"object_id": hidden}}, expect=404)


async def test_a_dhcp_port_is_there_as_soon_as_a_subnet_wants_one(cloud):
    net, _ = await cloud.network_with_subnet()
    [port] = (await cloud.call("one", "GET", f"/ports?network_id={net}&device_owner=network:dhcp"))["ports"]
    assert port["status"] == "ACTIVE" and len(port["fixed_ips"]) == 1
    await cloud.call("one", "DELETE", f"/networks/{net}")


async def test_what_has_no_revision_is_not_matched_by_one(cloud):
    net, _ = await cloud.network_with_subnet()
    policy = (await cloud.call("one", "POST", "/rbac-policies", {"rbac_policy": {
        "object_type": "network", "object_id": net, "action": "access_as_shared", "target_tenant": THREE}}))
    await cloud.call("one", "DELETE", f"/rbac-policies/{policy['rbac_policy']['id']}", expect=400,
                     headers={"If-Match": "revision_number=1"})


async def test_numbers_of_any_length_are_numbers_or_refused(cloud):
    net, _ = await cloud.network_with_subnet()
    assert len((await cloud.call("one", "GET", "/networks?limit=" + "1" * 5000))["networks"]) == 1
    assert len((await cloud.call("one", "GET", "/networks?limit=" + "0" * 5000 + "1"))["networks"]) == 1
    now = str((await cloud.call("one", "GET", f"/networks/{net}"))["network"]["revision_number"]).encode()
    for text, expect in (("²".encode("latin-1"), 400), (b"1" * 5000, 412), (b"-1", 400), (b"0" * 5000 + now, 200)):
        await cloud.call("one", "PUT", f"/networks/{net}", {"network": {"name": "n"}}, expect=expect,
                         headers={b"If-Match": b"revision_number=" + text})


async def test_what_has_no_time_is_not_asked_for_by_one(cloud: Cloud) -> None:
    since = "changed_since=2026-01-01T00:00:00Z"
    assert (await cloud.call("admin", "GET", f"/networks?{since}")) == {"networks": []}
    for path in ("/network-ip-availabilities", "/agents", "/rbac-policies", "/service-providers"):
        refused = await cloud.call("admin", "GET", f"{path}?{since}", expect=400)
        assert "changed_since" in refused["NeutronError"]["message"], path


async def test_an_empty_ip_version_is_none_that_is_asked_for(cloud: Cloud) -> None:
    net, _ = await cloud.network_with_subnet()
    listed = await cloud.call("admin", "GET", "/network-ip-availabilities?ip_version=")
    assert [(row["network_id"], len(row["subnet_ip_availability"])) for row in listed["network_ip_availabilities"]] == [
        (net, 1)]
