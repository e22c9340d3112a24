"""Port forwardings: ports of a floating IP that lead to ports inside, with Neutron's rules."""

from typing import Any

import pytest
import sqlalchemy as sa
from tests.stories.network_cloud import Cloud
from tests.stories.test_network_routers import external, port_on, routed

from nacre.base.db import Database
from nacre.network.contract import ForwardingFacts
from nacre.network.l3.forwardings import MAX_ENTRIES, MAX_FORWARDINGS, entries
from nacre.network.nouns.router import PortForwarding
from nacre.node.routing.outside import forwarded_ports, masked


class Forwarding:
    """A floating IP, a router, and ports behind it."""

    def __init__(self, db: Database):
        self.cloud = Cloud(db)

    async def start(self) -> "Forwarding":
        self.public = await external(self.cloud)
        self.router, self.net, self.sub = await routed(self.cloud, self.public)
        self.port = await port_on(self.cloud, self.net)
        self.fip = await self.floating()
        self.path = f"/floatingips/{self.fip}/port_forwardings"
        return self

    async def floating(self, **more: Any) -> str:
        return str((await self.cloud.call("one", "POST", "/floatingips", {"floatingip": {
            "floating_network_id": self.public, **more}}))["floatingip"]["id"])

    async def make(self, internal: Any, external: Any, expect: int = 201, **more: Any) -> Any:
        """Ports, or ranges as text."""
        body = {"internal_port_id": self.port["id"], "protocol": "tcp"}
        for side, given in (("internal", internal), ("external", external)):
            body[f"{side}_port{'_range' if isinstance(given, str) else ''}"] = given
        found = await self.cloud.call("one", "POST", more.pop("path", self.path), {"port_forwarding": body | more},
                                      expect=expect)
        return found["port_forwarding"] if expect == 201 else found["NeutronError"]

    async def shown(self) -> Any:
        return (await self.cloud.call("one", "GET", f"/floatingips/{self.fip}"))["floatingip"]


@pytest.fixture
async def lab(story_db: Database) -> Forwarding:
    return await Forwarding(story_db).start()


async def test_its_life(lab: Forwarding) -> None:
    made = await lab.make(80, 8080, description="web")
    assert made == {
        "id": made["id"], "protocol": "tcp", "description": "web", "internal_port_id": lab.port["id"],
        "internal_ip_address": lab.port["fixed_ips"][0]["ip_address"], "internal_port": 80,
        "internal_port_range": "80:80", "external_port": 8080, "external_port_range": "8080:8080"}
    fip = await lab.shown()
    assert fip["router_id"] == lab.router and fip["port_id"] is None and fip["status"] == "DOWN"
    [within] = fip["port_forwardings"]
    assert within == {k: made[k] for k in ("id", "protocol", "internal_ip_address", "internal_port_id",
                                           "internal_port", "external_port")}
    one = f"{lab.path}/{made['id']}"
    changed = (await lab.cloud.call("one", "PUT", one, {"port_forwarding": {
        "internal_port": 81, "description": "other"}}))["port_forwarding"]
    assert changed == made | {"internal_port": 81, "internal_port_range": "81:81", "description": "other"}
    assert (await lab.cloud.call("one", "GET", one))["port_forwarding"] == changed
    assert (await lab.cloud.call("watcher", "GET", f"{lab.path}?protocol=TCP&fields=id"))["port_forwardings"] == [
        {"id": made["id"]}]
    for body in ({}, {"floatingip": {"port_id": (await port_on(lab.cloud, lab.net))["id"]}}):
        no = await lab.cloud.call("one", "PUT" if body else "DELETE", f"/floatingips/{lab.fip}", body or None,
                                  expect=409)
        assert no["NeutronError"]["type"] == "FipInUseByPortForwarding"
    no = await lab.cloud.call("one", "PUT", f"/routers/{lab.router}/remove_router_interface", {"subnet_id": lab.sub},
                              expect=409)
    assert no["NeutronError"]["type"] == "RouterInterfaceInUseByFloatingIP"
    await lab.cloud.call("two", "GET", one, expect=404)
    await lab.cloud.call("one", "DELETE", one)
    await lab.cloud.call("one", "GET", one, expect=404)
    fip = await lab.shown()
    assert (fip["router_id"], fip["port_forwardings"]) == (None, [])
    await lab.cloud.call("one", "DELETE", f"/floatingips/{lab.fip}")


async def test_ports_and_ranges_are_apart(lab: Forwarding) -> None:
    made = await lab.make("80:89", "180:189")
    assert (made["internal_port"], made["external_port_range"]) == (None, "180:189")
    await lab.make(22, "200:209")  # many to one
    await lab.make(80, 8080, protocol="UDP")
    for internal, outer, why in ((85, 300, "internal_port_range. The following ranges collide: 80:89 and 85:85"),
                                 (300, "189:189", "external_port_range. The following ranges collide: 180:189"),
                                 ("1:3", "1:2", "must be N-N or 1-N"), ("1:2", 5, "must be N-N or 1-N"),
                                 (0, 5, "internal_port"), (5, 65536, "external_port"), ("9:8", 5, "first port"),
                                 ("x", 5, "internal_port_range"), (None, 5, "internal_port")):
        error = await lab.make(internal, outer, 400)
        assert why in error["message"], error
    assert "at most 128 ports" in (await lab.make("1000:1128", "2000:2128", 400))["message"]
    await lab.make("1000:1500", "1000:1500")
    assert "same" in (await lab.make(5, 6, 400, external_port_range="6:7"))["message"]
    assert "protocol" in (await lab.make(5, 6, 400, protocol="icmp"))["message"]
    no = await lab.cloud.call("one", "PUT", f"{lab.path}/{made['id']}", {"port_forwarding": {
        "external_port_range": "200:209"}}, expect=400)
    assert "collide" in no["NeutronError"]["message"]


async def test_a_port_has_a_floating_ip_or_forwardings(lab: Forwarding) -> None:
    bound = await port_on(lab.cloud, lab.net)
    used = await lab.floating(port_id=bound["id"])
    assert (await lab.make(1, 2, 409, internal_port_id=bound["id"]))["type"] == "PortHasBindingFloatingIP"
    assert (await lab.make(1, 2, 409, path=f"/floatingips/{used}/port_forwardings"))["type"] == (
        "FloatingIPPortAlreadyAssociated")
    far = await port_on(lab.cloud, (await lab.cloud.network_with_subnet("one", "10.9.0.0/24"))[0])
    assert "is not reachable from subnet" in (await lab.make(1, 2, 400, internal_port_id=far["id"]))["message"]
    assert "not suitable" in (await lab.make(1, 2, 400, internal_ip_address="10.0.0.99"))["message"]
    theirs = (await lab.cloud.call("two", "POST", "/ports", {"port": {
        "network_id": (await lab.cloud.network_with_subnet("two", "10.8.0.0/24"))[0]}}))["port"]["id"]
    assert (await lab.make(1, 2, 404, internal_port_id=theirs))["type"] == "PortNotFound"
    await lab.make(1, 2)
    bare = await lab.floating()
    no = await lab.cloud.call("one", "PUT", f"/floatingips/{bare}", {"floatingip": {"port_id": lab.port["id"]}},
                              expect=400)
    assert no["NeutronError"]["type"] == "PortHasPortForwarding"


async def test_forwardings_go_with_their_port_and_its_address(lab: Forwarding) -> None:
    await lab.make(80, 8080)
    kept = await port_on(lab.cloud, lab.net, fixed_ips=[{"subnet_id": lab.sub}] * 2)
    gone, stays = [fixed["ip_address"] for fixed in kept["fixed_ips"]]
    for n, address in enumerate((gone, stays), 50):
        await lab.make(80, n, internal_port_id=kept["id"], internal_ip_address=address)
    await lab.cloud.call("one", "DELETE", f"/ports/{lab.port['id']}")
    await lab.cloud.call("one", "PUT", f"/ports/{kept['id']}", {"port": {"fixed_ips": [{"ip_address": stays}]}})
    [left] = (await lab.shown())["port_forwardings"]
    assert left["internal_ip_address"] == stays and (await lab.shown())["router_id"] == lab.router
    await lab.cloud.call("one", "DELETE", f"/ports/{kept['id']}")
    assert (await lab.shown())["router_id"] is None


async def test_a_forwarding_moves_to_what_its_router_reaches(lab: Forwarding) -> None:
    far = (await lab.cloud.call("one", "POST", "/subnets", {"subnet": {
        "network_id": lab.net, "cidr": "10.5.0.0/24", "ip_version": 4}}))["subnet"]["id"]
    port = await port_on(lab.cloud, lab.net, fixed_ips=[{"subnet_id": sub} for sub in (lab.sub, lab.sub, far)])
    first, second, third = [fixed["ip_address"] for fixed in port["fixed_ips"]]
    made = await lab.make(80, 80, internal_port_id=port["id"], internal_ip_address=first)

    async def move(address: str, expect: int) -> Any:
        return await lab.cloud.call("one", "PUT", f"{lab.path}/{made['id']}", {"port_forwarding": {
            "internal_ip_address": address}}, expect=expect)

    assert "is not reachable from subnet" in (await move(third, 400))["NeutronError"]["message"]
    assert (await move(second, 200))["port_forwarding"]["internal_ip_address"] == second


async def test_there_are_not_too_many(lab: Forwarding) -> None:
    many = [{"internal_port_id": lab.port["id"], "protocol": "tcp", "internal_port": n, "external_port": n}
            for n in range(1, MAX_FORWARDINGS + 1)]
    statements = list[str]()
    sa.event.listen(lab.cloud.db.engine, "before_cursor_execute", lambda c, cur, text, *_: statements.append(text))
    made = await lab.cloud.call("one", "POST", lab.path, {"port_forwardings": many})
    assert len(statements) < 50  # what is there already is read once, not for each
    assert len(made["port_forwardings"]) == MAX_FORWARDINGS
    assert f"at most {MAX_FORWARDINGS}" in (await lab.make(1000, 1000, 400))["message"]
    page = await lab.cloud.call("one", "GET", f"{lab.path}?limit=2&sort_key=external_port&sort_dir=desc")
    assert [each["external_port"] for each in page["port_forwardings"]] == [100, 99]
    assert {link["rel"] for link in page["port_forwardings_links"]} == {"next"} or page["port_forwardings_links"]


async def test_what_a_gateway_host_carries_of_a_floating_ip_is_bounded(lab: Forwarding) -> None:
    """One member's fifty floating IPs with a hundred shifted ranges each were 680,000 flows on it."""
    async def full(other: int, expect: int) -> Any:
        return await lab.make(f"{other + 1}:{other + 128}", f"{other + 3000}:{other + 3127}", expect)

    await full(1000, 201)
    made = await full(2000, 201)
    assert f"at most {MAX_ENTRIES} entries" in (await full(3000, 400))["message"]
    many = [{"internal_port_id": lab.port["id"], "protocol": "udp", "internal_port": n, "external_port": n}
            for n in range(1, 20)]
    for body in (many, {"protocol": "udp", "external_port_range": "1:65534", "internal_port_range": "1:65534",
                        "internal_port_id": lab.port["id"]}):
        no = await lab.cloud.call("one", "POST", lab.path, {
            f"port_forwarding{'s' * isinstance(body, list)}": body}, expect=400)
        assert f"at most {MAX_ENTRIES} entries" in no["NeutronError"]["message"]
    await lab.cloud.call("one", "DELETE", f"{lab.path}/{made['id']}")
    await lab.cloud.call("one", "POST", lab.path, {"port_forwardings": many})


def test_an_entry_is_a_flow_of_the_gateway_host() -> None:
    for outer, inner in (((80, 80), (8080, 8080)), ((1000, 1127), (1, 128)), ((1, 65534), (1, 65534)),
                         ((999, 1400), (22, 22)), ((1024, 2047), (1024, 2047))):
        told = ForwardingFacts(floating_id="f", address="203.0.113.9", mac="fa:16:3e:00:00:01", protocol="tcp",
                               outer=outer, inner_network_id="n", inner_address="10.0.0.9", inner=inner)
        kept = PortForwarding(
            id="", project_id="", floatingip_id="f", internal_port_id="", description="", protocol="tcp",
            external_first=outer[0], external_last=outer[1], internal_ip_address="10.0.0.9", internal_first=inner[0],
            internal_last=inner[1])
        assert entries(kept) == len([*forwarded_ports(told)]) + len([*masked(*inner)]), (outer, inner)
