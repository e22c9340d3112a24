"""Turns of projects: whatever one sends, another's requests wait for a few of its requests at most."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from nacre.base.errors import TooMany


class Turns:
    """At most `at_once` requests of a project are worked on at the same time, so many more wait in the order in which
    they came (no more than `size` bytes of bodies, which are in memory meanwhile), and the rest is refused. A request
    waits for its own project's only.

    A turn passes on with the loop's next round: what is answered without waiting for anything (a refusal) would else
    be followed at once by the project's next, and by all that it sent, before anybody else's."""

    def __init__(self, at_once: int = 8, waiting: int = 500, size: int = 8 << 20):
        self._at_once, self._most, self._size = at_once, waiting, size
        self._held = Counter[str]()  # project -> bytes that wait
        self._refused = Counter[str]()  # project -> requests whose refusal waits
        self._working: dict[str, int] = {}
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def turn(self, project: str, size: int = 0) -> AsyncIterator[None]:
        """The project's turn, for a request with a body of so many bytes. Raises TooMany."""
        await self._enter(project, size)
        try:
            yield
        finally:
            asyncio.get_running_loop().call_soon(self._leave, project)

    async def pace(self, project: str) -> None:
        """Before a refusal that takes no turn: of a project so many are answered in a round of the loop as have turns,
        and others' requests come in between."""
        rounds = self._refused[project] // self._at_once
        self._refused[project] += 1
        try:
            for _ in range(1 + rounds):
                await asyncio.sleep(0)
        finally:
            self._refused[project] -= 1
            if not self._refused[project]:
                del self._refused[project]

    async def _enter(self, project: str, size: int) -> None:
        working = self._working.get(project, 0)
        if working < self._at_once:
            self._working[project] = working + 1
            return
        queue = self._waiting.setdefault(project, deque())
        if len(queue) >= self._most or (queue and self._held[project] + size > self._size):
            await self.pace(project)
            raise TooMany(f"Of one project {self._at_once} requests are worked on at once and {self._most} more wait, "
                          f"with {self._size} bytes of bodies, the limit. Send fewer at once.")
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(mine)
        self._held[project] += size
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():  # the turn came with the end
                self._leave(project)
            raise
        finally:
            self._held[project] -= size
            if not self._held[project]:
                del self._held[project]

    def _leave(self, project: str) -> None:
        """The turn goes to the next that still waits, if there is one."""
        queue = self._waiting.get(project)
        while queue:
            if not (following := queue.popleft()).done():
                following.set_result(None)
                return
        self._waiting.pop(project, None)
        self._working[project] -= 1
        if not self._working[project]:
            del self._working[project]
