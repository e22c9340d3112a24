"""Orders to hosts. Whether a host lives is told by its heartbeats, never by how long an answer takes: a host that beats
is waited for as long as its work moves; an order that got no answer is sent again (every verb of a node may be)."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from nacre.base.clock import Clock
from nacre.base.errors import Barred, BrokenAnswer, BuildFailed, NacreError, Refused, Unavailable, Waiting
from nacre.node.contract import WAITING, Guest, Node, Work

#: Seconds between two tries at a host that does not answer.
RETRY = 0.5
#: Seconds for which a host may take no orders by its own word alone, or answer what cannot be read.
DOUBT = 30.0


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds. stalled: work that does not move for so long has failed; ceiling: work may take no longer in all;
    silence: how long a host that fell silent in the middle of a start is waited for, as no other may be tried."""

    stalled: float = 300.0
    ceiling: float = 7200.0
    silence: float = 300.0


class Slot:
    """A place in a room: so many builds go on at once."""

    def __init__(self, room: asyncio.Semaphore):
        self._room, self.held = room, False

    async def take(self) -> None:
        """Once there is one; nothing, if it is held."""
        if not self.held:
            await self._room.acquire()
            self.held = True

    def leave(self) -> None:
        """It is free for others; nothing, if it is not held."""
        if self.held:
            self.held = False
            self._room.release()


async def _never() -> bool:
    return False


@dataclass(frozen=True)
class Silence:
    """How a host that is silent is waited for. seconds: without heartbeats; slot: it is left meanwhile, as nothing is
    done but to ask again, and taken again before anything else is; over: whether there is nothing to ask for any more,
    as others saw to it."""

    seconds: float = 0.0
    slot: Slot | None = None
    over: Callable[[], Awaitable[bool]] = _never


#: It is not waited for.
IMPATIENT = Silence()
#: No word of work.
UNHEARD = ("", -1)


class Hosts:
    """The ways to all hosts. node: a client of the host of that name; alive: whether its heartbeats come; check: raises
    Unavailable or Barred when it may not be given orders."""

    def __init__(self, node: Callable[[str], Node], alive: Callable[[str], Awaitable[bool]], clock: Clock,
                 patience: Patience, check: Callable[[str], None]):
        self._node, self._alive, self._clock, self.patience, self._check = node, alive, clock, patience, check
        self._met: dict[str, asyncio.Event] = {}

    def greeted(self, host: str) -> None:
        """The host said hello: orders that it took before its restart will never be answered."""
        self._met.pop(host, asyncio.Event()).set()

    async def order(self, host: str, give: Callable[[Node], Awaitable[Work]],
                    silence: Silence = IMPATIENT) -> Guest | None:
        """Until it is done, or over: what the host says of the guest. Raises the host's own errors; Unavailable: it is
        silent, and not waited for any longer, maybe without its slot; BuildFailed: the work does not move; Waiting: it
        takes no orders of this cloud until an operator decides."""
        begin = moved = heard = self._clock.monotonic()
        last, slot = UNHEARD, silence.slot
        doubted: float | None = None
        while True:
            try:
                self._permit(host)
                work = await self._once(host, give)
            except (Barred, BrokenAnswer) as error:
                doubted = self._doubt(host, error, doubted)
                await self._pause(host)
            except Unavailable as error:
                if (known := await self._heard(host, heard, silence, error)) is None:
                    return None
                heard = known
                await self._pause(host)
            else:
                now, doubted = self._clock.monotonic(), None
                if slot is not None and not slot.held:
                    heard = await self._queue(slot)
                    begin, last = begin + heard - now, UNHEARD
                    continue
                if work.done:
                    return work.guest
                heard = now
                if (work.step, work.moved) != last or work.step == WAITING:
                    last, moved = (work.step, work.moved), now
                if now - moved > self.patience.stalled:
                    raise BuildFailed(f"The work on the host stands still since {now - moved:.0f} s.",
                                      details=f"{host}: {work.step}")
            if self._clock.monotonic() - begin > self.patience.ceiling:
                raise BuildFailed(f"The work on the host takes longer than {self.patience.ceiling:.0f} s.",
                                  details=host)

    def _doubt(self, host: str, error: NacreError, since: float | None) -> float:
        """Since when its answers are doubted. Raises BuildFailed or Waiting where that is too long."""
        now = self._clock.monotonic()
        if since is not None and now - since > DOUBT:
            raise _at_fault(host, error) from None
        return now if since is None else since

    async def _heard(self, host: str, last: float, silence: Silence, error: Unavailable) -> float | None:
        """When the host that gave no answer was heard last; None: nobody waits for it any more. Raises the error where
        it was silent for too long."""
        now = self._clock.monotonic()
        if await self._alive(host):
            return now
        if await silence.over():
            return None
        if now - last >= silence.seconds:
            raise error
        if silence.slot is not None:
            silence.slot.leave()
        return last

    async def _queue(self, slot: Slot) -> float:
        """Once it has its slot again. The host is asked anew then; nor is it the host that took so long."""
        await slot.take()
        return self._clock.monotonic()

    def _permit(self, host: str) -> None:
        """Raises Unavailable; Waiting: by our own judgement it may not be given orders."""
        try:
            self._check(host)
        except Barred as error:
            raise Waiting(error.message, details=error.details) from None

    async def _once(self, host: str, give: Callable[[Node], Awaitable[Work]]) -> Work:
        """One answer; or none, as the host was started anew meanwhile. Raises Unavailable; Barred: by its own word."""
        met = self._met.setdefault(host, asyncio.Event())
        work = asyncio.ensure_future(give(self._node(host)))
        wake = asyncio.ensure_future(met.wait())
        try:
            await asyncio.wait((work, wake), return_when=asyncio.FIRST_COMPLETED)
            return work.result() if work.done() else Work(done=False, step="the host was started anew")
        finally:
            work.cancel()
            wake.cancel()

    async def _pause(self, host: str) -> None:
        nap: asyncio.Future[Any] = asyncio.ensure_future(self._clock.sleep(RETRY))
        wake = asyncio.ensure_future(self._met.setdefault(host, asyncio.Event()).wait())
        try:
            await asyncio.wait((nap, wake), return_when=asyncio.FIRST_COMPLETED)
        finally:
            nap.cancel()
            wake.cancel()


def _at_fault(host: str, error: NacreError) -> NacreError:
    """Why no order is given to a host that lives. By its own word it takes none: it has heard another process first, or
    it lies."""
    kind, why = (Refused, "The host takes no orders, though nothing is known against it here.") if isinstance(
        error, Barred) else (BuildFailed, "The host's answers cannot be read.")
    return kind(why, details=f"{host}: {error}")
