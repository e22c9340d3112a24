"""The conductor with real stories, scheduler and hosts in one process: SQLite, fake hypervisors, ports in a dict."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import sqlalchemy as sa

from nacre.base.clock import RealClock
from nacre.base.context import Context
from nacre.base.db import Database, DatabaseUnavailable
from nacre.base.errors import BuildFailed, Unavailable
from nacre.compute import history
from nacre.compute.contract import ServerSpec, StoryOrder
from nacre.compute.progress import Progress
from nacre.compute.servers import move
from nacre.compute.stories import Stories, insert_story
from nacre.compute.tables import attempts, events, servers, stories
from nacre.conductor.hosts import Hosts
from nacre.conductor.manager import ConductorManager
from nacre.conductor.parts import Parts, Patience
from nacre.image.contract import ImageFacts
from nacre.network.contract import FixedIp, HostWiring, NetworkFacts, Plugged, PortFacts, PortsOrder
from nacre.node.hypervisor.driver import Capabilities
from nacre.node.hypervisor.fake import FakeHypervisor
from nacre.node.manager import NodeManager, NodeSettings
from nacre.node.ovs.fake import FakeWiring
from nacre.scheduler.contract import HostReport
from nacre.scheduler.filter_scheduler import FilterScheduler
from nacre.scheduler.manager import Facts, SchedulerManager
from tests import schema

CONTEXT = Context(request_id="req-1", user_id="u", project_id="p", roles=("member", "reader"))


NETWORK = NetworkFacts(id="n", name="n", project_id="p", mtu=1450, network_type="vxlan", physical_network=None,
                       segmentation_id=7)


#: Every server's.
IMAGE = "7a3f0a0e-30f1-4d6c-b6b7-0d4f2c9d8f11"


class DictNetwork:
    """One port a server; bound or not. What the conductor and a host's wiring need, no more."""

    def __init__(self) -> None:
        self.ports: dict[str, PortFacts] = {}
        self.fail_binds = 0
        self.before_plug: Callable[[str], Awaitable[None]] | None = None

    async def plug(self, order: PortsOrder, host: str) -> Plugged:
        if self.before_plug:
            await self.before_plug(order.server_id)
        if self.fail_binds:
            self.fail_binds -= 1
            raise BuildFailed("no driver binds the port")
        there = self.ports.get(order.server_id) or PortFacts(
            id=str(uuid4()), name="", project_id="p", network_id="n", network_name="n", device_id=order.server_id,
            mac_address="fa:16:3e:00:00:01", fixed_ips=(FixedIp(subnet_id="s", ip_address="192.0.2.9"),))
        port = self.ports[order.server_id] = msgspec.structs.replace(there, host=host, vif_type="ovs")
        return Plugged(ports=(port,), networks=(NETWORK,))

    async def unbind(self, server_id: str, host: str) -> None:
        if server_id in self.ports and self.ports[server_id].host == host:
            self.ports[server_id] = msgspec.structs.replace(self.ports[server_id], host="")

    async def deallocate(self, server_id: str) -> None:
        self.ports.pop(server_id, None)

    async def wiring(self, host: str, port_ids: tuple[str, ...] = ()) -> HostWiring:
        found = tuple(p for p in self.ports.values() if p.host == host and (not port_ids or p.id in port_ids))
        return HostWiring(whole=not port_ids, ports=found, networks=(NETWORK,))

    async def wired(self, host: str, port_ids: tuple[str, ...], up: bool) -> None:
        return None


class OneImage:
    """Any id is an image without data."""

    async def find(self, context: Context, image_id: str) -> ImageFacts:
        return ImageFacts(id=image_id, name="i", owner="p", status="active", disk_format="raw", container_format="bare",
                          size=1, virtual_size=1, checksum=None, os_hash_algo=None, os_hash_value=None)

    async def read(self, image_id: str, offset: int, length: int) -> bytes:
        return b""


class Unreliable:
    """A database that fails so often (0 to 1), before or after it did what it was asked."""

    def __init__(self, db: Database):
        self._db, self.share, self._dice = db, 0.0, random.Random(1)

    async def run(self, unit: Any) -> Any:
        return await self._perhaps(self._db.run, unit)

    async def read(self, unit: Any) -> Any:
        return await self._perhaps(self._db.read, unit)

    async def _perhaps(self, do: Any, unit: Any) -> Any:
        fate = self._dice.random()
        if fate < self.share / 2:
            raise DatabaseUnavailable("gone before")
        found = await do(unit)
        if fate < self.share:
            raise DatabaseUnavailable("gone after")
        return found


class Line:
    """The line to a host: cut, or with answers that must come within a time."""

    def __init__(self, lab: "Lab", host: str):
        self.lab, self.host = lab, host

    def __getattr__(self, verb: str) -> Any:
        async def call(*args: Any) -> Any:
            if self.host in self.lab.silent:
                raise Unavailable(f"{self.host} does not answer")
            try:
                async with asyncio.timeout(self.lab.answer_within):
                    return await asyncio.shield(asyncio.ensure_future(getattr(self.lab.nodes[self.host], verb)(*args)))
            except TimeoutError:
                raise Unavailable(f"{self.host} did not answer {verb}") from None
        return call


class Lab:
    """Hosts by name; `silent` ones do not answer."""

    def __init__(self, folder: Path, *, hosts: int = 3, patience: Patience | None = None):
        self.folder, self.clock = folder, RealClock()
        self.db = Database(schema.in_file(folder / "lab.db"))
        self.seen_db: Any = Unreliable(self.db)
        self.network, self.silent, self.answer_within = DictNetwork(), set[str](), 5.0
        self.hypervisors: dict[str, FakeHypervisor] = {}
        self.nodes = {f"host{n}": self._node(f"host{n}") for n in range(hosts)}
        self.progress = Progress(self.seen_db, self.clock)

        async def zones() -> dict[str, str]:
            return {}

        self.zones = zones
        self.chooser = FilterScheduler(best=1, sign=1)
        self.scheduler = SchedulerManager(
            self.seen_db, self.clock, self.chooser,
            Facts(aggregates=zones, servers=self.progress.on_hosts))
        self.patience = patience or Patience(before_spawn=0.3, after_spawn=1.0, cleanup=0.3)
        self.conductor = self._conductor()

    def _node(self, name: str) -> NodeManager:
        hypervisor = self.hypervisors[name] = FakeHypervisor(Capabilities(
            hypervisor_type="fake", hypervisor_version=1, vcpus=8, memory_mb=4096, disk_gb=100))
        return NodeManager(NodeSettings(host=name, folder=self.folder / name), hypervisor,
                           FakeWiring(name, self.network))  # type: ignore[arg-type]

    def _conductor(self) -> ConductorManager:
        def node(host: str) -> Any:
            return Line(self, host)

        parts = Parts(progress=self.progress, scheduler=self.scheduler, network=self.network,  # type: ignore[arg-type]
                      images=OneImage(), hosts=Hosts(node, self.clock), clock=self.clock, zones=self.zones,
                      patience=self.patience)
        return ConductorManager(parts, Stories(self.seen_db, self.clock, "control"))

    async def start(self) -> None:
        await self.scheduler.start()
        for name, node in self.nodes.items():
            await node.start()
            await self.scheduler.report(HostReport(
                host=name, hypervisor_type="fake", hypervisor_version=1, vcpus=8, memory_mb=4096, disk_gb=100,
                vcpus_used=0, memory_mb_used=0, disk_gb_used=0))
        await self.conductor.start()

    async def stop(self) -> None:
        await self.conductor.stop()
        for node in self.nodes.values():
            await node.stop()
        await self.db.close()

    async def reborn(self) -> None:
        """The conductor dies where it stands; another starts over the same database."""
        await self.conductor.stop()
        self.conductor = self._conductor()
        await self.conductor.start()

    async def accept(self, count: int = 1, *, nudge: bool = True) -> list[str]:
        """As the API would: rows and a build story in one transaction."""
        ids, now = [str(uuid4()) for _ in range(count)], self.clock.now().replace(tzinfo=None)
        flavor = {"id": "f", "name": "f", "memory_mb": 512, "vcpus": 1, "root_gb": 1}

        def unit(c: sa.Connection) -> str:
            c.execute(sa.insert(servers), [{
                "id": i, "name": f"s{n}", "project_id": "p", "user_id": "u", "vm_state": "building",
                "task_state": "scheduling", "created_at": now, "updated_at": now, "flavor_id": "f", "memory_mb": 512,
                "vcpus": 1, "flavor": flavor, "metadata": {}, "tags": [], "image_id": IMAGE,
                "image_properties": {}, "security_groups": [], "trusted_certs": [], "hints": {}, "hostname": f"s{n}",
            } for n, i in enumerate(ids)])
            history.begin(c, CONTEXT, ids, "create", now)
            return insert_story(c, "build", StoryOrder(context=CONTEXT, server_ids=tuple(ids), spec=ServerSpec(
                name="s", flavor_id="f", image_id="i", networks=())), now)

        story = await self.db.run(unit)
        if nudge:
            await self.conductor.run(story)
        return ids

    async def delete(self, server_id: str) -> None:
        now = self.clock.now().replace(tzinfo=None)

        def unit(c: sa.Connection) -> str:
            row = c.execute(sa.select(servers).where(servers.c.id == server_id)).mappings().one()
            move(c, row, "delete", now)  # type: ignore[arg-type]
            history.begin(c, CONTEXT, [server_id], "delete", now)
            return insert_story(c, "delete", StoryOrder(context=CONTEXT, server_ids=(server_id,), action="delete"), now)

        await self.conductor.run(await self.db.run(unit))

    async def row(self, server_id: str) -> Any:
        return await self.db.read(lambda c: c.execute(
            sa.select(servers).where(servers.c.id == server_id)).mappings().one())

    async def until(self, server_id: str, *states: str, seconds: float = 10.0) -> Any:
        """The row once its vm_state is one of these and no task goes on."""
        async with asyncio.timeout(seconds):
            while True:
                row = await self.row(server_id)
                if row["vm_state"] in states and row["task_state"] is None:
                    return row
                await asyncio.sleep(0.01)

    async def quiet(self, seconds: float = 10.0) -> None:
        """Until no story is left."""
        async with asyncio.timeout(seconds):
            while await self.db.read(lambda c: c.execute(sa.select(stories.c.id)).first()):
                await asyncio.sleep(0.01)

    async def check(self) -> None:
        """What must hold once quiet: one guest a live server on its own host, claims to match, ports to match."""
        rows = await self.db.read(lambda c: c.execute(sa.select(servers).where(~servers.c.deleted)).mappings().all())
        alive = {r["id"]: r["host"] for r in rows if r["vm_state"] != "error"}
        for name, node in self.nodes.items():
            mine = {s for s, host in alive.items() if host == name}
            assert set(self.hypervisors[name].servers) == mine, name
            assert node.here.tracker.servers == mine, name
            host = self.chooser.host(name)
            assert host is not None and host.servers == mine, name  # nor does the scheduler keep room for anyone else
        assert set(self.network.ports) == set(alive)
        left = await self.db.read(lambda c: c.execute(sa.select(attempts)).all())
        assert {(a.server_id, a.host) for a in left} == set(alive.items())

    async def steps(self, server_id: str) -> list[tuple[str, str]]:
        rows = await self.db.read(lambda c: c.execute(sa.select(events).where(
            events.c.server_id == server_id).order_by(events.c.id)).all())
        return [(r.name, r.result) for r in rows]
