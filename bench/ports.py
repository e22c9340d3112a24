"""What ports cost, and whether that grows with how many there are.

    python bench/ports.py [--sizes 0,20000,100000] [--hosts 20] [--rounds 300] [--json FILE]

The network service alone, in this process, over SQLite in a file, durable as in `nacre up`: the API's own handlers
without HTTP, and the verbs that builds and hosts call. Each size is a database of its own in which one project already
has so many ports of one network, bound over the hosts in turn, all in the project's default security group (whose rules
name the group itself, so that every port concerns every other one). Milliseconds: median / p95, of `--rounds` calls one
after the other; `port, 8 at once`: creates a second by eight callers. Of a plug: how many hosts are told of it and ask
for their wiring, and how many only hear of the difference, in how many bytes each, and how long it takes to read that
for all of them; of an answer to who knows what was there before, and of one to who knows nothing: its bytes.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from nacre.base.clock import RealClock
from nacre.base.context import Context
from nacre.base.db import Database
from nacre.base.rpc.codec import encode
from nacre.base.web import Request
from nacre.identity.policy import PolicyEngine
from nacre.migrations.tables import create_all
from nacre.network import tables as t
from nacre.network.addresses.subnets import Subnets
from nacre.network.api.resource import Controller
from nacre.network.contract import DIFFERENCES, AgentReport, Have, NetworkRequest, PortsOrder
from nacre.network.hosts.notifications import GROUP, NETWORK, News, Notice, read_news
from nacre.network.l2.networks import Networks
from nacre.network.manager import NetworkManager, NetworkParts
from nacre.network.policies import POLICIES
from nacre.network.ports import Ports
from nacre.network.work import NetworkSettings

WHO = Context(request_id="req-bench", user_id="u", project_id="p", roles=("member", "reader"))


class Lab:
    """One database with its service."""

    def __init__(self, folder: Path, hosts: int):
        self.db = Database(f"sqlite:///{folder}/bench.db")
        create_all(self.db.engine)
        self.manager = NetworkManager(self.db, PolicyEngine([POLICIES]), RealClock(),
                                      NetworkSettings(quotas={"port": -1}, agent_down_after=1e6),
                                      NetworkParts(notify=self._tell, tell=self._differ))
        self.told, self.heard = set[str](), dict[str, int]()
        self.ports, self._number = Controller(self.manager, Ports()), 0
        self.hosts, self.network, self.subnet = [f"h{n}" for n in range(hosts)], "", ""

    async def _tell(self, notice: Notice) -> None:
        self.told.add(notice.host)

    async def _differ(self, news: News) -> None:
        self.heard[news.host] = len(encode(news.message()))

    async def known(self, host: str) -> Have:
        """What a host knows that has asked for everything."""
        answer = await self.manager.wiring(host, known=Have())
        return Have(groups={answer.era: {m.id: m.n for m in answer.members}},
                    networks={answer.era: {p.id: p.n for p in answer.placed}})

    def request(self, method: str, body: Any = None, **params: str) -> Request:
        async def nothing() -> dict[str, Any]:
            return {}

        return Request(method=method, path="/v2.0/ports", headers={}, query=[], base_url="http://bench",
                       receive=nothing, request_id="req-bench", context=WHO, params=params, body=body)

    async def ask(self, resource: Controller, request: Request) -> Any:
        """The resource's handler, with what its gate looks for. Nothing is asked of the policy."""
        request.route = route = next(r for r in resource.routes() if r.method == request.method
                                     and ("{id}" in r.path) == bool(request.params))
        request.policy = lambda *_: True
        if route.gate.target is not None:
            request.found = (await route.gate.target(request)).found
        return await route.handler(request)

    async def start(self) -> None:
        """Hosts, a network with room for everybody, one bound port on every host."""
        for number, host in enumerate(self.hosts):
            await self.manager.agent_report(AgentReport(
                host=host, tunnel_ip=f"192.0.{number >> 8}.{number & 255}", bridge_mappings={},
                tunnel_types=("vxlan",), takes=(DIFFERENCES,)))
        for store, name, body in ((Networks(), "network", {}), (Subnets(), "subnet", {
                "cidr": "10.0.0.0/8", "ip_version": 4,
                "allocation_pools": [{"start": "10.0.0.2", "end": "10.199.255.254"}]})):
            if name == "subnet":
                body = {"network_id": self.network, **body}
            reply = await self.ask(Controller(self.manager, store), self.request("POST", {name: body}))
            if name == "network":
                self.network = reply.body[name]["id"]
            else:
                self.subnet = reply.body[name]["id"]
        for host in self.hosts:
            await self.plug(host)

    async def fill(self, count: int) -> None:
        """So many bound ports more, written past the service."""
        def unit(connection: sa.Connection) -> None:
            more = {"group_id": connection.execute(sa.select(t.default_groups.c.group_id)).scalar(),
                    "segment_id": connection.execute(sa.select(t.segments.c.id)).scalar()}
            rows = [self._row(number) | more for number in range(count)]
            for table in (t.ports, t.bindings, t.addresses, t.port_groups, t.levels, t.binding_groups):
                connection.execute(sa.insert(table), [{c.name: row[c.name] for c in table.c} for row in rows])
            connection.execute(sa.update(t.usage).where(t.usage.c.resource == "port").values(
                used=t.usage.c.used + count))

        if count:
            await self.db.run(unit)

    def _row(self, number: int) -> dict[str, Any]:
        now = datetime(2026, 1, 1)
        new, device = str(uuid.UUID(int=number + (1 << 100))), str(uuid.UUID(int=number + (1 << 101)))
        octets = number.to_bytes(3, "big")
        return {
            "id": new, "port_id": new, "project_id": "p", "description": "", "created_at": now, "updated_at": now,
            "revision_number": 1, "tags": [], "name": "", "network_id": self.network, "subnet_id": self.subnet,
            "mac_address": "fa:16:3f:" + octets.hex(":"), "admin_state_up": True, "status": "ACTIVE",
            "device_id": device, "server_id": device, "device_owner": "compute:nova",
            "port_security_enabled": True,
            "allowed_address_pairs": [], "extra_dhcp_opts": [], "dns_name": "", "preserve": False, "device_tag": None,
            "position": 0, "host": self.hosts[number % len(self.hosts)], "vnic_type": "normal", "vif_type": "ovs",
            "vif_details": {"port_filter": True, "connectivity": "l2", "bridge_name": "br-int",
                            "datapath_type": "netdev", "ovs_hybrid_plug": False, "bound_driver": "openvswitch"},
            "profile": {}, "ip_address": f"10.{200 + octets[0]}.{octets[1]}.{octets[2]}", "level": 0,
            "driver": "openvswitch", "active": True, "wired": True}

    async def make(self) -> str:
        reply = await self.ask(self.ports, self.request("POST", {"port": {"network_id": self.network}}))
        return str(reply.body["port"]["id"])

    async def show(self, port_id: str) -> None:
        await self.ask(self.ports, self.request("GET", id=port_id))

    async def delete(self, port_id: str) -> None:
        await self.ask(self.ports, self.request("DELETE", id=port_id))

    async def plug(self, host: str | None = None) -> tuple[str, str, str]:
        """The ids of the server and its port, and the host."""
        self._number += 1
        server, host = str(uuid.uuid4()), host or self.hosts[self._number % len(self.hosts)]
        plugged = await self.manager.plug(PortsOrder(
            server_id=server, context=WHO, requests=(NetworkRequest(network_id=self.network),)), host)
        return server, plugged.ports[0].id, host


async def timed(rounds: int, call: Callable[[], Awaitable[Any]], found: list[Any] | None = None) -> list[float]:
    """Milliseconds of each call. found: gets the results."""
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        result = await call()
        times.append((time.perf_counter() - begin) * 1000)
        if found is not None:
            found.append(result)
    return times


async def measure(size: int, hosts: int, rounds: int) -> dict[str, Any]:
    """Every figure at one size."""
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder), hosts)
        await lab.start()
        await lab.fill(size)
        made, plugged = list[str](), list[tuple[str, str, str]]()
        await timed(30, lab.make)
        figures = {"port": await timed(rounds, lab.make, made)}

        async def some() -> None:
            await timed(rounds // 8, lab.make)

        begin = time.perf_counter()
        await asyncio.gather(*(some() for _ in range(8)))
        rate = rounds // 8 * 8 / (time.perf_counter() - begin)
        following = iter(made)
        figures["show"] = await timed(rounds, lambda: lab.show(made[0]))
        figures["delete"] = await timed(rounds, lambda: lab.delete(next(following)))
        figures["plug"] = await timed(rounds, lab.plug, plugged)
        await asyncio.sleep(2.0)
        lab.told.clear()
        lab.heard.clear()
        have = await lab.known("h0")
        plugged.append(await lab.plug())
        await asyncio.sleep(1.0)
        told, heard = len(lab.told), dict(lab.heard)
        some_plugged = iter(plugged[:60])
        few = 5 if size > 20000 else 60

        async def wiring() -> None:
            _, port_id, host = next(some_plugged)
            await lab.manager.wiring(host, (port_id,), known=have)

        def news() -> Awaitable[Any]:
            due = {(kind, id): n for kind, had in ((GROUP, have.groups), (NETWORK, have.networks))
                   for numbers in had.values() for id, n in numbers.items()}
            return lab.db.read(lambda connection: read_news(connection, due))

        answer = len(encode(await lab.manager.wiring(plugged[-1][2], (plugged[-1][1],), known=have)))
        first = len(encode(await lab.manager.wiring("h0", known=Have())))
        figures["news of a plug, for all"] = await timed(60, news)
        figures["wiring of one port"] = await timed(min(few, rounds), wiring)
        figures["wiring of a host"] = await timed(few // 5, lambda: lab.manager.wiring("h0", known=have))
        figures["its first wiring"] = await timed(few // 5, lambda: lab.manager.wiring("h0", known=Have()))
        servers = tuple(server for server, _, _ in plugged[:100])
        figures["100 servers' ports"] = await timed(20, lambda: lab.manager.ports_of(servers))
        ends = iter(plugged)
        figures["deallocate"] = await timed(rounds, lambda: lab.manager.deallocate(next(ends)[0]))
        await lab.db.close()
    return {"port, 8 at once": round(rate), "hosts told of a plug": told, "that hear of it": len(heard),
            "bytes of a message": max(heard.values(), default=0), "bytes of an answer": answer,
            "of the first one": first} | {
        name: _summary(times) for name, times in figures.items()}


def _summary(times: list[float]) -> str:
    return f"{statistics.median(times):.2f} / {sorted(times)[int(len(times) * 0.95)]:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="0,20000,100000")
    parser.add_argument("--hosts", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--json", type=Path)
    wishes = parser.parse_args()
    found = {}
    for size in map(int, wishes.sizes.split(",")):
        found[size] = asyncio.run(measure(size, wishes.hosts, wishes.rounds))
        print(f"{size} ports there:")
        for name, figure in found[size].items():
            print(f"  {name:22} {figure}")
    if wishes.json:
        wishes.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
