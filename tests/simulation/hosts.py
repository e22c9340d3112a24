"""A simulated host: the real node over a fake hypervisor. Its journal and its guests outlive its process."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from nacre.base.rpc.server import Peer
from nacre.cloud.node import build_node
from nacre.node.contract import BuildOrder, GuestFacts
from nacre.node.hypervisor.fake import FakeGuest, FakeHypervisor, Faults
from nacre.node.journal import Entry, Journal
from nacre.node.manager import NodeManager
from nacre.node.ovs.fake import FakeWiring
from nacre.node.servers.power import Power
from nacre.node.servers.works import Doing
from nacre.simulation.virtual_time import LoopClock
from tests.simulation.loop import Process
from tests.simulation.network import Wire

if TYPE_CHECKING:
    from tests.simulation.world import World

#: What a hypervisor does to a guest, as it is watched.
VERBS = ("prepare", "define", "boot", "resume", "shutdown", "halt", "destroy")
ELSEWHERE = "0ther-c10ud"


class Host:
    """One host through all its lives."""

    def __init__(self, world: "World", name: str, number: int):
        self.world, self.name, self.full = world, name, False
        self.settings = msgspec.structs.replace(
            world.settings, data_dir=str(world.folder / name), node=msgspec.structs.replace(
                world.settings.node, name=name, tunnel_ip=f"10.0.0.{number + 1}"))
        self.faults = Faults(before={verb: self._watched(verb) for verb in VERBS}, delay={
            "prepare": 0.4, "define": 0.4, "resume": 0.3, "boot": 0.3, "shutdown": 0.5, "destroy": 0.2},
            share=0.03, dice=world.dice(name))
        self.process: Process | None = None
        self.manager: NodeManager = None  # type: ignore[assignment]

    @property
    def hypervisor(self) -> FakeHypervisor:
        found = self.manager.here.hypervisor
        assert isinstance(found, FakeHypervisor)
        return found

    @property
    def alive(self) -> bool:
        return self.process is not None

    def start(self) -> None:
        process = self.process = Process(self.world.loop, self.name)
        running = process.context().run(
            build_node, self.settings, Wire(self.world.network, Peer(self.name, "node"), process), LoopClock(),
            self.faults)
        self.manager = running.service.manager
        self.manager.here.journal._apply = self._limited(self.manager.here.journal)  # type: ignore[method-assign]
        self._watch_orders(self.manager._power)
        self.world.history.add(self.name, "starts")

        async def life() -> None:
            async with running():
                await asyncio.Event().wait()

        process.begin(life())

    def kill(self) -> None:
        """kill -9: guests and journal stay."""
        assert self.process is not None
        self.process.kill()
        self.world.network.members[self.name].leave()
        self.manager.here.journal._db.close()
        self.world.graveyard.append((self.process, self.manager))
        self.process = None
        self.world.history.add(self.name, "is killed")

    def fetch(self) -> None:
        """Its wiring asks for what it heard of, as the real one does at once; the fake does with what comes next."""
        wiring = self.manager.here.wiring
        assert isinstance(wiring, FakeWiring)
        if self.process is not None and wiring.client.asked:
            wiring._behind = True
            self.process.context().run(wiring._begin)

    def _limited(self, journal: Journal) -> Callable[[Any], None]:
        """The journal's writes, which fail while the disk is full."""
        real = journal._apply

        def apply(writes: Any) -> None:
            if self.full:
                raise sqlite3.OperationalError("database or disk is full")
            real(writes)

        return apply

    def _watch_orders(self, power: Power) -> None:
        """What it does about guests' power, once it has judged the order."""
        real = power._act

        async def act(entry: Entry, action: str, doing: Doing) -> None:
            self.world.checker.order(self, entry.server_id, entry.epoch, action)
            await real(entry, action, doing)

        power._act = act  # type: ignore[method-assign]

    def _watched(self, verb: str) -> Callable[[str], Awaitable[None]]:
        async def watch(server_id: str) -> None:
            await self.world.checker.hypervisor(self, verb, server_id)

        return watch


async def foreign(host: Host) -> str:
    """Before its first start: the host has joined another cloud, and runs a guest of it. That server's id."""
    folder, server_id = host.settings.data / "node", "f0re1gn0-0000-4000-8000-000000000000"
    (folder / "fake-guests").mkdir(parents=True, exist_ok=True)
    guest = FakeGuest(name="foreign", power="running")
    (folder / "fake-guests" / f"{server_id}.json").write_bytes(msgspec.json.encode(guest))
    journal = Journal(folder / "journal.db", LoopClock())
    await journal.learn(cloud=ELSEWHERE, position=7)
    order = BuildOrder(
        cloud=ELSEWHERE, allocation="f0re1gn0-a110-4000-8000-000000000000", server_id=server_id, epoch=3, memory_mb=512,
        vcpus=1, root_gb=1, ephemeral_gb=0, swap_mb=0, limit_vcpus=8, limit_memory_mb=8192, limit_disk_mb=8192,
        image=None, guest=GuestFacts(id=server_id, name="foreign", hostname="foreign", project_id="x", user_id="x",
                                     availability_zone="nova"))
    await journal.write(Entry(allocation=order.allocation, server_id=server_id, epoch=3, stage="running", order=order))
    await journal.close()
    return server_id


async def seen_more(host: Host) -> bool:
    """While it is down: its journal says that it has seen later epochs of its servers than the database knows."""
    journal = Journal(host.settings.data / "node" / "journal.db", LoopClock())
    mine = [entry for entry in journal.all() if entry.stage == "running"]
    for entry in mine:
        await journal.write(msgspec.structs.replace(entry, epoch=entry.epoch + 5))
    await journal.close()
    return bool(mine)
