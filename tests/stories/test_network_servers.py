"""The contract's verbs: ports for servers, bound to hosts, wired, and gone again."""

import asyncio

import pytest
from tests.stories.network_cloud import CALLERS, Cloud

from nacre.base.db import Database
from nacre.base.errors import BadRequest, BuildFailed, Conflict, Forbidden, NotFound, QuotaExceeded
from nacre.network.contract import AUTO, Have, NetworkRequest, PortsOrder
from nacre.network.l2 import networks
from nacre.network.ml2.type_drivers import SegmentTypes
from nacre.network.work import NetworkSettings


@pytest.fixture
async def cloud(story_db: Database) -> Cloud:
    made = Cloud(story_db, NetworkSettings(types=SegmentTypes(vlan_ranges={"physnet1": (100, 110)})))
    await made.host("h1", "192.0.2.1")
    await made.host("h2", "192.0.2.2")
    return made


def order(server: str, *networks: str, caller: str = "one", **more) -> PortsOrder:
    return PortsOrder(server_id=server, context=CALLERS[caller],
                      requests=tuple(NetworkRequest(network_id=n) for n in networks), **more)


async def test_how_many_servers_the_ports_quota_has_room_for(cloud):
    """As Nova asks before it takes a create of min_count to max_count servers."""
    net, _ = await cloud.network_with_subnet()
    await cloud.call("admin", "PUT", "/quotas/p-one", {"quota": {"port": 6}})  # one is the port of DHCP
    check = cloud.network.check
    assert [await check(order("s", net), n, 1) for n in (1, 5, 9)] == [1, 5, 5]
    assert await check(order("s", net, net), 9, 2) == 2
    for wanted, count, least in (((net,), 6, 0), ((net, net), 9, 3)):
        with pytest.raises(QuotaExceeded, match="Maximum number of ports exceeded"):
            await check(order("s", *wanted), count, least)


async def test_a_servers_ports_from_order_to_wire_and_back(cloud):
    net, _ = await cloud.network_with_subnet()
    assert await cloud.network.check(order("s1", net), 3) == 3
    plugged = await cloud.network.plug(order("s1", net, net, hostname="web"), "h1")
    ports = plugged.ports
    assert [p.position for p in ports] == [0, 1] and {p.vif_type for p in ports} == {"ovs"}
    assert ports[0].vif_details["bridge_name"] == "br-int-c10d0000"  # as its host's agent says
    assert await cloud.network.plug(order("s1", net, net), "h1") == plugged
    wiring = await cloud.network.wiring("h1", known=Have())
    assert wiring.whole and {p.id for p in wiring.ports} == {p.id for p in ports}
    assert wiring.networks[0].network_type == "vxlan" and wiring.networks[0].subnets[0].dhcp_ip
    assert wiring.networks == plugged.networks and wiring.networks[0].dhcp_mac
    assert wiring.peers.keys() == {"h1"}  # nobody shares the network yet
    await cloud.network.wired("h2", (ports[0].id,), True)  # not its port
    await cloud.network.wired("h1", (ports[0].id,), True)
    states = await cloud.network.ports_of(("s1", "nobody"))
    assert [p.status for p in states["s1"]] == ["ACTIVE", "DOWN"] and states["nobody"] == ()
    await cloud.network.unbind("s1", "h2")
    assert len((await cloud.network.wiring("h1", known=Have())).ports) == 2
    await cloud.network.unbind("s1", "h1")
    assert not (await cloud.network.wiring("h1", known=Have())).ports
    await cloud.network.deallocate("s1")
    await cloud.network.deallocate("s1")
    left = (await cloud.call("one", "GET", f"/ports?network_id={net}"))["ports"]
    assert [p["device_owner"] for p in left] == ["network:dhcp"]
    await cloud.call("one", "DELETE", f"/networks/{net}")


async def test_auto_is_the_only_network_and_refused_without_one(cloud):
    auto = PortsOrder(server_id="s1", context=CALLERS["one"], requests=(AUTO,))
    with pytest.raises(BadRequest, match="Unable to automatically allocate a network"):
        await cloud.network.check(auto, 1)
    assert (await cloud.network.plug(order("s2"), "h1")).ports == ()
    net, _ = await cloud.network_with_subnet()
    assert [p.network_id for p in (await cloud.network.plug(auto, "h1")).ports] == [net]


async def test_the_users_own_port_outlives_the_server(cloud):
    net, _ = await cloud.network_with_subnet()
    port = (await cloud.call("one", "POST", "/ports", {"port": {"network_id": net}}))["port"]["id"]
    mine = PortsOrder(server_id="s1", context=CALLERS["one"], requests=(NetworkRequest(port_id=port),))
    assert (await cloud.network.plug(mine, "h1")).ports[0].preserve
    with pytest.raises(Conflict, match="still in use"):
        await cloud.network.plug(PortsOrder(server_id="s2", context=CALLERS["one"], requests=mine.requests), "h1")
    await cloud.network.deallocate("s1")
    left = (await cloud.call("admin", "GET", f"/ports/{port}"))["port"]
    assert left["device_id"] == "" and left["binding:host_id"] == "" and left["binding:vif_type"] == "unbound"


async def test_orders_that_cannot_be_met_change_nothing(cloud):
    net, _ = await cloud.network_with_subnet()
    with pytest.raises(NotFound):
        await cloud.network.plug(order("s1", net, "00000000-0000-0000-0000-000000000000"), "h1")
    with pytest.raises(NotFound):
        await cloud.network.check(order("s1", net, caller="two"), 1)
    with pytest.raises(NotFound):
        await cloud.network.check(order("s1", net, security_groups=("nope",)), 1)
    await cloud.network_with_subnet()
    with pytest.raises(Conflict, match="Multiple possible networks"):
        await cloud.network.check(PortsOrder(server_id="s1", context=CALLERS["one"], requests=None), 1)
    left = (await cloud.call("one", "GET", "/ports"))["ports"]
    assert {p["device_owner"] for p in left} == {"network:dhcp"}


async def test_a_host_without_a_living_agent_is_refused_with_a_reason(cloud):
    net, _ = await cloud.network_with_subnet()
    with pytest.raises(BuildFailed, match="h9"):
        await cloud.network.plug(order("s1", net), "h9")
    port = (await cloud.call("admin", "GET", "/ports?device_id=s1"))["ports"][0]
    assert port["binding:vif_type"] == "binding_failed"
    await cloud.pass_time(100)
    with pytest.raises(BuildFailed):
        await cloud.network.plug(order("s1", net), "h1")
    await cloud.host("h1", "192.0.2.1")
    [bound] = (await cloud.network.plug(order("s1", net), "h1")).ports
    assert bound.vif_type == "ovs" and bound.id == port["id"]


async def test_members_of_a_group_are_told_of_one_another(cloud):
    net, _ = await cloud.network_with_subnet()
    [one] = (await cloud.network.plug(order("s1", net), "h1")).ports
    [two] = (await cloud.network.plug(order("s2", net), "h2")).ports
    await cloud.hear()
    wiring = await cloud.network.wiring("h1", (one.id,), known=Have())
    [group], [members] = wiring.groups, wiring.members
    assert {(r.remote_group, r.remote) for r in group.rules if r.direction == "ingress"} == {(group.id, ())}
    assert members.id == group.id
    cidrs = {p.id: (f"{p.fixed_ips[0].ip_address}/32",) for p in (one, two)}
    assert members.since is None and members.ports == cidrs
    assert wiring.peers["h2"].tunnel_ip == "192.0.2.2"
    cloud.notified.clear()
    await cloud.call("one", "POST", "/security-group-rules", {"security_group_rule": {
        "security_group_id": group.id, "direction": "ingress", "protocol": "icmp"}})
    await asyncio.sleep(0.01)
    assert {h for hosts, _ in cloud.notified for h in hosts} == {"h1", "h2"}
    await cloud.network.deallocate("s2")
    told = {notice.host: notice.members[group.id] for notice in await cloud.hear()}
    assert told["h1"].ports == {two.id: ()} and members.n <= told["h1"].n
    [since] = (await cloud.network.differences("h1", (group.id,), (), Have(
        groups={members.era: {group.id: members.n}}))).members
    assert since.ports == {two.id: ()}


async def test_a_poisoned_rule_opens_nothing_and_stops_nobody(cloud):
    import sqlalchemy as sa

    from nacre.network import tables as t
    net, _ = await cloud.network_with_subnet()
    [port] = (await cloud.network.plug(order("s1", net), "h1")).ports
    # What validation refuses, written past it.
    await cloud.db.run(lambda c: c.execute(sa.update(t.security_group_rules).where(
        t.security_group_rules.c.direction == "egress", t.security_group_rules.c.ethertype == "IPv6").values(
            remote_ip_prefix="poison", remote_address_group_id=None)))
    [group] = (await cloud.network.wiring("h1", (port.id,), known=Have())).groups
    assert {(r.direction, r.ethertype): r.remote for r in group.rules if r.direction == "egress"} == {
        ("egress", "IPv4"): None, ("egress", "IPv6"): ()}
    assert len(group.rules) == 4


async def test_provider_networks_and_dhcp_follow_the_subnets(cloud):
    net = (await cloud.call("admin", "POST", "/networks", {"network": {
        "provider:network_type": "vlan", "provider:physical_network": "physnet1"}}))["network"]
    assert net["provider:segmentation_id"] == 100
    await cloud.call("admin", "POST", "/networks", {"network": {
        "provider:network_type": "vlan", "provider:physical_network": "physnet1",
        "provider:segmentation_id": 100}}, expect=409)
    await cloud.call("admin", "POST", "/subnets", {"subnet": {
        "network_id": net["id"], "cidr": "10.1.0.0/24", "ip_version": 4, "enable_dhcp": False}})
    await cloud.network.plug(order("s1", net["id"], caller="admin"), "h1")
    facts = (await cloud.network.wiring("h1", known=Have())).networks[0]
    assert (facts.network_type, facts.segmentation_id, facts.dhcp_mac) == ("vlan", 100, None)
    sub = facts.subnets[0].id
    await cloud.call("admin", "PUT", f"/subnets/{sub}", {"subnet": {"enable_dhcp": True}})
    await cloud.network.plug(order("s1", net["id"], caller="admin"), "h2")
    assert (await cloud.network.wiring("h2", known=Have())).networks[0].subnets[0].dhcp_ip


async def test_a_network_named_a_hundred_times_is_looked_up_once_and_counted_before(cloud, monkeypatch):
    net, _ = await cloud.network_with_subnet()
    asked = []
    monkeypatch.setattr(networks, "get", lambda work, id, get=networks.get: asked.append(id) or get(work, id))
    await cloud.network.check(order("s1", net, *[net] * 99), 1)
    assert len(asked) == 1
    with pytest.raises(QuotaExceeded):
        await cloud.network.check(order("s1", net, *[net] * 99), 50)
    assert len(asked) == 1


async def test_who_may_not_choose_an_address_does_not_hear_which_are_taken(cloud):
    net, _ = await cloud.network_with_subnet("admin", shared=True)
    port = (await cloud.call("admin", "POST", "/ports", {"port": {"network_id": net}}))["port"]
    for address in (port["fixed_ips"][0]["ip_address"], "10.0.0.77"):
        with pytest.raises(Forbidden, match="create_port"):
            await cloud.network.check(PortsOrder(server_id="s", context=CALLERS["one"], requests=(
                NetworkRequest(network_id=net, fixed_ip=address),)), 1)
