"""Limits, quotas, usage, server groups through the API."""

import pytest

IMAGE = "11111111-2222-4333-8444-555555555555"


async def test_limits(client):
    absolute = (await client.get("/limits"))[1]["limits"]["absolute"]
    assert absolute["maxTotalInstances"] == 10 and absolute["totalInstancesUsed"] == 0
    assert {"maxImageMeta", "maxPersonality", "maxSecurityGroups"} <= set(absolute)
    new = (await client.get("/limits", version="2.57"))[1]["limits"]["absolute"]
    assert not {"maxImageMeta", "maxPersonality", "maxSecurityGroups", "totalFloatingIpsUsed"} & set(new)
    assert (await client.get("/limits?tenant_id=blue"))[0] == 403
    assert (await client.get("/limits?tenant_id=blue", who="admin"))[0] == 200
    assert (await client.get("/limits?colour=red", version="2.75"))[0] == 400


async def test_quotas_set_shown_reset(client):
    path = "/os-quota-sets/red"
    status, body = await client.get(path)
    assert status == 200 and body["quota_set"]["cores"] == 20 and body["quota_set"]["id"] == "red"
    assert (await client.get("/os-quota-sets/blue"))[0] == 403
    assert (await client.put(path, {"quota_set": {"cores": 5}}))[0] == 403
    status, body = await client.put(path, {"quota_set": {"cores": 5, "ram": "-1"}}, who="admin")
    assert status == 200 and (body["quota_set"]["cores"], body["quota_set"]["ram"]) == (5, -1)
    assert "id" not in body["quota_set"]
    assert (await client.get(path + "/detail"))[1]["quota_set"]["cores"] == {"limit": 5, "in_use": 0, "reserved": 0}
    assert (await client.get(path + "/defaults"))[1]["quota_set"]["cores"] == 20
    assert "injected_files" not in (await client.get(path, version="2.57"))[1]["quota_set"]
    for bad in ({"cores": -2}, {"cores": "x"}, {"cores": 2 ** 31}, {"colour": 1}, {"networks": 1}, {"cores": None}):
        assert (await client.put(path, {"quota_set": bad}, who="admin"))[0] == 400, bad
    assert (await client.put("/os-quota-sets/nobody", {"quota_set": {}}, who="admin"))[0] == 400
    assert (await client.put(path + "?user_id=alice", {"quota_set": {"cores": 9}}, who="admin"))[0] == 400
    assert (await client.put(path + "?user_id=alice", {"quota_set": {"cores": 3}}, who="admin"))[0] == 200
    assert (await client.get(path + "?user_id=alice"))[1]["quota_set"]["cores"] == 3
    assert await client.delete(path, who="admin") == (202, None)
    assert (await client.get(path))[1]["quota_set"]["cores"] == 20


async def test_quota_classes_are_the_defaults(client):
    path = "/os-quota-class-sets/default"
    assert (await client.get(path))[0] == 403
    status, body = await client.put(path, {"quota_class_set": {"instances": 3}}, who="admin")
    assert status == 200 and body["quota_class_set"]["instances"] == 3
    assert (await client.get("/os-quota-sets/red"))[1]["quota_set"]["instances"] == 3
    assert (await client.get(path, who="admin"))[1]["quota_class_set"]["id"] == "default"
    assert (await client.put("/os-quota-class-sets/x", {"quota_class_set": {}}, who="admin"))[0] == 404


async def test_a_quota_below_what_is_in_use_needs_force(client):
    await client.post("/flavors", {"flavor": {"id": "1", "name": "f", "ram": 512, "vcpus": 2, "disk": 1}}, who="admin")
    await client.post("/servers", {"server": {"name": "s", "imageRef": IMAGE, "flavorRef": "1"}})
    status, body = await client.put("/os-quota-sets/red", {"quota_set": {"cores": 1}}, who="admin")
    assert (status, body["badRequest"]["message"]) == (
        400, "Quota limit 1 for cores must be greater than or equal to already used and reserved 2.")
    forced = {"quota_set": {"cores": 1, "force": True}}
    assert (await client.put("/os-quota-sets/red", forced, who="admin"))[0] == 200
    status, body = await client.post("/servers", {"server": {"name": "s", "imageRef": IMAGE, "flavorRef": "1"}})
    assert (status, "Quota exceeded for cores" in body["forbidden"]["message"]) == (403, True)


async def test_groups(client):
    status, body = await client.post("/os-server-groups", {
        "server_group": {"name": "g", "policies": ["anti-affinity"]}})
    group = body["server_group"]
    assert status == 200 and set(group) == {"id", "name", "policies", "members", "metadata"}
    path = f"/os-server-groups/{group['id']}"
    new = (await client.get(path, version="2.64"))[1]["server_group"]
    assert (new["policy"], new["rules"], new["project_id"]) == ("anti-affinity", {}, "red")
    assert (await client.get(path, who="bob"))[0] == 404 and (await client.delete(path, who="bob"))[0] == 404
    assert (await client.get("/os-server-groups", who="bob"))[1] == {"server_groups": []}
    assert len((await client.get("/os-server-groups?all_projects=1", who="admin"))[1]["server_groups"]) == 1
    assert (await client.delete(path, who="rita"))[0] == 403
    assert await client.delete(path) == (204, None) and (await client.delete(path))[0] == 404


@pytest.mark.parametrize(("version", "group"), [
    ("2.1", {"name": "g"}), ("2.1", {"name": "g", "policies": []}), ("2.1", {"name": "g", "policies": ["junk"]}),
    ("2.1", {"name": "g", "policies": ["soft-affinity"]}), ("2.1", {"name": "", "policies": ["affinity"]}),
    ("2.1", {"name": "g", "policies": ["affinity", "anti-affinity"]}), ("2.1", {"name": "g", "policy": "affinity"}),
    ("2.64", {"name": "g", "policies": ["affinity"]}), ("2.64", {"name": "g", "policy": "junk"}),
    ("2.64", {"name": "g", "policy": "affinity", "rules": {"max_server_per_host": 3}}),
    ("2.64", {"name": "g", "policy": "anti-affinity", "rules": {"max_server_per_host": 0}}),
    ("2.64", {"name": "g", "policy": "anti-affinity", "rules": {"colour": 1}})])
async def test_bad_groups(client, version, group):
    assert (await client.post("/os-server-groups", {"server_group": group}, version=version))[0] == 400


async def test_usage(client):
    assert (await client.get("/os-simple-tenant-usage?start=2025-01-01T00:00:00"))[0] == 403
    path = "/os-simple-tenant-usage?start=2025-01-01T00:00:00"
    assert await client.get(path, who="admin") == (200, {"tenant_usages": []})
    assert await client.get("/os-simple-tenant-usage/red?start=2025-01-01T00:00:00") == (200, {"tenant_usage": {}})
    assert (await client.get("/os-simple-tenant-usage/blue?start=2025-01-01T00:00:00"))[0] == 403
    for bad in ("start=noon", "start=2027-01-01T00:00:00&end=2026-01-01T00:00:00"):
        assert (await client.get("/os-simple-tenant-usage?" + bad, who="admin"))[0] == 400, bad


async def test_what_services_tell_and_small_things(client):
    event = {"events": [{"name": "network-vif-plugged", "server_uuid": IMAGE, "tag": "x"}]}
    status, body = await client.post("/os-server-external-events", event, who="service")
    assert status == 207 and body["events"][0]["code"] == 404
    assert (await client.post("/os-server-external-events", event))[0] == 403
    assert (await client.post("/os-server-external-events", {"events": [{"name": "x"}]}, who="service"))[0] == 400
    assert (await client.get("/os-migrations", who="admin"))[1] == {"migrations": []}
    assert {"ImageSize", "Keypairs"} <= {x["name"] for x in (await client.get("/extensions"))[1]["extensions"]}
    assert (await client.get("/extensions/os-keypairs"))[0] == 200 and (await client.get("/extensions/x"))[0] == 404
    assert (await client.get("/os-instance_usage_audit_log/junk", who="admin"))[0] == 400
    assert (await client.get("/os-instance_usage_audit_log"))[0] == 403


async def test_usage_of_an_id_that_is_none(client):
    assert (await client.get("/os-simple-tenant-usage/red%2Fblue", who="admin"))[0] == 404
