"""The story of a delete: end what every host has or may have of the server, then its ports, then its row.

A host that is silent does not hold a delete up: the server is gone for its user, its addresses and its room stay taken
until the host confirmed that nothing of it runs any more (`endings.py`).
"""

import asyncio
from collections.abc import Sequence

import structlog

from nacre.base.durable.stories import Lease
from nacre.base.errors import NacreError, NotFound, Waiting
from nacre.compute.contract import Outcome, StoryOrder
from nacre.conductor.deps import StoryDeps
from nacre.conductor.endings import Endings
from nacre.conductor.events import ActionEvents
from nacre.scheduler.contract import Allocation

log = structlog.get_logger()


class Deleter:
    """Runs delete stories."""

    def __init__(self, deps: StoryDeps, endings: Endings):
        self._deps, self._endings = deps, endings

    async def run(self, lease: Lease, order: StoryOrder) -> None:
        """Delete the story's server, whatever state it is in."""
        (server_id,), events = order.server_ids, ActionEvents(self._deps.clock)
        try:
            allocations = await self._deps.ledger.end_all(lease, server_id)
        except NotFound:
            return await self._deps.progress.finish(lease)
        gone = [done for done in await asyncio.gather(*(self._leave(a, events) for a in allocations)) if done]
        if len(gone) < len(allocations):  # the ports go with the last that is confirmed: each row reminds of them
            return await self._end(lease, order, events, ())
        with events.step("network.deallocate"):
            await self._deps.network.deallocate(server_id, lease)
        await self._end(lease, order, events, gone)

    async def give_up(self, lease: Lease, order: StoryOrder, why: str) -> None:
        """The server goes for its user; the sweep ends what hosts have."""
        events = ActionEvents(self._deps.clock)
        events.failed("delete", why)
        try:
            if not await self._deps.ledger.end_all(lease, order.server_ids[0]):
                await self._deps.network.deallocate(order.server_ids[0], lease)
        except NotFound:
            return await self._deps.progress.finish(lease)
        await self._end(lease, order, events, ())

    async def _end(self, lease: Lease, order: StoryOrder, events: ActionEvents, gone: Sequence[Allocation]) -> None:
        (server_id,) = order.server_ids
        await self._deps.progress.deleted(lease, Outcome(
            server_id=server_id, request_id=order.context.request_id, steps=tuple(events.steps)), gone)
        for allocation in gone:
            await self._deps.scheduler.released(allocation.id)
        log.info("server deleted", server=server_id, request_id=order.context.request_id)

    async def _leave(self, allocation: Allocation, events: ActionEvents) -> Allocation | None:
        """The allocation, if its host confirmed that nothing of it is left."""
        try:
            with events.step("destroy", allocation.host):
                await self._endings.leave(allocation)
        except (NacreError, Waiting) as error:
            log.warning("host did not confirm a delete", server=allocation.server_id, host=allocation.host,
                        why=str(error))
            return None
        return allocation
