"""A server's way into this host and out of it: claim, prepare, spawn, close.

Per server one thing at a time, in the journal before it is done. What fails takes back all that its attempt had here,
claim included.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import structlog

from nacre.base.errors import BuildFailed, NacreError, Refused
from nacre.base.undo import Undo
from nacre.node.contract import BuildOrder, Guest, SpawnOrder, Step
from nacre.node.journal import Entry
from nacre.node.servers.limits import check, rates
from nacre.node.servers.state import HostState
from nacre.node.timeline import Timeline

log = structlog.get_logger()


class Builds:
    """Builds of one host. The manager joins repeated calls before they come here."""

    def __init__(self, host: HostState):
        self._host, self._builds = host, asyncio.Semaphore(host.settings.max_builds)

    async def claim(self, order: BuildOrder) -> None:
        """Takes cpu, memory and disk, on disk before it answers. Raises Refused; BuildFailed: no host can hold such
        limits."""
        check(order)
        async with self._host.locks(order.server_id):
            entry = self._host.journal.check(order.server_id, order.epoch)
            if entry is not None and not entry.closed and await self._adopted(entry, order):
                return
            if entry is not None and entry.alive:
                await self._host.clear(order.server_id)
            if order.server_id in await self._host.hypervisor.guests():
                raise Refused(f"server {order.server_id} already exists on this host, and not by this build")
            self._host.tracker.claim(order)
            try:
                await self._host.journal.write(
                    Entry(server_id=order.server_id, epoch=order.epoch, stage="claimed", order=order))
            except OSError as error:
                self._host.tracker.release(order.server_id)
                raise Refused(f"the host cannot write its journal: {error}") from error
        self._host.changed.set()

    async def prepare(self, server_id: str, epoch: int) -> tuple[Step, ...]:
        async with self._host.locks(server_id), self._builds:
            entry = self._claimed(server_id, epoch)
            if entry.stage != "claimed":
                return entry.steps
            async with self._attempt(entry) as order:
                steps = await self._host.hypervisor.prepare(order, lambda done, total: None)
                await self._host.journal.write(msgspec.structs.replace(entry, stage="prepared", steps=steps))
            return steps

    async def spawn(self, spawn: SpawnOrder) -> Guest:
        async with self._host.locks(spawn.server_id), self._builds:
            entry = self._claimed(spawn.server_id, spawn.epoch)
            if entry.stage == "running":
                return self._host.guest(entry, await self._host.hypervisor.guests())
            if entry.stage == "claimed":
                raise Refused(f"attempt {spawn.epoch} of server {spawn.server_id} was not prepared here")
            async with self._attempt(entry) as order:
                entry = await self._host.journal.write(msgspec.structs.replace(entry, stage="spawning", spawn=spawn))
                timeline = Timeline(self._host.clock)
                steps = await self._host.hypervisor.define(order, spawn)
                with timeline.step("wiring"):
                    await self._host.wiring.limit(rates(order, [port.id for port in spawn.ports]))
                    await self._host.wiring.wire(spawn.ports, spawn.networks)
                if not spawn.paused:
                    with timeline.step("boot"):
                        await self._host.hypervisor.resume(spawn.server_id)
                entry = await self._host.journal.write(msgspec.structs.replace(
                    entry, stage="running", order=_without_secrets(order),
                    steps=(*entry.steps, *steps, *timeline.steps)))
            guests = await self._host.hypervisor.guests()
        self._host.told[spawn.server_id] = guests.get(spawn.server_id, "missing")
        self._host.changed.set()
        return self._host.guest(entry, guests)

    async def close(self, server_id: str, epoch: int) -> None:
        entry = self._host.journal.get(server_id)
        if entry is not None and epoch < entry.epoch:
            raise Refused(f"attempt {epoch} of server {server_id} is over: attempt {entry.epoch} was seen here")
        if entry is not None and entry.stage == "gone" and entry.epoch == epoch:
            return
        self._host.calls.cancel(server_id)
        async with self._host.locks(server_id):
            entry = self._host.journal.get(server_id) or Entry(server_id=server_id, epoch=epoch, stage="closing")
            await self._host.journal.write(msgspec.structs.replace(
                entry, epoch=max(epoch, entry.epoch), stage="closing",
                order=None if entry.order is None else _without_secrets(entry.order)))
            await self._host.clear(server_id)

    async def _adopted(self, entry: Entry, order: BuildOrder) -> bool:
        """Goes on with what an earlier attempt of the same build has here (FLOW A16). False: it was another build's,
        and nothing of value. Raises Refused where it is a server that runs."""
        if entry.order is None or _shape(entry.order) != _shape(order):
            if entry.stage == "running":
                raise Refused(f"server {order.server_id} already runs on this host, built from another order")
            return False
        if order.epoch > entry.epoch:
            kept = _without_secrets(order) if entry.stage == "running" else order
            await self._host.journal.write(msgspec.structs.replace(entry, epoch=order.epoch, order=kept))
        return True

    def _claimed(self, server_id: str, epoch: int) -> Entry:
        entry = self._host.journal.check(server_id, epoch)
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
            raise BuildFailed(f"unexpected on {self._host.settings.host}: {type(error).__name__}: {error}") from error

    async def _take_back(self, server_id: str, epoch: int) -> None:
        entry = self._host.journal.get(server_id)
        if self._host.calls.stopping or entry is None or entry.epoch != epoch:
            return
        await self._host.journal.write(msgspec.structs.replace(
            entry, stage="closing", order=None if entry.order is None else _without_secrets(entry.order)))
        await self._host.clear(server_id)


def _shape(order: BuildOrder) -> tuple[Any, ...]:
    """What makes two orders the same build."""
    images = tuple(image.id if image else None for image in (order.image, order.kernel, order.ramdisk))
    return (order.memory_mb, order.vcpus, order.root_gb, order.ephemeral_gb, order.swap_mb, order.selected_dir,
            order.net_bandwidth, order.disk_bandwidth, order.disk_shares, *images)


def _without_secrets(order: BuildOrder) -> BuildOrder:
    """What the build needed once must not lie about for the server's whole life."""
    guest = msgspec.structs.replace(order.guest, admin_password=None, user_data=None, files=(), metadata={})
    return msgspec.structs.replace(order, guest=guest)
