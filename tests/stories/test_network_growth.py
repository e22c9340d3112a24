"""What a change costs does not grow with how many ports there are: counted in steps of SQLite's virtual machine, which
are the same on every machine."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import pytest
import sqlalchemy as sa
from tests import schema
from tests.stories.network_cloud import CALLERS, Cloud

from nacre.base.db import Database
from nacre.network import tables as t
from nacre.network.contract import NetworkRequest, PortsOrder
from nacre.network.ml2.type_drivers import SegmentTypes
from nacre.network.work import NetworkSettings

HOSTS = [f"h{n}" for n in range(4)]
#: The handler is called after so many steps.
GRAIN = 50


class Growing:
    """A cloud of a few hosts with a network that may have very many ports in one security group, all bound."""

    def __init__(self) -> None:
        self.db = schema.in_memory()
        self.cloud = Cloud(self.db, NetworkSettings(quotas={"port": -1, "network": -1, "subnet": -1}))
        self.network, self.count, self.steps = "", 0, 0

    async def start(self, ports: int) -> None:
        for n, host in enumerate(HOSTS):
            await self.cloud.host(host, f"192.0.2.{n + 1}")
        self.network = (await self.cloud.call("one", "POST", "/networks", {"network": {}}))["network"]["id"]
        subnet = (await self.cloud.call("one", "POST", "/subnets", {"subnet": {
            "network_id": self.network, "cidr": "10.0.0.0/12", "ip_version": 4,
            "allocation_pools": [{"start": "10.0.0.2", "end": "10.7.255.254"}]}}))["subnet"]["id"]
        for host in HOSTS:
            await self.plug(host)
        await self.db.run(lambda c: fill(c, self.network, subnet, ports))

    async def plug(self, host: str) -> str:
        self.count += 1
        server = f"s{self.count}"
        await self.cloud.network.plug(PortsOrder(server_id=server, context=CALLERS["one"], requests=(
            NetworkRequest(network_id=self.network),)), host)
        return server

    async def cost(self, work: Awaitable[Any]) -> int:
        """The steps of SQLite that it took."""
        def step() -> None:
            self.steps += GRAIN

        def watch(handler: Callable[[], None] | None) -> None:
            with self.db.engine.connect() as connection:
                raw: Any = connection.connection.dbapi_connection
                raw.set_progress_handler(handler, GRAIN)

        self.steps = 0
        watch(step)
        await work
        watch(None)
        return self.steps


def fill(connection: sa.Connection, network: str, subnet: str, count: int) -> None:
    """Bound ports, written past the service."""
    group = connection.execute(sa.select(t.default_groups.c.group_id)).scalar()
    segment = connection.execute(sa.select(t.segments.c.id)).scalar()
    now, rows = datetime(2026, 1, 1), []
    for n in range(count):
        octets = n.to_bytes(2, "big")
        rows.append({
            "id": f"p{n}", "port_id": f"p{n}", "project_id": "p-one", "description": "", "created_at": now,
            "updated_at": now, "revision_number": 1, "tags": [], "name": "", "network_id": network,
            "subnet_id": subnet, "mac_address": "fa:16:3f:00:" + octets.hex(":"), "admin_state_up": True,
            "status": "ACTIVE", "device_id": f"d{n}", "server_id": f"d{n}", "device_owner": "compute:nova",
            "port_security_enabled": True,
            "allowed_address_pairs": [], "extra_dhcp_opts": [], "dns_name": "", "preserve": False, "device_tag": None,
            "qos_policy_id": None, "dns_domain": "",
            "position": 0, "host": HOSTS[n % len(HOSTS)], "vnic_type": "normal", "vif_type": "ovs", "vif_details": {},
            "profile": {}, "ip_address": f"10.8.{octets[0]}.{octets[1]}", "level": 0, "driver": "openvswitch",
            "active": True, "wired": True, "group_id": group, "segment_id": segment})
    for table in (t.ports, t.bindings, t.addresses, t.port_groups, t.levels, t.binding_groups):
        if rows:
            connection.execute(sa.insert(table), [{c.name: row[c.name] for c in table.c} for row in rows])
    connection.execute(sa.update(t.usage).where(t.usage.c.resource == "port").values(used=t.usage.c.used + count))


async def costs(ports: int) -> dict[str, int]:
    lab = Growing()
    await lab.start(ports)
    call, verbs, found = lab.cloud.call, lab.cloud.network, dict[str, int]()
    port = (await call("one", "POST", "/ports", {"port": {"network_id": lab.network}}))["port"]["id"]
    server = await lab.plug("h1")
    bound = (await verbs.ports_of((server,)))[server][0].id
    group = (await call("one", "GET", "/security-groups"))["security_groups"][0]["id"]
    for name, work in (
            ("create", lambda: call("one", "POST", "/ports", {"port": {"network_id": lab.network}})),
            ("show", lambda: call("one", "GET", f"/ports/{port}")),
            ("update", lambda: call("one", "PUT", f"/ports/{port}", {"port": {"name": "n"}})),
            ("delete", lambda: call("one", "DELETE", f"/ports/{port}")),
            ("plug", lambda: lab.plug("h2")), ("wired", lambda: verbs.wired("h1", (bound,), True)),
            ("bind", lambda: verbs.bind(server, "h3")), ("activate", lambda: verbs.activate(server, "h3")),
            ("rule", lambda: call("one", "POST", "/security-group-rules", {"security_group_rule": {
                "security_group_id": group, "direction": "ingress", "protocol": "icmp"}})),
            ("deallocate", lambda: verbs.deallocate(server)),
            ("tunnel", lambda: lab.cloud.host("h1", "192.0.2.77"))):
        found[name] = await lab.cost(work())
    await lab.db.close()
    return found


async def test_what_a_change_costs_does_not_grow_with_the_ports() -> None:
    few, many = await costs(20), await costs(4000)
    assert all(many[name] <= few[name] * 1.25 + 2 * GRAIN for name in few), {n: (few[n], many[n]) for n in few}


@pytest.fixture
def cloud(story_db: Database) -> Cloud:
    return Cloud(story_db, NetworkSettings(types=SegmentTypes(vlan_ranges={"physnet1": (100, 104)})))


async def test_numbers_of_a_range_are_given_out_until_none_is_left(cloud: Cloud) -> None:
    async def make(expect: int = 201) -> dict[str, Any]:
        return (await cloud.call("admin", "POST", "/networks", {"network": {
            "provider:network_type": "vlan", "provider:physical_network": "physnet1"}}, expect=expect)).get("network")

    made = [await make() for _ in range(5)]
    assert [n["provider:segmentation_id"] for n in made] == [100, 101, 102, 103, 104]
    await make(expect=409)
    await cloud.call("admin", "DELETE", f"/networks/{made[2]['id']}")
    assert (await make())["provider:segmentation_id"] == 102
    await make(expect=409)


async def test_the_last_addresses_of_a_large_subnet_are_found(cloud: Cloud) -> None:
    """1,022 addresses, of which all but three are taken: neither luck nor the first ones help."""
    net, sub = await cloud.network_with_subnet(cidr="10.0.0.0/22")
    port = (await cloud.call("one", "POST", "/ports", {"port": {"network_id": net}}))["port"]["id"]
    taken = {r.ip_address for r in await cloud.db.read(lambda c: c.execute(sa.select(t.addresses)).all())}
    every = [f"10.0.{n >> 8}.{n & 255}" for n in range(2, 1023)]
    free = set(every[-3:]) - taken
    await cloud.db.run(lambda c: c.execute(sa.insert(t.addresses), [
        {"port_id": port, "subnet_id": sub, "ip_address": a, "position": 0} for a in every if a not in taken | free]))
    got = set()
    for _ in range(len(free)):
        got.add((await cloud.call("one", "POST", "/ports", {"port": {"network_id": net}}))["port"]["fixed_ips"][0][
            "ip_address"])
    assert got == free
    await cloud.call("one", "POST", "/ports", {"port": {"network_id": net}}, expect=409)
