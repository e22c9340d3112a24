"""Runs stories: those that this process accepted, and those that nobody runs. A story that stops because the database
is away or another has it is found by its row; one that always fails ends with its reason after some tries."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Protocol

import msgspec
import structlog

from nacre.base.clock import Clock
from nacre.base.crash import point
from nacre.base.durable.stories import TRIES, Lease, Stories, Story
from nacre.base.errors import Interrupted, Waiting
from nacre.compute.contract import StoryOrder

log = structlog.get_logger()

#: Seconds between two looks for stories that nobody runs.
SWEEP = 0.5

_decode = msgspec.msgpack.Decoder(StoryOrder).decode


class Kind(Protocol):
    """How stories of a kind go."""

    async def run(self, lease: Lease, order: StoryOrder) -> None:
        """From wherever it stands to its end. Raises Interrupted."""
        ...

    async def give_up(self, lease: Lease, order: StoryOrder, why: str) -> None:
        """It cannot be run: what it is about ends with this reason."""
        ...


#: Why a story may not go on yet; "": it may.
Blocked = Callable[[Story, StoryOrder], Awaitable[str]]


class StoryRunner:
    """The stories of one process."""

    def __init__(self, stories: Stories, kinds: Mapping[str, Kind], clock: Clock, blocked: Blocked):
        self._stories, self._kinds, self._clock, self._blocked = stories, kinds, clock, blocked
        self._running: dict[str, asyncio.Task[None]] = {}

    @property
    def running(self) -> Collection[str]:
        """The ids of the stories that run here."""
        return self._running.keys()

    def run(self, story: Story) -> None:
        """Begin a story that was committed, or taken."""
        if story.id not in self._running:
            task = asyncio.ensure_future(self._run(story))
            self._running[story.id] = task
            task.add_done_callback(lambda _: self._running.pop(story.id, None))

    async def sweep(self) -> None:
        """For ever: run what nobody runs."""
        while True:
            await self.look()
            await self._clock.sleep(SWEEP)

    async def look(self) -> None:
        """Take up what nobody runs. Raises Interrupted."""
        for story in await self._stories.take_free(self.running):
            self.run(story)

    async def stop(self) -> None:
        """Stories in the middle are left as they are; their rows tell the next start."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, story: Story) -> None:
        point("control story taken")
        try:
            await self._attempt(story)
            point("control story told")
        except Waiting as error:
            log.info("a story rests", story=story.id, kind=story.kind, why=str(error))
            with contextlib.suppress(Interrupted):  # the database is away: it is found all the same
                await self._stories.rest(story)
        except Interrupted as error:
            log.warning("a story stopped; it will be taken up", story=story.id, kind=story.kind, why=str(error))

    async def _attempt(self, story: Story) -> None:
        kind = self._kinds.get(story.kind)
        try:
            order = _decode(story.order)
        except msgspec.DecodeError as error:
            log.error("a story cannot be read", story=story.id, kind=story.kind, why=str(error))
            return await self._stories.set_aside(story, f"Its order cannot be read: {error}")
        if kind is None:
            return await self._stories.set_aside(story, "This release knows no stories of that kind.")
        try:
            if why := await self._blocked(story, order):
                raise Waiting(why)
            if story.failures < TRIES:
                return await kind.run(story.lease, order)
            why = f"Unexpected error. Give the operator this request id: {order.context.request_id}"
            return await kind.give_up(story.lease, order, why)
        except Interrupted:
            raise
        except Exception as error:
            log.exception("a story failed", story=story.id, kind=story.kind, times=story.failures + 1)
            if story.failures < TRIES:
                return await self._stories.failed(story)
            return await self._stories.set_aside(story, f"It fails, and cannot be given up: {type(error).__name__}")
