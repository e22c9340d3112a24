"""The rows that `nacre up --external nat` makes: the public network's range, and the demo project's router to it."""

import json
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from tests.stories.whole_cloud import WholeCloud, whole_cloud

from nacre.base.durable.tables import cloud as clouds
from nacre.cli.bootstrap import first_rows
from nacre.config import KEPT_FILE


def told(folder: Path, cidr: str, kind: str = "nat") -> None:
    """What `nacre up` keeps."""
    (folder / KEPT_FILE).write_text(json.dumps({"external": {"kind": kind, "cidr": cidr}}))


async def listed(cloud: WholeCloud, what: str, user: str = "admin", **filters: str) -> list[dict[str, Any]]:
    query = "&".join(f"{name}={value}" for name, value in filters.items())
    answer = await cloud.ask(user, "GET", "network", f"/{what}?{query}")
    assert answer.status_code == 200, answer.text
    return list(answer.json()[what.replace("-", "_")])


async def ranges(cloud: WholeCloud) -> list[str]:
    [public] = await listed(cloud, "networks", name="public")
    return sorted(s["cidr"] for s in await listed(cloud, "subnets", network_id=public["id"]))


async def test_a_cloud_without_a_way_out_has_the_public_network_alone(tmp_path: Path) -> None:
    async with whole_cloud(tmp_path) as cloud:
        assert await ranges(cloud) == ["172.24.4.0/24"] and await listed(cloud, "routers") == []
        assert await listed(cloud, "networks", "demo", name="demo") == []


async def test_a_cloud_that_begins_with_one_has_a_router_to_it(tmp_path: Path) -> None:
    told(tmp_path, "172.24.9.0/24")
    async with whole_cloud(tmp_path) as cloud:
        for _ in range(2):  # the second start finds it
            [public] = await listed(cloud, "networks", name="public")
            assert public["router:external"] and public["is_default"]
            assert (public["provider:network_type"], public["provider:physical_network"]) == ("flat", "public")
            [subnet] = await listed(cloud, "subnets", network_id=public["id"])
            assert (subnet["cidr"], subnet["gateway_ip"], subnet["enable_dhcp"]) == (
                "172.24.9.0/24", "172.24.9.1", False)
            assert subnet["allocation_pools"] == [{"start": "172.24.9.2", "end": "172.24.9.254"}]
            [net] = await listed(cloud, "networks", "demo", name="demo")
            [inner] = await listed(cloud, "subnets", "demo", network_id=net["id"])
            [router] = await listed(cloud, "routers", "demo")
            assert (router["name"], router["external_gateway_info"]["network_id"]) == ("demo", public["id"])
            [leg] = await listed(cloud, "ports", "demo", device_owner="network:router_interface")
            assert leg["device_id"] == router["id"] and leg["fixed_ips"] == [
                {"subnet_id": inner["id"], "ip_address": inner["gateway_ip"]}]
            assert inner["enable_dhcp"]
            await first_rows(cloud.control)
        # A floating IP is to be had, for a guest of the project.
        made = await cloud.ask("demo", "POST", "network", "/floatingips", {
            "floatingip": {"floating_network_id": public["id"]}})
        assert made.status_code == 201 and made.json()["floatingip"]["floating_ip_address"].startswith("172.24.9.")


async def test_what_a_user_deletes_stays_deleted(tmp_path: Path) -> None:
    told(tmp_path, "172.24.9.0/24")
    async with whole_cloud(tmp_path) as cloud:
        [router] = await listed(cloud, "routers", "demo")
        [leg] = await listed(cloud, "ports", "demo", device_owner="network:router_interface")
        assert (await cloud.ask("demo", "PUT", "network", f"/routers/{router['id']}/remove_router_interface", {
            "port_id": leg["id"]})).status_code == 200
        assert (await cloud.ask("demo", "DELETE", "network", f"/routers/{router['id']}")).status_code == 204
        await first_rows(cloud.control)
        assert await listed(cloud, "routers") == []


async def test_a_cloud_that_ran_without_one_gets_it(tmp_path: Path) -> None:
    """Its range takes the place of the first one, of which nobody has an address; what the project has is joined."""
    async with whole_cloud(tmp_path) as cloud:
        net = (await cloud.ask("demo", "POST", "network", "/networks", {"network": {"name": "demo"}})).json()["network"]
        subnet = (await cloud.ask("demo", "POST", "network", "/subnets", {"subnet": {
            "network_id": net["id"], "ip_version": 4, "cidr": "10.33.0.0/24"}})).json()["subnet"]
        told(tmp_path, "172.24.5.0/24")
        await first_rows(cloud.control)
        assert await ranges(cloud) == ["172.24.5.0/24"]
        [leg] = await listed(cloud, "ports", "demo", device_owner="network:router_interface")
        assert leg["fixed_ips"] == [{"subnet_id": subnet["id"], "ip_address": "10.33.0.1"}]
        assert len(await listed(cloud, "networks", "demo", name="demo")) == 1


async def test_a_range_that_is_used_stays_beside_the_new_one(tmp_path: Path) -> None:
    async with whole_cloud(tmp_path) as cloud:
        [public] = await listed(cloud, "networks", name="public")
        assert (await cloud.ask("demo", "POST", "network", "/floatingips", {
            "floatingip": {"floating_network_id": public["id"]}})).status_code == 201
        told(tmp_path, "172.24.5.0/24")
        await first_rows(cloud.control)
        assert await ranges(cloud) == ["172.24.4.0/24", "172.24.5.0/24"]


async def test_what_leaves_no_room_for_it_keeps_no_cloud_from_starting(tmp_path: Path) -> None:
    """Nothing is made by halves, and the next start tries again."""
    async with whole_cloud(tmp_path) as cloud:
        [project] = [r["id"] for r in (await cloud.ask("admin", "GET", "identity", "/projects?name=demo")).json()[
            "projects"]]
        await cloud.ask("admin", "PUT", "network", f"/quotas/{project}", {"quota": {"router": 0}})
        told(tmp_path, "172.24.5.0/24")
        await first_rows(cloud.control)
        assert await ranges(cloud) == ["172.24.4.0/24"]
        assert await cloud.control.db.read(lambda c: c.execute(sa.select(clouds.c.external_cidr)).scalar_one()) is None
        await cloud.ask("admin", "DELETE", "network", f"/quotas/{project}")
        await first_rows(cloud.control)
        assert await ranges(cloud) == ["172.24.5.0/24"] and len(await listed(cloud, "routers", "demo")) == 1


async def test_an_interface_makes_no_rows_of_its_own(tmp_path: Path) -> None:
    """What is on that wire, and who has which address there, an operator knows."""
    told(tmp_path, "", kind="interface")
    async with whole_cloud(tmp_path) as cloud:
        assert await ranges(cloud) == ["172.24.4.0/24"] and await listed(cloud, "routers") == []
