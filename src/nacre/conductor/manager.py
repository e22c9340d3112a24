"""The conductor's endpoint: nudges in, stories run, and the sweep that needs no nudge."""

import asyncio
from collections.abc import Callable
from typing import Any

import structlog

from nacre.base.crash import point
from nacre.base.db import DatabaseUnavailable
from nacre.base.errors import Forbidden, NacreError, NotFound
from nacre.base.rpc.server import peer
from nacre.compute.contract import Server, Stories, Story, StoryOrder
from nacre.conductor import orders
from nacre.conductor.build import Builder, group_of
from nacre.conductor.contract import NodeHello
from nacre.conductor.delete import Deleter
from nacre.conductor.parts import Parts
from nacre.conductor.power import Switch
from nacre.node.contract import GuestFacts
from nacre.scheduler.contract import Amounts, HostReport, Placement

log = structlog.get_logger()

#: What a leftover had: room that was only promised is free again, of more the host's next report tells.
UNKNOWN = Amounts(memory_mb=0, vcpus=0, disk_mb=0)

#: Seconds between two looks for stories that nobody runs, and between two renewals of a lease.
SWEEP, RENEW = 2.0, 10.0


class ConductorManager:
    """Implements `Conductor`. introduce: tells the transport where a node that said hello listens."""

    def __init__(self, parts: Parts, stories: Stories, introduce: Callable[[NodeHello], None] = lambda hello: None):
        self._p, self._stories, self._introduce = parts, stories, introduce
        self._kinds = {"build": Builder(parts).tell, "delete": Deleter(parts).tell, "power": Switch(parts).tell}
        self._running: set[asyncio.Task[None]] = set()
        self._told: set[str] = set()

    async def start(self) -> None:
        """What this process held before it died is taken up again at once."""
        await self._stories.take_back()
        await self._wake()

    async def sweep(self) -> None:
        """For ever: run what nobody runs, and take back what hosts still have of attempts that are over."""
        while True:
            await self._p.clock.sleep(SWEEP)
            await self._wake()
            await self._leftovers()

    async def stop(self) -> None:
        """Stories in the middle are left as they are; their rows tell the next start."""
        tasks = list(self._running)
        self._p.lost.update(self._told)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- the contract ----------------------------------------------------------------------------------------

    async def run(self, story_id: str) -> None:
        task = asyncio.ensure_future(self._tell(story_id))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def plan(self, order: StoryOrder, servers: tuple[Server, ...]) -> tuple[Placement, ...]:
        group = await group_of(self._p, servers[0])
        return await self._p.scheduler.plan(orders.placement_request(servers, order, group))

    async def hello(self, hello: NodeHello) -> tuple[str, ...]:
        _only(hello.host)
        self._introduce(hello)
        await self._p.scheduler.report(hello.report)
        strangers = await self._p.progress.strangers(hello.host, {g.server_id: g.epoch for g in hello.guests})
        self._p.hosts.greeted(hello.host)
        unwanted = {s.server_id for s in strangers}
        for guest in hello.guests:
            if guest.server_id not in unwanted and guest.claimed:
                await self._p.progress.noticed(guest.server_id, hello.host, guest.power)
        return tuple(sorted(unwanted))

    async def report(self, report: HostReport) -> None:
        _only(report.host)
        await self._p.scheduler.report(report)

    async def power_changed(self, host: str, server_id: str, power: str) -> None:
        _only(host)
        await self._p.progress.noticed(server_id, host, power)

    async def guest_facts(self, host: str, server_id: str) -> GuestFacts:
        _only(host)
        where, _, facts = await self._p.progress.guest_facts(server_id)
        if where != host:
            raise NotFound(f"Instance {server_id} could not be found.")
        return facts

    # -- stories ---------------------------------------------------------------------------------------------

    async def _wake(self) -> None:
        for story_id in await self._stories.waiting(self._told):
            await self.run(story_id)

    async def _tell(self, story_id: str) -> None:
        if story_id in self._told:
            return
        self._told.add(story_id)
        try:
            story = await self._stories.take(story_id)
            if story is not None:
                await self._run(story)
        except DatabaseUnavailable:
            return  # the sweep finds it
        finally:
            self._told.discard(story_id)

    async def _run(self, story: Story) -> None:
        point("control story taken")
        self._p.lost.discard(story.id)
        work: asyncio.Future[Any] = asyncio.ensure_future(self._kinds[story.kind](story))
        keeper = asyncio.ensure_future(self._keep(story, work))
        try:
            await work
            point("control story told")
            await self._stories.finish(story)
        except asyncio.CancelledError:
            work.cancel()
            raise
        except DatabaseUnavailable as error:
            log.warning("a story stopped; the sweep will take it up", story=story.id, why=error.message)
            await self._let_go(story)
        except Exception:
            log.exception("a story stopped; the sweep will take it up", story=story.id, kind=story.kind)
            await self._let_go(story)
        finally:
            keeper.cancel()

    async def _let_go(self, story: Story) -> None:
        """Until the database took it: else nobody would go on before the lease runs out."""
        while True:
            await self._p.clock.sleep(SWEEP)
            try:
                await self._stories.release(story)
            except DatabaseUnavailable:
                continue
            return

    async def _keep(self, story: Story, work: "asyncio.Future[Any]") -> None:
        """Renew the lease; a runner that lost it stops at once (its epoch is fenced anyway)."""
        while True:
            await self._p.clock.sleep(RENEW)
            try:
                held = await self._stories.renew(story)
            except NacreError as error:
                log.warning("a lease could not be renewed", story=story.id, why=error.message)
                continue
            if not held:
                log.warning("lost the lease of a story", story=story.id)
                self._p.lost.add(story.id)
                work.cancel()
                return

    async def _leftovers(self) -> None:
        """Attempts that are over, but whose host has not confirmed it: ask hosts that are up."""
        left = await self._p.progress.leftovers()
        if not left:
            return
        up = {s.report.host for s in await self._p.scheduler.hosts() if s.up}
        for attempt in left:
            if attempt.host not in up:
                continue
            try:
                await self._p.hosts.ask(
                    attempt.host, lambda node, a=attempt: node.abort(a.server_id, a.epoch), 0.0)  # type: ignore[misc]
                await self._p.progress.undone(attempt.server_id, attempt.epoch, attempt.host)
                await self._p.scheduler.released(attempt.host, attempt.server_id, UNKNOWN)
            except NacreError as error:
                log.info("a leftover is not confirmed yet", server=attempt.server_id, host=attempt.host,
                         why=error.message)


def _only(host: str) -> None:
    """A node may speak for itself only. Raises Forbidden."""
    caller = peer()
    if caller is not None and caller.role == "node" and caller.name != host:
        raise Forbidden(f"Node {caller.name} may not speak for {host}.")
