"""A whole cloud as it is shipped, in one loop under virtual time: real control and host processes, every time-out its
default, simulated guests. Both kinds of process can be killed and started again, over the same database and journal."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa

from nacre.base.context import Context
from nacre.base.rpc.memory import CONTROL, MemoryHub, MemoryTransport
from nacre.base.rpc.server import Peer
from nacre.cloud.control import Control, Seams, build_control
from nacre.cloud.node import build_node
from nacre.compute.catalog.flavors import Flavor
from nacre.compute.contract import Server, ServerSpec
from nacre.config import load
from nacre.image.data.uploads import Uploads
from nacre.network.addresses.subnets import Subnets
from nacre.network.contract import NetworkRequest
from nacre.network.l2.networks import Networks
from nacre.network.work import Work
from nacre.node.hypervisor.fake import FakeHypervisor, Faults
from nacre.node.service import NodeService
from nacre.simulation.seeds import seeded
from nacre.simulation.virtual_time import LoopClock, VirtualLoop
from tests import schema

WHO = Context(request_id="req-virtual", user_id="u", project_id="p", roles=("member", "reader"))
UNLIMITED = {f"NACRE_QUOTAS_{name}": "-1" for name in ("INSTANCES", "CORES", "RAM_MB", "PORTS")}


class VirtualCloud:
    """Hosts by name, with their faults. `control` is there while that process runs."""

    def __init__(self, folder: Path, hosts: int = 1, **environ: str):
        self.folder, self.environ = folder, {**UNLIMITED, **environ}
        self.hub, self.clock = MemoryHub(clock=LoopClock(), seed=1), LoopClock()
        self.db = schema.in_memory()
        self.faults = {f"host{n}": Faults() for n in range(hosts)}
        self.control: Control
        self._running: dict[str, AsyncExitStack] = {}
        self._services: dict[str, NodeService] = {}
        self.requests = 0
        self.networks = tuple[NetworkRequest, ...]()

    def settings(self, **more: str) -> Any:
        return load(self.folder, environ={
            "NACRE_HYPERVISOR": "fake", "NACRE_RPC_CONTROL_NAME": CONTROL.name, **self.environ, **more})

    async def start(self) -> None:
        """A flavor, an image of a byte, every host has said hello."""
        await self.start_control()
        await self.control.flavors.create(Flavor(id="f", name="f", memory_mb=512, vcpus=1, root_gb=1))

        async def data() -> Any:
            yield b"\0" * 512

        images = self.control.images
        self.image = str((await images.create(WHO, {
            "name": "i", "disk_format": "raw", "container_format": "bare"})).id)
        await Uploads(images).upload(WHO, self.image, data(), 512)
        for host in self.faults:
            await self.start_node(host)
        while len(await self.control.registry.all()) < len(self.faults):
            await asyncio.sleep(0.1)

    async def make_network(self, cidr: str) -> None:
        """Servers that are made from now on have a port there."""
        networks, subnets = Networks(), Subnets()

        def step(work: Work) -> str:
            made = networks.create(work, networks.resource.parse_create({"name": "n"}, WHO))
            subnets.create(work, subnets.resource.parse_create({
                "network_id": made["id"], "ip_version": 4, "cidr": cidr, "enable_dhcp": False}, WHO))
            return str(made["id"])

        self.networks = (NetworkRequest(network_id=await self.control.network.write(WHO, step)),)

    async def start_control(self) -> None:
        transport, stack = MemoryTransport(self.hub), AsyncExitStack()
        self.control = build_control(self.settings(), transport, self.db, self.clock, Seams(chance=random.Random(1)))
        stack.push_async_callback(transport.close)
        await stack.enter_async_context(self.control.running())
        self._running["control"] = stack

    async def start_node(self, host: str) -> None:
        transport, stack = MemoryTransport(self.hub, me=Peer(host, "node")), AsyncExitStack()
        own = self.settings(NACRE_NODE_NAME=host)
        own = msgspec.structs.replace(own, data_dir=str(self.folder / "hosts" / host))
        stack.push_async_callback(transport.close)
        node = build_node(own, transport, self.clock, faults=self.faults[host])
        self._running[host], self._services[host] = stack, node.service
        await stack.enter_async_context(node())

    async def kill(self, name: str) -> None:
        """What it had in hand is lost."""
        self._services.pop(name, None)
        await self._running.pop(name).aclose()

    async def stop(self) -> None:
        for name in sorted(self._running, reverse=True):
            await self.kill(name)
        await self.db.close()

    async def create(self, count: int = 1, **hints: Any) -> list[str]:
        """As the API, once the request is parsed."""
        self.requests += 1
        made = await self.control.servers.create(
            msgspec.structs.replace(WHO, request_id=f"req-{self.requests}"), (ServerSpec(
                name="s", flavor_id="f", image_id=self.image, networks=self.networks, min_count=count, max_count=count,
                hints=hints),))
        return [server.id for server in made]

    async def act(self, server_id: str, action: str) -> None:
        """delete, or an action of the power."""
        self.requests += 1
        context, servers = msgspec.structs.replace(WHO, request_id=f"req-{self.requests}"), self.control.servers
        server = await servers.get(server_id)
        if action == "delete":
            await servers.delete(context, server)
        else:
            await servers.power(context, server, action)

    async def row(self, server_id: str) -> Server:
        return await self.control.servers.get(server_id, deleted=True)

    async def until(self, server_id: str, *states: str, seconds: float = 3600.0) -> Server:
        """Once nobody is at work on it and its vm_state is one of these. seconds: virtual ones."""
        async with asyncio.timeout(seconds):
            while (server := await self.row(server_id)).vm_state not in states or server.task_state:
                await asyncio.sleep(0.1)
        return server

    def guests(self, host: str) -> dict[str, str | None]:
        """What really runs there: of the simulated hypervisor's files."""
        return {server: guest.power for server, guest in FakeHypervisor(folder=self._guests(host)).servers.items()}

    def _guests(self, host: str) -> Path:
        return self.folder / "hosts" / host / "node" / "fake-guests"

    async def stops_by_itself(self, host: str, server_id: str) -> None:
        """A guest, whether its host's process runs or not."""
        service = self._services.get(host)
        there: Any = service.here.hypervisor if service else FakeHypervisor(folder=self._guests(host))
        await there.crash_guest(server_id)

    async def left(self) -> dict[str, int]:
        """Rows of what is not finished."""
        def unit(connection: sa.Connection) -> dict[str, int]:
            return {name: int(connection.execute(sa.text(query)).scalar_one()) for name, query in {
                "stories": "select count(*) from stories",
                "ending": "select count(*) from allocations where state != 'held'"}.items()}

        return await self.db.read(unit)


def virtually(folder: Path, story: Callable[[VirtualCloud], Awaitable[None]], hosts: int = 1, **environ: str) -> None:
    """Run a story of a cloud that has started, and stop it."""
    async def run() -> None:
        cloud = VirtualCloud(folder, hosts, **environ)
        await cloud.start()
        try:
            await story(cloud)
        finally:
            await cloud.stop()

    with seeded(1), asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(run())
