"""An answer on its way to its client: in pieces, as the client takes them, and no longer than it is there. What it does
not take is held meanwhile, and bounded."""

import asyncio
import socket
import struct
import sys
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Self

from nacre.base.errors import Unavailable

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
#: Hears whose answer is sent, and gives what its bytes are held in until the client has taken them.
Hold = Callable[[str], "Room"]

#: Bytes that are handed to a connection at once, and that wait there before its client counts as not taking them.
PIECE = 64 << 10
#: Bytes that a connection was handed and is handed now, when its client takes nothing.
HANDED = 3 * PIECE
#: Part of the memory that one may have, which a piece that is read from a store takes at most: where many read, each
#: reads less at a time. Part of all memory that is little: where one may have less, others give way.
_SHARE, _LITTLE = 32, 16
#: Seconds that a client waits for memory before its answer begins.
_WAIT = 10.0
#: The ASGI extension by which a connection is told whose its answer is, and gives room for it.
EXTENSION = "nacre.hold"
#: Of the kernel's tcp_info: packets on their way, bytes that were acknowledged, bytes that have not been sent.
_TCP_INFO = struct.Struct("=24xI92xQ16xI")


def taken(own: socket.socket) -> int | None:
    """How many bytes the other side has taken of what it was sent, in all; None: every one, or it is closed."""
    try:
        found = own.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    except OSError:
        return None
    on_their_way, acknowledged, unsent = _TCP_INFO.unpack(found)
    return acknowledged if on_their_way or unsent else None


class Memory:
    """What is held of answers that their clients have not taken, by whose they are. most: bytes. Nobody holds more
    than is free then: one alone half of it, and who comes anew finds room. Beyond that nobody is cut off: no more is
    read for whoever holds most, and others' turn is first."""

    def __init__(self, most: int):
        self._most = self._free = most
        self._held: Counter[str] = Counter()
        self._queues: dict[str, deque[tuple[int, asyncio.Future[int]]]] = {}

    def left(self, who: str) -> int:
        """How many bytes one may take now; negative, where it should have fewer."""
        return (self._free - self._held[who]) // 2

    def short(self, who: str) -> bool:
        """Whether there is little left, and one holds as much as others do, or more."""
        held = self._held[who]
        return self.left(who) < self._most // _LITTLE and held * len(self._held) >= self._most - self._free

    def fits(self, who: str, size: int) -> bool:
        """Whether one may have so many bytes at once. Where nothing is held, any number."""
        return not self._held or size <= self.left(who)

    def may_begin(self, who: str) -> bool:
        """Whether one may have an answer more, nobody knows of what length. Who has none may."""
        return self.left(who) >= 0 or not self._held[who]

    def add(self, who: str, size: int) -> None:
        """They are held, whether there is room or not."""
        self._free -= size
        self._held[who] += size

    def remove(self, who: str, size: int) -> None:
        """They are not any more. Who waits goes on."""
        self._free += size
        self._held[who] -= size
        if not self._held[who]:
            del self._held[who]
        self._serve()

    async def take(self, who: str, wanted: int) -> int:
        """So many bytes, or fewer, as soon as there is room. They are held from now on."""
        size = 0 if who in self._queues else self._share(who, wanted)
        if size:
            self.add(who, size)
            return size
        mine: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(who, deque()).append((wanted, mine))
        try:
            return await mine
        except asyncio.CancelledError:
            if not mine.cancelled():  # the turn came with the end
                self.remove(who, mine.result())
            else:
                self._leave(who, (wanted, mine))
            raise

    def _share(self, who: str, wanted: int) -> int:
        fits = self.fits(who, min(wanted, PIECE))
        return min(wanted, max(PIECE, self.left(who) // _SHARE)) if fits else 0

    def _serve(self) -> None:
        while self._queues:
            who = min(self._queues, key=lambda each: self._held[each])
            wanted, mine = self._queues[who][0]
            if not (size := self._share(who, wanted)):
                return
            if not mine.done():
                self.add(who, size)
                mine.set_result(size)
            self._leave(who, (wanted, mine))

    def _leave(self, who: str, one: tuple[int, asyncio.Future[int]]) -> None:
        if (queue := self._queues.get(who)) and one in queue:
            queue.remove(one)
            if not queue:
                del self._queues[who]


class Memories:
    """What is held of answers to questions, and apart from that of answers to changes, which has a quarter more: nobody
    who reads slowly keeps others from changing something, and no answer to a change keeps them from reading."""

    def __init__(self, most: int):
        self.questions, self.changes = Memory(most), Memory(most // 4)


UNBOUNDED = Memories(sys.maxsize)


class Full(Unavailable):
    """There is no room for an answer that has not begun."""

    default = "Too much is on its way to clients that are slow to take it. Try again in a second."


class Room:
    """What one answer holds. memory: in which; of one to a question, until it is known to be one to a change."""

    __slots__ = ("_begun", "_held", "_memories", "_who", "memory")

    def __init__(self, memories: Memories = UNBOUNDED, who: str = ""):
        self._memories, self._who, self._held, self._begun = memories, who, 0, False
        self.memory = memories.questions

    def of(self, *, change: bool) -> Self:
        """It is a change that is answered, or not. Before anything is held."""
        self.memory = self._memories.changes if change else self._memories.questions
        return self

    def check_change(self) -> None:
        """Before anything is done: how long the answer to a change is comes late then. Raises Full where its owner has
        too much of such answers on its way."""
        if self.memory is self._memories.changes and not self.memory.may_begin(self._who):
            raise Full

    def check(self, size: int) -> None:
        """A whole answer has so many bytes. Raises Full where they are too many for now."""
        if not self.memory.fits(self._who, size + HANDED * (size > PIECE)):
            raise Full

    def hold(self, size: int) -> None:
        """So many more are held."""
        self.memory.add(self._who, size)
        self._held += size

    async def take(self, wanted: int) -> int:
        """Room for so many bytes more of a stream, or for fewer: before they are read. It is waited for, before the
        answer's first ones not for ever: Full."""
        try:
            async with asyncio.timeout(None if self._begun else _WAIT):
                size = await self.memory.take(self._who, wanted)
        except TimeoutError:
            raise Full from None
        self._held, self._begun = self._held + size, True
        return size

    def give(self, size: int) -> None:
        """So many of them are not held any more."""
        self._held -= size
        self.memory.remove(self._who, size)

    def end(self) -> None:
        """None is."""
        if self._held:
            self.give(self._held)


def hold_of(scope: Mapping[str, Any]) -> Hold:
    """That of a request's connection; of one that counts nothing, what has no end."""
    found: Hold = (scope.get("extensions") or {}).get(EXTENSION, endless)
    return found


def endless(_: str) -> Room:
    """Of an answer that is nobody's, or goes over no connection."""
    return Room()


async def send_whole(send: Send, data: bytes, room: Room) -> None:
    """The body of an answer, after its head. It ends the answer."""
    if len(data) > PIECE:
        return await _send_long(send, data, room)
    await send({"type": "http.response.body", "body": data})  # nothing is left when its connection has it


async def _send_long(send: Send, data: bytes, room: Room) -> None:
    room.hold(len(data))
    try:
        *first, last = _places(data)
        for at in first:
            await send({"type": "http.response.body", "body": data[at:at + PIECE], "more_body": True})
        await send({"type": "http.response.body", "body": data[last:]})
    finally:
        room.end()


async def send_stream(
        send: Send, receive: Receive, start: dict[str, Any], body: AsyncIterator[bytes], *, head: bool = False) -> None:
    """An answer whose body is made while it is sent, from its start on. The body is closed at the end, however it comes
    to that, and at once where the client goes. head: nothing of the body is sent."""
    try:
        await send(start)
        if head:
            await send({"type": "http.response.body", "body": b""})
        else:
            await _send_pieces(send, receive, body)
    finally:
        await close(body)


async def _send_pieces(send: Send, receive: Receive, body: AsyncIterator[bytes]) -> None:
    async def all_of_it() -> None:
        async for chunk in body:
            for at in _places(chunk):
                await send({"type": "http.response.body", "body": chunk[at:at + PIECE], "more_body": True})
            del chunk  # it is held no longer, while the next is waited for
        await send({"type": "http.response.body", "body": b""})

    both = asyncio.ensure_future(all_of_it()), asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if both[0].done():
            both[0].result()
    finally:
        for each in both:
            each.cancel()
        await asyncio.gather(*both, return_exceptions=True)


async def close(body: AsyncIterator[bytes]) -> None:
    """What nobody asks for more is told so, if it can be: it may have a file open."""
    if hasattr(body, "aclose"):
        await body.aclose()


async def _gone(receive: Receive) -> None:
    """Returns when the client has gone. What it still sends is nobody's."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _places(data: bytes) -> range:
    """Where its pieces begin. At least one."""
    return range(0, len(data) or 1, PIECE)
