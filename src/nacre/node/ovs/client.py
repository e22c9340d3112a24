"""A host's client of the network service: it keeps what that wants of the host, and asks for what is not here.

A database that was restored lacks what this host has from the history that was lost. An era that was not heard of
before says that this may be so: everything is asked for anew. Before a control process, which knows of the loss, has
said that era (and which of the guests here its database does not know), an answer of it takes nothing away.
"""

from collections.abc import Awaitable, Iterable, Sequence
from typing import TypeVar

import msgspec
import structlog

from nacre.base.bounds import pieces
from nacre.base.clock import Clock, RealClock
from nacre.base.errors import Unavailable
from nacre.network.contract import MOST_ERAS, MOST_GROUPS, MOST_PORTS, GroupMembers, HostWiring, Network
from nacre.node.ovs.contract import Standing
from nacre.node.ovs.groups.members import Members
from nacre.node.ovs.plan import DesiredWiring

log = structlog.get_logger()

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


class WiringClient:
    """desired: the wiring of this host, as far as it was heard; members: those of the groups that its rules name.

    `ask` by one task at a time; the rest at any time, also meanwhile. Whatever asks raises ControlAway if nobody
    answers: what is here counts on, and what was to be asked for is still to be."""

    def __init__(self, host: str, network: Network, clock: Clock | None = None):
        self._host, self._network, self._clock = host, network, clock or RealClock()
        self.desired, self.members, self.standing = DesiredWiring(), Members(), Standing(trusted=False)
        self.asked: set[str] = set()
        self._eras: dict[str, None] = {}  # that were said, those said last at the end
        self._news, self._n = 0, 0  # how often one was news; how far the answers came that were asked for since
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
        if anew := self._is_news(standing.era):
            self.members.doubt_all()
            self._heard, self._due = 0, None  # by other numbers
        self.members.note_newer(standing.members)
        if anew or (before.trusted, before.ports, before.networks) != (True, standing.ports, standing.networks):
            self._heard, self.whole = max(self._heard, standing.n), True
            return True
        if standing.n > self._heard and self._due is None:
            self._due = standing.n, self._clock.monotonic() + PATIENCE
        return False

    def _is_news(self, era: str) -> bool:
        """Whether nobody said it before. Of those that somebody did, one that has not looked for long may say an older
        one again, and again."""
        if not era:
            return False
        news = era not in self._eras
        self._eras.pop(era, None)
        self._eras[era] = None
        for oldest in list(self._eras)[:-MOST_ERAS]:
            del self._eras[oldest]
        if news:
            self._news, self._n = self._news + 1, 0
        return news

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
            self.members.apply_news(news)

    def outdated_groups(self) -> set[str]:
        """The groups whose members have to be asked for."""
        return self.members.outdated(self.desired.named())

    async def ask(self) -> bool:
        """Everything, if that has to be; the ports that are asked for; and members that are lacking then. Whether it
        was everything."""
        asked, self.asked, whole, self.whole, heard = self.asked, set(), self.whole, False, self._heard
        try:
            if whole:
                doubts, news = self.members.doubts, self._news
                answer = await reached(self._network.wiring(self._host, (), self.members.versions()))
                sure = self._take(answer, (), news)
                self.members.apply(answer.members, doubts=doubts)
                if sure and self._heard == heard:
                    self._heard = answer.n
                asked -= {port.id for port in (*answer.ports, *self.standing.ports)}
            for some in pieces(sorted(asked), MOST_PORTS):
                doubts, news = self.members.doubts, self._news
                answer = await reached(self._network.wiring(self._host, some, self.members.versions()))
                self._take(answer, some, news)
                self.members.apply(answer.members, doubts=doubts)
        except BaseException:
            self.asked |= asked
            self.whole = self.whole or whole
            raise
        await self.ask_members()
        return whole

    def _take(self, answer: HostWiring, asked: Sequence[str], news: int) -> bool:
        """The answer is here. asked: the ports (none: all) that are not wanted if it lacks them; unless it is of an era
        that was not said yet, or behind what was answered before, as that of a database that was put back a moment ago:
        then False, and nothing goes until the era has been said. Which of those said is the database's own nobody here
        knows: a control process that was frozen says an older one last. news: how often an era had been news when it
        was asked for: one that was under way meanwhile is of the history of before, by whose numbers none counts."""
        if answer.era and self._eras and (
                news != self._news or answer.era not in self._eras or answer.n < self._n):
            log.info("an answer of another history of the database, maybe: nothing is taken away yet", n=answer.n)
            tunnels = tuple(sorted({*self.desired.tunnels, *answer.tunnels}))
            self.desired = self.desired.merge(msgspec.structs.replace(answer, whole=False, tunnels=tunnels))
            return False
        if answer.era:
            self._n = answer.n
        self.desired = self.desired.without(asked).merge(answer)
        if answer.whole:
            self.desired = self.desired.beside(self.standing.ports, self.standing.networks)
        return True

    async def ask_members(self) -> None:
        """Those that are lacking; those that no rule names any more go."""
        named = self.desired.named()
        self.members.keep_only(named)
        for groups in pieces(sorted(self.members.outdated(named)), MOST_GROUPS):
            newer, doubts = self.members.take_newer(groups), self.members.doubts
            try:
                answer = await reached(self._network.members(self._host, groups, self.members.versions(groups)))
            except BaseException:
                self.members.note_newer(newer)
                raise
            self.members.apply(answer, groups, doubts=doubts)

    def forget(self, port_ids: Sequence[str]) -> None:
        """These ports are gone."""
        self.desired = self.desired.without(port_ids)
        self.asked -= set(port_ids)

