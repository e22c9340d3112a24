"""Ports at several hosts: prepared, activated, given up; over the contract's verbs and over the API."""

import asyncio
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from tests.stories.network_cloud import CALLERS, Cloud

from nacre.base.db import Database
from nacre.base.errors import BuildFailed, NotFound
from nacre.network import tables as t
from nacre.network.contract import Have, NetworkRequest, PortsOrder
from nacre.network.hosts import bindings
from nacre.network.ml2 import manager as ml2
from nacre.network.ml2.mechanism_drivers.tor_vlan import TorVlan
from nacre.network.ml2.type_drivers import SegmentTypes
from nacre.network.work import NetworkSettings


@pytest.fixture
async def cloud(story_db: Database) -> Cloud:
    made = Cloud(story_db)
    for n in (1, 2, 3):
        await made.host(f"h{n}", f"192.0.2.{n}")
    return made


def order(server: str, *networks: str, port: str | None = None) -> PortsOrder:
    requests = [NetworkRequest(network_id=n) for n in networks] + ([NetworkRequest(port_id=port)] if port else [])
    return PortsOrder(server_id=server, context=CALLERS["one"], requests=tuple(requests))


async def rows(cloud: Cloud, table: sa.Table) -> list[sa.Row]:
    return await cloud.db.read(lambda c: list(c.execute(sa.select(table))))


async def notified(cloud: Cloud) -> dict[str, set[str]]:
    """What hosts have heard since the last time: host -> ports."""
    await asyncio.sleep(0.02)
    found: dict[str, set[str]] = {}
    for hosts, ports in cloud.notified:
        for host in hosts:
            found.setdefault(host, set()).update(ports)
    cloud.notified.clear()
    return found


async def at(cloud: Cloud, host: str) -> dict[str, bool]:
    """The ports that the host has wired -> whether they are active there."""
    return {p.id: p.active for p in (await cloud.network.wiring(host, known=Have())).ports}


async def far(cloud: Cloud, host: str) -> dict[str, str]:
    """MAC -> where this host sends its frames."""
    found = await cloud.network.wiring(host, known=Have())
    return {port.mac: found.peers[port.host].tunnel_ip for each in found.placed for port in each.ports.values()
            if port.host not in ("", host)}


async def test_a_move_prepared_made_and_finished(cloud: Cloud) -> None:
    net, _ = await cloud.network_with_subnet()
    [port] = (await cloud.network.plug(order("s", net), "h1")).ports
    [watch] = (await cloud.network.plug(order("w", net), "h3")).ports
    await cloud.network.wired("h1", (port.id,), True)
    await notified(cloud)

    prepared = await cloud.network.bind("s", "h2")
    assert [(p.id, p.host, p.active, p.vif_type) for p in prepared.ports] == [(port.id, "h2", False, "ovs")]
    assert prepared.networks == (await cloud.network.wiring("h2", known=Have())).networks and prepared.networks
    assert await cloud.network.bind("s", "h2") == prepared
    assert "h2" in await notified(cloud)
    # Prepared: h2 knows the port and its groups, and sends frames for it where everybody does.
    assert await at(cloud, "h2") == {port.id: False} and await at(cloud, "h1") == {port.id: True}
    assert (await cloud.network.wiring("h2", known=Have())).groups
    assert (await far(cloud, "h2"))[port.mac_address] == (await far(cloud, "h3"))[port.mac_address] == "192.0.2.1"
    # ... and its frames are taken by the others, as soon as it sends some.
    assert (await cloud.network.wiring("h3", known=Have())).peers.keys() >= {"h1", "h2"}
    [shown] = (await cloud.network.ports_of(("s",)))["s"]
    assert (shown.host, shown.status) == ("h1", "ACTIVE")
    await cloud.network.wired("h2", (port.id,), True)  # ready before the guest is there
    await cloud.hear()
    await notified(cloud)

    for _ in range(2):
        await cloud.network.activate("s", "h2")
    told = {news.host: news.placed[net].ports for news in await cloud.hear()}
    heard = await notified(cloud)
    assert port.id in heard["h1"] and port.id in heard["h2"] and "h3" not in heard
    assert {ports[port.id].host for ports in told.values()} == {"h2"} and set(told) == {"h1", "h2", "h3"}
    assert await at(cloud, "h2") == {port.id: True} and await at(cloud, "h1") == {port.id: False}
    assert (await far(cloud, "h1"))[port.mac_address] == (await far(cloud, "h3"))[port.mac_address] == "192.0.2.2"
    [shown] = (await cloud.network.ports_of(("s",)))["s"]
    assert (shown.host, shown.status) == ("h2", "ACTIVE")

    await cloud.network.activate("s", "h1")  # the way back is open until it is given up
    await cloud.network.activate("s", "h2")
    for _ in range(2):
        await cloud.network.unbind("s", "h1")
    assert await at(cloud, "h1") == {} and port.id in (await notified(cloud))["h1"]
    assert len([r for r in await rows(cloud, t.levels) if r.port_id == port.id]) == 1
    await cloud.network.deallocate("s")
    assert {r.port_id for r in await rows(cloud, t.levels)} == {watch.id}
    assert port.id in (await notified(cloud))["h2"]


async def test_what_is_prepared_and_given_up_leaves_the_port_where_it_is(cloud: Cloud) -> None:
    net, _ = await cloud.network_with_subnet()
    [port] = (await cloud.network.plug(order("s", net), "h1")).ports
    await cloud.network.bind("s", "h2")
    await cloud.network.unbind("s", "h2")
    assert await at(cloud, "h2") == {} and await at(cloud, "h1") == {port.id: True}
    with pytest.raises(NotFound, match="for host h2"):
        await cloud.network.activate("s", "h2")
    await cloud.network.bind("s", "h1")  # it is there already, active
    assert await at(cloud, "h1") == {port.id: True}
    await cloud.network.activate("nobody", "h1")
    assert (await cloud.network.bind("nobody", "h1")).ports == ()


async def test_a_plug_elsewhere_moves_the_active_binding_and_keeps_the_others(cloud: Cloud) -> None:
    net, _ = await cloud.network_with_subnet()
    [port] = (await cloud.network.plug(order("s", net), "h1")).ports
    await cloud.network.bind("s", "h2")
    await cloud.network.bind("s", "h3")
    [plugged] = (await cloud.network.plug(order("s", net), "h2")).ports
    assert plugged.active and plugged.host == "h2"
    assert [await at(cloud, h) for h in ("h1", "h2", "h3")] == [{}, {port.id: True}, {port.id: False}]


async def test_what_works_at_a_host_works_however_the_port_is_bound_there_again(cloud: Cloud) -> None:
    """The host's agent says only once that a port works."""
    net, _ = await cloud.network_with_subnet()
    [port] = (await cloud.network.plug(order("s", net), "h1")).ports
    await cloud.network.bind("s", "h2")
    await cloud.network.wired("h2", (port.id,), True)
    await cloud.call("admin", "PUT", f"/ports/{port.id}/bindings/h2", {"binding": {"profile": {"a": 1}}})
    await cloud.network.plug(order("s", net), "h2")
    [shown] = (await cloud.network.ports_of(("s",)))["s"]
    assert (shown.host, shown.status) == ("h2", "ACTIVE")


async def test_all_ports_are_prepared_or_none(cloud: Cloud) -> None:
    net, _ = await cloud.network_with_subnet()
    ports = (await cloud.network.plug(order("s", net, net), "h1")).ports
    with pytest.raises(BuildFailed, match="h9"):
        await cloud.network.bind("s", "h9")
    assert {r.host for r in await rows(cloud, t.bindings)} == {"", "h1"}
    await cloud.network.bind("s", "h2")
    await cloud.call("admin", "DELETE", f"/ports/{ports[0].id}/bindings/h2")
    with pytest.raises(NotFound):
        await cloud.network.activate("s", "h2")
    assert await at(cloud, "h1") == {p.id: True for p in ports}
    assert {p.id for p in (await cloud.network.bind("s", "h2")).ports} == {p.id for p in ports}
    await cloud.network.activate("s", "h2")
    assert await at(cloud, "h2") == {p.id: True for p in ports}


async def test_a_status_is_the_active_bindings(cloud: Cloud) -> None:
    net, _ = await cloud.network_with_subnet()
    [port] = (await cloud.network.plug(order("s", net), "h1")).ports
    await cloud.network.bind("s", "h2")
    await cloud.network.wired("h2", (port.id,), True)
    await cloud.network.wired("h3", (port.id,), True)  # never its host
    status = [(await cloud.network.ports_of(("s",)))["s"][0].status]
    await cloud.network.activate("s", "h2")
    status.append((await cloud.network.ports_of(("s",)))["s"][0].status)
    await cloud.network.wired("h2", (port.id,), False)
    status.append((await cloud.network.ports_of(("s",)))["s"][0].status)
    await cloud.network.activate("s", "h1")
    status.append((await cloud.network.ports_of(("s",)))["s"][0].status)
    assert status == ["DOWN", "ACTIVE", "DOWN", "DOWN"]


async def test_the_users_own_port_is_given_back_without_any_binding(cloud: Cloud) -> None:
    net, _ = await cloud.network_with_subnet()
    port = (await cloud.call("one", "POST", "/ports", {"port": {"network_id": net}}))["port"]["id"]
    await cloud.network.plug(order("s", net, port=port), "h1")
    await cloud.network.bind("s", "h2")
    await cloud.network.deallocate("s")
    left = [r for r in await rows(cloud, t.bindings) if r.port_id == port]
    assert [(r.host, r.active, r.vif_type) for r in left] == [("", True, "unbound")]
    assert not await rows(cloud, t.levels) and not await rows(cloud, t.binding_groups)


async def test_a_port_deleted_under_a_living_server_is_unwired_at_once(cloud: Cloud) -> None:
    net, _ = await cloud.network_with_subnet()
    [port] = (await cloud.network.plug(order("s", net), "h1")).ports
    await cloud.network.bind("s", "h2")
    await notified(cloud)
    await cloud.call("one", "DELETE", f"/ports/{port.id}")
    heard = await notified(cloud)
    assert port.id in heard["h1"] and port.id in heard["h2"]
    assert not (await cloud.network.wiring("h1", (port.id,), known=Have())).ports


async def test_group_changes_reach_a_host_where_a_port_is_only_prepared(cloud: Cloud) -> None:
    net, _ = await cloud.network_with_subnet()
    [port] = (await cloud.network.plug(order("s", net), "h1")).ports
    await cloud.network.bind("s", "h2")
    group = (await cloud.call("one", "POST", "/security-groups", {"security_group": {"name": "g"}}))["security_group"]
    await cloud.call("one", "PUT", f"/ports/{port.id}", {"port": {"security_groups": [group["id"]]}})
    await notified(cloud)
    await cloud.call("one", "POST", "/security-group-rules", {"security_group_rule": {
        "security_group_id": group["id"], "direction": "ingress", "protocol": "icmp"}})
    assert set(await notified(cloud)) == {"h1", "h2"}
    [facts] = (await cloud.network.wiring("h2", known=Have())).groups
    assert facts.id == group["id"] and "icmp" in {r.protocol for r in facts.rules}


async def test_the_api_of_bindings(cloud: Cloud) -> None:
    net, _ = await cloud.network_with_subnet()
    [port] = (await cloud.network.plug(order("s", net), "h1")).ports
    path = f"/ports/{port.id}/bindings"
    made = (await cloud.call("admin", "POST", path, {"binding": {"host": "h2", "profile": {"a": "b"}}}))["binding"]
    assert made == {"host": "h2", "vif_type": "ovs", "vif_details": port.vif_details, "vnic_type": "normal",
                    "profile": {"a": "b"}, "status": "INACTIVE"}
    assert (await cloud.call("admin", "GET", f"{path}/h2"))["binding"] == made
    assert (await cloud.call("admin", "GET", f"{path}/h2?fields=host"))["binding"] == {"host": "h2"}
    listed = (await cloud.call("admin", "GET", path))["bindings"]
    assert {b["host"]: b["status"] for b in listed} == {"h1": "ACTIVE", "h2": "INACTIVE"}
    assert (await cloud.call("admin", "GET", f"{path}?status=INACTIVE"))["bindings"] == [made]
    changed = (await cloud.call("admin", "PUT", f"{path}/h2", {"binding": {"profile": {"c": 1}}}))["binding"]
    assert changed == made | {"profile": {"c": 1}}
    assert (await cloud.call("admin", "PUT", f"{path}/h2/activate")) == changed | {"status": "ACTIVE"}
    shown = (await cloud.call("admin", "GET", f"/ports/{port.id}"))["port"]
    assert (shown["binding:host_id"], shown["binding:profile"]) == ("h2", {"c": 1})
    await cloud.call("admin", "DELETE", f"{path}/h1")
    await cloud.call("admin", "GET", f"{path}/h1", expect=404)
    await cloud.call("admin", "DELETE", f"{path}/h2")
    shown = (await cloud.call("admin", "GET", f"/ports/{port.id}"))["port"]
    assert (shown["binding:host_id"], shown["binding:vif_type"], shown["status"]) == ("", "unbound", "DOWN")
    aliases = {e["alias"] for e in (await cloud.call("one", "GET", "/extensions"))["extensions"]}
    assert "binding-extended" in aliases


async def test_bindings_that_cannot_be(cloud: Cloud) -> None:
    net, _ = await cloud.network_with_subnet()
    [port] = (await cloud.network.plug(order("s", net), "h1")).ports
    path = f"/ports/{port.id}/bindings"

    async def refused(method: str, where: str, body: object, status: int) -> str:
        answer = await cloud.call("admin", method, where, body, expect=status)
        return str(answer["NeutronError"]["type"])

    assert await refused("POST", path, {"binding": {"host": "h1"}}, 409) == "PortBindingAlreadyExists"
    assert await refused("POST", path, {"binding": {"host": "h9"}}, 500) == "PortBindingError"
    assert await refused("POST", path, {"binding": {}}, 400) == "HTTPBadRequest"
    assert await refused("POST", path, {"binding": {"host": "h2", "status": "ACTIVE"}}, 400) == "HTTPBadRequest"
    assert await refused("GET", f"{path}/h9", None, 404) == "PortBindingNotFound"
    assert await refused("PUT", f"{path}/h9", {"binding": {"profile": {}}}, 404) == "PortBindingNotFound"
    assert await refused("DELETE", f"{path}/h9", None, 404) == "PortBindingNotFound"
    assert await refused("PUT", f"{path}/h9/activate", None, 404) == "PortBindingNotFound"
    assert await refused("PUT", f"{path}/h1/activate", None, 409) == "PortBindingAlreadyActive"
    await cloud.call("admin", "POST", path, {"binding": {"host": "h2"}})
    assert await refused("PUT", f"{path}/h2", {"binding": {"host": "h1"}}, 409) == "PortBindingAlreadyExists"
    assert await refused("PUT", f"{path}/h2", {"binding": {"vnic_type": "direct"}}, 500) == "PortBindingError"
    assert (await cloud.call("admin", "GET", f"{path}/h2"))["binding"]["vnic_type"] == "normal"
    await cloud.call("admin", "PUT", f"{path}/h2", {"binding": {"host": "h3"}})
    assert {b["host"] for b in (await cloud.call("admin", "GET", path))["bindings"]} == {"h1", "h3"}
    dhcp = next(p for p in (await cloud.call("admin", "GET", "/ports"))["ports"] if p["device_owner"] == "network:dhcp")
    assert await refused("GET", f"/ports/{dhcp['id']}/bindings", None, 400) == "HTTPBadRequest"
    assert await refused("GET", f"/ports/{net}/bindings", None, 404) == "PortNotFound"
    for method, where, body in (("GET", path, None), ("POST", path, {"binding": {"host": "h2"}}),
                                ("GET", f"{path}/h1", None), ("PUT", f"{path}/h1", {"binding": {"profile": {}}}),
                                ("DELETE", f"{path}/h1", None), ("PUT", f"{path}/h3/activate", None)):
        await cloud.call("one", method, where, body, expect=403)


async def test_an_update_of_the_port_binds_anew_what_it_changes(cloud: Cloud) -> None:
    net, _ = await cloud.network_with_subnet()
    port = (await cloud.call("admin", "POST", "/ports", {"port": {
        "network_id": net, "binding:host_id": "h1", "binding:profile": {"a": 1}}}))["port"]
    assert port["binding:vif_type"] == "ovs"
    await cloud.network.wired("h1", (port["id"],), True)
    await notified(cloud)

    async def put(**change: object) -> dict[str, object]:
        return (await cloud.call("admin", "PUT", f"/ports/{port['id']}", {"port": {
            f"binding:{k}": v for k, v in change.items()}}))["port"]

    assert (await put(profile={"a": 2}))["status"] == "ACTIVE"  # bound as before: nothing for the host to do
    moved = await put(host_id="h2")
    assert (moved["binding:host_id"], moved["status"]) == ("h2", "DOWN")
    assert {"h1", "h2"} <= set(await notified(cloud))
    assert (await put(vnic_type="direct"))["binding:vif_type"] == "binding_failed"
    loose = await put(host_id=None, vnic_type="normal")
    assert (loose["binding:host_id"], loose["binding:vif_type"], loose["binding:profile"]) == ("", "unbound", {"a": 2})
    assert [p["id"] for p in (await cloud.call("admin", "GET", "/ports?binding:host_id=h2"))["ports"]] == []


@pytest.fixture
def racks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hosts h1 and h2 stand in a rack whose switch hands them VLANs."""
    monkeypatch.setitem(ml2.MECHANISMS, "tor_vlan", lambda: TorVlan({"h1": "physnet1", "h2": "physnet1"}))
    bindings._drivers.cache_clear()
    yield
    bindings._drivers.cache_clear()


async def test_a_dynamic_segment_is_free_when_its_last_binding_goes(story_db: Database, racks: None) -> None:
    cloud = Cloud(story_db, NetworkSettings(drivers=("tor_vlan", "openvswitch"),
                                            types=SegmentTypes(vlan_ranges={"physnet1": (100, 100)})))
    for n in (1, 2):
        await cloud.host(f"h{n}", f"192.0.2.{n}")
    net, _ = await cloud.network_with_subnet()

    async def vlans() -> list[int]:
        return [r.segmentation_id for r in await rows(cloud, t.segments) if r.dynamic]

    [one] = (await cloud.network.plug(order("s1", net), "h1")).ports
    assert await vlans() == [100] and len(await rows(cloud, t.levels)) == 2
    [two] = (await cloud.network.plug(order("s2", net), "h2")).ports
    await cloud.network.deallocate("s1")
    assert await vlans() == [100]
    await cloud.call("one", "DELETE", f"/ports/{two.id}")
    assert await vlans() == []
    # Bindings that are only prepared hold it too, and it is one for all hosts of the rack.
    await cloud.network.plug(order("s3", net), "h1")
    await cloud.network.bind("s3", "h2")
    await cloud.network.unbind("s3", "h1")
    assert await vlans() == [100]
    await cloud.network.unbind("s3", "h2")
    assert await vlans() == []
    await cloud.network.plug(order("s3", net), "h1")
    await cloud.network.plug(order("s3", net), "h2")
    assert await vlans() == [100]
    await cloud.network.deallocate("s3")
    assert await vlans() == []
    assert one.id not in {r.port_id for r in await rows(cloud, t.bindings)}


async def test_the_database_allows_one_active_binding_a_port(cloud: Cloud) -> None:
    net, _ = await cloud.network_with_subnet()
    await cloud.network.plug(order("s", net), "h1")
    await cloud.network.bind("s", "h2")
    with pytest.raises(sa.exc.IntegrityError):
        await cloud.db.run(lambda c: c.execute(sa.update(t.bindings).where(t.bindings.c.host == "h2").values(
            active=True)))


@pytest.mark.parametrize("kind", ["vxlan", "local"])
async def test_no_physical_network_may_be_said_by_an_empty_name(cloud: Cloud, kind: str) -> None:
    net = (await cloud.call("admin", "POST", "/networks", {"network": {
        "provider:network_type": kind, "provider:physical_network": ""}}))["network"]
    assert net["provider:physical_network"] is None
    bound = {"port": {"network_id": net["id"], "binding:host_id": "h1"}}
    assert (await cloud.call("admin", "POST", "/ports", bound))["port"]["binding:vif_type"] == "ovs"
    # As an earlier release wrote it down.
    await cloud.db.run(lambda conn: conn.execute(sa.update(t.segments).values(physical_network="")))
    assert (await cloud.call("admin", "POST", "/ports", bound))["port"]["binding:vif_type"] == "ovs"
