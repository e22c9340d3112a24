"""Ranges of segments' numbers by API: whose networks get which."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.stories.network_cloud import Cloud

from nacre.base.db import Database
from nacre.network.l2 import ranges
from nacre.network.ml2.type_drivers import SegmentTypes
from nacre.network.work import NetworkSettings

PATH = "/network-segment-ranges"


@pytest.fixture
def cloud(story_db: Database) -> Cloud:
    types = SegmentTypes(vlan_ranges={"physnet1": (100, 104)}, vni_range=(1, 20))
    return Cloud(story_db, NetworkSettings(types=types))


async def add(cloud: Cloud, minimum: int, maximum: int, expect: int = 201, **more: Any) -> Any:
    body = {"network_type": "vxlan", "minimum": minimum, "maximum": maximum} | more
    return (await cloud.call("admin", "POST", PATH, {"network_segment_range": body}, expect=expect)).popitem()[1]


async def number(cloud: Cloud, project: str, expect: int = 201, **more: Any) -> Any:
    made = await cloud.call("admin", "POST", "/networks", {"network": {"project_id": project, **more}}, expect=expect)
    return made.popitem()[1].get("provider:segmentation_id")


async def test_what_the_operators_settings_say_is_shown_and_stays(cloud):
    listed = (await cloud.call("admin", "GET", PATH))["network_segment_ranges"]
    assert [(r["network_type"], r["physical_network"], r["minimum"], r["maximum"]) for r in listed] == [
        ("vlan", "physnet1", 100, 104), ("vxlan", None, 1, 20)]
    assert all(r["default"] and r["shared"] and r["project_id"] is None for r in listed)
    for method, body in (("PUT", {"network_segment_range": {"name": "x"}}), ("DELETE", None)):
        answer = await cloud.call("admin", method, f"{PATH}/{listed[1]['id']}", body, expect=400)
        assert answer["NeutronError"]["type"] == "NetworkSegmentRangeDefaultReadOnly"
    path = f"{PATH}/{listed[1]['id']}/tags"  # there is no row that could keep them
    for method, where, body in (("PUT", path, {"tags": ["a"]}), ("POST", path, {"tags": ["a"]}),
                                ("PUT", f"{path}/a", None), ("DELETE", path, None), ("DELETE", f"{path}/a", None)):
        answer = await cloud.call("admin", method, where, body, expect=400)
        assert answer["NeutronError"]["type"] == "NetworkSegmentRangeDefaultReadOnly", (method, where)
    assert await cloud.call("admin", "GET", path) == {"tags": []}


async def test_a_projects_range_is_its_own(cloud):
    mine = await add(cloud, 5, 6, shared=False, project_id="p-one", name="r", description="d")
    assert not mine["default"] and mine["available"] == [5, 6] and mine["used"] == {} and mine["project_id"] == "p-one"
    assert [await number(cloud, "p-two") for _ in range(5)] == [1, 2, 3, 4, 7]
    assert [await number(cloud, "p-one") for _ in range(2)] == [5, 6]
    seen = (await cloud.call("admin", "GET", f"{PATH}/{mine['id']}"))["network_segment_range"]
    assert seen["used"] == {"5": "p-one", "6": "p-one"} and seen["available"] == []
    assert await number(cloud, "p-one") == 8  # its own is full
    assert await number(cloud, "p-one", **{"provider:network_type": "vxlan"}) == 9


async def test_a_range_for_all_adds_to_the_settings(cloud):
    await add(cloud, 500, 501)
    assert [await number(cloud, "p-one") for _ in range(22)][-3:] == [20, 500, 501]
    assert await number(cloud, "p-one", expect=409) is None


async def test_a_physical_network_that_only_a_range_names(cloud):
    wanted = {"provider:network_type": "vlan", "provider:physical_network": "physnet2"}
    await number(cloud, "p-one", expect=400, **wanted)
    made = await add(cloud, 7, 7, network_type="vlan", physical_network="physnet2")
    assert made["physical_network"] == "physnet2" and await number(cloud, "p-one", **wanted) == 7
    assert await number(cloud, "p-one", expect=409, **wanted) is None


async def test_a_range_keeps_what_is_used(cloud):
    mine = await add(cloud, 40, 49, shared=False, project_id="p-one")
    path = f"{PATH}/{mine['id']}"
    net = (await cloud.call("one", "POST", "/networks", {"network": {}}))["network"]["id"]
    for method, body in (("PUT", {"network_segment_range": {"minimum": 41}}), ("DELETE", None)):
        answer = await cloud.call("admin", method, path, body, expect=409)
        assert answer["NeutronError"]["type"] == "NetworkSegmentRangeReferencedByProject"
    changed = await cloud.call("admin", "PUT", path, {"network_segment_range": {
        "minimum": 40, "maximum": 60, "name": "x"}})
    assert changed["network_segment_range"]["maximum"] == 60 and changed["network_segment_range"]["name"] == "x"
    await cloud.call("one", "DELETE", f"/networks/{net}")
    await cloud.call("admin", "DELETE", path)
    await cloud.call("admin", "GET", path, expect=404)


async def test_ranges_that_cannot_be(cloud):
    first = await add(cloud, 40, 49)
    assert (await add(cloud, 49, 50, 409))["type"] == "NetworkSegmentRangeOverlaps"
    second = await add(cloud, 50, 59)
    await cloud.call("admin", "PUT", f"{PATH}/{second['id']}", {"network_segment_range": {"minimum": 45}}, expect=409)
    for wrong, words in (({"network_type": "flat"}, "does not support"), ({"network_type": "x"}, "does not support"),
                         ({"network_type": "vlan"}, "physical_network"), ({"minimum": 80, "maximum": 70}, "minimum"),
                         ({"minimum": 0}, "minimum"), ({"maximum": 1 << 24}, "maximum"), ({"minimum": "x"}, "minimum"),
                         ({"maximum": 1 << 40}, "maximum")):
        assert words in (await add(cloud, **({"minimum": 70, "maximum": 75} | wrong), expect=400))["message"]
    await cloud.call("admin", "PUT", f"{PATH}/{first['id']}", {"network_segment_range": {"shared": False}}, expect=400)
    for who in ("one", "manager"):
        await cloud.call(who, "GET", PATH, expect=403)


async def test_they_have_an_end(cloud, monkeypatch):
    monkeypatch.setattr(ranges, "MOST", 2)
    await add(cloud, 40, 41)
    await add(cloud, 42, 43)
    assert (await add(cloud, 44, 45, 409))["type"] == "OverQuota"


SPAN = st.tuples(st.integers(0, 20), st.integers(0, 20)).map(lambda ends: range(min(ends), max(ends)))


@given(SPAN, st.lists(SPAN, max_size=4))
def test_what_is_left_of_a_span_is_it_without_the_others(span, others):
    left = ranges.without(span, others)
    found = [number for part in left for number in part]
    assert set(found) == set(span) - {n for other in others for n in other} and len(found) == len(set(found))
