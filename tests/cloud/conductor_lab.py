"""The conductor with real stories, scheduler and hosts in one process: SQLite, fake hypervisors, ports in a dict."""

import asyncio
import contextlib
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
from nacre.base.durable.changes import Changes
from nacre.base.durable.processes import Process, Processes
from nacre.base.durable.stories import Stories, Story
from nacre.base.durable.tables import stories
from nacre.base.errors import BuildFailed, Unavailable
from nacre.cloud.barred import barred_on, blocked
from nacre.compute import history, quota_usage
from nacre.compute.allocations import Ledger
from nacre.compute.contract import ServerSpec, StoryOrder
from nacre.compute.progress import Progress
from nacre.compute.records import move
from nacre.compute.tables import events, servers
from nacre.conductor.build import Builder
from nacre.conductor.delete import Deleter
from nacre.conductor.deps import StoryDeps
from nacre.conductor.endings import Endings
from nacre.conductor.hosts import Hosts, Patience
from nacre.conductor.power import Switch
from nacre.conductor.stories import StoryRunner
from nacre.image.contract import ImageFacts
from nacre.network.contract import (
    AgentReport,
    Differences,
    FixedIp,
    GroupMembers,
    Guard,
    Have,
    HostWiring,
    NetworkFacts,
    Plugged,
    PortFacts,
    PortsOrder,
    Routing,
    Served,
    Versions,
)
from nacre.node.hypervisor.driver import Capabilities
from nacre.node.hypervisor.fake import FakeHypervisor
from nacre.node.journal import Journal
from nacre.node.manager import NodeManager, NodeSettings
from nacre.node.ovs.fake import FakeWiring
from nacre.scheduler.contract import HostReport
from nacre.scheduler.filter_scheduler import FilterScheduler
from nacre.scheduler.manager import SchedulerDeps, SchedulerManager
from nacre.scheduler.registry import HostRegistry
from tests import schema

CONTEXT = Context(request_id="req-1", user_id="u", project_id="p", roles=("member", "reader"))


NETWORK = NetworkFacts(id="n", name="n", project_id="p", mtu=1450, network_type="vxlan", physical_network=None,
                       segmentation_id=7)


#: Every server's.
IMAGE = "7a3f0a0e-30f1-4d6c-b6b7-0d4f2c9d8f11"


class DictNetwork:
    """One port a server; bound or not. What the conductor and a host's wiring need, no more."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.ports: dict[str, PortFacts] = {}
        self.fail_binds = 0
        self.before_plug: Callable[[str], Awaitable[None]] | None = None

    async def plug(self, order: PortsOrder, host: str) -> Plugged:
        if self.before_plug:
            await self.before_plug(order.server_id)
        await self._hold(order.guard)
        if self.fail_binds:
            self.fail_binds -= 1
            raise BuildFailed("no driver binds the port")
        there = self.ports.get(order.server_id) or PortFacts(
            id=str(uuid4()), name="", project_id="p", network_id="n", network_name="n", device_id=order.server_id,
            mac_address="fa:16:3e:00:00:01", fixed_ips=(FixedIp(subnet_id="s", ip_address="192.0.2.9"),))
        port = self.ports[order.server_id] = msgspec.structs.replace(there, host=host, vif_type="ovs")
        return Plugged(ports=(port,), networks=(NETWORK,))

    async def _hold(self, guard: Guard | None) -> None:
        if guard is not None:
            await self._db.run(guard.check)

    async def unbind(self, server_id: str, host: str, guard: Guard | None = None) -> None:
        await self._hold(guard)
        if server_id in self.ports and self.ports[server_id].host == host:
            self.ports[server_id] = msgspec.structs.replace(self.ports[server_id], host="")

    async def deallocate(self, server_id: str, guard: Guard | None = None) -> None:
        await self._hold(guard)
        self.ports.pop(server_id, None)

    async def wiring(self, host: str, port_ids: tuple[str, ...] = (), have: Versions | None = None,
                     known: Have | None = None) -> HostWiring:
        found = tuple(p for p in self.ports.values() if p.host == host and (not port_ids or p.id in port_ids))
        return HostWiring(whole=not port_ids, ports=found, networks=(NETWORK,))

    async def differences(self, host: str, groups: tuple[str, ...], networks: tuple[str, ...],
                          known: Have) -> Differences:
        return Differences()

    async def members(self, host: str, groups: tuple[str, ...], have: Versions) -> tuple[GroupMembers, ...]:
        return ()

    async def routing(self, host: str) -> Routing:
        return Routing()

    async def routed(self, host: str, served: Served, up: bool) -> None:
        return None

    async def wired(self, host: str, port_ids: tuple[str, ...], up: bool) -> None:
        return None

    async def agent_report(self, report: AgentReport) -> None:
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


class Controller:
    """One control process's stories."""

    def __init__(self, lab: "Lab", name: str):
        self.lab, self.name = lab, name
        self.processes = Processes(lab.seen_db, lab.clock)
        self.stories = Stories(lab.seen_db, lab.clock, self.processes)
        self.deps = StoryDeps(
            cloud=lambda: "cloud", ledger=lab.ledger, progress=lab.progress, scheduler=lab.scheduler,
            registry=lab.registry, network=lab.network, images=OneImage(), clock=lab.clock, zones=lab.zones,  # type: ignore[arg-type]
            builds=lab.builds,
            hosts=Hosts(lambda host: Line(lab, host), lab.alive, lab.clock, lab.patience, lab.registry.check))  # type: ignore[arg-type,return-value]
        self.endings = Endings(self.deps)
        claimed = barred_on(lab.registry, lab.progress.load)
        self.runner = StoryRunner(self.stories, {
            "build": Builder(self.deps, self.endings, claimed), "delete": Deleter(self.deps, self.endings),
            "power": Switch(self.deps)}, lab.clock, blocked(lab.registry, claimed, lambda: lab.registry.states))

    async def start(self) -> None:
        await self.processes.start(Process(id=self.name, role="control", name=self.name))
        self.task = asyncio.ensure_future(self.beats())

    async def beats(self) -> None:
        while True:
            with contextlib.suppress(DatabaseUnavailable):
                await self.processes.run()

    async def kill(self) -> None:
        """It dies where it stands."""
        self.task.cancel()
        await self.runner.stop()
        await self.endings.stop()

    async def sweep_endings(self) -> None:
        """As the periodic one, twice: what is found twice is nobody's."""
        for _ in range(2):
            await self.endings.look()
        await asyncio.gather(*self.endings._tasks)


class Lab:
    """Hosts by name; `silent` ones do not answer, of those that are `down` no heartbeats come."""

    def __init__(self, folder: Path, *, hosts: int = 3, patience: Patience | None = None):
        self.folder, self.clock = folder, RealClock()
        self.db = Database(schema.in_file(folder / "lab.db"))
        self.seen_db: Any = Unreliable(self.db)
        self.network = DictNetwork(self.seen_db)
        self.silent, self.down, self.answer_within = set[str](), set[str](), 5.0
        self.hypervisors: dict[str, FakeHypervisor] = {}
        self.nodes = {f"host{n}": self._node(f"host{n}") for n in range(hosts)}
        self.progress, self.ledger = Progress(self.seen_db, self.clock), Ledger(self.seen_db, self.clock)

        async def zones() -> dict[str, str]:
            return {}

        self.zones = zones
        self.chooser = FilterScheduler(best=1, sign=1)
        self.registry = HostRegistry(self.seen_db, self.clock)
        self.scheduler = SchedulerManager(
            self.registry, self.clock, self.chooser, SchedulerDeps(aggregates=zones, allocations=self.ledger.of))
        self.changes = Changes(self.db, self.clock)
        self.scheduler.subscribe(self.changes)
        self.patience, self.builds = patience or Patience(stalled=3.0, silence=1.0), 50
        self.control = Controller(self, "control")

    def _node(self, name: str) -> NodeManager:
        hypervisor = self.hypervisors[name] = FakeHypervisor(Capabilities(
            hypervisor_type="fake", hypervisor_version=1, vcpus=8, memory_mb=4096, disk_gb=100))
        return NodeManager(NodeSettings(host=name), Journal(self.folder / name / "journal.db"), hypervisor,
                           FakeWiring(name, self.network))  # type: ignore[arg-type]

    async def alive(self, host: str) -> bool:
        return host not in self.down

    async def start(self) -> None:
        await self.changes.start()
        await self.scheduler.start()
        await self.control.processes.introduce(*(Process(id=f"node:{n}", role="node", name=n) for n in self.nodes))
        for name, node in self.nodes.items():
            await node.start()
            node.here.met = True
            await node.here.journal.learn(cloud="cloud")
            await self.scheduler.report(HostReport(
                host=name, hypervisor_type="fake", hypervisor_version=1, vcpus=8, memory_mb=4096, disk_gb=100,
                vcpus_used=0, memory_mb_used=0, disk_gb_used=0))
            await self.registry.bar(name, "")
        await self.control.start()

    async def stop(self) -> None:
        await self.control.kill()
        for node in self.nodes.values():
            await node.stop()
        await self.db.close()

    async def reborn(self) -> None:
        """The control process dies where it stands; another life of it starts over the same database."""
        await self.control.kill()
        self.control = Controller(self, "control")
        await self.control.start()
        await self.control.runner.look()

    async def accept(self, count: int = 1, *, run: bool = True) -> list[str]:
        """As the API would: rows and a build story in one transaction."""
        ids, now = [str(uuid4()) for _ in range(count)], self.clock.now().replace(tzinfo=None)
        flavor = {"id": "f", "name": "f", "memory_mb": 512, "vcpus": 1, "root_gb": 1}

        def unit(c: sa.Connection) -> Story:
            rows: list[dict[str, Any]] = [{
                "id": i, "name": f"s{n}", "project_id": "p", "user_id": "u", "vm_state": "building",
                "task_state": "scheduling", "created_at": now, "updated_at": now, "flavor_id": "f", "memory_mb": 512,
                "vcpus": 1, "flavor": flavor, "metadata": {}, "tags": [], "image_id": IMAGE,
                "image_properties": {}, "security_groups": [], "trusted_certs": [], "hints": {}, "hostname": f"s{n}",
            } for n, i in enumerate(ids)]
            c.execute(sa.insert(servers), rows)
            quota_usage.add(c, rows[0], count)
            history.begin(c, CONTEXT, ids, "create", now)
            return self.story(c, "build", StoryOrder(context=CONTEXT, server_ids=tuple(ids), spec=ServerSpec(
                name="s", flavor_id="f", image_id="i", networks=())))

        story = await self.db.run(unit)
        if run:
            self.control.runner.run(story)
        return ids

    def story(self, c: sa.Connection, kind: str, order: StoryOrder) -> Story:
        """Written as this process's."""
        return self.control.stories.insert(c, kind, msgspec.msgpack.encode(order),
                                           self.clock.now().replace(tzinfo=None))

    async def orphan_stories(self) -> None:
        """Nobody runs what is there."""
        await self.db.run(lambda c: c.execute(sa.update(stories).values(owner=None)))

    async def delete(self, server_id: str) -> None:
        now = self.clock.now().replace(tzinfo=None)

        def unit(c: sa.Connection) -> Story:
            row = c.execute(sa.select(servers).where(servers.c.id == server_id)).mappings().one()
            move(c, row, "delete", now)  # type: ignore[arg-type]
            history.begin(c, CONTEXT, [server_id], "delete", now)
            return self.story(c, "delete", StoryOrder(context=CONTEXT, server_ids=(server_id,), action="delete"))

        self.control.runner.run(await self.db.run(unit))

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
        await self.changes.look()  # as it does for ever: a word to the scheduler may have been lost
        rows = await self.db.read(lambda c: c.execute(sa.select(servers).where(~servers.c.deleted)).mappings().all())
        alive = {r["id"]: r["host"] for r in rows if r["vm_state"] != "error"}
        left = await self.ledger.of(None)
        assert {(a.server_id, a.host, a.state) for a in left} == {(s, host, "held") for s, host in alive.items()}
        for name, node in self.nodes.items():
            mine = {s for s, host in alive.items() if host == name}
            assert set(self.hypervisors[name].servers) == mine, name
            assert node.here.tracker.allocations == {a.id for a in left if a.host == name}, name
            host = self.chooser.host(name)
            assert host is not None and host.servers == mine, name  # nor does the scheduler keep room for anyone else
        assert set(self.network.ports) == set(alive)
        used = await self.db.read(lambda c: quota_usage.used(c, "p"))
        assert used["instances"] == len(rows) and used["ram"] == sum(r["memory_mb"] for r in rows)

    async def steps(self, server_id: str) -> list[tuple[str, str]]:
        rows = await self.db.read(lambda c: c.execute(sa.select(events).where(
            events.c.server_id == server_id).order_by(events.c.id)).all())
        return [(r.name, r.result) for r in rows]
