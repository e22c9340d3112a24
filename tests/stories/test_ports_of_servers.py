"""A server's `networks` ask what POST /ports asks; a port is a server's interface by the cloud's word alone."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from tests.stories.test_orphans import made
from tests.stories.whole_cloud import WholeCloud, whole_cloud

from nacre.base.clock import VirtualClock
from nacre.node.metadata import Metadata


@pytest.fixture
async def cloud(tmp_path: Path, story_url: str) -> AsyncIterator[WholeCloud]:
    async with whole_cloud(tmp_path, story_url) as made:
        yield made


async def post(cloud: WholeCloud, user: str, path: str, name: str, /, **body: Any) -> dict[str, Any]:
    answer = await cloud.ask(user, "POST", "network", path, {name: body})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()[name]
    return found


async def network(cloud: WholeCloud, user: str, cidr: str, **more: Any) -> str:
    net = await post(cloud, user, "/networks", "network", name="net", **more)
    await post(cloud, user, "/subnets", "subnet", network_id=net["id"], ip_version=4, cidr=cidr, allocation_pools=[
        {"start": cidr.replace(".0/24", ".10"), "end": cidr.replace(".0/24", ".20")}])
    return str(net["id"])


async def image(cloud: WholeCloud) -> str:
    found = (await cloud.ask("demo", "POST", "image", "/images", {
        "name": "i", "disk_format": "raw", "container_format": "bare"})).json()["id"]
    data = await cloud.http.put(f"/image/v2/images/{found}/file", content=b"x", headers={
        "X-Auth-Token": await cloud.token("demo"), "Content-Type": "application/octet-stream"})
    assert data.status_code == 204
    return str(found)


async def boot(cloud: WholeCloud, image_id: str, item: dict[str, Any], user: str = "demo",
               **more: Any) -> tuple[int, str]:
    answer = await cloud.ask(user, "POST", "compute", "/servers", {"server": {
        "name": "s", "imageRef": image_id, "flavorRef": "42", "networks": [item], **more}})
    return answer.status_code, answer.text


async def test_a_servers_networks_ask_what_ports_are_asked(cloud: WholeCloud) -> None:
    image_id = await image(cloud)
    shared = await network(cloud, "admin", "10.7.0.0/24", shared=True)
    own = await network(cloud, "demo", "10.8.0.0/24")
    for address in ("10.7.0.1", "10.7.0.99", "10.7.0.15"):  # the gateway, outside the pool, in the pool
        told = await cloud.ask("demo", "POST", "network", "/ports", {"port": {
            "network_id": shared, "fixed_ips": [{"ip_address": address}]}})
        status, said = await boot(cloud, image_id, {"uuid": shared, "fixed_ip": address})
        assert (told.status_code, status) == (403, 403) and "create_port:fixed_ips" in said
    status, said = await boot(cloud, image_id, {"uuid": own, "fixed_ip": "192.0.2.9"})
    assert status == 400 and "not a valid IP for any of the subnets" in said
    assert (await boot(cloud, image_id, {"uuid": own, "fixed_ip": "10.8.0.15"}))[0] == 202
    assert (await boot(cloud, image_id, {"uuid": shared}))[0] == 202


async def test_a_policy_for_ports_holds_for_servers(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text('"create_port": "role:admin"\n')
    async with whole_cloud(tmp_path) as cloud:
        own = await network(cloud, "demo", "10.8.0.0/24")
        assert (await cloud.ask("demo", "POST", "network", "/ports", {"port": {"network_id": own}})).status_code == 403
        assert (await boot(cloud, await image(cloud), {"uuid": own}))[0] == 403


async def test_ports_and_groups_that_are_not_the_projects(cloud: WholeCloud) -> None:
    image_id = await image(cloud)
    theirs, own = await network(cloud, "demo-alt", "10.7.0.0/24"), await network(cloud, "demo", "10.8.0.0/24")
    port = (await post(cloud, "demo-alt", "/ports", "port", network_id=theirs))["id"]
    unseen = await boot(cloud, image_id, {"port": port})
    none = await boot(cloud, image_id, {"port": (nobodys := str(uuid4()))})
    assert unseen[0] == none[0] == 400 and unseen[1].replace(port, "") == none[1].replace(nobodys, "")
    # On one's own network one sees others' ports; they are no interfaces of one's servers for that.
    await post(cloud, "demo", "/rbac-policies", "rbac_policy", object_type="network", object_id=own,
               action="access_as_shared", target_tenant=(await cloud.ask(
                   "admin", "GET", "identity", "/projects?name=demo-alt")).json()["projects"][0]["id"])
    guest = (await post(cloud, "demo-alt", "/ports", "port", network_id=own))["id"]
    assert (await cloud.ask("demo", "GET", "network", f"/ports/{guest}")).status_code == 200
    status, said = await boot(cloud, image_id, {"port": guest})
    assert status == 400 and "not usable" in said
    group = await post(cloud, "demo-alt", "/security-groups", "security_group", name="theirs")
    for word in (group["id"], "theirs"):
        status, said = await boot(cloud, image_id, {"uuid": own}, security_groups=[{"name": word}])
        assert status == 400 and "not found" in said


async def test_an_own_port_on_an_external_network(cloud: WholeCloud) -> None:
    image_id = await image(cloud)
    outside = await network(cloud, "admin", "198.51.100.0/24", **{"router:external": True})
    project = (await cloud.ask("admin", "GET", "identity", "/projects?name=demo")).json()["projects"][0]["id"]
    port = (await post(cloud, "admin", "/ports", "port", network_id=outside, project_id=project))["id"]
    for item in ({"port": port}, {"uuid": outside}):
        status, said = await boot(cloud, image_id, item)
        assert status == 403 and "external network" in said, said


async def test_device_id_names_servers_of_the_ports_own_project(cloud: WholeCloud) -> None:
    victim = await made(cloud)
    net = await network(cloud, "demo-alt", "10.7.0.0/24")
    port = (await post(cloud, "demo-alt", "/ports", "port", network_id=net))["id"]

    async def said(user: str, device: str, **more: Any) -> list[tuple[int, str]]:
        tried = [await cloud.ask(user, "POST", "network", "/ports", {"port": {
                    "network_id": net, "device_id": device, **more}}),
                 await cloud.ask(user, "PUT", "network", f"/ports/{port}", {"port": {"device_id": device, **more}})]
        return [(answer.status_code, answer.text.replace(device, "")) for answer in tried]

    nobody = str(uuid4())
    for more in ({}, {"device_owner": "compute:nova"}):
        taken = await said("demo-alt", victim["id"], **more)
        assert [status for status, _ in taken] == [409, 409] and taken == await said("demo-alt", nobody, **more)
    assert (await cloud.ask("demo-alt", "GET", "network", f"/ports/{port}")).json()["port"]["device_id"] == ""
    assert [status for status, _ in await said("demo-alt", "a load balancer")] == [201, 200]
    assert [status for status, _ in await said("admin", victim["id"], device_owner="compute:nova")] == [201, 200]
    # An administrator's word makes no interface either.
    there = (await cloud.ask("demo", "GET", "compute", f"/servers/{victim['id']}/os-interface")).json()
    assert [port["net_id"] for port in there["interfaceAttachments"]] != [] and net not in str(there)
    shown = (await cloud.ask("demo", "GET", "compute", f"/servers/{victim['id']}")).json()["server"]
    assert shown["addresses"] == victim["addresses"]
    [own] = (await cloud.ask("demo", "GET", "network", f"/ports?device_id={victim['id']}")).json()["ports"]
    assert (await cloud.ask("demo", "POST", "network", "/ports", {"port": {
        "network_id": own["network_id"], "device_id": victim["id"]}})).status_code == 201


async def test_a_port_that_says_otherwise_is_the_servers_still(cloud: WholeCloud) -> None:
    """What its owner writes into device_id and device_owner strands no port."""
    server = await made(cloud)
    port = (await cloud.ask("demo", "GET", "network", f"/ports?device_id={server['id']}")).json()["ports"][0]
    answer = await cloud.ask("demo", "PUT", "network", f"/ports/{port['id']}", {"port": {
        "device_id": "", "device_owner": ""}})
    assert answer.status_code == 200
    shown = (await cloud.ask("demo", "GET", "compute", f"/servers/{server['id']}")).json()["server"]
    assert shown["addresses"] == server["addresses"]
    status, _ = await boot(cloud, server["image"]["id"], {"port": port["id"]})
    assert status == 409
    await cloud.control.network.deallocate(server["id"])
    assert (await cloud.ask("demo", "GET", "network", f"/ports/{port['id']}")).status_code == 404


async def test_the_hosts_metadata_asks_for_the_project_again(cloud: WholeCloud) -> None:
    """Were a port of another project the server's by a fault of control, its guest would hear nothing of it."""
    server = await made(cloud)
    [mine] = (await cloud.control.network.ports_of((server["id"],)))[server["id"]]

    async def ask(source: str, *ports: Any) -> int:
        async def told(server_id: str) -> Any:
            return await cloud.control.conductor.guest_facts(mine.host, server_id)

        service = Metadata(told, clock=VirtualClock())
        service.know(ports, [])
        return (await service.answer(mine.network_id, source, "GET", "/openstack/latest/meta_data.json"))[0]


    strange = msgspec.structs.replace(mine, id="other", project_id="elsewhere", fixed_ips=(
        msgspec.structs.replace(mine.fixed_ips[0], ip_address="10.9.0.77"),))
    assert await ask(mine.fixed_ips[0].ip_address, mine, strange) == 200
    assert await ask("10.9.0.77", mine, strange) == 404
