"""Costly work that anybody may ask for, as proving a password: so much at once, and sources take turns."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

from nacre.base.errors import TooMany, Unavailable

#: Whom the request that is being answered is from: the client's address.
source: ContextVar[str] = ContextVar("source", default="")

#: Seconds until one of a source's refusals too many is said: else it is asked again at once, and to say no all the time
#: takes the process too.
REST = 1.0


class Slots:
    """At most `parallel` works at once; of one source `of_one` more wait, of all `waiting`; the rest is refused. A
    source that has many waiting keeps another's waiting for one of them at most."""

    def __init__(self, parallel: int, of_one: int, waiting: int):
        self._free, self._of_one, self._most = parallel, of_one, waiting
        self._queues: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._count = 0

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """The turn of the source of this request. Raises TooMany, Unavailable."""
        await self._enter(source.get())
        try:
            yield
        finally:
            self._leave()

    async def _enter(self, who: str) -> None:
        if self._free:
            self._free -= 1
            return
        queue = self._queues.get(who, deque())
        if len(queue) >= self._of_one:
            await asyncio.sleep(REST)
            raise TooMany(f"{len(queue)} requests of this address wait for their passwords to be checked, the limit. "
                          "Try again in a second.")
        if self._count >= self._most:
            raise Unavailable(f"{self._count} requests wait for their passwords to be checked, the limit. Try again in "
                              "a second.")
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(who, queue).append(mine)
        self._count += 1
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():  # the turn came with the end
                self._leave()
            else:
                self._forget(who, mine)
            raise

    def _forget(self, who: str, mine: asyncio.Future[None]) -> None:
        queue = self._queues.get(who, deque())
        if mine in queue:
            queue.remove(mine)
            self._count -= 1
            if not queue:
                del self._queues[who]

    def _leave(self) -> None:
        """The slot goes to the next source's first that still waits, if there is one."""
        while self._queues:
            who, queue = self._queues.popitem(last=False)
            following = queue.popleft()
            self._count -= 1
            if queue:
                self._queues[who] = queue  # behind the others
            if not following.done():
                following.set_result(None)
                return
        self._free += 1
