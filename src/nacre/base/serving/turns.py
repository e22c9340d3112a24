"""Turns of projects: whatever one sends, another's requests wait for a few of its requests at most."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from nacre.base.errors import NacreError, TooMany
from nacre.base.serving.slots import Fair


class Turns:
    """At most `at_once` requests of a project are worked on at the same time, so many more wait, and the rest is
    refused. A request waits for its own project's only; of these the users take turns, and one that has many waiting
    makes room for another. of: whose they are, in a refusal.

    A turn passes on with the loop's next round: what is answered without waiting for anything (a refusal) would else
    be followed at once by the project's next, and by all that it sent, before anybody else's."""

    def __init__(self, at_once: int = 8, waiting: int = 500, of: str = "one project"):
        self.at_once, self.waiting, self._of = at_once, waiting, of
        self._places: dict[str, _Places] = {}

    @asynccontextmanager
    async def turn(self, project: str, user: str = "") -> AsyncIterator[None]:
        """The turn of the project's user. Raises TooMany."""
        places = self._places.setdefault(project, _Places(self.at_once, self.waiting, self._of))
        try:
            await places.enter(user)
        finally:
            self._tidy(project, places)
        try:
            yield
        finally:
            asyncio.get_running_loop().call_soon(self._leave, project, places)

    def _leave(self, project: str, places: "_Places") -> None:
        places.leave()
        self._tidy(project, places)

    def _tidy(self, project: str, places: "_Places") -> None:
        if not places.working:
            self._places.pop(project, None)


class _Places(Fair):
    """One project's."""

    def __init__(self, at_once: int, waiting: int, of: str):
        super().__init__(at_once, waiting, waiting)
        self._said = (f"Of {of} {at_once} requests are worked on at once and {waiting} more wait, the limit. Send "
                      "fewer at once.")

    def refusal(self, own: bool) -> NacreError:
        return TooMany(self._said)
