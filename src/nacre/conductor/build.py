"""The story of a build, top to bottom: hosts chosen, ports made, then host by host an attempt until one stands.

Each attempt is committed as an allocation before its host hears of it. A refusal or failure takes back what that host
got and means the next host; silence means asking again. What a crash left is found by asking again too: every step of a
host answers from what is there. Whoever lost the story's lease changes nothing and takes nothing back.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import msgspec
import structlog

from nacre.base.durable.stories import Lease
from nacre.base.errors import (
    BuildFailed,
    NacreError,
    NoValidHost,
    Refused,
    Unavailable,
    Waiting,
    Words,
    words_of,
)
from nacre.base.undo import Undo
from nacre.compute.contract import Group, Outcome, Place, Server, StoryOrder
from nacre.conductor import orders
from nacre.conductor.deps import StoryDeps
from nacre.conductor.endings import Endings
from nacre.conductor.events import ActionEvents
from nacre.conductor.hosts import IMPATIENT, Silence, Slot
from nacre.conductor.orders import Attempt
from nacre.image.contract import ImageFacts
from nacre.network.contract import Plugged
from nacre.node.contract import GuestFacts
from nacre.scheduler.contract import Allocation, Placement, PlacementRequest, TooEarly

T = TypeVar("T")

log = structlog.get_logger()

#: An image with its kernel and ramdisk, where it has them.
ImageSet = tuple[ImageFacts | None, ImageFacts | None, ImageFacts | None]
#: Those of these servers about which nothing may be done now: id -> the host that may have it.
BarredOn = Callable[[Collection[str]], Awaitable[Mapping[str, str]]]
#: Seconds until the scheduler is asked again that waits for hosts to say that they live.
TOO_EARLY = 0.5


class Superseded(Exception):
    """The server is not being built any more (it was deleted): nothing is left to do here."""


@dataclass(frozen=True)
class _Story:
    """What the servers of one story have in common. room: that of all builds of this process; zones: host ->
    availability zone."""

    lease: Lease
    order: StoryOrder
    room: asyncio.Semaphore
    zones: Mapping[str, str]
    images: ImageSet


class Builder:
    """Runs build stories. barred_on: servers that wait until an operator decides; the others of their story do not."""

    def __init__(self, deps: StoryDeps, endings: Endings, barred_on: BarredOn):
        self._deps, self._endings, self._barred_on = deps, endings, barred_on
        self._room = asyncio.Semaphore(deps.builds)

    async def run(self, lease: Lease, order: StoryOrder) -> None:
        """Build every server of the story that is not built yet. Raises Waiting: some may not be touched now."""
        claimed = await self._barred_on(order.server_ids)
        ours = [id for id in order.server_ids if id not in claimed]
        there = await self._deps.progress.load(ours)
        for server_id in set(ours) - {s.id for s in there}:  # deleted while this story was stopped
            if not await self._deps.ledger.of_server(server_id):  # else the last that a host confirms frees its ports
                await self._deps.network.deallocate(server_id, lease)
        servers = [s for s in there if s.vm_state == "building" and s.task_state != "deleting"]
        try:
            images, zones = await asyncio.gather(self._images(order, servers), self._deps.zones())
            placements = await self._place(order, servers)
        except NacreError as error:
            await self._fail(lease, order, servers, words_of(error))
            return await self._finish(lease, claimed)
        story = _Story(lease, order, self._room, zones, images)
        builds = [_Build(self._deps, self._endings, story, server) for server in servers]
        ends = await asyncio.gather(*(
            build.run(placements[build.server.id], last=len(order.server_ids) == 1) for build in builds),
            return_exceptions=True)
        for end in ends:
            if isinstance(end, BaseException):
                raise end
        if claimed or not all(ends) or not ends:
            await self._finish(lease, claimed)

    async def give_up(self, lease: Lease, order: StoryOrder, why: str) -> None:
        """Those that are not built end in ERROR; what hosts have of them is taken back. Raises Waiting, as `run`."""
        claimed = await self._barred_on(order.server_ids)
        servers = [s for s in await self._deps.progress.load([id for id in order.server_ids if id not in claimed])
                   if s.vm_state == "building" and s.task_state != "deleting"]
        await self._fail(lease, order, servers, Words(why))
        await self._finish(lease, claimed)

    async def _finish(self, lease: Lease, claimed: Mapping[str, str]) -> None:
        """The story is over, unless some of its servers wait."""
        for server_id, host in claimed.items():
            raise Waiting(f"Host {host} may have server {server_id}, and takes no orders.")
        await self._deps.progress.finish(lease)

    async def _place(self, order: StoryOrder, servers: Sequence[Server]) -> dict[str, Placement]:
        """A host for each server. After a crash the host of the last attempt is asked first: it may be nearly done."""
        placements = {s.id: found for s in servers if (found := await self._resumed(s)) is not None}
        if fresh := [s for s in servers if s.id not in placements]:
            request = orders.placement_request(
                fresh, order, await group_of(self._deps, fresh[0]), known=await known_to(self._deps, order, fresh[0]))
            placements |= {p.server_id: p for p in await select(self._deps, request)}
        return placements

    async def _resumed(self, server: Server) -> Placement | None:
        """Limits stand as they were granted: the host's own journal has the claim."""
        last = next((a for a in await self._deps.ledger.of_server(server.id) if a.state == "wanted"), None)
        return None if last is None else Placement(
            server_id=server.id, host=last.host, allocation=last.id, selected_dir=last.amounts.disk,
            limits=await self._deps.scheduler.limits(last.host, last.amounts.disk), why="goes on after a restart")

    async def _images(self, order: StoryOrder, servers: Sequence[Server]) -> ImageSet:
        """The story's servers have one image, with its kernel and ramdisk."""
        async def find(image_id: str | None) -> ImageFacts | None:
            return await self._deps.images.find(order.context, image_id) if image_id else None

        if not servers:
            return None, None, None
        first = servers[0]
        return await find(first.image_id), await find(first.kernel_id), await find(first.ramdisk_id)

    async def _fail(self, lease: Lease, order: StoryOrder, servers: Sequence[Server], why: Words) -> None:
        for server in servers:
            for allocation in await self._deps.ledger.of_server(server.id):  # of an earlier runner's attempt
                await self._deps.ledger.give_up(lease, allocation)
            events = ActionEvents(self._deps.clock)
            events.failed("schedule", "; ".join(filter(None, why)))
            await fail(self._deps, lease, Outcome(
                server_id=server.id, request_id=order.context.request_id, steps=tuple(events.steps),
                message=why.message, details=why.details))


async def fail(deps: StoryDeps, lease: Lease, outcome: Outcome) -> None:
    """No host is left: the server is in ERROR with the reason, and its ports go, unless a host may still have it."""
    log.warning("server not built", server=outcome.server_id, why=outcome.message, details=outcome.details,
                request_id=outcome.request_id)
    if freed := not await deps.ledger.of_server(outcome.server_id):
        await deps.network.deallocate(outcome.server_id, lease)
    await deps.progress.failed(lease, outcome, freed=freed)


async def group_of(deps: StoryDeps, server: Server) -> Group | None:
    """The wish of the server's group, if it has one."""
    return await deps.progress.group(server.group_id) if server.group_id else None


async def known_to(deps: StoryDeps, order: StoryOrder, server: Server) -> frozenset[str]:
    """Of the servers that the server's hints name those of its own project; for an administrator all. Who may name
    others' would learn that they are there, and choose whose neighbour to be."""
    if not (named := orders.named(server)) or order.context.is_admin:
        return frozenset(named)
    return frozenset(s.id for s in await deps.progress.load(named) if s.project_id == server.project_id)


async def select(deps: StoryDeps, request: PlacementRequest) -> tuple[Placement, ...]:
    """As the scheduler's, but nobody is refused before every host had the chance to say that it lives."""
    while True:
        try:
            return await deps.scheduler.select(request)
        except TooEarly:
            await deps.clock.sleep(TOO_EARLY)


class _Build:
    """One server of a build story."""

    def __init__(self, deps: StoryDeps, endings: Endings, story: _Story, server: Server):
        self._deps, self._endings, self._story, self.server = deps, endings, story, server
        self._events = ActionEvents(deps.clock)
        self._slot = Slot(story.room)
        #: Where a guest may be, no other host is tried: others build meanwhile.
        self._patient = Silence(deps.hosts.patience.silence, self._slot)
        self._tried: list[str] = []
        #: The host that may have been sent a spawn and has not confirmed that nothing of it is left.
        self._unsettled = ""
        self._wanted = True

    async def run(self, first: Placement, *, last: bool) -> bool:
        """Until ACTIVE, or ERROR with the reasons of every host that was tried. last: the story ends with this server.
        Whether it did."""
        try:
            await self._slot.take()
            if not first.host:  # more than min_count, and no room for it
                raise NoValidHost(first.why, details=first.details)
            await self._until_it_stands(first, last=last)
            return last
        except Superseded:
            await self._give_way()
        except NacreError as error:
            await fail(self._deps, self._story.lease, self._outcome(message=error.message, details=error.details))
        finally:
            self._slot.leave()
        return False

    async def _give_way(self) -> None:
        """To a delete, which may have looked for ports before they were made."""
        log.info("build superseded", server=self.server.id)
        if not await self._deps.ledger.of_server(self.server.id):
            await self._deps.network.deallocate(self.server.id, self._story.lease)

    async def _until_it_stands(self, first: Placement, *, last: bool) -> None:
        self._events.record("schedule", first.why, first.host)
        reasons: list[Words] = []
        placement: Placement | None = first
        while placement is not None:
            try:
                return await self._attempt(placement, last=last)
            except (Refused, BuildFailed, Unavailable) as error:
                reasons.append(words_of(error))
                log.warning("attempt failed", server=self.server.id, host=placement.host, why=str(error))
                self._tried.append(placement.host)
                if not self._wanted:
                    raise Superseded from None
                if self._unsettled:
                    why = "The host stopped answering while it started the server" if isinstance(error, Unavailable) \
                        else f"{error.message.rstrip('.')}; it has not yet taken back what it had begun"
                    raise NoValidHost(f"{why}, so no other host was tried.",
                                      details=f"{self._unsettled}: {error}") from None
                placement = await self._next(reasons)
        told = "; ".join(dict.fromkeys(why.message for why in reasons))
        raise NoValidHost(f"No valid host was found. {len(self._tried)} tried: {told}",
                          details="; ".join(why.details for why in reasons if why.details))

    async def _next(self, reasons: list[Words]) -> Placement | None:
        """Another host, unless enough were tried (FLOW A13)."""
        if len(self._tried) >= self._deps.attempts:
            return None
        try:
            request = orders.placement_request(
                [self.server], self._story.order, await group_of(self._deps, self.server), self._tried,
                await known_to(self._deps, self._story.order, self.server))
            found = (await select(self._deps, request))[0]
        except NoValidHost as error:
            reasons.append(words_of(error))
            return None
        self._events.record("reschedule", found.why, found.host)
        return found

    async def _attempt(self, placement: Placement, *, last: bool) -> None:
        """One host, from the committed allocation to ACTIVE. Raises Refused, BuildFailed, Unavailable, Superseded."""
        host, story = placement.host, self._story
        allocation, guest = await self._allocate(placement)
        attempt = Attempt(cloud=self._deps.cloud(), server=self.server, allocation=allocation, limits=placement.limits,
                          guest=guest, images=story.images, spec=story.order.spec)
        async with Undo(but=asyncio.CancelledError) as undo:
            undo.add(self._take_back, allocation)
            plugged = await self._ready(attempt)
            with self._events.step("spawn", host):
                self._unsettled = host
                order = orders.spawn_order(attempt, plugged)
                built = await self._deps.hosts.order(host, lambda node: node.spawn(order), self._patient)
            self._events.add("host", built.steps if built else (), host)
            outcome = self._outcome(guest=built)
            if not await self._deps.progress.built(story.lease, allocation, outcome, last=last):
                self._wanted = False
                raise Superseded
        log.info("server built", server=self.server.id, host=host, request_id=outcome.request_id)

    async def _allocate(self, placement: Placement) -> tuple[Allocation, GuestFacts]:
        """Written down before the host hears of it. Where that fails its room is free again here at once: another
        runner may choose another host. Should it be written down all the same, the outbox says so."""
        made: tuple[Allocation, GuestFacts] | None = None
        try:
            if not self._tried:
                await self._settle()
            await self._slot.take()
            made = await self._resume(placement) or await self._deps.ledger.allocate(
                self._story.lease, self.server.id, Place(
                    allocation=placement.allocation, host=placement.host,
                    zone=self._story.zones.get(placement.host, "nova"), amounts=msgspec.structs.replace(
                        orders.amounts(self.server), disk=placement.selected_dir)))
        finally:
            if made is None:
                await self._deps.scheduler.withdrawn(self.server.id)
        if made is None:
            raise Superseded
        return made

    async def _settle(self) -> None:
        """An attempt that an earlier runner gave up last may have been sent a spawn, nobody knows: its host confirms
        that nothing of it is left before another is tried, or an operator says that it is gone for good. Of those
        before it that runner knew."""
        last = max(await self._deps.ledger.of_server(self.server.id), key=lambda each: each.epoch, default=None)
        if last is not None and last.state == "ending":
            async def ended(id: str = last.id) -> bool:
                return not await self._deps.ledger.of([id])

            self._unsettled = last.host
            await self._endings.end(last, replace(self._patient, over=ended))
            self._unsettled = ""

    async def _resume(self, placement: Placement) -> tuple[Allocation, GuestFacts] | None:
        """One that an earlier runner wrote goes on; what was sent to its host is not known any more."""
        for allocation in await self._deps.ledger.of_server(self.server.id) if self.server.epoch else ():
            if allocation.id == placement.allocation:
                self._unsettled = allocation.host
                return allocation, await self._deps.progress.guest_facts(allocation.host, self.server.id)
        return None

    async def _ready(self, attempt: Attempt) -> Plugged:
        """Ports and host, side by side; but a host that may have the guest is heard first. It has the same patience as
        in the middle of a start, and its ports would not be bound while it is silent."""
        host = attempt.allocation.host
        if not self._unsettled:
            return await _beside(self._plug(host), self._prepare(attempt))
        await self._prepare(attempt, self._patient)
        return await self._plug(host)

    async def _plug(self, host: str) -> Plugged:
        with self._events.step("network.plug", host):
            order = orders.ports_order(self.server, self._story.order, self._story.lease)
            return await self._deps.network.plug(order, host)

    async def _prepare(self, attempt: Attempt, silence: Silence = IMPATIENT) -> None:
        order = orders.build_order(attempt)
        with self._events.step("prepare", attempt.allocation.host):
            await self._deps.hosts.order(attempt.allocation.host, lambda node: node.prepare(order), silence)

    async def _take_back(self, allocation: Allocation) -> None:
        """Undo of an attempt. Where the host does not confirm it the sweep goes on asking."""
        self._wanted = await self._deps.ledger.give_up(self._story.lease, allocation) and self._wanted
        try:
            await self._endings.end(allocation)
        except (NacreError, Waiting) as error:
            if self._unsettled and isinstance(error, Waiting):
                raise  # whether it runs there is known when it is known which state of the database is right
            log.warning("a failed attempt is not confirmed as gone yet", server=self.server.id, host=allocation.host,
                        why=str(error))
        else:
            self._unsettled = ""

    def _outcome(self, **how: Any) -> Outcome:
        return Outcome(server_id=self.server.id, request_id=self._story.order.context.request_id,
                       steps=tuple(self._events.steps), **how)


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
