"""Many who ask at once are answered at once, so that what a thousand hosts say in the same second costs a few
transactions, not thousands."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from nacre.base.clock import Clock
from nacre.base.errors import Interrupted

A = TypeVar("A")
R = TypeVar("R")

#: How many are answered together at most: no transaction may be long, as others wait for it.
AT_ONCE = 200
#: Values in one statement's list at most.
VALUES = 1000


class Together(Generic[A, R]):
    """Await it with one question. answer: gives the answers to several, in their order. Who asks while it is at work
    waits for its next run; who asks alone waits for nobody.

    What `answer` raises for several may be the fault of one: then each is answered alone, unless the reason is that
    nobody can be answered now (Interrupted).
    """

    def __init__(self, answer: Callable[[Sequence[A]], Awaitable[Sequence[R]]]):
        self._answer = answer
        self._waiting: list[tuple[A, asyncio.Future[R]]] = []
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, question: A) -> R:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._waiting.append((question, future))
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._run())
        return await future

    async def _run(self) -> None:
        while self._waiting:
            some, self._waiting = self._waiting[:AT_ONCE], self._waiting[AT_ONCE:]
            try:
                if not await self._try(some):
                    for each in some:
                        await self._try([each])
            finally:  # the process ends, if it has not been answered
                for _, future in some:
                    future.cancel()

    async def _try(self, some: Sequence[tuple[A, asyncio.Future[R]]]) -> bool:
        """Whether these were answered."""
        try:
            answers = await self._answer([question for question, _ in some])
        except Exception as error:
            if len(some) > 1 and not isinstance(error, Interrupted):
                return False
            for _, future in some:
                if not future.done():
                    future.set_exception(error)
            return True
        for (_, future), answer in zip(some, answers, strict=True):
            if not future.done():
                future.set_result(answer)
        return True


class Groups:
    """Those who come one upon the other go on in groups, `seconds` after the group before: what each then asks of a
    `Together` is asked once for its group. Who comes when nobody did for so long goes on at once."""

    def __init__(self, clock: Clock, seconds: float):
        self._clock, self._seconds, self._last = clock, seconds, -seconds
        self._open = False
        self._next: asyncio.Task[None] | None = None

    async def join(self) -> None:
        """Until a group goes on."""
        if self._open:
            return
        if self._next is None:
            left = self._last + self._seconds - self._clock.monotonic()
            if left <= 0:
                return self._go()
            self._next = asyncio.get_running_loop().create_task(self._wait(left))
        await asyncio.shield(self._next)

    async def _wait(self, seconds: float) -> None:
        try:
            await self._clock.sleep(seconds)
        finally:
            self._next = None
        self._go()

    def _go(self) -> None:
        """Also those who come in the same round of the loop."""
        self._open, self._last = True, self._clock.monotonic()
        asyncio.get_running_loop().call_soon(self._close)

    def _close(self) -> None:
        self._open = False
