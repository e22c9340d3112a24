"""Turns of projects: whatever one sends, another's requests wait for a few of its requests at most."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from nacre.base.errors import NacreError, TooMany
from nacre.base.serving.slots import Fair


class Turns:
    """At most `at_once` requests of a project are worked on at the same time, so many more wait (with no more than
    `size` bytes of bodies, which are in memory meanwhile), and the rest is refused. A request waits for its own
    project's only; of these the users take turns, and one that has many waiting makes room for another. of: whose they
    are, in a refusal.

    A turn passes on with the loop's next round: what is answered without waiting for anything (a refusal) would else
    be followed at once by the project's next, and by all that it sent, before anybody else's."""

    def __init__(self, at_once: int = 8, waiting: int = 500, of: str = "one project", size: int = 8 << 20):
        self.at_once, self.waiting, self._of, self._size = at_once, waiting, of, size
        self._places: dict[str, _Places] = {}
        self._refused: dict[str, deque[asyncio.Future[None]]] = {}  # project -> refusals that wait

    @asynccontextmanager
    async def turn(self, project: str, user: str = "", size: int = 0) -> AsyncIterator[None]:
        """The turn of the project's user, for a request with a body of so many bytes. Raises TooMany."""
        places = self._places.setdefault(project, _Places(self.at_once, self.waiting, self._of, self._size))
        try:
            await places.wait(user, size)
        except TooMany:
            await self.pace(project)
            raise
        finally:
            self._tidy(project, places)
        try:
            yield
        finally:
            asyncio.get_running_loop().call_soon(self._leave, project, places)

    async def pace(self, project: str) -> None:
        """Before a refusal that takes no turn: of a project so many are answered in a round of the loop as have turns,
        and others' requests come in between."""
        loop = asyncio.get_running_loop()
        if project not in self._refused:
            self._refused[project] = deque()
            loop.call_soon(self._refuse, project)
        mine: asyncio.Future[None] = loop.create_future()
        self._refused[project].append(mine)
        await mine

    def _refuse(self, project: str) -> None:
        queue = self._refused[project]
        for mine in [queue.popleft() for _ in range(min(self.at_once, len(queue)))]:
            if not mine.done():
                mine.set_result(None)
        if queue:
            asyncio.get_running_loop().call_soon(self._refuse, project)
        else:
            del self._refused[project]

    def _leave(self, project: str, places: "_Places") -> None:
        places.leave()
        self._tidy(project, places)

    def _tidy(self, project: str, places: "_Places") -> None:
        if not places.working and self._places.get(project) is places:
            del self._places[project]


class _Places(Fair):
    """One project's. size: bytes of bodies that may wait; one may always, however large."""

    def __init__(self, at_once: int, waiting: int, of: str, size: int):
        super().__init__(at_once, waiting, waiting)
        self._size, self._held = size, 0
        self._said = (f"Of {of} {at_once} requests are worked on at once and {waiting} more wait, with {size} bytes of "
                      "bodies, the limit. Send fewer at once.")

    async def wait(self, user: str, size: int) -> None:
        """As `enter`, with a body of so many bytes."""
        if self._count and self._held + size > self._size:
            raise self.refusal(own=True)
        self._held += size
        try:
            await self.enter(user)
        finally:
            self._held -= size

    def refusal(self, own: bool) -> NacreError:
        return TooMany(self._said)
