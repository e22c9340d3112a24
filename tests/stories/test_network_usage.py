"""What quotas count is what there is, whatever was made, deleted, cascaded, or failed half-way."""

import asyncio
import contextlib
import random
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests import schema
from tests.stories.network_cloud import CALLERS, THREE, Cloud

from nacre.base.db import Database
from nacre.base.errors import NacreError
from nacre.network import tables as t
from nacre.network.contract import NetworkRequest, PortsOrder
from nacre.network.l2.networks import Networks
from nacre.network.ml2.type_drivers import SegmentTypes
from nacre.network.work import COUNTED, NetworkSettings, Work

#: A resource's plural in URLs and its name in bodies.
PLURALS = {"networks": "network", "subnets": "subnet", "ports": "port", "routers": "router",
           "floatingips": "floatingip", "security-groups": "security_group",
           "security-group-rules": "security_group_rule", "subnetpools": "subnetpool", "rbac-policies": "rbac_policy",
           "address-groups": "address_group", "trunks": "trunk"}


async def counted(db: Database) -> dict[tuple[str, str], int]:
    rows = await db.read(lambda c: c.execute(sa.select(t.usage)).all())
    return {(r.project_id, r.resource): r.used for r in rows if r.used}


async def summed(db: Database) -> dict[tuple[str, str], int]:
    def unit(connection: sa.Connection) -> dict[tuple[str, str], int]:
        return {(project, resource): count for resource, table in COUNTED.items() for project, count in
                connection.execute(sa.select(table.c.project_id, sa.func.count()).group_by(table.c.project_id))}

    return await db.read(unit)


class Life:
    """Things that two projects and an administrator do, chosen by dice; whatever is refused is refused."""

    def __init__(self, cloud: Cloud, dice: random.Random):
        self.cloud, self.dice, self.servers = cloud, dice, [f"s{n}" for n in range(4)]

    async def ids(self, plural: str) -> list[str]:
        name = plural.replace("-", "_")
        return [r["id"] for r in (await self.cloud.call("admin", "GET", f"/{plural}"))[name]]

    async def some(self, plural: str) -> str:
        return self.dice.choice(await self.ids(plural) or ["00000000-0000-0000-0000-000000000000"])

    async def do(self, method: str, path: str, body: Any = None) -> None:
        async with self.cloud.client(self.dice.choice(("one", "two", "admin", "admin"))) as client:
            answer = await client.request(method, f"/v2.0{path}", json=body)
        assert answer.status_code < 500, answer.text

    async def body(self, plural: str) -> dict[str, Any]:
        dice = self.dice
        if plural == "networks":
            return dice.choice([{}, {"shared": True}, {
                "router:external": True, "provider:network_type": "flat", "provider:physical_network": "physnet1"}])
        if plural == "subnets":
            net = await self.some("networks")
            if dice.random() < 0.2:
                return {"network_id": net, "ip_version": 6, "cidr": "2001:db8::/64", "ipv6_ra_mode": "slaac",
                        "ipv6_address_mode": "slaac"}
            return {"network_id": net, "ip_version": 4, "cidr": f"10.0.{dice.randrange(4)}.0/28"}
        if plural == "ports":
            return {"network_id": await self.some("networks")}
        if plural == "trunks":
            return {"port_id": await self.some("ports"), "sub_ports": [{
                "port_id": await self.some("ports"), "segmentation_type": "vlan", "segmentation_id": 7}]}
        if plural == "routers":
            return dice.choice([{}, {"external_gateway_info": {"network_id": await self.some("networks")}}])
        if plural == "floatingips":
            return {"floating_network_id": await self.some("networks")}
        if plural == "security-groups":
            return {"name": "g"}
        if plural == "security-group-rules":
            return {"security_group_id": await self.some("security-groups"), "direction": "ingress",
                    "remote_group_id": await self.some("security-groups"), "protocol": dice.choice(["tcp", "udp"])}
        if plural == "subnetpools":
            return {"name": "p", "prefixes": ["10.8.0.0/16"], "shared": dice.random() < 0.5}
        if plural == "rbac-policies":
            kind, where = dice.choice([("network", "networks"), ("security_group", "security-groups"),
                                       ("address_group", "address-groups")])
            return {"object_type": kind, "object_id": await self.some(where), "action": "access_as_shared",
                    "target_tenant": dice.choice([THREE, "*"])}
        return {"name": "a", "addresses": ["10.0.0.0/8"]}

    async def make(self, plural: str) -> None:
        await self.do("POST", f"/{plural}", {PLURALS[plural]: await self.body(plural)})

    async def make_many(self, plural: str) -> None:
        """In one transaction, which the last may spoil."""
        bodies = [await self.body(plural) for _ in range(3)]
        await self.do("POST", f"/{plural}", {plural.replace("-", "_"): bodies})

    async def delete(self, plural: str) -> None:
        await self.do("DELETE", f"/{plural}/{await self.some(plural)}")

    async def serve(self, _: str) -> None:
        """A server's ports come, move, or go."""
        server, host, network = self.dice.choice(self.servers), self.dice.choice(("h1", "h2", "h9")), self.cloud.network
        order = PortsOrder(server_id=server, context=CALLERS["one"], requests=tuple([
            NetworkRequest(network_id=await self.some("networks")) for _ in range(self.dice.randrange(1, 3))]))
        step = self.dice.choice((
            lambda: network.plug(order, host), lambda: network.plug(order, host), lambda: network.bind(server, host),
            lambda: network.unbind(server, host), lambda: network.deallocate(server)))
        with contextlib.suppress(NacreError):
            await step()

    async def join(self, _: str) -> None:
        """A router's interface comes or goes, a network is shared or not."""
        router, body = await self.some("routers"), {"subnet_id": await self.some("subnets")}
        verb = self.dice.choice(("add_router_interface", "remove_router_interface"))
        await self.do("PUT", f"/routers/{router}/{verb}", body)
        await self.do("PUT", f"/networks/{await self.some('networks')}", {"network": {
            "shared": self.dice.random() < 0.5}})

    async def fail(self, _: str) -> None:
        """A unit that breaks after it made something."""
        def step(work: Work) -> None:
            Networks().create(work, Networks.resource.parse_create({}, work.context))
            raise RuntimeError("boom")

        with pytest.raises(RuntimeError):
            await self.cloud.network.write(CALLERS["one"], step)


STEPS = st.lists(st.tuples(st.sampled_from(["make", "make", "make", "make_many", "delete", "delete", "serve", "join",
                                            "fail"]), st.sampled_from(sorted(PLURALS))), min_size=10, max_size=60)


@pytest.mark.timeout(600)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow],
          phases=[Phase.reuse, Phase.generate])  # an example takes a second: too long to try hundreds of smaller ones
@given(STEPS, st.integers(0, 1 << 30))
def test_the_counters_are_the_sums(steps: list[tuple[str, str]], seed: int) -> None:
    async def run() -> None:
        db = schema.in_memory()
        cloud = Cloud(db, NetworkSettings(types=SegmentTypes(vlan_ranges={"physnet1": (1, 5)}), quotas={"network": 6}))
        for host in ("h1", "h2"):
            await cloud.host(host, "192.0.2." + host[1])
        life = Life(cloud, random.Random(seed))
        await cloud.network_with_subnet(shared=False)
        await cloud.network_with_subnet("admin", **{"router:external": True})
        for step, plural in steps:
            await getattr(life, step)(plural)
            assert await counted(db) == await summed(db), (step, plural)
        await db.close()

    asyncio.run(run())


async def test_a_quota_counts_what_the_same_request_makes(story_db: Database) -> None:
    cloud = Cloud(story_db, NetworkSettings(quotas={"port": 3}))
    net, _ = await cloud.network_with_subnet()  # its DHCP port is the first
    over = await cloud.call("one", "POST", "/ports", {"ports": [{"network_id": net}] * 3}, expect=409)
    assert over["NeutronError"]["type"] == "OverQuota"
    await cloud.call("one", "POST", "/ports", {"ports": [{"network_id": net}] * 2})
    await cloud.call("one", "POST", "/ports", {"port": {"network_id": net}}, expect=409)
    details = (await cloud.call("one", "GET", "/quotas/p-one/details"))["quota"]
    assert details["port"] == {"limit": 3, "used": 3, "reserved": 0} and details["network"]["used"] == 1
    assert await counted(story_db) == await summed(story_db)
