"""A host's client of the network service: it keeps what that wants of the host, and asks for what is not here.

A database that was restored lacks what this host has from the history that was lost. An era that was not heard of
before says that this may be so: everything is asked for anew. Before a control process, which knows of the loss, has
said that era (and which of the guests here its database does not know), an answer of it takes nothing away; nor does
one that is behind what was answered before, as that of a database that was put back a moment ago. Which of the eras
that were said is the database's own nobody here knows: a control process that was frozen says an older one last. An
answer that was under way while an era was news is of the history of before, by whose numbers none counts.
"""

import random
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec
import structlog

from nacre.base.bounds import pieces
from nacre.base.clock import Clock, RealClock
from nacre.base.errors import Unavailable
from nacre.network.contract import (
    MOST_ERAS,
    MOST_GROUPS,
    MOST_PORTS,
    TOO_LATE,
    Differences,
    FloatingFacts,
    Have,
    HostWiring,
    Network,
    NetworkFacts,
    Peer,
    RouterFacts,
    Routing,
)
from nacre.node.ovs.contract import Standing
from nacre.node.ovs.groups.members import Keeper, Members, Places
from nacre.node.ovs.plan import DesiredWiring

log = structlog.get_logger()

#: Seconds between tries when no control process can be asked: at first, and at most.
AWAY = 1.0, 20.0
#: For so long a change that a beat's answer speaks of may be under way as a message (seconds).
PATIENCE = 1.0

T = TypeVar("T")
R = TypeVar("R", RouterFacts, FloatingFacts, NetworkFacts)


class ControlAway(Exception):
    """The network service gave no answer. late: as more is asked of it than it can answer in time."""

    def __init__(self, message: str, *, late: bool = False):
        self.late = late
        super().__init__(message)


class Pauses:
    """Between tries that fail, in seconds: about twice as many after each question that came too late, and by chance,
    as hosts that began together shall not go on together. A service that is away gains nothing by longer ones."""

    def __init__(self, who: str):
        self._who, self._late = who, 0

    def after(self, error: Exception) -> float:
        """Until the next try."""
        self._late += isinstance(error, ControlAway) and error.late
        least, most = AWAY
        chance = random.Random(f"{self._who} {self._late}").uniform(0.5, 1.0)  # noqa: S311 - no secret
        return min(most, least * 2.0 ** min(self._late, 30)) * chance

    def over(self) -> None:
        """A try succeeded."""
        self._late = 0


async def reached(question: Awaitable[T]) -> T:
    """The answer. Raises ControlAway if there was none, which says nothing about what was asked for."""
    try:
        return await question
    except Unavailable as error:
        raise ControlAway(error.message, late=error.type == TOO_LATE) from error


class Routes:
    """What the host routes, as it was last heard: one thing with one number, which is asked for as a whole. doubts: how
    often there was reason to doubt it."""

    def __init__(self) -> None:
        self.here, self.doubts = Routing(), 0
        self._newer, self._doubted, self._own = 0, False, frozenset[str]()

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


def _both(known: Iterable[R], more: Iterable[R]) -> tuple[R, ...]:
    return tuple(({each.id: each for each in known} | {each.id: each for each in more}).values())


class WiringClient:
    """desired: the wiring of this host, as far as it was heard; members: those of the groups that its rules name;
    places: where the ports of its networks are, and of those that are routed with them; peers: how the hosts are
    reached that they are on; routing: what it routes.

    `ask` by one task at a time; the rest at any time, also meanwhile. Whatever asks raises ControlAway if nobody
    answers: what is here counts on, and what was to be asked for is still to be."""

    def __init__(self, host: str, network: Network, clock: Clock | None = None):
        self._host, self._network, self._clock = host, network, clock or RealClock()
        self.desired, self.members, self.standing = DesiredWiring(), Members(), Standing(trusted=False)
        self.places, self.peers = Places(), dict[str, Peer]()
        self.routing, self._routes = Routing(), Routes()
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
            self.places.doubt_all()
            self._routes.doubt()
            self._heard, self._due = 0, None  # by other numbers
        self.members.note_newer(standing.members)
        self.places.note_newer(standing.placed)
        self._routes.note_newer(standing.routing)
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

    def differ(self, news: Differences) -> None:
        """As `Wiring.differ`."""
        if self.standing.trusted:
            self._hear_of(news.peers)
            self.members.apply_news(news.members)
            self.places.apply_news(news.placed)
            self._routes.note_newer(news.routing)

    def outdated(self) -> tuple[set[str], set[str]]:
        """The groups whose members, and the networks whose ports, have to be asked for."""
        return self.members.outdated(self.desired.named()), self.places.outdated(self.desired.at())

    def complete(self) -> bool:
        """Whether every page came of what the ports here need: newer or not, something is known of all."""
        return self.members.has(self.desired.named()) and self.places.has(self.desired.at())

    def routing_outdated(self) -> bool:
        """Whether what is routed here has to be asked for: it changed, or others are the networks of the ports here."""
        return self.standing.trusted and self._routes.outdated(self.desired.own())

    def versions(self) -> tuple[dict[str, int], dict[str, int], int]:
        """As `Wiring.versions`."""
        return self.members.numbers(), self.places.numbers(), self.routing.n

    async def ask(self) -> bool:
        """Everything, the ports, and what is routed, as has to be; what lacks then. Whether it was everything."""
        asked, self.asked, whole, self.whole, heard = self.asked, set(), self.whole, False, self._heard
        try:
            if whole:
                answer, sure = await self._wiring(())
                if sure and self._heard == heard:
                    self._heard = answer.n
                asked -= {port.id for port in (*answer.ports, *self.standing.ports)}
            for some in pieces(sorted(asked), MOST_PORTS):
                await self._wiring(some)
        except BaseException:
            self.asked |= asked
            self.whole = self.whole or whole
            raise
        if whole:
            self._routes.doubt()
        if self.routing_outdated():
            try:
                await self._ask_routing()
            except ControlAway:
                raise
            except Exception as error:
                if not self.routing.era:  # what is routed since before this process began stays
                    raise
                log.error("what is routed is not said: it stays as it was", why=repr(error))
        await self.ask_differences()
        return whole

    async def _ask_routing(self) -> None:
        await self._routes.ask(reached(self._network.routing(self._host)), self.desired.own(),
                               partial(self._counts, news=self._news))
        self.routing = self._routes.here
        self.desired = msgspec.structs.replace(
            self.desired, routed=frozenset(network.id for network in self.routing.networks))

    async def _wiring(self, some: tuple[str, ...]) -> tuple[HostWiring, bool]:
        """The answer, taken in, and whether it counts for sure."""
        doubts, news = (self.members.doubts, self.places.doubts), self._news
        known = Have(groups=self.members.versions(), networks=self.places.versions())
        answer = await reached(self._network.wiring(self._host, some, known=known))
        sure = self._take(answer, some, news)
        self.members.apply(answer.members, doubts=doubts[0])
        self.places.apply(answer.placed, doubts=doubts[1])
        return answer, sure

    def _take(self, answer: HostWiring, asked: Sequence[str], news: int) -> bool:
        """The answer is here. asked: the ports (none: all) that are not wanted if it lacks them; news: how often an era
        had been news when it was asked for. False: nothing goes, as it may be of another history (see above)."""
        if not self._counts(answer, news):
            log.info("an answer of another history of the database, maybe: nothing is taken away yet", n=answer.n)
            self.desired = self.desired.merge(msgspec.structs.replace(answer, whole=False))
            self.peers = {**answer.peers, **self.peers}
            return False
        if answer.era:
            self._n = answer.n
        self.desired = self.desired.without(asked).merge(answer)
        # The peers that it names; a whole one names all. Those that were heard of later stay as they are.
        later = {host: known for host, known in self.peers.items() if known.era == answer.era and known.n > answer.n}
        self.peers = {**({} if answer.whole else self.peers), **answer.peers, **later}
        if answer.whole:
            self.desired = self.desired.beside(self.standing.ports, self.standing.networks)
        return True

    def _counts(self, answer: HostWiring | Routing, news: int) -> bool:
        return not answer.era or not self._eras or (
            news == self._news and answer.era in self._eras and answer.n >= self._n)

    def _hear_of(self, peers: Mapping[str, Peer]) -> None:
        """Those that are not known, or of which that is later news; of another history only a whole answer is."""
        for host, peer in peers.items():
            known = self.peers.get(host)
            if known is None or (known.era == peer.era and known.n < peer.n):
                self.peers[host] = peer

    async def ask_differences(self) -> None:
        """Those that are lacking; those that nothing here needs any more go."""
        self.members.keep_only(self.desired.named())
        self.places.keep_only(self.desired.at())
        groups, networks = self.outdated()
        wanted: list[tuple[Keeper[Any], str]] = [
            *((self.members, id) for id in sorted(groups)), *((self.places, id) for id in sorted(networks))]
        for some in pieces(wanted, MOST_GROUPS):
            await self._differences(*(tuple(id for keeper, id in some if keeper is kind)
                                      for kind in (self.members, self.places)))

    async def _differences(self, groups: tuple[str, ...], networks: tuple[str, ...]) -> None:
        """Page after page."""
        members, places, newer = self.members, self.places, (dict[str, int](), dict[str, int]())
        try:
            while groups or networks:
                newer[0].update(members.take_newer(groups))
                newer[1].update(places.take_newer(networks))
                doubts = members.doubts, places.doubts
                answer = await reached(self._network.differences(self._host, groups, networks, Have(
                    groups=members.versions(groups), networks=places.versions(networks))))
                self._hear_of(answer.peers)
                rest, asked = set(answer.rest), (groups, networks)
                members.apply(answer.members, set(groups) - rest, doubts=doubts[0])
                places.apply(answer.placed, set(networks) - rest, doubts=doubts[1])
                groups = tuple(id for id in groups if id in rest)
                networks = tuple(id for id in networks if id in rest)
                if (groups, networks) == asked:
                    raise ControlAway("nothing is answered of what was asked for")
        except BaseException:
            members.note_newer({id: n for id, n in newer[0].items() if id in groups})
            places.note_newer({id: n for id, n in newer[1].items() if id in networks})
            raise

    def tunnels(self) -> dict[str, str]:
        """Where frames for other hosts go."""
        ways = sorted((*self.routing.peers.items(), *self.peers.items()), key=lambda each: each[1].n)
        return {host: peer.tunnel_ip for host, peer in ways}

    def forget(self, port_ids: Sequence[str]) -> None:
        """These ports are gone."""
        self.desired = self.desired.without(port_ids)
        self.asked -= set(port_ids)

