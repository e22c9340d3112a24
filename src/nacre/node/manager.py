"""The verbs of a compute host (`contract.Node`): claim, prepare, spawn, and their opposites.

Per server one thing at a time, in the journal before it is done. A repeated call joins the one that runs or is
answered from what is there. What fails takes back all that its attempt had here, claim included.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import structlog

from nacre.base.clock import Clock, RealClock
from nacre.base.errors import BadRequest, BuildFailed, NacreError, NotFound, Refused
from nacre.base.locks import NamedLocks
from nacre.base.undo import Undo
from nacre.node.contract import BuildOrder, Guest, SpawnOrder, Step
from nacre.node.hypervisor.driver import Hypervisor, PowerChanged
from nacre.node.journal import Entry, Journal
from nacre.node.ovs.contract import Wiring
from nacre.node.timeline import Timeline
from nacre.node.tracker import Tracker

log = structlog.get_logger()
T = TypeVar("T")

ACTIONS = ("start", "stop", "reboot-soft", "reboot-hard")


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """folder: what this host keeps (journal). max_builds: prepared or spawned at once. shutdown_timeout: seconds a
    guest has to follow its power button. The rest is told to the scheduler and the conductor."""

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
    host_ip: str = "127.0.0.1"
    endpoint: str = ""
    public_key: str = ""


class NodeManager:
    """One compute host. `start` before anything else; `stop` leaves every guest and every claim as it is."""

    def __init__(self, settings: NodeSettings, hypervisor: Hypervisor, wiring: Wiring, clock: Clock | None = None):
        self.settings, self.hypervisor, self.wiring = settings, hypervisor, wiring
        self.clock = clock or RealClock()
        self.tracker = Tracker()
        self.journal = Journal(settings.folder / "journal", self.clock)
        self.changed = asyncio.Event()
        self.told: dict[str, str] = {}  # the power that the control side knows of
        self._on_power: PowerChanged | None = None
        self._locks, self._builds = NamedLocks(), asyncio.Semaphore(settings.max_builds)
        self._running: dict[tuple[str, ...], asyncio.Task[Any]] = {}
        self._stopping = False

    async def start(self, on_power: PowerChanged | None = None) -> None:
        """Counts what the journal says was granted, and goes on with what was being taken back."""
        self._on_power = on_power
        for entry in self.journal.all():
            if entry.alive and entry.order is not None:
                self.tracker.restore(entry.order)
        await self.hypervisor.start(self._noticed)
        await self.mend()

    async def stop(self) -> None:
        """Work that runs is dropped where it is: it is found in the journal by whoever comes next."""
        self._stopping = True
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.hypervisor.stop()
        await self.journal.close()

    async def mend(self) -> None:
        """Finishes what was being taken back and did not get through."""
        for entry in self.journal.all():
            if entry.stage == "closing" and not self._busy(entry.server_id):
                try:
                    async with self._locks(entry.server_id):
                        await self._clear(entry.server_id)
                except Exception as error:
                    log.warning("cannot be taken back yet", server=entry.server_id, why=str(error))

    # --- a server's way in ------------------------------------------------------------------------------------

    async def claim(self, order: BuildOrder) -> None:
        """Takes cpu, memory and disk, on disk before it answers. Raises Refused."""
        async with self._locks(order.server_id):
            entry = self.journal.check(order.server_id, order.epoch)
            if entry is not None and not entry.closed and await self._adopted(entry, order):
                return
            if entry is not None and entry.alive:
                await self._clear(order.server_id)
            if order.server_id in await self.hypervisor.guests():
                raise Refused(f"server {order.server_id} already exists on this host, and not by this build")
            self.tracker.claim(order)
            try:
                await self.journal.write(
                    Entry(server_id=order.server_id, epoch=order.epoch, stage="claimed", order=order))
            except OSError as error:
                self.tracker.release(order.server_id)
                raise Refused(f"the host cannot write its journal: {error}") from error
        self.changed.set()

    async def prepare(self, server_id: str, epoch: int) -> tuple[Step, ...]:
        """Image and disks. Raises Refused, BuildFailed."""
        return await self._once(("prepare", server_id, str(epoch)), lambda: self._prepare(server_id, epoch))

    async def spawn(self, order: SpawnOrder) -> Guest:
        """Domain, interfaces, wiring, running. Raises Refused, BuildFailed."""
        return await self._once(("spawn", order.server_id, str(order.epoch)), lambda: self._spawn(order))

    async def abort(self, server_id: str, epoch: int) -> None:
        """Takes back everything of attempt `epoch` or lower; later calls of it are refused. Raises Refused if a later
        attempt is here."""
        await self._once(("abort", server_id, str(epoch)), lambda: self._close(server_id, epoch))

    async def destroy(self, server_id: str, epoch: int) -> None:
        """As `abort`."""
        await self.abort(server_id, epoch)

    async def power(self, server_id: str, epoch: int, action: str) -> Guest:
        """Brings the guest to the state the action wants. Raises NotFound, BadRequest, Refused, BuildFailed."""
        if action not in ACTIONS:
            raise BadRequest(f"action: one of {', '.join(ACTIONS)} is wanted, not {action[:40]}.", field="action")
        return await self._once((action, server_id, str(epoch)), lambda: self._power(server_id, epoch, action))

    async def console(self, server_id: str, lines: int | None) -> str:
        """The end of the serial console's log. Raises NotFound."""
        entry = self.journal.get(server_id)
        if entry is None or not entry.alive:
            raise NotFound(f"Server {server_id} is not on this host.")
        return await self.hypervisor.console(server_id, lines)

    async def inventory(self) -> tuple[Guest, ...]:
        """Every server of the journal, and guests of ours that it does not know (epoch 0, not claimed)."""
        guests = await self.hypervisor.guests()
        known = [e for e in self.journal.all() if e.alive]
        strays = sorted(set(guests) - {e.server_id for e in known})
        return (*(self._guest(e, guests) for e in known),
                *(Guest(server_id=s, epoch=0, power=guests[s], claimed=False) for s in strays))

    async def rewire(self, port_ids: tuple[str, ...]) -> None:
        """The wiring fetches and applies soon."""
        await self.wiring.rewire(port_ids)

    async def observe(self) -> None:
        """Tells of guests that are not as they were last known to be (also those whose event was lost)."""
        guests = await self.hypervisor.guests()
        for entry in self.journal.all():
            now = guests.get(entry.server_id, "missing")
            if entry.stage != "running" or self._busy(entry.server_id) or self.told.get(entry.server_id) == now:
                continue
            self.told[entry.server_id] = now
            self.changed.set()
            if self._on_power is not None:
                await self._on_power(entry.server_id, now)

    # --- how --------------------------------------------------------------------------------------------------

    async def _prepare(self, server_id: str, epoch: int) -> tuple[Step, ...]:
        async with self._locks(server_id), self._builds:
            entry = self._claimed(server_id, epoch)
            if entry.stage != "claimed":
                return entry.steps
            async with self._attempt(entry) as order:
                steps = await self.hypervisor.prepare(order)
                await self.journal.write(msgspec.structs.replace(entry, stage="prepared", steps=steps))
            return steps

    async def _spawn(self, spawn: SpawnOrder) -> Guest:
        async with self._locks(spawn.server_id), self._builds:
            entry = self._claimed(spawn.server_id, spawn.epoch)
            if entry.stage == "running":
                return self._guest(entry, await self.hypervisor.guests())
            if entry.stage == "claimed":
                raise Refused(f"attempt {spawn.epoch} of server {spawn.server_id} was not prepared here")
            async with self._attempt(entry) as order:
                entry = await self.journal.write(msgspec.structs.replace(entry, stage="spawning", spawn=spawn))
                timeline = Timeline(self.clock)
                steps = await self.hypervisor.define(order, spawn)
                with timeline.step("wiring"):
                    await self.wiring.wire(spawn.ports, spawn.networks)
                if not spawn.paused:
                    with timeline.step("boot"):
                        await self.hypervisor.resume(spawn.server_id)
                entry = await self.journal.write(msgspec.structs.replace(
                    entry, stage="running", order=_without_secrets(order),
                    steps=(*entry.steps, *steps, *timeline.steps)))
            guests = await self.hypervisor.guests()
        self.told[spawn.server_id] = guests.get(spawn.server_id, "missing")
        self.changed.set()
        return self._guest(entry, guests)

    async def _close(self, server_id: str, epoch: int) -> None:
        entry = self.journal.get(server_id)
        if entry is not None and epoch < entry.epoch:
            raise Refused(f"attempt {epoch} of server {server_id} is over: attempt {entry.epoch} was seen here")
        if entry is not None and entry.stage == "gone" and entry.epoch == epoch:
            return
        for key, task in list(self._running.items()):
            if key[1] == server_id and key[0] != "abort":
                task.cancel()
        async with self._locks(server_id):
            entry = self.journal.get(server_id) or Entry(server_id=server_id, epoch=epoch, stage="closing")
            await self.journal.write(msgspec.structs.replace(
                entry, epoch=max(epoch, entry.epoch), stage="closing",
                order=None if entry.order is None else _without_secrets(entry.order)))
            await self._clear(server_id)

    async def _clear(self, server_id: str) -> None:
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

    async def _power(self, server_id: str, epoch: int, action: str) -> Guest:
        async with self._locks(server_id):
            entry = self.journal.check(server_id, epoch)
            if entry is None or entry.stage != "running":
                raise NotFound(f"Server {server_id} is not on this host.")
            if epoch > entry.epoch:
                entry = await self.journal.write(msgspec.structs.replace(entry, epoch=epoch))
            power = (await self.hypervisor.guests()).get(server_id, "missing")
            if action in ("stop", "reboot-soft") and power == "running":
                await self._shut_down(server_id)
            elif action == "reboot-hard" or (action == "stop" and power == "paused"):
                await self.hypervisor.halt(server_id)
            if action.startswith("reboot") or (action == "start" and power != "running"):
                await self._boot(entry)
            guests = await self.hypervisor.guests()
            self.told[server_id] = guests.get(server_id, "missing")
        self.changed.set()
        return self._guest(entry, guests)

    async def _shut_down(self, server_id: str) -> None:
        await self.hypervisor.shutdown(server_id)
        end = self.clock.monotonic() + self.settings.shutdown_timeout
        while (await self.hypervisor.guests()).get(server_id) == "running":
            if self.clock.monotonic() >= end:
                await self.hypervisor.halt(server_id)
                return
            await self.clock.sleep(0.25)

    async def _boot(self, entry: Entry) -> None:
        await self.hypervisor.boot(entry.server_id)
        if entry.spawn is not None and entry.spawn.ports:
            await self.wiring.wire(entry.spawn.ports, entry.spawn.networks)
        await self.hypervisor.resume(entry.server_id)

    async def _adopted(self, entry: Entry, order: BuildOrder) -> bool:
        """Goes on with what an earlier attempt of the same build has here (FLOW A16). False: it was another build's,
        and nothing of value. Raises Refused where it is a server that runs."""
        if entry.order is None or _shape(entry.order) != _shape(order):
            if entry.stage == "running":
                raise Refused(f"server {order.server_id} already runs on this host, built from another order")
            return False
        if order.epoch > entry.epoch:
            kept = _without_secrets(order) if entry.stage == "running" else order
            await self.journal.write(msgspec.structs.replace(entry, epoch=order.epoch, order=kept))
        return True

    def _claimed(self, server_id: str, epoch: int) -> Entry:
        entry = self.journal.check(server_id, epoch)
        if entry is None or entry.closed or entry.epoch != epoch:
            raise Refused(f"attempt {epoch} of server {server_id} has no claim here")
        return entry

    @asynccontextmanager
    async def _attempt(self, entry: Entry) -> AsyncIterator[BuildOrder]:
        """A part of a build: if it fails, all that this attempt had here is taken back."""
        if entry.order is None:
            raise Refused(f"attempt {entry.epoch} of server {entry.server_id} has no order here")
        try:
            async with Undo() as undo:
                undo.add(self._take_back, entry.server_id, entry.epoch)
                yield entry.order
        except (Refused, BuildFailed):
            raise
        except NacreError as error:
            raise BuildFailed(error.message) from error
        except Exception as error:
            log.exception("a build failed unexpectedly", server=entry.server_id)
            raise BuildFailed(f"unexpected on {self.settings.host}: {type(error).__name__}: {error}") from error

    async def _take_back(self, server_id: str, epoch: int) -> None:
        entry = self.journal.get(server_id)
        if self._stopping or entry is None or entry.epoch != epoch:
            return
        await self.journal.write(msgspec.structs.replace(entry, stage="closing"))
        await self._clear(server_id)

    async def _once(self, key: tuple[str, ...], work: Callable[[], Awaitable[T]]) -> T:
        """Runs `work`, or joins the run of the same key. A caller that gives up does not stop it."""
        task = self._running.get(key)
        if task is None:
            task = asyncio.ensure_future(work())
            self._running[key] = task
            task.add_done_callback(lambda done: self._forget(key, done))
        try:
            result: T = await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled() and not self._stopping:
                raise Refused(f"{key[0]} of server {key[1]} was taken back") from None
            raise
        return result

    def _forget(self, key: tuple[str, ...], task: asyncio.Task[Any]) -> None:
        self._running.pop(key, None)
        if not task.cancelled():
            task.exception()  # whoever asked has it; if nobody does any more, it is no news

    def _busy(self, server_id: str) -> bool:
        return any(key[1] == server_id for key in self._running)

    async def _noticed(self, server_id: str, power: str) -> None:
        """An event of the hypervisor: only a reason to look."""
        await self.observe()

    def _guest(self, entry: Entry, guests: dict[str, str]) -> Guest:
        return Guest(server_id=entry.server_id, epoch=entry.epoch, power=guests.get(entry.server_id, "missing"),
                     claimed=self.tracker.holds(entry.server_id), steps=entry.steps)


def _shape(order: BuildOrder) -> tuple[Any, ...]:
    """What makes two orders the same build."""
    images = tuple(image.id if image else None for image in (order.image, order.kernel, order.ramdisk))
    return (order.memory_mb, order.vcpus, order.root_gb, order.ephemeral_gb, order.swap_mb, *images)


def _without_secrets(order: BuildOrder) -> BuildOrder:
    """What the build needed once must not lie about for the server's whole life."""
    guest = msgspec.structs.replace(order.guest, admin_password=None, user_data=None, files=())
    return msgspec.structs.replace(order, guest=guest)
