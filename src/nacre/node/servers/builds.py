"""A server's way into this host and out of it: prepare (with the claim), spawn, end.

Per server one thing at a time, in the journal before it is done. What fails takes back all that its attempt had here,
claim included.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import structlog

from nacre.base.errors import BuildFailed, NacreError, Refused
from nacre.base.undo import Undo
from nacre.node.contract import WAITING, BuildOrder, EndOrder, Guest, SpawnOrder
from nacre.node.journal import Entry, Unwritable, unwritten
from nacre.node.servers.limits import check, rates
from nacre.node.servers.state import NodeState
from nacre.node.servers.step_timer import StepTimer
from nacre.node.servers.works import Doing

log = structlog.get_logger()


class Builds:
    """Builds of one host. The manager joins repeated orders before they come here."""

    def __init__(self, node: NodeState):
        self._node, self._places = node, asyncio.Semaphore(node.settings.max_builds)

    async def prepare(self, order: BuildOrder, doing: Doing) -> Guest:
        """Raises Refused; BuildFailed: tried and taken back, or no host can hold such limits."""
        timer = StepTimer(self._node.clock)
        doing.begin("claim")
        with timer.step("claim"):
            entry = await self._claim(order)
        doing.begin(WAITING)
        async with self._node.locks(order.server_id), self._places:
            entry = self._current(entry)
            if entry.stage == "claimed":
                async with self._attempt(entry):
                    doing.begin("image and disks")
                    steps = await self._node.hypervisor.prepare(order, doing.progress)
                    entry = await self._node.journal.write(msgspec.structs.replace(
                        entry, stage="prepared", steps=(*timer.steps, *steps)))
            return await self._node.guest(entry)

    async def _claim(self, order: BuildOrder) -> Entry:
        """Takes cpu, memory and disk, on disk before anything is done (FLOW A17)."""
        node = self._node
        check(order)
        async with node.locks(order.server_id):
            if (entry := node.journal.get(order.allocation)) is not None and entry.stage != "ending":
                return entry  # this very build: it goes on (FLOW A16)
            node.journal.check(order.server_id, order.epoch)
            for other in node.journal.of_server(order.server_id):
                if other.stage == "running":
                    raise Refused(f"server {order.server_id} already runs on this host, by another build")
                await node.clear(other)
            if order.server_id in await node.hypervisor.guests():
                raise Refused(f"server {order.server_id} already exists on this host, and not by this build")
            node.tracker.claim(order)
            try:
                entry = await node.journal.write(Entry(
                    allocation=order.allocation, server_id=order.server_id, epoch=order.epoch, stage="claimed",
                    order=order))
            except OSError as error:
                node.tracker.release(order.allocation)
                raise unwritten(error) from error
        node.changed.set()
        return entry

    async def spawn(self, spawn: SpawnOrder, doing: Doing) -> Guest:
        """Raises Refused, BuildFailed."""
        node = self._node
        doing.begin(WAITING)
        async with node.locks(spawn.server_id), self._places:
            node.journal.check(spawn.server_id, spawn.epoch)
            entry = node.journal.get(spawn.allocation)
            if entry is None or entry.stage == "claimed" or entry.order is None:
                raise Refused(f"attempt {spawn.epoch} of server {spawn.server_id} was not prepared here")
            if entry.stage == "running":
                return await node.guest(entry)
            async with self._attempt(entry) as order:
                kept = msgspec.structs.replace(spawn, guest=None)
                entry = await node.journal.write(msgspec.structs.replace(entry, stage="spawning", spawn=kept))
                timer = StepTimer(node.clock)
                doing.begin("domain")
                steps = await node.hypervisor.define(order, spawn)
                doing.begin("wiring")
                with timer.step("wiring"):
                    await node.wiring.limit(rates(order, [port.id for port in spawn.ports]))
                    await node.wiring.wire(spawn.ports, spawn.networks)
                doing.begin("boot")
                with timer.step("boot"):
                    await node.hypervisor.resume(spawn.server_id)
                entry = await node.journal.write(msgspec.structs.replace(
                    entry, stage="running", steps=(*entry.steps, *steps, *timer.steps)))
            return await node.guest(entry)

    async def end(self, order: EndOrder, doing: Doing) -> None:
        """Raises Refused: the host cannot write that it is over, or has a guest of the server that its journal lost. Of
        which attempt that guest is nobody knows: an operator ends it (the orphans), or it is another's that lives."""
        node = self._node
        doing.begin("end")
        entry = node.journal.get(order.allocation)
        node.works.cancel(order.server_id, max(order.epoch, entry.epoch if entry else 0))
        async with node.locks(order.server_id):
            entry = node.journal.get(order.allocation)
            try:
                if entry is None:
                    await node.journal.close_epoch(order.server_id, order.epoch)
                else:
                    entry = await node.journal.write(msgspec.structs.replace(
                        entry, epoch=max(order.epoch, entry.epoch), stage="ending"))
            except OSError as error:
                raise unwritten(error) from error
            if entry is not None:
                await node.clear(entry)
            elif order.allocation == order.server_id:  # a guest of ours that the journal lost, by an operator's word
                await node.hypervisor.destroy(order.server_id)
                node.changed.set()
            elif not node.journal.of_server(order.server_id) and order.server_id in await node.hypervisor.guests():
                node.changed.set()
                raise Refused(f"host {node.settings.host} has a guest of server {order.server_id} that its journal has "
                              f"lost: it is kept until an operator ends it by `nacre host forget {order.server_id}`")

    def _current(self, entry: Entry) -> Entry:
        found = self._node.journal.get(entry.allocation)
        if found is None or found.stage == "ending":
            raise Refused(f"attempt {entry.epoch} of server {entry.server_id} was taken back here")
        return found

    @asynccontextmanager
    async def _attempt(self, entry: Entry) -> AsyncIterator[BuildOrder]:
        """A part of a build: if it fails, all that this attempt had here is taken back."""
        if entry.order is None:
            raise Refused(f"attempt {entry.epoch} of server {entry.server_id} has no order here")
        try:
            async with Undo() as undo:
                undo.add(self._take_back, entry)
                yield entry.order
        except (Refused, BuildFailed):
            raise
        except NacreError as error:
            raise BuildFailed(error.message, type=error.type, details=error.details) from error
        except Unwritable as error:
            log.error("a build failed as the journal cannot be written", server=entry.server_id, why=str(error))
            raise BuildFailed(f"the host cannot write its journal: {error}", type="HostJournal") from error
        except Exception as error:
            log.exception("a build failed unexpectedly", server=entry.server_id)
            raise BuildFailed(f"unexpected on {self._node.settings.host}: {type(error).__name__}: {error}") from error

    async def _take_back(self, entry: Entry) -> None:
        found = self._node.journal.get(entry.allocation)
        if self._node.works.stopping or found is None or found.stage == "ending":
            return
        await self._node.clear(await self._node.journal.write(msgspec.structs.replace(found, stage="ending")))
