"""How an allocation ends: its host gives up what it has, its ports follow, and only then its row goes. Stories begin
it; what they could not finish, because a host was silent or a process died, the sweep does."""

import asyncio
from collections.abc import Iterable

import structlog

from nacre.base.errors import Conflict, Interrupted, NacreError
from nacre.conductor.deps import StoryDeps
from nacre.conductor.hosts import IMPATIENT, Silence
from nacre.node.contract import EndOrder
from nacre.scheduler.contract import Allocation

log = structlog.get_logger()

#: Seconds between two looks for what hosts have yet to confirm; what is found twice is nobody's at present.
SWEEP = 2.0
#: Endings under way at once at one host.
AT_ONCE = 20


class Endings:
    """The endings of allocations."""

    def __init__(self, deps: StoryDeps):
        self._deps, self._clock = deps, deps.clock
        self._busy: set[str] = set()
        self._seen: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._places: dict[str, asyncio.Semaphore] = {}

    async def leave(self, allocation: Allocation, silence: Silence = IMPATIENT) -> None:
        """The host has nothing of it any more. Raises as `Hosts.order`."""
        order = EndOrder(cloud=self._deps.cloud(), allocation=allocation.id, server_id=allocation.server_id,
                         epoch=allocation.epoch)
        self._busy.add(allocation.id)
        try:
            await self._deps.hosts.order(allocation.host, lambda node: node.end(order), silence)
        finally:
            self._busy.discard(allocation.id)

    async def end(self, allocation: Allocation, silence: Silence = IMPATIENT) -> None:
        """As `leave`, with its ports and its row. Raises Interrupted."""
        await self.leave(allocation, silence)
        await self._close(allocation)

    async def bury(self, host: str) -> list[Allocation]:
        """An operator says that the host is gone for good: what was ending there has ended. What has not yet, as its
        server is being deleted at this moment. Raises Interrupted."""
        for allocation in await self.ending(host):
            await self._close(allocation)
        return await self.ending(host)

    async def ending(self, host: str) -> list[Allocation]:
        """What the host has yet to confirm as gone."""
        return [allocation for allocation in await self._deps.ledger.ending() if allocation.host == host]

    async def _close(self, allocation: Allocation) -> None:
        """Its host has nothing of it any more."""
        try:
            freed = await self._free_ports(allocation)
            await self._deps.ledger.ended(allocation, freed=freed)
        except Conflict as error:
            log.info("an allocation cannot go yet", server=allocation.server_id, why=str(error))
            return  # the sweep looks again
        await self._deps.scheduler.released(allocation.id)

    async def _free_ports(self, allocation: Allocation) -> bool:
        """Whether they are gone, and not only unbound."""
        server_id, host, ledger = allocation.server_id, allocation.host, self._deps.ledger
        if await ledger.is_over(allocation):
            await self._deps.network.deallocate(server_id, ledger.over(allocation))
            return True
        if not any(other.host == host and other.id != allocation.id for other in await ledger.of_server(server_id)):
            await self._deps.network.unbind(server_id, host, ledger.alone(allocation))
        return False

    async def sweep(self) -> None:
        """For ever."""
        while True:
            await self._clock.sleep(SWEEP)
            await self.look()

    async def look(self) -> None:
        """Go on with what nobody is at, where hosts live."""
        ending = await self._deps.ledger.ending()
        self.begin(allocation for allocation in ending if allocation.id in self._seen)
        self._seen = {allocation.id for allocation in ending}

    def begin(self, ending: Iterable[Allocation]) -> None:
        """Go on with these, each host's beside the others'."""
        for allocation in ending:
            if allocation.id not in self._busy:
                self._busy.add(allocation.id)
                task = asyncio.ensure_future(self._go_on(allocation))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """What is under way is found by its rows."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _go_on(self, allocation: Allocation) -> None:
        place = self._places.setdefault(allocation.host, asyncio.Semaphore(AT_ONCE))
        try:
            async with place:
                state = await self._deps.registry.get(allocation.host)
                if state is not None and state.up and not state.barred:
                    await self.end(allocation)
        except (NacreError, Interrupted) as error:
            log.info("an allocation has not ended yet", server=allocation.server_id, host=allocation.host,
                     why=str(error))
        finally:
            self._busy.discard(allocation.id)

