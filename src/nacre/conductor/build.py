"""The story of a build, top to bottom: hosts chosen, ports made, then host by host an attempt until one stands.

Each attempt is committed with a new epoch before its host hears of it. A refusal or failure takes back what that host
got and means the next host; silence means asking again. What a crash left is found by asking again too: every step of a
host answers from what is there. While the database is away nothing is decided: the story stops as by a crash.
"""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import msgspec
import structlog

from nacre.base.db import DatabaseUnavailable
from nacre.base.errors import BuildFailed, NacreError, NoValidHost, Refused, Unavailable
from nacre.base.undo import Undo
from nacre.compute.contract import Attempt, Group, Outcome, Place, Server, Story
from nacre.conductor import orders
from nacre.conductor.parts import Parts
from nacre.conductor.timeline import Timeline
from nacre.image.contract import ImageFacts
from nacre.network.contract import Plugged
from nacre.node.contract import BuildOrder, GuestFacts, SpawnOrder
from nacre.scheduler.contract import Placement

T = TypeVar("T")

log = structlog.get_logger()

#: An image with its kernel and ramdisk, where it has them.
ImageSet = tuple[ImageFacts | None, ImageFacts | None, ImageFacts | None]

class Superseded(Exception):
    """The server is not being built any more (deleted, or another runner has it): nothing is left to do here."""


class Builder:
    """Runs build stories."""

    def __init__(self, parts: Parts):
        self._p = parts
        self._room = asyncio.Semaphore(parts.patience.builds)

    async def tell(self, story: Story) -> None:
        """Build every server of the story that is not built yet."""
        there = await self._p.progress.load(story.order.server_ids)
        for server_id in set(story.order.server_ids) - {s.id for s in there}:
            await self._p.network.deallocate(server_id)  # deleted while this story was stopped in the middle
        servers = [s for s in there if s.vm_state == "building" and s.task_state != "deleting"]
        if not servers:
            return
        placements = {s.id: await self._resumed(s) for s in servers if s.host}
        fresh = [s for s in servers if not s.host]
        try:
            images, zones = await asyncio.gather(self._images(story, servers[0]), self._p.zones())
        except DatabaseUnavailable:
            raise
        except NacreError as error:
            await self._fail(servers, story, error.message)
            return
        try:
            if fresh:
                request = orders.placement_request(fresh, story.order, await group_of(self._p, fresh[0]))
                placements |= {p.server_id: p for p in await self._p.scheduler.select(request)}
        except DatabaseUnavailable:
            raise
        except NacreError as error:
            await self._fail(fresh, story, error.message, getattr(error, "details", ""))
            servers = [s for s in servers if s.host]
        for server in [s for s in servers if not placements[s.id].host]:  # more than min_count, and no room for them
            nowhere = placements[server.id]
            await self._fail([server], story, nowhere.why, nowhere.details)
            servers.remove(server)
        asked = _Asked(self._p, story, zones, images)
        builds = (_Build(asked, s, placements[s.id]) for s in servers)
        ends = await asyncio.gather(*(build.run(self._room) for build in builds), return_exceptions=True)
        for end in ends:
            if isinstance(end, BaseException):
                raise end

    async def _resumed(self, server: Server) -> Placement:
        """After a crash the host of the last attempt is asked first: it may be nearly done. Its limits stand as they
        were granted: its own journal has the claim."""
        return Placement(server_id=server.id, host=server.host, selected_dir=server.selected_dir,
                         limits=await self._p.scheduler.limits(server.host, server.selected_dir),
                         why="goes on after a restart")

    async def _images(self, story: Story, server: Server) -> ImageSet:
        """The story's servers have one image, with its kernel and ramdisk."""
        async def find(image_id: str | None) -> ImageFacts | None:
            return await self._p.images.find(story.order.context, image_id) if image_id else None

        return await find(server.image_id), await find(server.kernel_id), await find(server.ramdisk_id)

    async def _fail(self, servers: Sequence[Server], story: Story, message: str, details: str = "") -> None:
        for server in servers:
            timeline = Timeline(self._p.clock)
            timeline.failed("schedule", "; ".join(filter(None, (message, details))))
            await fail(self._p, server, story, timeline, Words(message, details))


class Words(NamedTuple):
    """Why a server was not built: for its user, and for administrators."""

    message: str
    details: str = ""


async def fail(parts: Parts, server: Server, story: Story, timeline: Timeline, why: Words) -> None:
    """No host is left: the ports go, and the server is in ERROR with the reason."""
    log.warning("server not built", server=server.id, why=why.message, details=why.details,
                request_id=story.order.context.request_id)
    await parts.network.deallocate(server.id)
    await parts.progress.failed(server.id, Outcome(
        request_id=story.order.context.request_id, steps=tuple(timeline.steps), message=why.message,
        details=why.details))


async def group_of(parts: Parts, server: Server) -> Group | None:
    """The wish of the server's group, if it has one."""
    return await parts.progress.group(server.group_id) if server.group_id else None


@dataclass(frozen=True)
class _Asked:
    """What the servers of one story have in common. zones: host -> availability zone."""

    parts: Parts
    story: Story
    zones: Mapping[str, str]
    images: ImageSet


class _Build:
    """One server of a build story."""

    def __init__(self, asked: _Asked, server: Server, placement: Placement):
        self._asked, self._server, self._last = asked, server, placement
        self._p, self._story = asked.parts, asked.story
        self._timeline = Timeline(self._p.clock)
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
                await self._give_way()
            except DatabaseUnavailable:
                raise
            except NacreError as error:
                await fail(self._p, self._server, self._story, self._timeline,
                           Words(error.message, getattr(error, "details", "")))
            except Exception:
                log.exception("build failed unexpectedly", server=self._server.id)
                request_id = self._story.order.context.request_id
                await fail(self._p, self._server, self._story, self._timeline,
                           Words(f"Unexpected error. Give the operator this request id: {request_id}"))

    async def _until_it_stands(self) -> None:
        self._timeline.tell("schedule", self._last.why, self._last.host)
        reasons: list[str] = []
        placement: Placement | None = self._last
        while placement is not None:
            self._last = placement
            try:
                await self._attempt(placement)
                return
            except DatabaseUnavailable:
                raise
            except (Refused, BuildFailed, Unavailable) as error:
                reasons.append(error.message)
                log.warning("attempt failed", server=self._server.id, host=placement.host, why=error.message)
                self._tried.append(placement.host)
                if self._unsettled is not None:
                    raise NoValidHost(f"Host {self._unsettled} stopped answering while it started the server, so no "
                                      f"other host was tried: {error.message}") from None
                placement = await self._next(placement, reasons)
        raise NoValidHost(f"No valid host was found. {len(self._tried)} tried: " + "; ".join(reasons))

    async def _give_way(self) -> None:
        """The delete that came in between may have looked for the server's ports before they were made."""
        log.info("build superseded", server=self._server.id)
        left = await self._p.progress.load((self._server.id,))
        if not left or left[0].task_state == "deleting":
            last = self._last
            if last.host not in {a.host for a in await self._p.progress.attempts(self._server.id)}:
                # No delete knows of a host that was only chosen.
                await self._p.scheduler.released(
                    last.host, self._server.id, orders.taken(self._server, last.selected_dir))
            await self._p.network.deallocate(self._server.id)

    async def _next(self, last: Placement, reasons: list[str]) -> Placement | None:
        """Another host, unless enough were tried (FLOW A13)."""
        if len(self._tried) >= self._p.patience.attempts:
            return None
        try:
            group = await group_of(self._p, self._server)
            request = orders.placement_request([self._server], self._story.order, group, self._tried)
            found = (await self._p.scheduler.select(request))[0]
        except NoValidHost as error:
            reasons.append(error.message)
            return None
        self._timeline.tell("reschedule", found.why, found.host)
        return found

    async def _attempt(self, placement: Placement) -> None:
        """One host, from the committed attempt to ACTIVE. Raises Refused, BuildFailed, Unavailable, Superseded."""
        server, host, hosts, patience = self._server, placement.host, self._p.hosts, self._p.patience
        placed = await self._p.progress.attempt(server.id, Place(
            host=host, zone=self._asked.zones.get(host, "nova"), selected_dir=placement.selected_dir))
        if placed is None:
            raise Superseded
        epoch, guest = placed
        order = orders.build_order(server, epoch, placement, self._told(guest), self._asked.images)
        async with Undo(but=DatabaseUnavailable) as undo:
            undo.add(self._take_back, placement, epoch)
            plugged = await _beside(self._plug(host), self._claim_and_prepare(host, order))
            with self._timeline.step("spawn", host):
                self._unsettled = host
                spawn = SpawnOrder(server_id=server.id, epoch=epoch, ports=plugged.ports, networks=plugged.networks)
                built = await hosts.ask(host, lambda node: node.spawn(spawn), patience.after_spawn)
            self._timeline.add("host", built.steps, host)
            outcome = Outcome(request_id=self._story.order.context.request_id, steps=tuple(self._timeline.steps),
                              power=built.power)
            if not await self._p.progress.built(server.id, epoch, outcome):
                raise Superseded
        log.info("server built", server=server.id, host=host, request_id=outcome.request_id)

    async def _plug(self, host: str) -> Plugged:
        with self._timeline.step("network.plug", host):
            return await self._p.network.plug(orders.ports_order(self._server, self._story.order), host)

    async def _claim_and_prepare(self, host: str, order: BuildOrder) -> None:
        with self._timeline.step("claim", host):
            await self._p.hosts.ask(host, lambda node: node.claim(order), self._p.patience.before_spawn)
        with self._timeline.step("prepare", host):
            await self._p.hosts.ask(host, lambda node: node.prepare(order.server_id, order.epoch),
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
        await self._p.scheduler.released(host, server.id, orders.taken(server, placement.selected_dir))

    def _told(self, guest: GuestFacts) -> GuestFacts:
        """What only the order knows: the password and files of the create."""
        spec = self._story.order.spec
        return guest if spec is None else msgspec.structs.replace(
            guest, admin_password=spec.admin_password, files=spec.files)


async def _beside(network: Coroutine[Any, Any, T], host: Coroutine[Any, Any, None]) -> T:
    """The network's result once both are done. When the network fails the host is not waited for; when the host does,
    the network is: its transaction may be on its way, and what undoes it must come after."""
    plugging, preparing = asyncio.ensure_future(network), asyncio.ensure_future(host)
    try:
        await asyncio.wait((plugging, preparing), return_when=asyncio.FIRST_EXCEPTION)
        if plugging.done():
            plugging.result()
        await preparing
        return await plugging
    finally:
        preparing.cancel()
        await asyncio.gather(plugging, preparing, return_exceptions=True)
