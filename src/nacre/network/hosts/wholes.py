"""What hosts ask for whole, as they have nothing of it: after a power cut, or where the database is another, all do so
at once. It is answered in pages, so that each comes in time; what is large is read once for all who ask within some
seconds; and of questions that cost much one is at work at a time, and none that its host has given up: it hears that
it was too late, while it still listens, or has asked another one since.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from nacre.base.clock import Clock
from nacre.base.durable.eras import Position
from nacre.base.errors import Unavailable
from nacre.network.contract import TOO_LATE, WAITS

#: Ports of things that a host has nothing of: in the answer to what is to be wired, and in a page of what it asks for
#: after that.
FIRST, PAGE = 1_000, 5_000
#: A thing of so many ports is kept for so long (seconds) for the next who asks; all that are kept have no more.
SHARED_FROM, SHARED_FOR, MOST_SHARED = 500, 10.0, 400_000
#: A question that waited for so long has no time left to be answered in (seconds).
LATE = 0.8 * WAITS


class Whole(msgspec.Struct, frozen=True):
    """All ports of a thing, as they were at a position of the database."""

    at: Position
    until: float
    ports: Mapping[str, Any]


class Shared:
    """What was read whole a moment ago: what changed since is added by who uses it, so it is as good as new."""

    def __init__(self, clock: Clock):
        self._clock, self._lock = clock, threading.Lock()  # reads may have threads
        self._kept: dict[tuple[str, str], Whole] = {}
        self._ports = 0

    def get(self, kind: str, id: str) -> Whole | None:
        with self._lock:
            self._drop_old(MOST_SHARED)
            return self._kept.get((kind, id))

    def put(self, kind: str, id: str, at: Position, ports: Mapping[str, Any]) -> None:
        """Keep it, if it is large enough."""
        if SHARED_FROM <= len(ports) <= MOST_SHARED:
            with self._lock:
                self._forget((kind, id))
                self._drop_old(MOST_SHARED - len(ports))
                self._kept[kind, id] = Whole(at, self._clock.monotonic() + SHARED_FOR, ports)
                self._ports += len(ports)

    def tidy(self) -> None:
        """What is too old goes, though nobody asks any more."""
        with self._lock:
            self._drop_old(MOST_SHARED)

    def _drop_old(self, most: int) -> None:
        now = self._clock.monotonic()
        for key, whole in list(self._kept.items()):
            if whole.until > now and self._ports <= most:
                break
            self._forget(key)

    def _forget(self, key: tuple[str, str]) -> None:
        if whole := self._kept.pop(key, None):
            self._ports -= len(whole.ports)


class InTurn:
    """One question after the other, in the order in which they came."""

    def __init__(self, clock: Clock):
        self._clock, self._lock = clock, asyncio.Lock()
        self._last = dict[str, object]()  # host -> the question that it waits for

    @asynccontextmanager
    async def turn(self, host: str) -> AsyncIterator[None]:
        """Raises Unavailable (TOO_LATE) if that does not come in time, or the host has asked something since."""
        mine = self._last[host] = object()
        try:
            await self._come()
            try:
                if self._last[host] is not mine:
                    raise Unavailable("The host has asked another question since.", type=TOO_LATE)
                yield
                await asyncio.sleep(0)  # a read may be done in the loop: everybody else has a turn, too
            finally:
                self._lock.release()
        finally:
            if self._last[host] is mine:
                del self._last[host]

    async def _come(self) -> None:
        turn, limit = asyncio.ensure_future(self._lock.acquire()), asyncio.ensure_future(self._clock.sleep(LATE))
        try:
            await asyncio.wait((turn, limit), return_when=asyncio.FIRST_COMPLETED)
            if not turn.done():
                raise Unavailable(f"The question waited for {LATE:g} s. Ask again.", type=TOO_LATE)
        except BaseException:
            if not turn.cancel() and not turn.cancelled():
                self._lock.release()
            raise
        finally:
            limit.cancel()
