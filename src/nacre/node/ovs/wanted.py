"""What the network service wants of this host, as far as it was heard, and what has to be asked of it."""

from collections.abc import Awaitable, Iterable, Sequence
from typing import TypeVar

from nacre.base.bounds import pieces
from nacre.base.clock import Clock, RealClock
from nacre.base.errors import Unavailable
from nacre.network.contract import MOST_GROUPS, MOST_PORTS, GroupMembers, Network
from nacre.node.ovs.contract import Standing
from nacre.node.ovs.groups.members import Members
from nacre.node.ovs.plan import Desired

#: For so long a change that a beat's answer speaks of may be under way as a message (seconds).
PATIENCE = 1.0

T = TypeVar("T")


class ControlAway(Exception):
    """The network service gave no answer."""


async def reached(question: Awaitable[T]) -> T:
    """The answer. Raises ControlAway if there was none, which says nothing about what was asked for."""
    try:
        return await question
    except Unavailable as error:
        raise ControlAway(error.message) from error


class Wanted:
    """`ask` by one task at a time; the rest at any time, also meanwhile. Whatever asks raises ControlAway if nobody
    answers: what is here counts on, and what was to be asked for is still to be."""

    def __init__(self, host: str, network: Network, clock: Clock | None = None):
        self._host, self._network, self._clock = host, network, clock or RealClock()
        self.desired, self.members, self.standing = Desired(), Members(), Standing(trusted=False)
        self.asked: set[str] = set()
        self._era = ""
        self.whole, self._heard = True, 0  # the last change that is here, or asked for
        self._due: tuple[int, float] | None = None  # a change that is not, and until when it may yet come

    def changed(self, port_ids: Sequence[str], n: int = 0, before: int = 0) -> None:
        """As `Wiring.rewire`."""
        if port_ids and before <= self._heard:
            self.asked |= set(port_ids)
        else:
            self.whole = True
        self._heard = max(self._heard, n)

    def follow(self, standing: Standing) -> bool:
        """As `Wiring.follow`. Whether everything has to be fetched now."""
        before, self.standing = self.standing, standing
        if not standing.trusted:
            return False
        if standing.era and standing.era != self._era:
            self._era = standing.era
            self.members.doubt()
        self.members.lag(standing.members)
        if (standing.trusted, standing.ports, standing.networks) != (before.trusted, before.ports, before.networks):
            self._heard, self.whole = max(self._heard, standing.n), True
            return True
        if standing.n > self._heard and self._due is None:
            self._due = standing.n, self._clock.monotonic() + PATIENCE
        return False

    def overdue(self) -> bool:
        """Whether everything has to be fetched, as a change that was spoken of has not come."""
        if self._due is None or self._clock.monotonic() < self._due[1]:
            return False
        (n, _), self._due = self._due, None
        if n <= self._heard:
            return False
        self._heard, self.whole = n, True
        return True

    def regroup(self, news: Iterable[GroupMembers]) -> None:
        """As `Wiring.regroup`."""
        if self.standing.trusted:
            self.members.hear(news)

    def lacking(self) -> set[str]:
        """The groups whose members have to be asked for."""
        return self.members.lacking(self.desired.named())

    async def ask(self) -> bool:
        """Everything, if that has to be; the ports that are asked for; and members that are lacking then. Whether it
        was everything."""
        asked, self.asked, whole, self.whole, heard = self.asked, set(), self.whole, False, self._heard
        try:
            if whole:
                doubts = self.members.doubts
                answer = await reached(self._network.wiring(self._host, (), self.members.versions()))
                self.desired = self.desired.merge(answer).beside(self.standing.ports, self.standing.networks)
                self.members.take(answer.members, doubts=doubts)
                if self._heard == heard:  # also back: a database may have been restored
                    self._heard = answer.n
                asked -= self.desired.ports.keys()
            for some in pieces(sorted(asked), MOST_PORTS):
                doubts = self.members.doubts
                answer = await reached(self._network.wiring(self._host, some, self.members.versions()))
                self.desired = self.desired.without(some).merge(answer)
                self.members.take(answer.members, doubts=doubts)
        except BaseException:
            self.asked |= asked
            self.whole = self.whole or whole
            raise
        await self.ask_members()
        return whole

    async def ask_members(self) -> None:
        """Those that are lacking; those that no rule names any more go."""
        named = self.desired.named()
        self.members.keep(named)
        for groups in pieces(sorted(self.members.lacking(named)), MOST_GROUPS):
            spoken, doubts = self.members.settle(groups), self.members.doubts
            try:
                answer = await reached(self._network.members(self._host, groups, self.members.versions(groups)))
            except BaseException:
                self.members.lag(spoken)
                raise
            self.members.take(answer, groups, doubts=doubts)

    def forget(self, port_ids: Sequence[str]) -> None:
        """These ports are gone."""
        self.desired = self.desired.without(port_ids)
        self.asked -= set(port_ids)

