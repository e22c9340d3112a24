"""What the parts of a compute host share: who is here, what runs, and how a server leaves."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from nacre.base.clock import Clock
from nacre.base.errors import Refused
from nacre.base.locks import NamedLocks
from nacre.node.contract import Guest
from nacre.node.hypervisor.driver import Hypervisor
from nacre.node.journal import Entry, Journal
from nacre.node.ovs.contract import Wiring
from nacre.node.tracker import Tracker

T = TypeVar("T")


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """folder: what this host keeps (journal). max_builds: prepared or spawned at once. shutdown_timeout: seconds a
    guest has to follow its power button. disks: directory -> shares. The rest is told to the scheduler and the
    conductor."""

    host: str
    folder: Path
    max_builds: int = 10
    shutdown_timeout: float = 60.0
    heartbeat: float = 10.0
    queue_name: str = "kvm"
    cpu_ratio: float = 1.0
    ram_ratio: float = 1.0
    disk_ratio: float = 1.0
    reserved_memory_mb: int = 0
    net_bandwidth: int = 0
    disk_bandwidth: int = 0
    disks: dict[str, int] = {}
    host_ip: str = "127.0.0.1"
    endpoint: str = ""
    public_key: str = ""


class Calls:
    """Work by (verb, server, epoch): a repeated call joins the one that runs."""

    def __init__(self) -> None:
        self._running: dict[tuple[str, ...], asyncio.Task[Any]] = {}
        self.stopping = False

    async def once(self, key: tuple[str, ...], work: Callable[[], Awaitable[T]]) -> T:
        """Runs `work`, or joins the run of the same key. A caller that gives up does not stop it."""
        task = self._running.get(key)
        if task is None:
            task = asyncio.ensure_future(work())
            self._running[key] = task
            task.add_done_callback(lambda done: self._forget(key, done))
        try:
            result: T = await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled() and not self.stopping:
                raise Refused(f"{key[0]} of server {key[1]} was taken back") from None
            raise
        return result

    def _forget(self, key: tuple[str, ...], task: asyncio.Task[Any]) -> None:
        self._running.pop(key, None)
        if not task.cancelled():
            task.exception()  # whoever asked has it; if nobody does any more, it is no news

    def busy(self, server_id: str) -> bool:
        return any(key[1] == server_id for key in self._running)

    def cancel(self, server_id: str) -> None:
        """Ends what runs for this server, but for its own end."""
        for key, task in list(self._running.items()):
            if key[1] == server_id and key[0] != "abort":
                task.cancel()

    async def stop(self) -> None:
        """Drops everything where it is: nothing is taken back from here on."""
        self.stopping = True
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class HostState:
    """One host's. changed: set when usage or a guest's power may have changed. told: the power of each server that the
    control side knows of."""

    def __init__(self, settings: NodeSettings, hypervisor: Hypervisor, wiring: Wiring, clock: Clock):
        self.settings, self.hypervisor, self.wiring, self.clock = settings, hypervisor, wiring, clock
        self.tracker, self.calls, self.locks = Tracker(settings.disks), Calls(), NamedLocks()
        self.journal = Journal(settings.folder / "journal", clock)
        self.changed = asyncio.Event()
        self.told: dict[str, str] = {}

    async def clear(self, server_id: str) -> None:
        """Whatever there is of the server goes: flows before the interface, so that no stray frame passes. The
        claim is given back last."""
        entry = self.journal.get(server_id)
        if entry is None:
            return
        if entry.spawn is not None and entry.spawn.ports:
            await self.wiring.unwire([port.id for port in entry.spawn.ports])
        await self.hypervisor.destroy(server_id)
        await self.journal.write(Entry(server_id=server_id, epoch=entry.epoch, stage="gone"))
        self.tracker.release(server_id)
        self.told.pop(server_id, None)
        self.changed.set()

    def guest(self, entry: Entry, guests: dict[str, str]) -> Guest:
        """The server for the control side. guests: as the hypervisor has them."""
        return Guest(server_id=entry.server_id, epoch=entry.epoch, power=guests.get(entry.server_id, "missing"),
                     claimed=self.tracker.holds(entry.server_id), steps=entry.steps)
