"""What both roles stand on: how what was built is started, kept running and stopped."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from nacre.base.errors import Interrupted, Unavailable
from nacre.base.rpc.directory import Directory
from nacre.base.rpc.server import Allow, Peer
from nacre.base.rpc.stub import Client
from nacre.base.rpc.target import Target

log = structlog.get_logger()


class Transport(Protocol):
    """What the wiring needs of a transport; the network's and the in-memory one both have it."""

    me: Peer
    directory: Directory

    @property
    def address(self) -> str: ...
    @property
    def public_key(self) -> str: ...
    def client(self, target: Target) -> Client: ...
    def serve(self, target: Target, endpoint: Any, contract: type, allow: Allow = None) -> None: ...


@dataclass
class Running:
    """Something built: `start` in order, background tasks meanwhile, `stop` in reverse. ready: of a host, once a
    control process has greeted it."""

    start: list[Callable[[], Awaitable[Any]]] = field(default_factory=list)
    tasks: list[Callable[[], Awaitable[Any]]] = field(default_factory=list)
    stop: list[Callable[[], Awaitable[Any]]] = field(default_factory=list)
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    @contextlib.asynccontextmanager
    async def __call__(self) -> AsyncIterator[None]:
        """Runs until the block ends."""
        for step in self.start:
            await step()
        tasks = [asyncio.ensure_future(_keep(task)) for task in self.tasks]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for step in reversed(self.stop):
                try:
                    await step()
                except Exception:
                    log.exception("something did not stop cleanly")


async def _keep(task: Callable[[], Awaitable[Any]]) -> None:
    """A background task that shall run for ever does so, whatever it meets."""
    while True:
        try:
            await task()
        except (Unavailable, Interrupted) as error:
            log.warning("a background task waits", why=str(error))
        except Exception:
            log.exception("a background task failed and is started again")
        await asyncio.sleep(1)
