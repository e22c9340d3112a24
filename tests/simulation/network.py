"""The network between simulated processes: messages take their time, get lost, come late, twice and in another order.

It is nobody's: a message that is under way arrives though its sender is dead by then, and reaches whoever has the name
that it was sent to.
"""

import asyncio
import random
from typing import Any

from nacre.base.rpc.codec import Answer, Request, decode_answer, encode
from nacre.base.rpc.memory import MemoryHub, MemoryTransport
from nacre.base.rpc.server import Peer
from nacre.base.rpc.target import Target
from nacre.simulation.virtual_time import LoopClock
from tests.simulation.loop import Process, outside

#: Seconds that a message takes, and that a late one does.
USUAL, LATE = (0.001, 0.02), (2.0, 22.0)


class Network(MemoryHub):
    """drop, double, late: shares of messages; cuts: pairs of names between which nothing passes."""

    def __init__(self, dice: random.Random):
        super().__init__(clock=LoopClock())
        self.drop = self.double = self.late = 0.0
        self.cuts: set[frozenset[str]] = set()
        self.members: dict[str, Wire] = {}
        #: When the last message that is under way arrives.
        self.latest = 0.0
        self._dice = dice

    def delays(self, one: str, other: str) -> list[float]:
        """One for each copy of a message that arrives."""
        dice = self._dice
        if dice.random() < self.drop or frozenset((one, other)) in self.cuts:
            return []
        return [dice.uniform(*(LATE if dice.random() < self.late else USUAL))
                for _ in range(2 if dice.random() < self.double else 1)]


class Wire(MemoryTransport):
    """A process's place on the network, for one of its lives."""

    hub: Network

    def __init__(self, hub: Network, me: Peer, process: Process):
        super().__init__(hub, me=me)
        self.process = process
        hub.members[me.name] = self

    def leave(self) -> None:
        """Its process is dead. What runs there is not told."""
        self.hub.leave(self)

    async def _deliver(self, target: Target, request: Request, future: asyncio.Future[Answer]) -> None:
        if (other := self.hub.find(target)) is not None:
            self._send(other.me.name, "receive", encode(request), self, future)

    async def _reply(self, answer: Answer, sender: MemoryTransport, future: asyncio.Future[Answer]) -> None:
        self._send(sender.me.name, "hear", encode(answer), future)

    def _send(self, name: str, verb: str, *message: Any) -> None:
        loop = self.process.loop
        for delay in self.hub.delays(self.me.name, name):
            if delay > USUAL[1]:
                self.hub.latest = max(self.hub.latest, loop.time() + delay)
            loop.call_later(delay, self._arrive, name, verb, message, context=outside())

    def _arrive(self, name: str, verb: str, message: tuple[Any, ...]) -> None:
        there = self.hub.members[name]
        there.process.loop.call_soon(getattr(there, verb), *message, context=there.process.context())

    def hear(self, data: bytes, future: asyncio.Future[Answer]) -> None:
        """An answer arrives. That of an earlier life is nobody's."""
        if not future.done():
            future.set_result(decode_answer(data))
