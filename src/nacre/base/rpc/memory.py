"""RPC inside one process: the same codec, identity and rules as over a network, and a network's faults on demand."""

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

import msgspec

from nacre.base.clock import Clock, RealClock
from nacre.base.errors import Unavailable
from nacre.base.rpc.codec import Answer, Request, decode_answer, decode_request, encode
from nacre.base.rpc.directory import Directory
from nacre.base.rpc.server import Allow, Dispatcher, Peer
from nacre.base.rpc.stub import Client
from nacre.base.rpc.target import Target

CONTROL = Peer("control", "control")


class Faults(msgspec.Struct, kw_only=True):
    """What goes wrong, as probabilities of a message, and how long one takes (seconds, least and most)."""

    drop: float = 0.0
    double: float = 0.0
    reorder: float = 0.0
    delay: tuple[float, float] = (0.0, 0.0)


class MemoryHub:
    """The network that joins memory transports. `cut` names the processes that nobody reaches."""

    def __init__(self, *, clock: Clock | None = None, faults: Faults | None = None, seed: int = 0):
        self.clock: Clock = clock or RealClock()
        self.faults = faults or Faults()
        self.cut: set[str] = set()
        self._random = random.Random(seed)  # noqa: S311 - a simulation's dice
        #: (topic, namespace, server or None for any) -> who serves it. Looked up for every message, so never searched.
        self._places: dict[tuple[str, str, str | None], list[MemoryTransport]] = {}
        self._turn = 0

    def offer(self, member: "MemoryTransport", target: Target) -> None:
        """The member serves this target, by its own name and as one of the topic."""
        for server in (target.server or member.me.name, None):
            there = self._places.setdefault((target.topic, target.namespace, server), [])
            if member not in there:
                there.append(member)

    def leave(self, member: "MemoryTransport") -> None:
        for target in member.targets():
            for server in (target.server or member.me.name, None):
                there = self._places.get((target.topic, target.namespace, server), [])
                if member in there:
                    there.remove(member)

    def find(self, target: Target) -> "MemoryTransport | None":
        """A process that serves the target, in turn where there are several."""
        found = self._places.get((target.topic, target.namespace, target.server))
        self._turn += 1
        return found[self._turn % len(found)] if found else None

    async def copies(self, ends: tuple[str, str]) -> int:
        """Pass one message from one process to another: how many copies arrive, after their delay."""
        if self.cut.intersection(ends) or self._random.random() < self.faults.drop:
            return 0
        least, most = self.faults.delay
        wait = self._random.uniform(least, most) if most else 0.0
        if self.faults.reorder and self._random.random() < self.faults.reorder:
            wait += max(most, 0.01)
        if wait:
            await self.clock.sleep(wait)
        return 2 if self.faults.double and self._random.random() < self.faults.double else 1


class MemoryTransport:
    """One process's place on a hub. me: the identity that its messages carry."""

    def __init__(self, hub: MemoryHub | None = None, *, me: Peer = CONTROL):
        self.hub, self.me = hub or MemoryHub(), me
        self._dispatcher = Dispatcher()
        self._tasks: set[asyncio.Task[Any]] = set()
        self.directory = Directory()

    @property
    def address(self) -> str:
        """None is needed: the hub knows everybody."""
        return ""

    @property
    def public_key(self) -> str:
        """Stands for what a network's would have."""
        return f"memory-{self.me.name}"

    def client(self, target: Target) -> Client:
        """A client for stubs."""
        return Client(self, target)

    def serve(self, target: Target, endpoint: Any, contract: type, allow: Allow = None) -> None:
        """Answer the contract's verbs of the target with the endpoint's methods."""
        self._dispatcher.serve(target, endpoint, contract, allow)
        self.hub.offer(self, target)

    def targets(self) -> list[Target]:
        """What is served here."""
        return [served.target for served in self._dispatcher.served.values()]

    async def ask(self, target: Target, request: Request, timeout: float) -> Answer:
        if self.hub.find(target) is None:
            raise Unavailable(details=f"Nobody serves {target.namespace} at {target.server or target.topic}.")
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._start(self._deliver(target, request, future))
        if not await self._within(future, timeout):
            raise Unavailable(details=f"{target.server or target.topic} did not answer "
                                      f"{request.namespace}.{request.verb} within {timeout:g} s.")
        return future.result()

    async def _within(self, future: asyncio.Future[Answer], seconds: float) -> bool:
        """Whether the answer comes within this time."""
        if future.done():
            return True
        limit: asyncio.Future[None] = asyncio.ensure_future(self.hub.clock.sleep(seconds))
        try:
            await asyncio.wait((future, limit), return_when=asyncio.FIRST_COMPLETED)
        finally:
            limit.cancel()
        return future.done()

    async def close(self) -> None:
        """Leave the hub; what is running is given up, as when a process dies."""
        self.hub.leave(self)
        tasks = [t for t in self._tasks if t is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _deliver(self, target: Target, request: Request, future: asyncio.Future[Answer]) -> None:
        other = self.hub.find(target)
        if other is None:
            return
        data = encode(request)
        ends = (self.me.name, other.me.name)
        for _ in range(await self.hub.copies(ends)):
            other.receive(data, self, future)

    def receive(self, data: bytes, sender: "MemoryTransport", future: asyncio.Future[Answer]) -> None:
        """One message arrives: it is answered when its verb is done, unless it came before."""
        if sender.me.name in self.directory.shut_out:
            return
        request = decode_request(data)
        if not self._dispatcher.again(request, sender.me):
            self._start(self._call(request, sender, future))

    async def _call(self, request: Request, sender: "MemoryTransport", future: asyncio.Future[Answer]) -> None:
        await self._reply(await self._dispatcher.answer(request, sender.me), sender, future)

    async def _reply(self, answer: Answer, sender: "MemoryTransport", future: asyncio.Future[Answer]) -> None:
        arrived = await self.hub.copies((self.me.name, sender.me.name))
        if arrived and not future.done():
            future.set_result(decode_answer(encode(answer)))

    def _start(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
