"""Projects on networks that others share with them: what they may do there, and how the owner is rid of them."""

from typing import Any

import pytest
from tests.stories.network_cloud import THREE, Cloud
from tests.stories.test_network_routers import external, port_on, refused

from nacre.base.db import Database


class Guest:
    """A network of "one", shared with "three", which has a router with a way out; and an external network."""

    def __init__(self, db: Database):
        self.cloud = Cloud(db)

    async def start(self) -> "Guest":
        self.public = await external(self.cloud)
        self.net, self.sub = await self.cloud.network_with_subnet()
        made = await self.cloud.call("one", "POST", "/rbac-policies", {"rbac_policy": {
            "object_type": "network", "object_id": self.net, "action": "access_as_shared", "target_tenant": THREE}})
        self.policy = f"/rbac-policies/{made['rbac_policy']['id']}"
        self.router = await self.new_router("three")
        return self

    async def new_router(self, who: str) -> str:
        return str((await self.cloud.call(who, "POST", "/routers", {"router": {
            "external_gateway_info": {"network_id": self.public}}}))["router"]["id"])

    async def port(self, net: str, **more: Any) -> str:
        return str((await self.cloud.call("three", "POST", "/ports", {"port": {"network_id": net, **more}}))["port"][
            "id"])

    async def floating(self, who: str = "three", **more: Any) -> str:
        return str((await self.cloud.call(who, "POST", "/floatingips", {"floatingip": {
            "floating_network_id": self.public, **more}}))["floatingip"]["id"])


@pytest.fixture
async def lab(story_db: Database) -> Guest:
    return await Guest(story_db).start()


async def test_nobody_becomes_the_gateway_of_what_is_shared_with_all(lab: Guest) -> None:
    net, sub = await lab.cloud.network_with_subnet("admin", "10.9.0.0/24", shared=True)
    path = f"/routers/{lab.router}/add_router_interface"
    no = await lab.cloud.call("three", "PUT", path, {"subnet_id": sub}, expect=400)
    assert "is not owned by project making the request" in no["NeutronError"]["message"]
    own = await lab.new_router("admin")
    await lab.cloud.call("admin", "PUT", f"/routers/{own}/add_router_interface", {"subnet_id": sub})
    # By an address that anybody may get, and as the gateway of what is shared with it by name.
    await lab.cloud.call("three", "PUT", path, {"port_id": await lab.port(net)})
    await lab.cloud.call("three", "PUT", path, {"subnet_id": lab.sub})


async def test_a_floating_ip_is_of_a_router_that_is_where_its_port_is(lab: Guest) -> None:
    await lab.cloud.call("three", "PUT", f"/routers/{lab.router}/add_router_interface", {
        "port_id": await lab.port(lab.net)})
    other, _ = await lab.cloud.network_with_subnet("three", "10.0.0.0/24")  # the same addresses
    port = await lab.port(other)
    wanted = {"floatingip": {"floating_network_id": lab.public, "port_id": port, "router_id": lab.router}}
    assert await refused(lab.cloud, "POST", "/floatingips", wanted, 404, "three") == (
        "ExternalGatewayForFloatingIPNotFound")
    path = f"/floatingips/{await lab.floating()}"
    change = {"floatingip": {"port_id": port, "router_id": lab.router}}
    assert await refused(lab.cloud, "PUT", path, change, 404, "three") == "ExternalGatewayForFloatingIPNotFound"
    # Of several that are there, the one that is asked for.
    mine = await lab.port(lab.net)
    assert (await lab.cloud.call("three", "PUT", path, {"floatingip": {"port_id": mine, "router_id": lab.router}}))[
        "floatingip"]["router_id"] == lab.router


def subport(port_id: str) -> dict[str, Any]:
    return {"port_id": port_id, "segmentation_type": "vlan", "segmentation_id": 7}


async def test_a_networks_owner_is_not_told_what_a_guests_trunk_carries(lab: Guest) -> None:
    """It may be ports of networks that are none of the owner's business."""
    private, _ = await lab.cloud.network_with_subnet("three", "10.7.0.0/24")
    parent, carried = await lab.port(lab.net), await lab.port(private)
    await lab.cloud.call("three", "POST", "/trunks", {"trunk": {"port_id": parent, "sub_ports": [subport(carried)]}})
    for who, told in (("one", False), ("watcher", False), ("three", True), ("admin", True)):
        shown = [(await lab.cloud.call(who, "GET", f"/ports?network_id={lab.net}&id={parent}"))["ports"][0],
                 (await lab.cloud.call(who, "GET", f"/ports/{parent}"))["port"]]
        assert [carried in str(each) for each in shown] == ["trunk_details" in each for each in shown] == [told] * 2


@pytest.mark.parametrize("who", ["one", "admin"])
async def test_a_networks_owner_takes_a_guest_off_whatever_trunk_it_is_of(lab: Guest, who: str) -> None:
    """Or a trunk pins the network, its sharing and, by a floating IP, its router. Of one's own, as in Neutron, the
    trunk goes first."""
    router = await lab.new_router("one")
    await lab.cloud.call("one", "PUT", f"/routers/{router}/add_router_interface", {"subnet_id": lab.sub})
    private, _ = await lab.cloud.network_with_subnet("three", "10.7.0.0/24")
    parent, carried = await lab.port(lab.net), await lab.port(lab.net)
    pinned = (await lab.cloud.call("three", "POST", "/trunks", {"trunk": {
        "port_id": parent, "admin_state_up": False}}))["trunk"]["id"]
    left = (await lab.cloud.call("three", "POST", "/trunks", {"trunk": {
        "port_id": await lab.port(private), "sub_ports": [subport(carried)]}}))["trunk"]
    floating = await lab.floating(port_id=parent)
    for port, kind in ((parent, "PortInUseAsTrunkParent"), (carried, "PortInUseAsSubPort")):
        assert await refused(lab.cloud, "DELETE", f"/ports/{port}", None, 409, "three") == kind
        await lab.cloud.call(who, "DELETE", f"/ports/{port}")
    await lab.cloud.call("three", "GET", f"/trunks/{pinned}", expect=404)
    shown = (await lab.cloud.call("three", "GET", f"/trunks/{left['id']}"))["trunk"]
    assert shown["sub_ports"] == [] and shown["revision_number"] > left["revision_number"]
    assert (await lab.cloud.call("three", "GET", f"/floatingips/{floating}"))["floatingip"]["port_id"] is None
    await lab.cloud.call("one", "PUT", f"/routers/{router}/remove_router_interface", {"subnet_id": lab.sub})
    await lab.cloud.call("one", "DELETE", lab.policy)
    await lab.cloud.call("one", "DELETE", f"/networks/{lab.net}")


async def test_sharing_does_not_end_under_a_router(lab: Guest) -> None:
    """As in Neutron a router's interface is a port of its project: or it stayed the gateway, and nobody's to remove."""
    joined = f"/routers/{lab.router}/add_router_interface"
    await lab.cloud.call("three", "PUT", joined, {"subnet_id": lab.sub})
    assert await refused(lab.cloud, "DELETE", lab.policy, None, 409) == "RbacPolicyInUse"
    await lab.cloud.call("three", "PUT", joined.replace("add_", "remove_"), {"subnet_id": lab.sub})
    await lab.cloud.call("one", "DELETE", lab.policy)


async def test_the_networks_owner_takes_a_guest_with_its_floating_ip_off(lab: Guest) -> None:
    router = await lab.new_router("one")
    await lab.cloud.call("one", "PUT", f"/routers/{router}/add_router_interface", {"subnet_id": lab.sub})
    port = await lab.port(lab.net)
    floating = await lab.floating(port_id=port)
    leave = f"/routers/{router}/remove_router_interface"
    assert await refused(lab.cloud, "PUT", leave, {"subnet_id": lab.sub}, 409) == "RouterInterfaceInUseByFloatingIP"
    await lab.cloud.call("one", "DELETE", f"/ports/{port}")
    left = (await lab.cloud.call("three", "GET", f"/floatingips/{floating}"))["floatingip"]
    assert (left["port_id"], left["router_id"], left["status"]) == (None, None, "DOWN")
    await lab.cloud.call("one", "DELETE", lab.policy)
    await lab.cloud.call("one", "PUT", leave, {"subnet_id": lab.sub})
    # What an operator gave the port stays with it.
    await lab.cloud.call("one", "PUT", f"/routers/{router}/add_router_interface", {"subnet_id": lab.sub})
    own = await port_on(lab.cloud, lab.net)
    await lab.floating("admin", port_id=own["id"])
    assert await refused(lab.cloud, "DELETE", f"/ports/{own['id']}", None, 409) == "FipAssociated"
