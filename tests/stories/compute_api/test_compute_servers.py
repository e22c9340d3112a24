"""Servers through the API: create, list, show, change, delete; who may see what; what is refused."""

from datetime import datetime

import pytest
import sqlalchemy as sa

from nacre.base.errors import Conflict
from nacre.compute.tables import servers as table
from nacre.network.contract import FixedIp, PortFacts

IMAGE = "11111111-2222-4333-8444-555555555555"
NOBODY = "99999999-2222-4333-8444-555555555555"
BASE = {"name": "s", "imageRef": IMAGE, "flavorRef": "1"}


@pytest.fixture(autouse=True)
async def flavor(client):
    status, _ = await client.post("/flavors", {"flavor": {
        "id": "1", "name": "m1.tiny", "ram": 512, "vcpus": 1, "disk": 1}}, who="admin")
    assert status == 200


async def create(client, *, version=None, who="alice", hints=None, **fields):
    body = {"server": {**BASE, **fields}}
    if hints is not None:
        body["os:scheduler_hints"] = hints
    return await client.post("/servers", body, version=version, who=who)


async def made(client, **rest):
    status, body = await create(client, **rest)
    assert status == 202, body
    return body["server"]["id"]


async def set_row(client, server_id, **values):
    await client.db.run(lambda c: c.execute(sa.update(table).where(table.c.id == server_id).values(**values)))


def port(server_id, network="net", address="10.0.0.5"):
    return PortFacts(id=f"port-{network}", name="", project_id="red", network_id=f"id-{network}", network_name=network,
                     device_id=server_id, mac_address="fa:16:3e:00:00:01", security_groups=("g1",), status="ACTIVE",
                     fixed_ips=(FixedIp(subnet_id="sub", ip_address=address),))


async def test_create_shows_the_password_once(client):
    answer = await client.raw("POST", "/v2.1/servers", {"server": BASE})
    body = answer.json()["server"]
    assert answer.status_code == 202 and set(body) == {
        "id", "links", "OS-DCF:diskConfig", "adminPass", "security_groups"}
    assert answer.headers["location"] == body["links"][0]["href"] == f"http://cloud/compute/v2.1/servers/{body['id']}"
    assert len(body["adminPass"]) == 12 and body["security_groups"] == [{"name": "default"}]
    shown = (await client.get(f"/servers/{body['id']}"))[1]["server"]
    assert shown["status"] == "BUILD" and "adminPass" not in shown and shown["addresses"] == {}
    assert shown["image"]["id"] == IMAGE and shown["flavor"]["id"] == "1" and shown["OS-EXT-STS:vm_state"] == "building"
    assert shown["OS-EXT-STS:task_state"] == "scheduling" and shown["tenant_id"] == "red"
    assert "OS-EXT-SRV-ATTR:host" not in shown


async def test_views_by_version(client):
    ident = await made(client, version="2.100", description="d", tags=["t"], networks="none",
                       accessIPv6="0:0:0:0:0:babe:220.12.22.2")
    await set_row(client, ident, vm_state="active", task_state=None, host="host-1", power_state="running")
    client.network.ports[ident] = (port(ident),)

    async def show(version, who="alice"):
        return (await client.get(f"/servers/{ident}", version=version, who=who))[1]["server"]

    old, new, admin = await show("2.1"), await show("2.104"), await show("2.104", "admin")
    assert old["addresses"] == {"net": [{"version": 4, "addr": "10.0.0.5", "OS-EXT-IPS:type": "fixed",
                                         "OS-EXT-IPS-MAC:mac_addr": "fa:16:3e:00:00:01"}]}
    assert old["accessIPv6"] == "::babe:dc0c:1602"
    assert old["status"] == "ACTIVE" and old["progress"] == 100 and old["OS-EXT-STS:power_state"] == 1
    assert old["security_groups"] == [{"name": "name-of-g1"}] and old["OS-EXT-AZ:availability_zone"] == "nova"
    later = {"locked", "locked_reason", "description", "tags", "server_groups", "trusted_image_certificates",
             "pinned_availability_zone", "scheduler_hints", "OS-EXT-SRV-ATTR:hostname"}
    assert set(new) - set(old) == later and set(old) <= set(new)
    assert new["flavor"]["original_name"] == "m1.tiny" and new["image"]["properties"] == {"hw_disk_bus": "virtio"}
    assert new["tags"] == ["t"] and new["description"] == "d" and new["locked"] is False
    assert admin["OS-EXT-SRV-ATTR:host"] == "host-1" and admin["host_status"] == "UP"
    assert admin["OS-EXT-SRV-ATTR:instance_name"] .startswith("instance-00000001-")
    assert len(new["hostId"]) == 56 and "host_status" not in new
    listed = (await client.get("/servers/detail", version="2.104"))[1]["servers"][0]
    assert set(new) - set(listed) == {"server_groups"}


async def test_what_a_server_shows_does_not_cost_more_with_more_hosts(client, monkeypatch):
    """Its own host is asked for, not all of them."""
    ident = await made(client, version="2.100", networks="none")
    await set_row(client, ident, vm_state="active", task_state=None, host="host-1", power_state="running")
    monkeypatch.setattr(client.scheduler, "all", None)
    shown = (await client.get(f"/servers/{ident}", version="2.104", who="admin"))[1]["server"]
    assert shown["host_status"] == "UP"


@pytest.mark.parametrize(("version", "fields", "words"), [
    ("2.1", {"name": ""}, "field/attribute name"),
    ("2.1", {"name": "a" * 256}, "is too long"),
    ("2.1", {"name": "a\nb"}, "printable characters"),
    ("2.1", {"imageRef": "bogus"}, "Invalid input for field/attribute imageRef. Value: bogus. 'bogus' is not valid "
                                   "under any of the given schemas"),
    ("2.1", {"imageRef": ""}, "Invalid imageRef provided."),
    ("2.1", {"imageRef": NOBODY}, "Can not find requested image"),
    ("2.1", {"flavorRef": "nope"}, "Flavor nope could not be found."),
    ("2.1", {"key_name": "nope"}, "Invalid key_name provided."),
    ("2.1", {"min_count": 0}, "min_count"),
    ("2.1", {"min_count": 3, "max_count": 2}, "min_count must be <= max_count"),
    ("2.1", {"min_count": "x"}, "min_count"),
    ("2.1", {"metadata": {"k" * 256: "v"}}, "metadata"),
    ("2.1", {"metadata": {"k": "v" * 256}}, "is too long"),
    ("2.1", {"metadata": {"k": 1}}, "is not of type"),
    ("2.1", {"user_data": "not base64!"}, "user_data"),
    ("2.1", {"accessIPv4": "300.1.1.1"}, "accessIPv4"),
    ("2.1", {"accessIPv6": "10.0.0.1"}, "accessIPv6"),
    ("2.1", {"description": "early"}, "'description' was unexpected"),
    ("2.1", {"tags": ["early"]}, "'tags' was unexpected"),
    ("2.1", {"networks": [{}]}, "missing 'uuid'"),
    ("2.1", {"networks": [{"uuid": "junk"}]}, "network uuid is not in proper format (junk)"),
    ("2.1", {"networks": [{"uuid": NOBODY, "fixed_ip": "nope"}]}, "fixed_ip"),
    ("2.37", {}, "'networks' is a required property"),
    ("2.37", {"networks": "all"}, "networks"),
    ("2.57", {"networks": "none", "personality": []}, "'personality' was unexpected"),
    ("2.52", {"networks": "none", "tags": ["a,b"]}, "does not match"),
    ("2.52", {"networks": "none", "tags": [str(n) for n in range(51)]}, "is too long"),
    ("2.90", {"networks": "none", "hostname": "a.b"}, "hostname"),
    ("2.1", {"availability_zone": "a:b:c:d"}, "availability_zone"),
    ("2.1", {"security_groups": [{"id": "x"}]}, "'id' was unexpected"),
])
async def test_bad_creates_are_refused_by_name(client, version, fields, words):
    status, body = await create(client, version=version, **fields)
    assert status == 400, body
    assert words in body["badRequest"]["message"]
    assert (await client.get("/servers"))[1]["servers"] == []


async def test_many_at_once(client):
    status, body = await create(client, min_count=1, max_count=3, return_reservation_id=True)
    assert status == 202 and set(body) == {"reservation_id"}
    found = (await client.get("/servers"))[1]["servers"]
    assert sorted(s["name"] for s in found) == ["s-1", "s-2", "s-3"]
    status, body = await create(client, min_count=9)
    assert (status, "Quota exceeded for instances" in body["forbidden"]["message"]) == (403, True)
    assert len((await client.get("/servers"))[1]["servers"]) == 3


async def test_a_batch_of_different_servers(client):
    status, body = await client.post("/servers", {"servers": [
        {**BASE, "name": "a"}, {**BASE, "name": "b", "min_count": 2}, {**BASE, "name": "c"}]})
    assert status == 202 and [s["name"] for s in body["servers"]] == ["a", "b-1", "b-2", "c"]
    for bad in ([], [{**BASE, "name": ""}], [BASE, {**BASE, "flavorRef": "nope"}], "x", [1]):
        assert (await client.post("/servers", {"servers": bad}))[0] == 400, bad
    assert len((await client.get("/servers"))[1]["servers"]) == 4


async def test_hints_that_name_hosts_are_for_administrators(client):
    assert (await create(client, hints={"scheduler_host": "host-1"}))[0] == 403
    assert (await create(client, availability_zone="nova:host-1"))[0] == 403
    assert (await create(client, version="2.74", networks="none", host="host-1"))[0] == 403
    assert (await create(client, who="admin", hints={"scheduler_host": "host-1"}))[0] == 202
    for good in ({"queue_name": "kvm"}, {"scheduler_host_match": "^host"}, {"different_host": [NOBODY]},
                 {"different_host": True}, {"same_host": NOBODY}, {"other": "kept"}):
        assert (await create(client, hints=good))[0] == 202, good
    for bad in ({"queue_name": "a b"}, {"scheduler_host_match": "("}, {"different_host": ["x"]}, {"group": "x"}, []):
        assert (await create(client, hints=bad))[0] == 400, bad


async def test_another_projects_server_is_not_there(client):
    ident = await made(client)
    for method, path, body in (
            ("GET", "", None), ("PUT", "", {"server": {"name": "x"}}), ("DELETE", "", None),
            ("POST", "/action", {"os-stop": None}), ("POST", "/action", {"lock": None}),
            ("POST", "/action", {"resize": {"flavorRef": "1"}}), ("POST", "/action", {"os-getConsoleOutput": {}}),
            ("GET", "/metadata", None), ("POST", "/metadata", {"metadata": {}}), ("PUT", "/metadata", {"metadata": {}}),
            ("GET", "/tags", None), ("PUT", "/tags", {"tags": []}), ("PUT", "/tags/x", None), ("DELETE", "/tags", None),
            ("GET", "/ips", None), ("GET", "/os-interface", None), ("GET", "/os-security-groups", None),
            ("GET", "/os-instance-actions", None), ("GET", "/os-instance-actions/req-1", None),
            ("GET", "/os-volume_attachments", None), ("GET", "/os-server-password", None)):
        status, answer = await client.call(method, f"/servers/{ident}{path}", body, who="bob", version="2.60")
        assert (status, answer["itemNotFound"]["message"]) == (
            404, f"Instance {ident} could not be found."), (method, path)
    assert (await client.get("/servers", who="bob"))[1]["servers"] == []
    assert (await client.get("/servers?all_tenants=1", who="bob"))[0] == 403
    assert len((await client.get("/servers?all_tenants=1", who="admin"))[1]["servers"]) == 1
    assert (await client.get("/servers", who="admin"))[1]["servers"] == []
    assert (await client.get(f"/servers/{ident}", who="rita"))[0] == 200
    assert (await client.delete(f"/servers/{ident}", who="rita"))[0] == 403


async def test_lists_filtered_sorted_paged(client):
    ids = {}
    for name in ("ant", "bee", "cat"):
        ids[name] = await made(client, name=name, version="2.52", networks="none", tags=[name, "animal"])
        await client.clock.advance(1)
    await set_row(client, ids["bee"], vm_state="active", task_state=None, host="host-1")

    async def names(query, version="2.90", **rest):
        status, body = await client.get("/servers?" + query, version=version, **rest)
        assert status == 200, body
        return [s["name"] for s in body["servers"]]

    assert await names("") == ["cat", "bee", "ant"]
    assert await names("sort_key=display_name&sort_dir=asc") == ["ant", "bee", "cat"]
    assert await names("name=^b") == ["bee"] and await names("name=a") == ["cat", "ant"]
    assert await names("status=active") == ["bee"]
    assert await names("status=BUILD&status=ACTIVE") == ["cat", "bee", "ant"]
    assert await names("tags=animal,ant") == ["ant"] and await names("not-tags=ant") == ["cat", "bee"]
    assert await names("tags-any=ant,bee") == ["bee", "ant"] and await names("not-tags-any=ant,bee") == ["cat"]
    assert await names("flavor=1&limit=2") == ["cat", "bee"] and await names("flavor=2") == []
    assert await names(f"image={IMAGE}&marker={ids['bee']}") == ["ant"] and await names(f"image={NOBODY}") == []
    assert await names("limit=0") == [] and await names("locked=true") == []
    assert await names("changes-since=2026-01-01T00:00:01Z") == ["cat", "bee"]
    assert await names("host=host-1", who="admin") == [] and await names("host=host-1") == ["cat", "bee", "ant"]
    assert await names("host=host-1&all_tenants=true", who="admin") == ["bee"]
    client.network.ports[ids["ant"]] = (port(ids["ant"], address="10.0.0.77"),)
    assert await names("ip=0.77") == ["ant"] and await names("ip6=fe80") == []
    _, page = await client.get("/servers/detail?limit=2&sort_key=display_name&sort_dir=asc")
    assert page["servers_links"] == [{"rel": "next", "href": "http://cloud/compute/v2.1/servers/detail?sort_key="
                                      f"display_name&sort_dir=asc&limit=2&marker={ids['bee']}"}]
    assert await names("status=bogus", version="2.1") == []
    for bad in ("status=bogus", "limit=-1", "limit=x", f"marker={NOBODY}", "sort_key=colour", "sort_dir=up",
                "name=(", "changes-since=noon", "colour=red",
                "changes-since=0001-01-01T00:00:00%2B14:00", "all_tenants=maybe", "locked=maybe", "services=x",
                "changes-since=2026-01-02T00:00:00Z&changes-before=2026-01-01T00:00:00Z"):
        assert (await client.get("/servers?" + bad, version="2.90"))[0] == 400, bad
    assert (await client.get("/servers?status=deleted"))[0] == 403


async def test_times_are_compared_as_they_are_shown(client):
    """In whole seconds, though more is kept: what was shown of a server is that server's."""
    ident, kept = await made(client), datetime(2026, 1, 1, 0, 0, 5, 700_000)
    await set_row(client, ident, created_at=kept, updated_at=kept)
    shown = (await client.get(f"/servers/{ident}"))[1]["server"]
    assert shown["created"] == shown["updated"] == "2026-01-01T00:00:05Z"
    for query, there in (
            ("changes-before=2026-01-01T00:00:05Z", 1), ("changes-before=2026-01-01T00:00:04Z", 0),
            ("changes-since=2026-01-01T00:00:05Z", 1), ("changes-since=2026-01-01T00:00:06Z", 0),
            ("changes-since=2026-01-01T00:00:05Z&changes-before=2026-01-01T00:00:05Z", 1),
            ("changes-before=9999-12-31T23:59:59Z", 1), ("created_at=2026-01-01T00:00:05Z", 1),
            ("created_at=2026-01-01T00:00:05.7Z", 1), ("created_at=2026-01-01T00:00:06Z", 0)):
        _, found = await client.get(f"/servers?all_tenants=1&{query}", version="2.66", who="admin")
        assert len(found["servers"]) == there, query


async def test_update(client):
    ident = await made(client)
    status, body = await client.put(f"/servers/{ident}", {"server": {"name": "new", "accessIPv4": "1.2.3.4"}})
    assert status == 200 and body["server"]["name"] == "new" and body["server"]["accessIPv4"] == "1.2.3.4"
    assert "OS-EXT-STS:vm_state" not in body["server"]
    _, body = await client.put(f"/servers/{ident}", {"server": {"description": "d"}}, version="2.100")
    assert body["server"]["description"] == "d" and body["server"]["OS-EXT-STS:vm_state"] == "building"
    for bad in ({"name": ""}, {"description": "early"}, {"accessIPv4": "x"}, {"flavorRef": "2"}, {"id": "x"}):
        assert (await client.put(f"/servers/{ident}", {"server": bad}))[0] == 400, bad
    assert (await client.put(f"/servers/{NOBODY}", {"server": {"name": "x"}}))[0] == 404


async def test_delete_and_actions(client):
    ident = await made(client)
    path = f"/servers/{ident}"
    status, body = await client.post(path + "/action", {"os-stop": None})
    assert (status, "Cannot 'stop' instance" in body["conflictingRequest"]["message"]) == (409, True)
    await set_row(client, ident, vm_state="error", task_state=None)  # it was never built
    for action in ({"reboot": {"type": "HARD"}}, {"os-stop": None}):
        status, body = await client.post(path + "/action", action)
        assert (status, body["conflictingRequest"]["message"]) == (409, f"Instance {ident} is not ready")
    await set_row(client, ident, vm_state="active", task_state=None, host="host-1")
    assert await client.post(path + "/action", {"os-getConsoleOutput": {"length": 2}}) == (
        200, {"output": "line 18\nline 19"})
    assert (await client.post(path + "/action", {"os-getConsoleOutput": {"length": 2.0}}))[0] == 200
    assert (await client.post(path + "/action", {"os-getConsoleOutput": {"length": "x"}}))[0] == 400
    assert (await client.post(path + "/action", {"lock": {"locked_reason": "why"}}, version="2.73"))[0] == 202
    shown = (await client.get(path, version="2.73"))[1]["server"]
    assert (shown["locked"], shown["locked_reason"]) == (True, "why")
    assert (await client.post(path + "/action", {"os-stop": None}))[1]["conflictingRequest"]["message"] == (
        f"Instance {ident} is locked")
    assert (await client.delete(path))[0] == 409
    assert (await client.post(path + "/action", {"unlock": None}))[0] == 202
    assert (await client.post(path + "/action", {"reboot": {"type": "SOFT"}}))[0] == 202
    assert (await client.get(path))[1]["server"]["status"] == "REBOOT"
    for bad in ({"reboot": {"type": "NUKE"}}, {"reboot": {}}, {"bogus": None}, {}, {"os-start": 1, "os-stop": 1}, []):
        assert (await client.post(path + "/action", bad))[0] == 400, bad
    for unbuilt in ({"resize": {"flavorRef": "2"}}, {"rebuild": {"imageRef": IMAGE}}, {"pause": None},
                    {"createImage": {"name": "i"}}, {"migrate": None}, {"rescue": {}}):
        assert (await client.post(path + "/action", unbuilt, who="admin"))[0] == 501, unbuilt
    for bad in ({"resize": {}}, {"rebuild": {"imageRef": "x"}}, {"createImage": {"name": ""}},
                {"createImage": {"name": "i", "metadata": {"": ""}}}, {"os-resetState": {"state": "x"}}):
        assert (await client.post(path + "/action", bad, who="admin"))[0] == 400, bad
    assert (await client.post(path + "/action", {"migrate": None}))[0] == 403
    assert await client.delete(path) == (204, None)
    assert (await client.delete(path))[0] == 204
    _, body = await client.get(path + "/os-instance-actions", version="2.58")
    assert [a["action"] for a in body["instanceActions"]] == ["delete", "reboot", "create"]
    first = body["instanceActions"][-1]
    _, body = await client.get(f"{path}/os-instance-actions/{first['request_id']}", version="2.84")
    assert body["instanceAction"]["events"] == [] and body["instanceAction"]["updated_at"]
    assert (await client.get(f"{path}/os-instance-actions/req-nope"))[0] == 404


async def test_metadata(client):
    path = f"/servers/{await made(client, metadata={'a': '1'})}/metadata"
    assert await client.get(path) == (200, {"metadata": {"a": "1"}})
    assert await client.post(path, {"metadata": {"b": "2"}}) == (200, {"metadata": {"a": "1", "b": "2"}})
    assert await client.put(path, {"metadata": {"c": "3"}}) == (200, {"metadata": {"c": "3"}})
    assert await client.put(path + "/c", {"meta": {"c": "4"}}) == (200, {"meta": {"c": "4"}})
    assert await client.get(path + "/c") == (200, {"meta": {"c": "4"}})
    assert (await client.put(path + "/c", {"meta": {"d": "4"}}))[0] == 400
    assert (await client.get(path + "/nope"))[0] == 404
    assert await client.delete(path + "/c") == (204, None)
    assert (await client.delete(path + "/c"))[0] == 404
    assert (await client.post(path, {"metadata": {f"k{n}": "" for n in range(129)}}))[0] == 403
    for bad in ({"metadata": None}, {"metadata": {"": "x"}}, {"metadata": {"k": None}}, {}, None):
        assert (await client.post(path, bad))[0] == 400, bad


async def test_tags(client):
    path = f"/servers/{await made(client)}/tags"
    assert (await client.get(path))[0] == 404

    async def call(method, more="", body=None):
        return await client.call(method, path + more, body, version="2.26")

    assert (await call("PUT", "/a"))[0] == 201 and (await call("PUT", "/a"))[0] == 204
    assert await call("GET") == (200, {"tags": ["a"]}) and (await call("GET", "/a"))[0] == 204
    assert (await call("GET", "/b"))[0] == 404 and (await call("DELETE", "/b"))[0] == 404
    assert await call("PUT", "", {"tags": ["x", "y", "x"]}) == (200, {"tags": ["x", "y"]})
    assert (await call("PUT", "/" + "t" * 61))[0] == 400 and (await call("PUT", "/a,b"))[0] == 400
    assert (await call("PUT", "", {"tags": ["a/b"]}))[0] == 400
    assert (await call("DELETE", "/x"))[0] == 204 and (await call("DELETE"))[0] == 204
    assert await call("GET") == (200, {"tags": []})


async def test_addresses_and_interfaces(client):
    ident = await made(client)
    client.network.ports[ident] = (port(ident),)
    path = f"/servers/{ident}"
    assert await client.get(path + "/ips") == (200, {"addresses": {"net": [{"version": 4, "addr": "10.0.0.5"}]}})
    assert await client.get(path + "/ips/net") == (200, {"net": [{"version": 4, "addr": "10.0.0.5"}]})
    assert (await client.get(path + "/ips/other"))[0] == 404
    one = (await client.get(path + "/os-interface"))[1]["interfaceAttachments"][0]
    assert one["net_id"] == "id-net" and one["port_state"] == "ACTIVE" and "tag" not in one
    assert (await client.get(path + "/os-interface/port-net", version="2.70"))[1]["interfaceAttachment"]["tag"] is None
    assert (await client.get(path + "/os-interface/nope"))[0] == 404


async def test_what_the_network_refuses_reaches_the_user(client):
    client.network.refuses = Conflict("Multiple possible networks found, use a Network ID to be more specific.")
    status, body = await create(client)
    assert (status, "Multiple possible networks" in body["conflictingRequest"]["message"]) == (409, True)


async def test_a_zone_that_is_not_there_is_refused_at_once(client):
    refused = await create(client, availability_zone="nowhere")
    assert refused == (400, {"badRequest": {"code": 400,
                                            "message": "The requested availability zone is not available"}})
    assert (await create(client, availability_zone="nova"))[0] == 202
    status, body = await client.post("/os-aggregates", {"aggregate": {"name": "a", "availability_zone": "north"}},
                                     who="admin")
    assert status == 200 and (await create(client, availability_zone="north"))[0] == 400  # no host is there
    path = f"/os-aggregates/{body['aggregate']['id']}/action"
    assert (await client.post(path, {"add_host": {"host": "host-1"}}, who="admin"))[0] == 200
    assert (await create(client, availability_zone="north"))[0] == 202
    await client.scheduler.set_service("host-1", disabled=True)
    assert (await create(client, availability_zone="north"))[0] == 400
    assert (await create(client, availability_zone="north:host-1", who="admin"))[0] == 202  # an administrator's word


async def test_a_member_does_not_unlock_what_an_administrator_locked(client):
    ident = await made(client)
    path, show = f"/servers/{ident}/action", lambda: client.get(f"/servers/{ident}", version="2.73")
    assert (await client.post(path, {"lock": None}, who="admin"))[0] == 202
    assert (await client.post(path, {"unlock": None}))[0] == 403 and (await show())[1]["server"]["locked"]
    assert (await client.delete(f"/servers/{ident}"))[0] == 409
    before = (await show())[1]["server"]
    assert (await client.post(path, {"lock": {"locked_reason": "mine"}}, version="2.73"))[0] == 202  # changes nothing
    assert (await show())[1]["server"] == before
    assert (await client.post(path, {"unlock": None}))[0] == 403 and (await show())[1]["server"]["locked"]
    assert (await client.post(path, {"unlock": None}, who="admin"))[0] == 202
    assert (await client.post(path, {"lock": None}))[0] == 202
    assert (await client.post(path, {"unlock": None}))[0] == 202
    assert (await client.post(path, {"lock": None}))[0] == 202
    assert (await client.post(path, {"unlock": None}, who="admin"))[0] == 202
    assert not (await show())[1]["server"]["locked"]


async def test_a_flavor_without_a_disk_is_for_administrators(client):
    flavor = {"id": "0", "name": "none", "ram": 512, "vcpus": 1, "disk": 0}
    assert (await client.post("/flavors", {"flavor": flavor}, who="admin"))[0] == 200
    status, body = await create(client, flavorRef="0")
    assert (status, body["forbidden"]["message"]) == (
        403, "Only volume-backed servers are allowed for flavors with zero disk.")
    assert (await create(client, flavorRef="0", who="admin"))[0] == 202
