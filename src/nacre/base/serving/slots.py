"""Costly work that anybody may ask for, as proving a password: so much at once, and sources take turns."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

from nacre.base.errors import NacreError, TooMany, Unavailable

#: Whom the request that is being answered is from: its client, as `sources.Balancers` says it.
source: ContextVar[str] = ContextVar("source", default="")

#: Seconds until one of a source's refusals too many is said: else it is asked again at once, and to say no all the time
#: takes the process too.
REST = 1.0


class Fair:
    """At most `parallel` works at once; of one `of_one` more wait, of all `waiting`; the rest is refused. They take
    turns: who has many waiting keeps another's waiting for one of them at most. Where all places are taken, who has
    at least two fewer of them than another gets the other's newest, which is refused in its stead."""

    def __init__(self, parallel: int, of_one: int, waiting: int):
        self._free, self._of_one, self._most = parallel, of_one, waiting
        self._queues: OrderedDict[str, deque[asyncio.Future[bool]]] = OrderedDict()
        self._count = self.working = 0

    def refusal(self, own: bool) -> NacreError:
        """What is raised beyond the limit: own: that of one; else that of all."""
        raise NotImplementedError

    async def enter(self, who: str) -> None:
        """Returns in its turn; `leave` ends it. Raises `refusal`."""
        if self._free:
            self._free -= 1
            self.working += 1
            return
        queue = self._queues.get(who, deque())
        if len(queue) >= self._of_one:
            raise self.refusal(own=True)
        if self._count >= self._most:
            self._drop(len(queue))
        mine: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(who, queue).append(mine)
        self._count += 1
        try:
            mine_now = await mine
        except asyncio.CancelledError:
            if not mine.done() or mine.cancelled():
                self._forget(who, mine)
            elif mine.result():  # the turn came with the end
                self.leave()
            raise
        if not mine_now:
            raise self.refusal(own=False)

    def leave(self) -> None:
        """The place goes to the next one's first that still waits, if there is one."""
        while self._queues:
            who, queue = self._queues.popitem(last=False)
            following = queue.popleft()
            self._count -= 1
            if queue:
                self._queues[who] = queue  # behind the others
            if not following.done():
                following.set_result(True)
                return
        self._free += 1
        self.working -= 1

    def _drop(self, having: int) -> None:
        """Whoever has the most that wait loses the newest, in favour of one that has so many. Raises `refusal`."""
        who = max(self._queues, key=lambda each: len(self._queues[each]), default="")
        if len(self._queues.get(who, ())) < having + 2:
            raise self.refusal(own=False)
        last = self._queues[who].pop()
        self._count -= 1
        if not last.done():
            last.set_result(False)

    def _forget(self, who: str, mine: asyncio.Future[bool]) -> None:
        queue = self._queues.get(who, deque())
        if mine in queue:
            queue.remove(mine)
            self._count -= 1
            if not queue:
                del self._queues[who]


class Slots(Fair):
    """Those of passwords' checks, by the sources of the requests that ask for them."""

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """The turn of the source of this request. Raises TooMany, Unavailable."""
        try:
            await self.enter(source.get())
        except TooMany:
            await asyncio.sleep(REST)
            raise
        try:
            yield
        finally:
            self.leave()

    def refusal(self, own: bool) -> NacreError:
        if own:
            return TooMany(f"{self._of_one} requests of this address wait for their passwords to be checked, the "
                           "limit. Try again in a second.")
        return Unavailable(f"{self._most} requests wait for their passwords to be checked, the limit, and of no "
                           "address so many more than of this one. Try again in a second.")
