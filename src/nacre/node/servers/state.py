"""What the parts of a compute host share: what was ordered, what is claimed, what runs, and how a server leaves."""

import asyncio

import msgspec

from nacre.base.clock import Clock
from nacre.base.errors import Barred, Refused, Unavailable
from nacre.base.locks import NamedLocks
from nacre.node.contract import Guest
from nacre.node.hypervisor.driver import Hypervisor
from nacre.node.journal import Entry, Journal
from nacre.node.ovs.contract import Wiring
from nacre.node.servers.tracker import Tracker
from nacre.node.servers.works import Works


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """max_builds: prepared or spawned at once. shutdown_timeout: seconds a guest has to follow its power button. disks:
    directory -> shares. The rest is told to the scheduler and the conductor."""

    host: str
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


class NodeState:
    """One host's. changed: set when usage or a guest's power may have changed. met: a control process said whose orders
    these are; barred: why none is taken."""

    def __init__(self, settings: NodeSettings, journal: Journal, hypervisor: Hypervisor, wiring: Wiring, clock: Clock):
        self.settings, self.journal, self.clock = settings, journal, clock
        self.hypervisor, self.wiring = hypervisor, wiring
        self.tracker, self.works, self.locks = Tracker(settings.disks), Works(), NamedLocks()
        self.changed = asyncio.Event()
        self.met, self.barred = False, ""
        self._n = 0
        self._powers: dict[str, tuple[str, int]] = {}

    def admit(self, cloud: str) -> None:
        """Raises Refused: an order of another cloud; Barred: it is not known which cloud, or state of ours, is right;
        Unavailable: not yet."""
        if not self.met:
            raise Unavailable(f"Host {self.settings.host} has not met its control processes yet.")
        if self.barred:
            raise Barred(self.barred)
        if cloud != self.journal.facts.cloud:
            raise Refused(f"host {self.settings.host} is of cloud {self.journal.facts.cloud or '(none)'} and takes no "
                          f"orders of {cloud}")

    def number(self) -> tuple[int, int]:
        """Of the next report or answer: higher than of all before. It is taken before the guests are looked at: what a
        higher number says was seen later."""
        self._n += 1
        return self.journal.facts.incarnation, self._n

    def since(self, allocation: str, power: str, n: int) -> int:
        """The number of the first word that had the guest so. n: of the one that is being made."""
        before, since = self._powers.get(allocation, ("", 0))
        if power == before:
            return since
        if n > since:
            self._powers[allocation] = power, n
        return n

    async def clear(self, entry: Entry) -> None:
        """Whatever there is of the allocation goes: flows before the interface, so that no stray frame passes. The
        claim is given back last."""
        others = [e for e in self.journal.of_server(entry.server_id) if e.allocation != entry.allocation]
        if not any(e.stage != "ending" for e in others):
            if entry.spawn is not None and entry.spawn.ports:
                await self.wiring.unwire([port.id for port in entry.spawn.ports])
            await self.hypervisor.destroy(entry.server_id)
        await self.journal.remove(entry)
        self._powers.pop(entry.allocation, None)
        self.tracker.release(entry.allocation)
        self.changed.set()

    async def guest(self, entry: Entry) -> Guest:
        """The server for whoever ordered something of it."""
        number = self.number()
        power = (await self.hypervisor.guests()).get(entry.server_id, "missing")
        self._powers[entry.allocation] = power, number[1]
        self.changed.set()
        return Guest(server_id=entry.server_id, power=power, number=number, steps=entry.steps)
