"""Asking hosts. Silence is not refusal: a call that gets no answer is repeated (every verb of a node may be), at once
when the host says hello after a restart, until a limit."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from nacre.base.clock import Clock
from nacre.base.errors import Unavailable
from nacre.node.contract import Node

T = TypeVar("T")

#: Seconds between two tries at a host that does not answer.
RETRY = 0.5


class Hosts:
    """The ways to all hosts. node: a client of the host of that name."""

    def __init__(self, node: Callable[[str], Node], clock: Clock):
        self._node, self._clock = node, clock
        self._reborn: dict[str, asyncio.Event] = {}

    def greeted(self, host: str) -> None:
        """The host said hello: calls that it took before its restart will never be answered."""
        self._reborn.pop(host, asyncio.Event()).set()

    async def ask(self, host: str, call: Callable[[Node], Awaitable[T]], seconds: float) -> T:
        """What the host answers. Raises its own errors, and Unavailable after so many seconds of silence."""
        end = self._clock.monotonic() + seconds
        while True:
            reborn = self._reborn.setdefault(host, asyncio.Event())
            work = asyncio.ensure_future(call(self._node(host)))
            wake = asyncio.ensure_future(reborn.wait())
            try:
                await asyncio.wait((work, wake), return_when=asyncio.FIRST_COMPLETED)
                if work.done():
                    return work.result()
            except Unavailable:
                if self._clock.monotonic() >= end:
                    raise
                await self._pause(wake)
            finally:
                work.cancel()
                wake.cancel()

    async def _pause(self, wake: "asyncio.Future[Any]") -> None:
        nap = asyncio.ensure_future(self._clock.sleep(RETRY))
        try:
            await asyncio.wait((nap, wake), return_when=asyncio.FIRST_COMPLETED)
        finally:
            nap.cancel()
