"""What a host routes, as it was last heard: one thing with one number, which is asked for as a whole."""

from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import TypeVar

import msgspec

from nacre.network.contract import FloatingFacts, NetworkFacts, RouterFacts, Routing

T = TypeVar("T", RouterFacts, FloatingFacts, NetworkFacts)


class Routes:
    """here: what was heard. doubts: how often there was reason to doubt it."""

    def __init__(self) -> None:
        self.here, self.doubts = Routing(), 0
        self._newer, self._doubted, self._own = 0, False, frozenset[str]()

    def networks(self) -> frozenset[str]:
        """Those that are routed."""
        return frozenset(network.id for network in self.here.networks)

    def note_newer(self, n: int) -> None:
        """It changed up to that number, as somebody said."""
        self._newer = max(n, self._newer)

    def doubt(self) -> None:
        """The database may have another history than it had: it must be asked for."""
        self._newer, self._doubted = 0, True
        self.doubts += 1

    def outdated(self, own: Collection[str]) -> bool:
        """Whether it must be asked for. own: the networks that the host has ports of."""
        return self._doubted or self._newer > self.here.n or self._own != frozenset(own)

    async def ask(self, question: Awaitable[Routing], own: Collection[str], sure: Callable[[Routing], bool]) -> None:
        """Takes the answer in. sure: whether one is of the history of the database that counts."""
        doubts, newer, self._newer = self.doubts, self._newer, 0
        try:
            answer = await question
        except BaseException:
            self.note_newer(newer)
            raise
        self.apply(answer, own, doubts, sure=sure(answer))

    def apply(self, answer: Routing, own: Collection[str], doubts: int, *, sure: bool) -> None:
        """What was answered. own, doubts: as they were when it was asked for. Where it is not sure nothing goes that is
        here. One that is older than what is here changes nothing."""
        if answer.era == self.here.era and answer.n < self.here.n and not self._doubted:
            return
        self.here = answer if sure else msgspec.structs.replace(
            answer, n=self.here.n, era=self.here.era, routers=_both(self.here.routers, answer.routers),
            floating=_both(self.here.floating, answer.floating), networks=_both(self.here.networks, answer.networks),
            peers={**answer.peers, **self.here.peers})
        self._own = frozenset(own)
        self._doubted = not sure or doubts != self.doubts


def _both(known: Iterable[T], more: Iterable[T]) -> tuple[T, ...]:
    return tuple(({each.id: each for each in known} | {each.id: each for each in more}).values())
