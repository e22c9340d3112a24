"""`GET /healthcheck`: whether a balancer may send requests to this control."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from nacre.base.clock import Clock
from nacre.base.errors import NacreError, Unavailable
from nacre.base.serving.gate import PUBLIC
from nacre.base.web import Reply, Request, Route, Service

log = structlog.get_logger()

#: For how long an answer of the database counts, and how long one is waited for, in seconds.
FRESH, PATIENCE = 1.0, 2.0


class Health:
    """look: asks the database something small. draining: this process is about to end."""

    def __init__(self, look: Callable[[], Awaitable[Any]], clock: Clock):
        self._look, self._clock = look, clock
        self._looking: asyncio.Task[bool] | None = None
        self._answered_at = float("-inf")
        self.draining = False

    async def check(self) -> None:
        """Raises Unavailable with the reason why nothing should be sent here."""
        if self.draining:
            raise Unavailable("This control is about to end.")
        if self._clock.monotonic() - self._answered_at < FRESH:
            return
        if self._looking is None or self._looking.done():  # one question at a time, however long it takes
            self._looking = asyncio.create_task(self._ask())
        await asyncio.wait((self._looking,), timeout=PATIENCE)
        if not (self._looking.done() and self._looking.result()):
            raise Unavailable("The database does not answer.")

    async def _ask(self) -> bool:
        try:
            await self._look()
        except Exception as error:  # whatever it is: nothing can be served without a database
            log.warning("the database does not answer", error=type(error).__name__)
            return False
        self._answered_at = self._clock.monotonic()
        return True

    def service(self) -> Service:
        """The route, outside every API."""
        async def show(_: Request) -> Reply:
            await self.check()
            return Reply(b"OK\n", content_type="text/plain")
        return Service("health", "/healthcheck", [Route("GET", "/", show, PUBLIC)], _fault)


def _fault(error: NacreError, status: int, request: Request) -> Reply:
    return Reply(f"{error.message}\n".encode(), status, content_type="text/plain")
