"""Trunks over HTTP: a port that carries others by VLANs, and what that forbids."""

from typing import Any

import pytest
import sqlalchemy as sa
from tests.stories.network_cloud import CALLERS, Cloud

from nacre.base.context import service_context
from nacre.base.db import Database
from nacre.base.errors import Conflict
from nacre.network import ports, work
from nacre.network.contract import NetworkRequest, PortsOrder, SubportFacts, TrunkFacts
from nacre.network.l2 import trunk_ports
from nacre.network.ml2.type_drivers import SegmentTypes
from nacre.network.work import NetworkSettings


@pytest.fixture
def cloud(story_db: Database) -> Cloud:
    return Cloud(story_db, NetworkSettings(types=SegmentTypes(vlan_ranges={"physnet1": (100, 110)})))


async def port(cloud: Cloud, who: str = "one", mtu: int = 1400, **more: Any) -> str:
    net = (await cloud.call(who, "POST", "/networks", {"network": {"mtu": mtu}}))["network"]["id"]
    return str((await cloud.call(who, "POST", "/ports", {"port": {"network_id": net, **more}}))["port"]["id"])


async def trunk(cloud: Cloud, parent: str, *carried: Any, expect: int = 201, **more: Any) -> Any:
    body = {"port_id": parent, "sub_ports": list(carried), **more}
    made = await cloud.call("one", "POST", "/trunks", {"trunk": body}, expect=expect)
    return made["trunk"] if expect == 201 else made["NeutronError"]


def vlan(port_id: str, number: Any = 7) -> Any:
    return {"port_id": port_id, "segmentation_type": "vlan", "segmentation_id": number}


async def test_a_trunk_from_nothing_to_gone(cloud):
    parent, first, second = [await port(cloud) for _ in range(3)]
    made = await trunk(cloud, parent, vlan(first, "7"), name="t", description="d")
    assert made["status"] == "DOWN" and made["sub_ports"] == [vlan(first, 7)] and made["admin_state_up"]
    path = f"/trunks/{made['id']}"
    added = await cloud.call("one", "PUT", f"{path}/add_subports", {"sub_ports": [vlan(second, 8)]})
    assert added["sub_ports"] == [vlan(first, 7), vlan(second, 8)] and added["revision_number"] > 1
    assert await cloud.call("watcher", "GET", f"{path}/get_subports") == {"sub_ports": added["sub_ports"]}
    shown = (await cloud.call("one", "GET", f"/ports/{parent}"))["port"]["trunk_details"]
    assert shown["trunk_id"] == made["id"] and [s["segmentation_id"] for s in shown["sub_ports"]] == [7, 8]
    mac = (await cloud.call("one", "GET", f"/ports/{first}"))["port"]
    assert shown["sub_ports"][0]["mac_address"] == mac["mac_address"] and "trunk_details" not in mac
    left = await cloud.call("one", "PUT", f"{path}/remove_subports", {"sub_ports": [{"port_id": first}]})
    assert left["sub_ports"] == [vlan(second, 8)]
    assert (await cloud.call("one", "PUT", path, {"trunk": {"name": "u"}}))["trunk"]["name"] == "u"
    await cloud.call("one", "PUT", f"{path}/tags", {"tags": ["a"]})
    assert len((await cloud.call("one", "GET", "/trunks?tags=a&name=u"))["trunks"]) == 1
    await cloud.call("one", "DELETE", path)
    await cloud.call("one", "GET", path, expect=404)
    for each in (parent, first, second):
        await cloud.call("one", "DELETE", f"/ports/{each}")


async def test_ports_of_a_trunk_are_nobody_elses(cloud):
    parent, carried, free = [await port(cloud) for _ in range(3)]
    made = await trunk(cloud, parent, vlan(carried))
    for wrong, kind in ((parent, "ParentPortInUse"), (carried, "TrunkPortInUse")):
        assert (await trunk(cloud, wrong, expect=409))["type"] == kind
        assert (await trunk(cloud, free, vlan(wrong), expect=409))["type"] == kind
    for wrong, kind in ((parent, "PortInUseAsTrunkParent"), (carried, "PortInUseAsSubPort")):
        assert (await cloud.call("one", "DELETE", f"/ports/{wrong}", expect=409))["NeutronError"]["type"] == kind
    path = f"/trunks/{made['id']}"
    answer = await cloud.call("one", "PUT", f"{path}/add_subports", {"sub_ports": [vlan(free)]}, expect=409)
    assert answer["NeutronError"]["type"] == "DuplicateSubPort"
    for wrong in (parent, carried):
        await cloud.call("one", "PUT", f"{path}/add_subports", {"sub_ports": [vlan(wrong, 9)]}, expect=409)
    await cloud.call("one", "PUT", f"{path}/remove_subports", {"sub_ports": [{"port_id": free}]}, expect=404)
    used = await port(cloud, device_id="anything")
    assert (await trunk(cloud, free, vlan(used), expect=409))["type"] == "PortInUse"
    assert (await trunk(cloud, used, vlan(free)))["port_id"] == used


async def test_a_subport_is_nothing_elses_and_a_parent_outlives_its_routers_interface(cloud: Cloud) -> None:
    nets = [await cloud.network_with_subnet(cidr=f"10.{n}.0.0/24") for n in range(2)]
    parent, carried = [(await cloud.call("one", "POST", "/ports", {"port": {"network_id": net}}))["port"]["id"]
                       for net, _ in nets]
    made = await trunk(cloud, parent, vlan(carried))
    router = (await cloud.call("one", "POST", "/routers", {"router": {}}))["router"]["id"]
    no = await cloud.call("one", "PUT", f"/routers/{router}/add_router_interface", {"port_id": carried}, expect=409)
    assert no["NeutronError"]["type"] == "PortInUseAsSubPort"
    for verb in ("check", "plug"):
        order = PortsOrder(server_id="s", context=CALLERS["one"], requests=(NetworkRequest(port_id=carried),))
        with pytest.raises(Conflict, match=f"Port {carried} is still in use") as refused:
            await getattr(cloud.network, verb)(order, *({"check": (1,), "plug": ("h1",)}[verb]))
        assert refused.value.type == "PortInUse"
    await cloud.call("one", "PUT", f"/routers/{router}/add_router_interface", {"port_id": parent})
    no = await cloud.call("one", "PUT", f"/routers/{router}/remove_router_interface", {"port_id": parent}, expect=409)
    assert no["NeutronError"]["type"] == "PortInUseAsTrunkParent"
    await cloud.call("one", "DELETE", f"/trunks/{made['id']}")
    await cloud.call("one", "PUT", f"/routers/{router}/remove_router_interface", {"port_id": parent})
    await cloud.call("one", "PUT", f"/routers/{router}/add_router_interface", {"port_id": carried})


async def test_a_port_on_a_host_is_no_new_trunk_and_keeps_its_own(cloud):
    await cloud.host("h1", "192.0.2.1")
    bound, parent = await port(cloud), await port(cloud)
    made = await trunk(cloud, parent)
    for each in (bound, parent):
        await cloud.call("admin", "PUT", f"/ports/{each}", {"port": {"binding:host_id": "h1"}})
    assert (await trunk(cloud, bound, expect=409))["type"] == "ParentPortInUse"
    await cloud.network_with_subnet()
    [serving] = (await cloud.call("one", "GET", "/ports?device_owner=network:dhcp"))["ports"]
    assert (await trunk(cloud, serving["id"], expect=409))["type"] == "ParentPortInUse"
    answer = await cloud.call("one", "DELETE", f"/trunks/{made['id']}", expect=409)
    assert answer["NeutronError"]["type"] == "TrunkInUse"
    assert (await cloud.call("one", "GET", f"/trunks/{made['id']}"))["trunk"]["status"] == "DOWN"
    await cloud.call("admin", "PUT", f"/ports/{parent}", {"port": {"binding:host_id": ""}})
    await cloud.call("one", "DELETE", f"/trunks/{made['id']}")


async def test_a_trunk_that_is_switched_off_is_left_alone(cloud):
    parent, carried, free = [await port(cloud) for _ in range(3)]
    path = f"/trunks/{(await trunk(cloud, parent, vlan(carried)))['id']}"
    await cloud.call("one", "PUT", path, {"trunk": {"admin_state_up": False}})
    for method, where, body in (("PUT", f"{path}/add_subports", {"sub_ports": [vlan(free, 9)]}),
                                ("PUT", f"{path}/remove_subports", {"sub_ports": [{"port_id": carried}]}),
                                ("DELETE", path, None)):
        assert (await cloud.call("one", method, where, body, expect=409))["NeutronError"]["type"] == "TrunkDisabled"
    assert len((await cloud.call("one", "GET", path))["trunk"]["sub_ports"]) == 1


async def test_a_subport_fits_into_its_trunk(cloud):
    parent, large = await port(cloud), await port(cloud, mtu=1450)
    assert (await trunk(cloud, parent, vlan(large), expect=409))["type"] == "SubPortMtuGreaterThanTrunkPortMtu"
    await trunk(cloud, large, vlan(parent))


async def test_a_subport_inherits_its_networks_vlan(cloud):
    parent, tunnelled = await port(cloud), await port(cloud)
    net = (await cloud.call("admin", "POST", "/networks", {"network": {
        "project_id": "p-one", "mtu": 1400, "provider:network_type": "vlan", "provider:physical_network": "physnet1",
        "provider:segmentation_id": 105}}))["network"]["id"]
    tagged = (await cloud.call("one", "POST", "/ports", {"port": {"network_id": net}}))["port"]["id"]
    inherit = {"segmentation_type": "inherit"}
    assert "segmentation_type" in (await trunk(cloud, parent, {"port_id": tunnelled, **inherit}, expect=400))["message"]
    made = await trunk(cloud, parent, {"port_id": tagged, **inherit})
    assert made["sub_ports"] == [vlan(tagged, 105)]


@pytest.mark.parametrize(("wrong", "words"), [
    ({"segmentation_type": "vlan"}, "segmentation information"), ({"segmentation_id": 5}, "segmentation information"),
    ({"segmentation_type": "vxlan", "segmentation_id": 5}, "Unknown segmentation_type"),
    ({"segmentation_type": "vlan", "segmentation_id": 0}, "not between 1 and 4094"),
    ({"segmentation_type": "vlan", "segmentation_id": 4095}, "not between 1 and 4094"),
    ({"segmentation_type": "vlan", "segmentation_id": "x"}, "not an integer"),
    ({"segmentation_type": "inherit", "colour": "red"}, "colour"), ({"port_id": None}, "port"),
    ({"port_id": 5}, "UUID")])
async def test_bad_subports_are_named(cloud, wrong, words):
    parent, carried = await port(cloud), await port(cloud)
    made = await trunk(cloud, parent)
    bad = {k: v for k, v in ({"port_id": carried} | wrong).items() if v is not None}
    assert words in (await trunk(cloud, carried, bad, expect=400))["message"]
    path = f"/trunks/{made['id']}/add_subports"
    for body in ({"sub_ports": [bad]}, {"sub_ports": bad}, {"sub_ports": [vlan(carried, 5), vlan(parent, 5)]}, {}, []):
        answer = await cloud.call("one", "PUT", path, body, expect=400)
        assert "subport" in str(answer).lower() or "sub_ports" in str(answer) or "body" in str(answer)
    assert (await cloud.call("one", "GET", f"/trunks/{made['id']}"))["trunk"]["sub_ports"] == []


async def test_another_projects_ports_are_not_there(cloud):
    parent, other = await port(cloud), await port(cloud, "two")
    assert (await trunk(cloud, other, expect=404))["type"] == "PortNotFound"
    assert (await trunk(cloud, parent, vlan(other), expect=404))["type"] == "PortNotFound"
    mine = await trunk(cloud, parent)
    await cloud.call("two", "GET", f"/trunks/{mine['id']}", expect=404)
    await cloud.call("watcher", "PUT", f"/trunks/{mine['id']}/add_subports", {"sub_ports": []}, expect=403)


async def test_trunks_are_counted_and_go_with_their_ports(cloud):
    await cloud.call("admin", "PUT", "/quotas/p-one", {"quota": {"trunk": 1}})
    parent, other = await port(cloud), await port(cloud)
    made = await trunk(cloud, parent)
    assert (await trunk(cloud, other, expect=409))["type"] == "OverQuota"
    await cloud.call("one", "DELETE", f"/trunks/{made['id']}")
    # As a router's interface the port goes with the interface, and its trunk with it.
    await trunk(cloud, parent)
    await cloud.network.write(service_context(), lambda work: ports.drop(work, [parent]))
    assert (await cloud.call("one", "GET", "/trunks"))["trunks"] == []
    await trunk(cloud, other)


async def test_what_hosts_will_have_of_it(cloud):
    parent, first, second = [await port(cloud) for _ in range(3)]
    made = await trunk(cloud, parent, vlan(second, 9), vlan(first, 7))
    seen = {each: (await cloud.call("one", "GET", f"/ports/{each}"))["port"] for each in (first, second)}
    found = await cloud.network.read(service_context(), lambda work: trunk_ports.facts(work, [parent, first]))
    assert found == {parent: TrunkFacts(id=made["id"], subports=tuple(SubportFacts(
        port_id=each, network_id=seen[each]["network_id"], mac_address=seen[each]["mac_address"], vlan=number)
        for each, number in ((first, 7), (second, 9))))}


async def test_what_is_asked_about_many_subports_is_asked_once(cloud):
    parent = await port(cloud)
    net = (await cloud.call("one", "POST", "/networks", {"network": {"mtu": 1400}}))["network"]["id"]
    made = [each["id"] for _ in range(2) for each in (await cloud.call("one", "POST", "/ports", {
        "ports": [{"network_id": net}] * 20}))["ports"]]
    statements = list[str]()
    sa.event.listen(cloud.db.engine, "before_cursor_execute", lambda c, cur, text, *_: statements.append(text))
    found = await trunk(cloud, parent, *[vlan(each, n) for n, each in enumerate(made, 1)])
    assert len(found["sub_ports"]) == 40 and len(statements) < 40


async def test_a_list_of_ports_reads_the_trunks_of_its_ports_alone(cloud, monkeypatch):
    """However many ports it has."""
    monkeypatch.setattr(work, "MANY", 2)
    monkeypatch.setattr(trunk_ports, "MANY", 2, raising=False)
    parents, other, carried = [await port(cloud) for _ in range(3)], await port(cloud, "two"), await port(cloud, "two")
    await trunk(cloud, parents[0])
    await cloud.call("two", "POST", "/trunks", {"trunk": {"port_id": other, "sub_ports": [vlan(carried)]}})
    found = await cloud.network.read(service_context(), lambda unit: trunk_ports.facts(unit, parents))
    assert list(found) == [parents[0]]
