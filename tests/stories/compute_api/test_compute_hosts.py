"""Services, hypervisors, aggregates, zones through the API."""

import pytest

UUID = "00000000-0000-4000-9000-000000000001"


async def admin(client, method, path, body=None, version="2.1"):
    return await client.call(method, path, body, who="admin", version=version)


async def test_all_of_it_is_for_administrators(client):
    for path in ("/os-services", "/os-hypervisors", "/os-hypervisors/detail", "/os-hypervisors/statistics",
                 "/os-aggregates", "/os-hosts", "/os-availability-zone/detail"):
        assert (await client.get(path))[0] == 403, path
        assert (await admin(client, "GET", path))[0] == 200, path
    assert (await client.get("/os-availability-zone"))[1] == {"availabilityZoneInfo": [
        {"zoneName": "nova", "zoneState": {"available": True}, "hosts": None}]}


async def test_every_service_says_when_it_was_heard_and_by_its_name(client):
    """Clients print what is null as None."""
    services = (await admin(client, "GET", "/os-services"))[1]["services"]
    assert services and all(s["updated_at"] for s in services)
    zones = (await admin(client, "GET", "/os-availability-zone/detail"))[1]["availabilityZoneInfo"]
    shown = {(host, binary): state for z in zones for host, on in z["hosts"].items() for binary, state in on.items()}
    assert set(shown) == {(s["host"], s["binary"]) for s in services}
    assert all(state["updated_at"] for state in shown.values())
    hosts = (await admin(client, "GET", "/os-hosts"))[1]["hosts"]
    assert {(h["host_name"], "nova-" + h["service"]) for h in hosts} == set(shown)


async def test_services_by_action(client):
    _, body = await admin(client, "GET", "/os-services?binary=nova-compute")
    assert [(s["host"], s["status"], s["state"], s["zone"]) for s in body["services"]] == [
        ("host-1", "enabled", "up", "nova"), ("host-2", "enabled", "up", "nova")]
    who = {"host": "host-1", "binary": "nova-compute"}
    assert await admin(client, "PUT", "/os-services/disable-log-reason", {**who, "disabled_reason": "broken"}) == (
        200, {"service": {**who, "status": "disabled", "disabled_reason": "broken"}})
    one = (await admin(client, "GET", "/os-services?host=host-1"))[1]["services"][0]
    assert (one["status"], one["disabled_reason"]) == ("disabled", "broken") and "forced_down" not in one
    assert await admin(client, "PUT", "/os-services/enable", who) == (200, {"service": {**who, "status": "enabled"}})
    assert (await admin(client, "PUT", "/os-services/force-down", {**who, "forced_down": True}))[0] == 400
    assert (await admin(client, "PUT", "/os-services/force-down", {**who, "forced_down": True}, "2.11"))[0] == 200
    assert (await admin(client, "PUT", "/os-services/explode", who))[0] == 404
    assert (await admin(client, "PUT", "/os-services/enable", {**who, "host": "nope"}))[0] == 404
    assert (await admin(client, "PUT", "/os-services/enable", {**who, "binary": "nova-scheduler"}))[0] == 400
    assert (await admin(client, "PUT", "/os-services/disable-log-reason", who))[0] == 400
    assert (await admin(client, "PUT", "/os-services/enable", {"host": "host-1"}))[0] == 400


async def test_services_by_uuid(client):
    path = f"/os-services/{UUID}"
    status, body = await admin(client, "PUT", path, {"status": "disabled", "disabled_reason": "x"}, "2.53")
    assert status == 200 and (body["service"]["id"], body["service"]["status"]) == (UUID, "disabled")
    assert (await admin(client, "PUT", path, {"status": "enabled", "disabled_reason": "x"}, "2.53"))[0] == 400
    assert (await admin(client, "PUT", path, {}, "2.53"))[0] == 400
    assert (await admin(client, "PUT", "/os-services/1", {"status": "enabled"}, "2.53"))[0] == 400
    assert (await admin(client, "PUT", "/os-services/" + UUID[:-1] + "9", {"status": "enabled"}, "2.53"))[0] == 404
    assert (await admin(client, "DELETE", path, None, "2.53"))[0] == 204
    assert len((await admin(client, "GET", "/os-services?binary=nova-compute"))[1]["services"]) == 1


async def test_hypervisors(client):
    _, body = await admin(client, "GET", "/os-hypervisors")
    assert body == {"hypervisors": [{"id": n, "hypervisor_hostname": f"host-{n}", "state": "up", "status": "enabled"}
                                    for n in (1, 2)]}
    one = (await admin(client, "GET", "/os-hypervisors/1"))[1]["hypervisor"]
    assert (one["vcpus"], one["free_ram_mb"], one["free_disk_gb"], one["cpu_info"]) == (8, 15360, 90, "{}")
    one = (await admin(client, "GET", f"/os-hypervisors/{UUID}", version="2.88"))[1]["hypervisor"]
    assert "vcpus" not in one and one["uptime"] is None and one["service"]["id"] == UUID
    one = (await admin(client, "GET", f"/os-hypervisors/{UUID}?with_servers=true", version="2.75"))[1]["hypervisor"]
    assert one["servers"] == [] and one["cpu_info"] == {}
    assert (await admin(client, "GET", "/os-hypervisors/statistics"))[1]["hypervisor_statistics"]["vcpus"] == 16
    assert (await admin(client, "GET", "/os-hypervisors/statistics", version="2.88"))[0] == 400
    assert (await admin(client, "GET", "/os-hypervisors/host/search"))[1]["hypervisors"][1]["id"] == 2
    assert (await admin(client, "GET", "/os-hypervisors/nope/search"))[0] == 404
    assert (await admin(client, "GET", "/os-hypervisors/9"))[0] == 404
    assert (await admin(client, "GET", "/os-hypervisors/1", version="2.53"))[0] == 400
    _, page = await admin(client, "GET", "/os-hypervisors?limit=1", version="2.33")
    assert page["hypervisors_links"][0]["href"].endswith("limit=1&marker=1")
    for bad in ("marker=9", "limit=x", "colour=red", "hypervisor_hostname_pattern=h&limit=1", "with_servers=maybe"):
        assert (await admin(client, "GET", "/os-hypervisors?" + bad, version="2.53"))[0] == 400, bad
    assert (await admin(client, "GET", "/os-hypervisors?hypervisor_hostname_pattern=zz", version="2.53"))[0] == 404


async def test_aggregates_and_zones(client):
    status, body = await admin(client, "POST", "/os-aggregates", {
        "aggregate": {"name": "fast", "availability_zone": "z1"}}, "2.41")
    assert status == 200 and "hosts" not in body["aggregate"] and len(body["aggregate"]["uuid"]) == 36
    path = f"/os-aggregates/{body['aggregate']['id']}"
    assert (await admin(client, "POST", "/os-aggregates", {"aggregate": {"name": "fast"}}))[0] == 409
    _, body = await admin(client, "POST", path + "/action", {"add_host": {"host": "host-1"}})
    assert body["aggregate"]["hosts"] == ["host-1"] and body["aggregate"]["metadata"] == {"availability_zone": "z1"}
    assert (await admin(client, "POST", path + "/action", {"add_host": {"host": "host-1"}}))[0] == 409
    assert (await admin(client, "POST", path + "/action", {"add_host": {"host": "nope"}}))[0] == 404
    assert (await admin(client, "POST", path + "/action", {"remove_host": {"host": "host-2"}}))[0] == 404
    assert [z["zoneName"] for z in (await client.get("/os-availability-zone"))[1]["availabilityZoneInfo"]] == [
        "nova", "z1"]
    assert (await admin(client, "GET", "/os-services?host=host-1"))[1]["services"][0]["zone"] == "z1"
    _, other = await admin(client, "POST", "/os-aggregates", {"aggregate": {"name": "o", "availability_zone": "z2"}})
    other_path = f"/os-aggregates/{other['aggregate']['id']}"
    assert (await admin(client, "POST", other_path + "/action", {"add_host": {"host": "host-1"}}))[0] == 409
    assert (await admin(client, "DELETE", path))[0] == 400
    _, body = await admin(client, "POST", path + "/action", {"set_metadata": {"metadata": {"ssd": "1", "x": None}}})
    assert body["aggregate"]["metadata"] == {"availability_zone": "z1", "ssd": "1"}
    _, body = await admin(client, "PUT", path, {"aggregate": {"name": "faster", "availability_zone": None}})
    assert (body["aggregate"]["name"], body["aggregate"]["availability_zone"]) == ("faster", None)
    assert (await admin(client, "POST", path + "/action", {"remove_host": {"host": "host-1"}}))[0] == 200
    assert await admin(client, "DELETE", path) == (200, None)
    assert (await admin(client, "GET", path))[0] == 404
    assert (await client.get("/os-aggregates"))[0] == 403


@pytest.mark.parametrize("body", [
    {"aggregate": {"name": ""}}, {"aggregate": {"name": "a" * 256}}, {"aggregate": {}}, {},
    {"aggregate": {"name": "a", "availability_zone": "a:b"}}, {"aggregate": {"name": "a", "colour": 1}}])
async def test_bad_aggregates(client, body):
    assert (await admin(client, "POST", "/os-aggregates", body))[0] == 400
    assert (await admin(client, "GET", "/os-aggregates/x"))[0] == 400


async def test_old_hosts(client):
    _, body = await admin(client, "GET", "/os-hosts")
    assert body["hosts"][0] == {"host_name": "host-1", "service": "compute", "zone": "nova"}
    _, body = await admin(client, "GET", "/os-hosts/host-1")
    assert [r["resource"]["project"] for r in body["host"]] == ["(total)", "(used_now)"]
    assert (await admin(client, "GET", "/os-hosts/nope"))[0] == 404
    assert (await admin(client, "GET", "/os-hosts", version="2.43"))[0] == 404
