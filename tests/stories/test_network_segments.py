"""Segments as a service: what networks consist of, subnets on segments, and what drivers take for a while."""

from typing import Any

import pytest
from tests.stories.network_cloud import Cloud

from nacre.base.db import Database
from nacre.network.hosts import bindings
from nacre.network.l2 import segments
from nacre.network.ml2 import manager as ml2
from nacre.network.ml2.mechanism_drivers.tor_vlan import TorVlan
from nacre.network.ml2.type_drivers import SegmentTypes
from nacre.network.work import NetworkSettings

TYPES = SegmentTypes(vlan_ranges={"physnet1": (100, 110)})
TWO = "11111111-2222-4333-8444-555555555555"


@pytest.fixture
def cloud(story_db: Database) -> Cloud:
    return Cloud(story_db, NetworkSettings(types=TYPES))


async def of(cloud: Cloud, network_id: str) -> list[Any]:
    return list((await cloud.call("admin", "GET", f"/segments?network_id={network_id}"))["segments"])


async def add(cloud: Cloud, network_id: str, expect: int = 201, /, **more: Any) -> Any:
    body = {"network_id": network_id, "network_type": "vlan", "physical_network": "physnet1"} | more
    return (await cloud.call("admin", "POST", "/segments", {"segment": body}, expect=expect)).popitem()[1]


async def test_a_segment_from_nothing_to_gone(cloud):
    net = (await cloud.call("one", "POST", "/networks", {"network": {}}))["network"]["id"]
    [first] = await of(cloud, net)
    assert first["network_type"] == "vxlan" and first["name"] is None and first["revision_number"] == 1
    made = await add(cloud, net, name="rack", description="d", segmentation_id="105")
    assert made["segmentation_id"] == 105 and made["name"] == "rack" and made["description"] == "d"
    assert "project_id" not in made and "tags" not in made and made["created_at"]
    path = f"/segments/{made['id']}"
    changed = (await cloud.call("admin", "PUT", path, {"segment": {"name": "row"}}))["segment"]
    assert changed["name"] == "row" and changed["revision_number"] > made["revision_number"]
    shown = (await cloud.call("admin", "GET", f"/networks/{net}"))["network"]
    assert [s["provider:segmentation_id"] for s in shown["segments"]] == [first["segmentation_id"], 105]
    assert (await add(cloud, net, 409, segmentation_id=105))["type"] == "VlanIdInUse"
    await cloud.call("admin", "PUT", path, {"segment": {"network_type": "flat"}}, expect=400)
    await cloud.call("admin", "DELETE", path)
    await cloud.call("admin", "GET", path, expect=404)
    for who in ("one", "manager"):
        await cloud.call(who, "GET", "/segments", expect=403)


async def test_what_carries_something_stays(cloud):
    net, sub = await cloud.network_with_subnet()
    [segment] = await of(cloud, net)
    await cloud.host("h1", "192.0.2.1")
    port = (await cloud.call("admin", "POST", "/ports", {"port": {"network_id": net, "binding:host_id": "h1"}}))["port"]
    answer = await cloud.call("admin", "DELETE", f"/segments/{segment['id']}", expect=409)
    assert answer["NeutronError"]["type"] == "SegmentInUse" and port["id"] in answer["NeutronError"]["message"]
    await cloud.call("admin", "DELETE", f"/ports/{port['id']}")
    await cloud.call("admin", "PUT", f"/subnets/{sub}", {"subnet": {"segment_id": segment["id"]}})
    answer = await cloud.call("admin", "DELETE", f"/segments/{segment['id']}", expect=409)
    assert sub in answer["NeutronError"]["message"]


async def test_a_subnet_is_on_its_networks_only_segment(cloud):
    net, sub = await cloud.network_with_subnet()
    other, _ = await cloud.network_with_subnet(cidr="10.9.0.0/24")
    [segment], [foreign] = await of(cloud, net), await of(cloud, other)
    path = f"/subnets/{sub}"
    for wrong, expect in ((TWO, 404), (foreign["id"], 400), ("x", 400)):
        await cloud.call("admin", "PUT", path, {"subnet": {"segment_id": wrong}}, expect=expect)
    changed = (await cloud.call("admin", "PUT", path, {"subnet": {"segment_id": segment["id"]}}))["subnet"]
    assert changed["segment_id"] == segment["id"]
    assert "segment_id" not in (await cloud.call("one", "GET", path))["subnet"]
    assert not (await cloud.call("one", "GET", f"/networks/{net}"))["network"]["l2_adjacency"]
    assert (await cloud.call("one", "GET", f"/networks/{other}"))["network"]["l2_adjacency"]
    # Addresses by the hosts' segments are not built, and nothing pretends that they are.
    await add(cloud, net, 501)
    await add(cloud, other)
    await cloud.call("admin", "POST", "/subnets", {"subnet": {
        "network_id": other, "ip_version": 4, "cidr": "10.10.0.0/24", "segment_id": foreign["id"]}}, expect=501)


@pytest.mark.parametrize(("wrong", "words"), [
    ({"network_type": "colour"}, "network_type"), ({"physical_network": None}, "physical_network"),
    ({"physical_network": "nowhere"}, "physical_network"), ({"segmentation_id": 5000}, "segmentation_id"),
    ({"segmentation_id": "x"}, "segmentation_id"), ({"network_id": "x"}, "network_id"), ({"name": "a\n"}, "name")])
async def test_bad_values_are_named(cloud, wrong, words):
    net = (await cloud.call("one", "POST", "/networks", {"network": {}}))["network"]["id"]
    assert words in (await add(cloud, net, 400, **wrong))["message"]


async def test_a_network_has_so_many(cloud, monkeypatch):
    monkeypatch.setattr(segments, "MOST", 2)
    net = (await cloud.call("one", "POST", "/networks", {"network": {}}))["network"]["id"]
    await add(cloud, net)
    assert (await add(cloud, net, 409))["type"] == "OverQuota"
    assert (await add(cloud, TWO, 404))["type"] == "NetworkNotFound"


async def test_what_a_driver_takes_is_there_while_a_port_needs_it(story_db, monkeypatch):
    bindings._drivers.cache_clear()
    monkeypatch.setitem(ml2.MECHANISMS, "tor_vlan", lambda: TorVlan({"h1": "physnet1"}))
    cloud = Cloud(story_db, NetworkSettings(drivers=("tor_vlan", "openvswitch"), types=TYPES))
    await cloud.host("h1", "192.0.2.1")
    net, _ = await cloud.network_with_subnet()
    ports = [(await cloud.call("admin", "POST", "/ports", {"port": {
        "network_id": net, "binding:host_id": "h1"}}))["port"]["id"] for _ in range(2)]
    kinds = [[s["network_type"] for s in await of(cloud, net)]]
    taken = next(s for s in await of(cloud, net) if s["network_type"] == "vlan")
    await cloud.call("admin", "DELETE", f"/segments/{taken['id']}", expect=409)
    for port in ports:
        await cloud.call("admin", "DELETE", f"/ports/{port}")
        kinds.append([s["network_type"] for s in await of(cloud, net)])
    assert [sorted(each) for each in kinds] == [["vlan", "vxlan"], ["vlan", "vxlan"], ["vxlan"]]
    bindings._drivers.cache_clear()
