"""An answer on its way to its client: in pieces, as the client takes them, and no longer than it is there. What it does
not take is held meanwhile, and bounded."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from nacre.base.serving.sources import Shares

T = TypeVar("T")
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
#: Hears whose answer is sent, and how many bytes of it are held until the client has taken them.
Hold = Callable[[str, int], None]

#: Bytes that are handed to a connection at once, and that wait there before its client counts as not taking them.
PIECE = 64 << 10
#: The ASGI extension by which a connection is told what of its answer is held.
EXTENSION = "nacre.hold"


def hold_of(scope: Mapping[str, Any]) -> Hold:
    """That of a request's connection; of one that counts nothing, what ignores it."""
    found: Hold = (scope.get("extensions") or {}).get(EXTENSION, lambda _who, _size: None)
    return found


async def send_whole(send: Send, data: bytes, hold: Callable[[int], None]) -> None:
    """The body of an answer, after its head. It ends the answer."""
    hold(len(data))
    *first, last = _pieces(data)
    for piece in first:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": last})


async def send_stream(send: Send, receive: Receive, body: AsyncIterator[bytes], hold: Callable[[int], None]) -> None:
    """A body that is made while it is sent. It is closed at the end, which comes at once where the client goes."""
    async def all_of_it() -> None:
        async for chunk in body:
            hold(len(chunk))
            for piece in _pieces(chunk):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
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
        await close(body)


async def close(body: AsyncIterator[bytes]) -> None:
    """What nobody asks for more is told so, if it can be: it may have a file open."""
    if hasattr(body, "aclose"):
        await body.aclose()


async def _gone(receive: Receive) -> None:
    """Returns when the client has gone. What it still sends is nobody's."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _pieces(data: bytes) -> Iterator[bytes]:
    """At least one."""
    for at in range(0, len(data) or 1, PIECE):
        yield data[at:at + PIECE]


class Unread(Generic[T]):
    """Those whose clients take nothing now: whose each is, for how long it has been so, and how many bytes are held for
    it. most: of one."""

    def __init__(self, most: int):
        self._most = most
        self._order = Shares[T]()
        self._sizes: dict[T, tuple[str, int]] = {}
        self._held: Counter[str] = Counter()

    def add(self, who: str, one: T, size: int) -> list[T]:
        """It takes nothing from now on. Those that are to be ended for it, and are removed: of the same, those that
        have taken nothing for longest. The last one may have any size."""
        self.remove(one)
        self._order.add(who, one)
        self._sizes[one] = who, size
        self._held[who] += size
        ended = list[T]()
        while self._held[who] > self._most and (oldest := self._order.oldest(who)) is not one:
            self.remove(oldest)
            ended.append(oldest)
        return ended

    def remove(self, one: T) -> None:
        """It goes on, or is ended."""
        if one not in self._sizes:
            return
        who, size = self._sizes.pop(one)
        self._order.remove(who, one)
        self._held[who] -= size
        if not self._held[who]:
            del self._held[who]
