"""The story of a build, top to bottom: hosts chosen, ports made, then host by host an attempt until one stands.

Each attempt is committed with a new epoch before its host hears of it. A refusal or failure takes back what that host
got and means the next host; silence means asking again. What a crash left is found by asking again too: every step of a
host answers from what is there.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

import msgspec
import structlog

from nacre.base.errors import BuildFailed, NacreError, NoValidHost, Refused, Unavailable
from nacre.base.undo import Undo
from nacre.compute.contract import Attempt, Outcome, Server, Story
from nacre.conductor import orders
from nacre.conductor.parts import Parts
from nacre.conductor.timeline import Timeline
from nacre.image.contract import ImageFacts
from nacre.node.contract import BuildOrder, SpawnOrder
from nacre.scheduler.contract import HostLimits, Placement

log = structlog.get_logger()

_UNLIMITED = HostLimits(vcpus=float("inf"), memory_mb=float("inf"), disk_mb=float("inf"))


class Superseded(Exception):
    """The server is not being built any more (deleted, or another runner has it): nothing is left to do here."""


class Builder:
    """Runs build stories."""

    def __init__(self, parts: Parts):
        self._p = parts
        self._room = asyncio.Semaphore(parts.patience.builds)

    async def tell(self, story: Story) -> None:
        """Build every server of the story that is not built yet."""
        servers = [s for s in await self._p.progress.load(story.order.server_ids)
                   if s.vm_state == "building" and s.task_state != "deleting"]
        if not servers:
            return
        placements = {s.id: await self._resumed(s) for s in servers if s.host}
        fresh = [s for s in servers if not s.host]
        try:
            if fresh:
                request = orders.placement_request(fresh, story.order)
                placements |= {p.server_id: p for p in await self._p.scheduler.select(request)}
        except NacreError as error:
            await asyncio.gather(*(self._fail(s, story, Timeline(self._p.clock), error.message) for s in fresh))
            servers = [s for s in servers if s.host]
        zones = await self._p.zones()
        builds = (_Build(self._p, story, s, placements[s.id], zones) for s in servers)
        ends = await asyncio.gather(*(build.run(self._room) for build in builds), return_exceptions=True)
        for end in ends:
            if isinstance(end, BaseException):
                raise end

    async def _resumed(self, server: Server) -> Placement:
        """After a crash the host of the last attempt is asked first: it may be nearly done. Its limits stand as they
        were granted: its own journal has the claim."""
        return Placement(server_id=server.id, host=server.host, limits=await self._limits(server.host),
                         why="goes on after a restart")

    async def _limits(self, host: str) -> HostLimits:
        for state in await self._p.scheduler.hosts():
            if (r := state.report).host == host:
                return HostLimits(vcpus=r.vcpus * r.cpu_ratio, disk_mb=r.disk_gb * 1024 * r.disk_ratio,
                                  memory_mb=r.memory_mb * r.ram_ratio - r.reserved_memory_mb)
        return _UNLIMITED

    async def _fail(self, server: Server, story: Story, timeline: Timeline, message: str) -> None:
        await fail(self._p, server, story, timeline, message)


async def fail(parts: Parts, server: Server, story: Story, timeline: Timeline, message: str) -> None:
    """No host is left: the ports go, and the server is in ERROR with the reason."""
    await parts.network.deallocate(server.id)
    await parts.progress.failed(server.id, Outcome(
        request_id=story.order.context.request_id, steps=tuple(timeline.steps), message=message))


class _Build:
    """One server of a build story."""

    def __init__(self, parts: Parts, story: Story, server: Server, placement: Placement, zones: Any):
        self._p, self._story, self._server, self._first, self._zones = parts, story, server, placement, zones
        self._timeline = Timeline(parts.clock)
        self._tried: list[str] = []
        #: The host that may have been sent a spawn and has not confirmed that nothing of it is left. After a crash
        #: that is the last one: what was sent to it is not known any more.
        self._unsettled: str | None = server.host or None

    async def run(self, room: asyncio.Semaphore) -> None:
        """Until ACTIVE, or ERROR with the reasons of every host that was tried."""
        async with room:
            try:
                await self._until_it_stands()
            except Superseded:
                log.info("build superseded", server=self._server.id)
            except NacreError as error:
                await fail(self._p, self._server, self._story, self._timeline, error.message)
            except Exception:
                log.exception("build failed unexpectedly", server=self._server.id)
                request_id = self._story.order.context.request_id
                await fail(self._p, self._server, self._story, self._timeline,
                           f"Unexpected error. Give the operator this request id: {request_id}")

    async def _until_it_stands(self) -> None:
        self._timeline.tell("schedule", self._first.why, self._first.host)
        with self._timeline.step("network.allocate"):
            await self._p.network.allocate(orders.ports_order(self._server, self._story.order))
        images = await self._images()
        reasons: list[str] = []
        placement: Placement | None = self._first
        while placement is not None:
            try:
                await self._attempt(placement, images)
                return
            except (Refused, BuildFailed, Unavailable) as error:
                reasons.append(error.message)
                log.warning("attempt failed", server=self._server.id, host=placement.host, why=error.message)
                self._tried.append(placement.host)
                if self._unsettled is not None:
                    raise NoValidHost(f"Host {self._unsettled} stopped answering while it started the server, so no "
                                      f"other host was tried: {error.message}") from None
                placement = await self._next(placement, reasons)
        raise NoValidHost(f"No valid host was found. {len(self._tried)} tried: " + "; ".join(reasons))

    async def _next(self, last: Placement, reasons: list[str]) -> Placement | None:
        """Another host, unless enough were tried (FLOW A13)."""
        if len(self._tried) >= self._p.patience.attempts:
            return None
        request = orders.placement_request([self._server], self._story.order, self._tried)
        try:
            found = (await self._p.scheduler.select(request))[0]
        except NoValidHost as error:
            reasons.append(error.message)
            return None
        self._timeline.tell("reschedule", found.why, found.host)
        return found

    async def _attempt(self, placement: Placement, images: tuple[ImageFacts | None, ...]) -> None:
        """One host, from the committed attempt to ACTIVE. Raises Refused, BuildFailed, Unavailable, Superseded."""
        server, host, hosts, patience = self._server, placement.host, self._p.hosts, self._p.patience
        epoch = await self._p.progress.attempt(server.id, host, self._zones.get(host, "nova"))
        if epoch is None:
            raise Superseded
        order = await self._order(epoch, placement, images)
        async with Undo() as undo:
            undo.add(self._take_back, placement, epoch)
            with self._timeline.step("claim", host):
                await hosts.ask(host, lambda node: node.claim(order), patience.before_spawn)
            ports, _ = await _together(self._bind(host), self._prepare(host, epoch))
            with self._timeline.step("spawn", host):
                self._unsettled = host
                networks = (await self._p.network.wiring(host, tuple(p.id for p in ports))).networks if ports else ()
                spawn = SpawnOrder(server_id=server.id, epoch=epoch, ports=ports, networks=networks)
                guest = await hosts.ask(host, lambda node: node.spawn(spawn), patience.after_spawn)
            self._timeline.add("host", guest.steps, host)
            outcome = Outcome(request_id=self._story.order.context.request_id, steps=tuple(self._timeline.steps),
                              power=guest.power)
            if not await self._p.progress.built(server.id, epoch, outcome):
                raise Superseded

    async def _bind(self, host: str) -> Any:
        with self._timeline.step("network.bind", host):
            return await self._p.network.bind(self._server.id, host)

    async def _prepare(self, host: str, epoch: int) -> None:
        with self._timeline.step("prepare", host):
            await self._p.hosts.ask(host, lambda node: node.prepare(self._server.id, epoch),
                                    self._p.patience.before_spawn)

    async def _take_back(self, placement: Placement, epoch: int) -> None:
        """Undo of an attempt: only when the host confirmed it is the attempt forgotten (else the sweep asks again)."""
        server, host = self._server, placement.host
        if self._story.id in self._p.lost:
            return
        attempts = await self._p.progress.attempts(server.id)
        if attempts[:1] == [Attempt(server_id=server.id, epoch=epoch, host=host)]:
            await self._p.network.unbind(server.id, host)
        await self._p.hosts.ask(host, lambda node: node.abort(server.id, epoch), self._p.patience.cleanup)
        await self._p.progress.undone(server.id, epoch, host)
        self._unsettled = None
        await self._p.scheduler.released(
            host, server.flavor.memory_mb, server.flavor.vcpus, orders.disk_mb(server))

    async def _order(self, epoch: int, placement: Placement, images: tuple[ImageFacts | None, ...]) -> BuildOrder:
        spec = self._story.order.spec
        _, _, guest = await self._p.progress.guest_facts(self._server.id)
        if spec is not None:
            guest = msgspec.structs.replace(guest, admin_password=spec.admin_password, files=spec.files)
        disk, kernel, ramdisk = images
        return orders.build_order(self._server, epoch, placement.limits, guest, (disk, kernel, ramdisk))

    async def _images(self) -> tuple[ImageFacts | None, ...]:
        ids: Sequence[str] = (self._server.image_id, self._server.kernel_id, self._server.ramdisk_id)
        return tuple([await self._p.images.find(self._story.order.context, i) if i else None for i in ids])


async def _together(*work: Awaitable[Any]) -> list[Any]:
    """All results; at the first error the others are cancelled and waited for, and that error is raised."""
    tasks = [asyncio.ensure_future(w) for w in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
