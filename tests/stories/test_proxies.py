"""What the compute API passes on to the network and image services, as Nova does; over the real ones."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.stories.whole_cloud import WholeCloud, whole_cloud

OLD = {"OpenStack-API-Version": "compute 2.35"}


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[WholeCloud]:
    async with whole_cloud(tmp_path) as running:
        yield running


async def ask(cloud: WholeCloud, line: str, body: Any = None, *, who: str = "demo", **headers: str) -> tuple[int, Any]:
    """line: "GET /os-networks", of compute at 2.35."""
    method, _, path = line.partition(" ")
    answer = await cloud.ask(who, method, "compute", path, body, **(headers or OLD))
    return answer.status_code, answer.json() if answer.content and "json" in answer.headers["content-type"] else None


async def net(cloud: WholeCloud, line: str, body: Any = None, who: str = "demo") -> Any:
    method, _, path = line.partition(" ")
    answer = await cloud.ask(who, method, "network", path, body)
    assert answer.status_code < 300, answer.text
    return answer.json() if answer.content else None


async def image(cloud: WholeCloud, **more: Any) -> str:
    made = await cloud.ask("demo", "POST", "image", "/images", {
        "name": "i", "disk_format": "raw", "container_format": "bare", "min_disk": 1, "min_ram": 64, **more})
    ident: str = made.json()["id"]
    await cloud.http.put(f"/image/v2/images/{ident}/file", content=bytes(1024), headers={
        "X-Auth-Token": await cloud.token("demo"), "Content-Type": "application/octet-stream"})
    return ident


async def server(cloud: WholeCloud, **more: Any) -> str:
    status, body = await ask(cloud, "POST /servers", {"server": {
        "name": "s", "imageRef": await image(cloud), "flavorRef": "42", **more}})
    assert status == 202, body
    ident: str = body["server"]["id"]
    async with asyncio.timeout(30):
        while (shown := (await ask(cloud, f"GET /servers/{ident}"))[1]["server"])["status"] == "BUILD":
            await asyncio.sleep(0.02)
    assert shown["status"] == "ACTIVE", shown
    return ident


async def network(cloud: WholeCloud, **more: Any) -> str:
    made = (await net(cloud, "POST /networks", {"network": {"name": "mine", **more}}))["network"]["id"]
    await net(cloud, "POST /subnets", {"subnet": {"network_id": made, "ip_version": 4, "cidr": "10.5.0.0/24"}})
    return str(made)


async def test_images(cloud: WholeCloud) -> None:
    ident = await image(cloud, hw_disk_bus="virtio")
    other = await image(cloud, name="other")
    shown = (await ask(cloud, f"GET /images/{ident}"))[1]["image"]
    real = (await cloud.ask("demo", "GET", "image", f"/images/{ident}")).json()
    assert (shown["created"], shown["updated"]) == (real["created_at"], real["updated_at"])
    assert {k: shown[k] for k in ("status", "progress", "minDisk", "minRam", "OS-EXT-IMG-SIZE:size", "metadata")} == {
        "status": "ACTIVE", "progress": 100, "minDisk": 1, "minRam": 64, "OS-EXT-IMG-SIZE:size": 1024,
        "metadata": {"hw_disk_bus": "virtio"}}
    assert [link["rel"] for link in shown["links"]] == ["self", "bookmark", "alternate"]
    listed = (await ask(cloud, "GET /images?limit=1"))[1]
    assert [x["id"] for x in listed["images"]] == [other] and set(listed["images"][0]) == {"id", "name", "links"}
    assert f"marker={other}" in listed["images_links"][0]["href"]
    for query in (f"limit=1&marker={other}", "name=i", "property-hw_disk_bus=virtio", "name=i&status=ACTIVE"):
        assert [x["id"] for x in (await ask(cloud, f"GET /images/detail?{query}"))[1]["images"]] == [ident], query
    assert (await ask(cloud, "GET /images?marker=nope"))[0] == 400
    assert (await ask(cloud, "GET /images/nope"))[0] == 404
    assert (await ask(cloud, f"GET /images/{ident}", who="demo-alt"))[0] == 404
    assert (await ask(cloud, f"GET /images/{ident}", **{"OpenStack-API-Version": "compute 2.36"}))[0] == 404


async def test_images_metadata_and_end(cloud: WholeCloud) -> None:
    ident = await image(cloud, a="1")
    path = f"/images/{ident}/metadata"
    assert await ask(cloud, f"POST {path}", {"metadata": {"b": "2"}}) == (200, {"metadata": {"a": "1", "b": "2"}})
    assert await ask(cloud, f"PUT {path}/a", {"meta": {"a": "3"}}) == (200, {"meta": {"a": "3"}})
    assert await ask(cloud, f"GET {path}/a") == (200, {"meta": {"a": "3"}})
    assert (await ask(cloud, f"PUT {path}/a", {"meta": {"b": "3"}}))[0] == 400
    assert (await ask(cloud, f"DELETE {path}/b"))[0] == 204 and (await ask(cloud, f"DELETE {path}/b"))[0] == 404
    assert await ask(cloud, f"PUT {path}", {"metadata": {"c": "d"}}) == (200, {"metadata": {"c": "d"}})
    assert (await cloud.ask("demo", "GET", "image", f"/images/{ident}")).json()["c"] == "d"
    assert (await ask(cloud, f"PUT {path}", {"metadata": {}}, who="demo-alt"))[0] == 404
    assert (await ask(cloud, f"DELETE /images/{ident}", who="demo-alt"))[0] == 404
    assert (await ask(cloud, f"DELETE /images/{ident}"))[0] == 204
    assert (await ask(cloud, f"GET {path}"))[0] == 404


async def test_networks(cloud: WholeCloud) -> None:
    ident = await network(cloud)
    shown = (await ask(cloud, f"GET /os-networks/{ident}"))[1]["network"]
    assert (shown["id"], shown["label"], shown["cidr"]) == (ident, "mine", None) and len(shown) == 11
    assert len((await ask(cloud, f"GET /os-networks/{ident}", who="admin"))[1]["network"]) == 32
    assert ident in {x["id"] for x in (await ask(cloud, "GET /os-networks"))[1]["networks"]}
    assert (await ask(cloud, f"GET /os-tenant-networks/{ident}"))[1] == {
        "network": {"id": ident, "label": "mine", "cidr": "None"}}
    assert (await ask(cloud, f"GET /os-networks/{ident}", who="demo-alt"))[0] == 404
    assert ident not in {x["id"] for x in (await ask(cloud, "GET /os-tenant-networks", who="demo-alt"))[1]["networks"]}
    for line in ("POST /os-networks", f"DELETE /os-networks/{ident}", "POST /os-networks/add",
                 f"POST /os-networks/{ident}/action", "POST /os-tenant-networks",
                 f"DELETE /os-tenant-networks/{ident}"):
        assert (await ask(cloud, line, {"x": {}} if line.startswith("POST") else None))[0] == 410, line


async def test_floating_ips(cloud: WholeCloud) -> None:
    assert await ask(cloud, "GET /os-floating-ip-pools") == (200, {"floating_ip_pools": [{"name": "public"}]})
    made = (await ask(cloud, "POST /os-floating-ips", {"pool": "public"}))[1]["floating_ip"]
    assert made["ip"].startswith("172.24.4.") and made["pool"] == "public" and made["instance_id"] is None
    assert (await ask(cloud, "POST /os-floating-ips", {"pool": "nope"}))[0] == 404
    assert await ask(cloud, "GET /os-floating-ips") == (200, {"floating_ips": [made]})
    assert await ask(cloud, f"GET /os-floating-ips/{made['id']}") == (200, {"floating_ip": made})
    assert await ask(cloud, "GET /os-floating-ips", who="demo-alt") == (200, {"floating_ips": []})
    assert (await ask(cloud, f"DELETE /os-floating-ips/{made['id']}", who="demo-alt"))[0] == 404
    assert (await ask(cloud, "GET /os-floating-ips/nope"))[0] == 400
    assert (await ask(cloud, f"DELETE /os-floating-ips/{made['id']}"))[0] == 202
    assert (await ask(cloud, f"GET /os-floating-ips/{made['id']}"))[0] == 404


async def test_security_groups_and_rules(cloud: WholeCloud) -> None:
    assert [g["name"] for g in (await ask(cloud, "GET /os-security-groups"))[1]["security_groups"]] == ["default"]
    status, body = await ask(cloud, "POST /os-security-groups", {"security_group": {"name": "web", "description": "d"}})
    assert status == 200 and body["security_group"]["rules"] == []
    ident = body["security_group"]["id"]
    wish = {"parent_group_id": ident, "ip_protocol": "tcp", "from_port": 80, "to_port": "81", "cidr": "10.0.0.0/8"}
    status, made = await ask(cloud, "POST /os-security-group-rules", {"security_group_rule": wish})
    rule = made["security_group_rule"]
    assert status == 200 and rule | {"id": ""} == {
        "id": "", "parent_group_id": ident, "ip_protocol": "tcp", "from_port": 80, "to_port": 81, "group": {},
        "ip_range": {"cidr": "10.0.0.0/8"}}
    assert (await ask(cloud, "POST /os-security-group-rules", {"security_group_rule": wish}))[0] == 400  # there already
    for wrong in ({"from_port": 82}, {"ip_protocol": "x"}, {"cidr": "x"}, {"cidr": "10.0.0.0/0"}, {"from_port": None},
                  {"from_port": 0}, {"ip_protocol": "icmp", "from_port": 300}):
        refused = await ask(cloud, "POST /os-security-group-rules", {"security_group_rule": wish | wrong})
        assert refused[0] == 400, (wrong, refused)
    inner = {"parent_group_id": ident, "group_id": ident}
    status, made = await ask(cloud, "POST /os-security-group-rules", {"security_group_rule": inner})
    assert status == 200 and made["security_group_rule"]["group"]["name"] == "web"
    shown = (await ask(cloud, f"GET /os-security-groups/{ident}"))[1]["security_group"]
    assert {r["id"] for r in shown["rules"]} == {rule["id"], made["security_group_rule"]["id"]}
    for line in (f"GET /os-security-groups/{ident}", f"DELETE /os-security-groups/{ident}",
                 f"DELETE /os-security-group-rules/{rule['id']}"):
        assert (await ask(cloud, line, who="demo-alt"))[0] == 404, line
    assert (await ask(cloud, "GET /os-security-groups/x"))[0] == 400
    assert (await ask(cloud, f"DELETE /os-security-group-rules/{rule['id']}"))[0] == 202
    now = {"security_group": {"name": "web2", "description": ""}}
    assert (await ask(cloud, f"PUT /os-security-groups/{ident}", now))[1]["security_group"]["name"] == "web2"
    assert (await ask(cloud, f"DELETE /os-security-groups/{ident}"))[0] == 202
    assert (await ask(cloud, f"GET /os-security-groups/{ident}"))[0] == 404


@pytest.mark.parametrize("version", ["2.1", "2.96"])
async def test_a_servers_groups(cloud: WholeCloud, version: str) -> None:
    at = {"OpenStack-API-Version": f"compute {version}"}
    ident = await server(cloud, networks=[{"uuid": await network(cloud)}])
    group = (await net(cloud, "POST /security-groups", {"security_group": {"name": "web"}}))["security_group"]["id"]
    path = f"/servers/{ident}/action"

    async def names() -> list[str]:
        return [g["name"] for g in (await ask(cloud, f"GET /servers/{ident}/os-security-groups", **at))[1][
            "security_groups"]]

    for name in ("web", group):
        assert (await ask(cloud, f"POST {path}", {"addSecurityGroup": {"name": name}}, **at))[0] == 202
        assert await names() == ["default", "web"]
    assert (await ask(cloud, f"POST {path}", {"removeSecurityGroup": {"name": "web"}}, **at))[0] == 202
    assert await names() == ["default"]
    assert (await ask(cloud, f"POST {path}", {"removeSecurityGroup": {"name": "web"}}, **at))[0] == 404
    for verb in ("addSecurityGroup", "removeSecurityGroup"):
        assert (await ask(cloud, f"POST {path}", {verb: {"name": "nope"}}, **at))[0] == 404
        assert (await ask(cloud, f"POST {path}", {verb: {"name": "web"}}, who="demo-alt", **at))[0] == 404
        assert (await ask(cloud, f"POST {path}", {verb: {}}, **at))[0] == 400
    await net(cloud, "POST /security-groups", {"security_group": {"name": "web"}})
    assert (await ask(cloud, f"POST {path}", {"addSecurityGroup": {"name": "web"}}, **at))[0] == 409  # which of them?
    theirs = (await net(cloud, "POST /security-groups", {"security_group": {"name": "theirs"}}, "demo-alt"))[
        "security_group"]["id"]
    assert (await ask(cloud, f"POST {path}", {"addSecurityGroup": {"name": theirs}}, **at))[0] == 404


async def test_no_port_takes_a_group_without_port_security(cloud: WholeCloud) -> None:
    bare = await network(cloud, port_security_enabled=False)
    ident = await server(cloud, networks=[{"uuid": bare}])
    body = {"addSecurityGroup": {"name": "default"}}
    status, said = await ask(cloud, f"POST /servers/{ident}/action", body)
    assert status == 400 and "port_security_enabled" in said["badRequest"]["message"]


async def test_a_servers_fixed_ips(cloud: WholeCloud) -> None:
    inner, other = await network(cloud), await network(cloud)
    ident = await server(cloud, networks=[{"uuid": inner}])
    path = f"POST /servers/{ident}/action"

    async def addresses() -> list[str]:
        (port,) = (await net(cloud, f"GET /ports?device_id={ident}"))["ports"]
        return [each["ip_address"] for each in port["fixed_ips"]]

    (first,) = await addresses()
    assert (await ask(cloud, path, {"addFixedIp": {"networkId": inner}}))[0] == 202
    assert len(both := await addresses()) == 2 and first in both
    for wrong, status in (({"addFixedIp": {"networkId": other}}, 404), ({"addFixedIp": {"networkId": 1}}, 404),
                          ({"addFixedIp": {}}, 400), ({"removeFixedIp": {"address": "x"}}, 400),
                          ({"removeFixedIp": {"address": "192.0.2.9"}}, 404)):
        assert (await ask(cloud, path, wrong))[0] == status, wrong
    assert (await ask(cloud, path, {"removeFixedIp": {"address": first}}, who="demo-alt"))[0] == 404
    assert (await ask(cloud, path, {"removeFixedIp": {"address": first}}))[0] == 202
    assert await addresses() == [each for each in both if each != first]
    await ask(cloud, path, {"lock": None})
    assert (await ask(cloud, path, {"addFixedIp": {"networkId": inner}}))[0] == 409
    later = {"OpenStack-API-Version": "compute 2.44"}
    assert (await ask(cloud, path, {"addFixedIp": {"networkId": inner}}, **later))[0] == 400


async def test_a_servers_floating_ip(cloud: WholeCloud) -> None:
    public = (await net(cloud, "GET /networks?name=public"))["networks"][0]["id"]
    inner = await network(cloud)
    subnet = (await net(cloud, f"GET /subnets?network_id={inner}"))["subnets"][0]["id"]
    router = (await net(cloud, "POST /routers", {"router": {"external_gateway_info": {"network_id": public}}}))[
        "router"]["id"]
    await net(cloud, f"PUT /routers/{router}/add_router_interface", {"subnet_id": subnet})
    ident = await server(cloud, networks=[{"uuid": inner}])
    floating = (await ask(cloud, "POST /os-floating-ips", {"pool": "public"}))[1]["floating_ip"]
    path, one = f"POST /servers/{ident}/action", f"GET /os-floating-ips/{floating['id']}"
    add, remove = ({verb: {"address": floating["ip"]}} for verb in ("addFloatingIp", "removeFloatingIp"))
    assert (await ask(cloud, path, remove))[0] == 409
    assert (await ask(cloud, path, {"addFloatingIp": {"address": "192.0.2.9"}}))[0] == 404
    wrong = {"addFloatingIp": {"address": floating["ip"], "fixed_address": "10.5.0.250"}}
    assert (await ask(cloud, path, wrong))[0] == 400
    assert (await ask(cloud, path, add, who="demo-alt"))[0] == 404
    assert (await ask(cloud, path, add))[0] == 202
    assert (await ask(cloud, one))[1]["floating_ip"]["instance_id"] == ident
    assert (await ask(cloud, path, remove))[0] == 202
    assert (await ask(cloud, one))[1]["floating_ip"]["instance_id"] is None
    assert (await ask(cloud, path, add, **{"OpenStack-API-Version": "compute 2.44"}))[0] in (400, 404)
