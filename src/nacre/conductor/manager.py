"""The conductor's endpoint: what hosts say of themselves comes in here, at every control process."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import structlog

from nacre.base.bounds import pieces
from nacre.base.db.together import Groups
from nacre.base.durable.eras import Position
from nacre.base.errors import BadRequest, Forbidden, Unavailable
from nacre.compute.contract import Server, StoryOrder
from nacre.conductor import orders
from nacre.conductor.build import group_of, known_to
from nacre.conductor.contract import Beat, ControlAddress, Heard, NodeHello, Welcome, WorkState
from nacre.conductor.deps import StoryDeps
from nacre.conductor.endings import Endings
from nacre.node.contract import GuestFacts
from nacre.scheduler.contract import Held, HostReport, HostState, Placement

log = structlog.get_logger()

#: So many beats of a host, all its guests are compared with the database, not only those that changed.
WHOLE = 60
#: Where a beat says what guests a host has. Of who says something wrong there it is not known what is missing.
HELD = "report.held"
#: Regular beats a second that one process wants to hear, beyond which they come more seldom; but no host's more seldom
#: than this (seconds): it counts as down when three of them are lost.
MOST_BEATS, SELDOM = 500, 20.0
#: What a host hears whose hello was overtaken.
LATE = "A later word of this host has come already."
#: Seconds between two groups of hosts that say hello: each group costs the database what one host alone costs it.
GREET = 0.25
#: Guests of one look into the database.
AT_ONCE = 500


@dataclass
class Session:
    """What this process knows of a host since its hello. power: of each allocation, as last said, and since
    when; works: what it does."""

    power: dict[str, tuple[str, int]] = field(default_factory=dict)
    beats: int = 0
    works: tuple[WorkState, ...] = ()
    held: tuple[Held, ...] = ()


@dataclass(frozen=True)
class ConductorDeps:
    """What the endpoint asks of its process. introduce: a host's way is known from now on; admits: it was not removed;
    controls: the living control processes; judge: how far the database is now, and whether it is older than one that
    was so far; seen: how far it was a moment ago; wiring: a host's last change; behind: those of these security groups
    and networks of a host that changed later, and when, and what it routes."""

    introduce: Callable[[NodeHello], Awaitable[None]]
    admits: Callable[[str], bool]
    controls: Callable[[], Awaitable[Sequence[ControlAddress]]]
    judge: Callable[[Position], Awaitable[tuple[Position, bool]]]
    seen: Callable[[], Position]
    wiring: Callable[[str], int]
    behind: Callable[[str, Mapping[str, int], Mapping[str, int], int | None], Awaitable[
        tuple[dict[str, int], dict[str, int], int]]]


class ConductorManager:
    """Implements `Conductor`."""

    def __init__(self, deps: StoryDeps, endings: Endings, around: ConductorDeps):
        self._deps, self._endings, self._around = deps, endings, around
        self._sessions: dict[str, Session] = {}
        self._greetings = Groups(deps.clock, GREET)
        #: What a host had said when an operator's word about it was used up: it hears it until it says something else.
        self._accepted: dict[str, tuple[str, str, int, str]] = {}
        #: What was said already to be wrong in a host's words.
        self._told: dict[str, set[str]] = {}

    async def hello(self, hello: NodeHello) -> Welcome:
        host = hello.host
        await self._greetings.join()
        before = await self._deps.registry.get(host)
        anew = before is not None and before.journal not in ("", hello.journal)
        report = self._read(hello.beat, before)
        if before is not None and before.met and report.number <= before.report.number and not anew:
            raise Unavailable(LATE)  # where it says that it listens is over, too
        await self._around.introduce(hello)
        cloud, (now, older) = self._deps.cloud(), await self._around.judge(Position(hello.position, hello.era))
        audit, word = await self._deps.ledger.audit(host, report.held), await self._deps.registry.word(host)
        said = (hello.journal, hello.cloud, hello.position, hello.era)
        accepted = word is not None or self._accepted.get(host) == said
        why = ""
        if report.held and hello.cloud not in ("", cloud):
            why = f"it has servers of another cloud, {hello.cloud}"
        elif report.held and (audit.later or older):
            why = f"it has seen a later state of the database, at {hello.position}, than this one was made from"
        elif HELD in hello.beat.wrong:
            why = f"it says of its guests what cannot be: {hello.beat.wrong[HELD]}"
        # Judged before it is heard: nothing is placed on a host that takes no orders, or was removed in between.
        if not self._around.admits(host):
            raise Forbidden(f"Host {host} is not of this cloud any more: let it join again.")
        if not await self._deps.scheduler.report(report, anew=anew):
            raise Unavailable(LATE)
        await self._deps.registry.bar(host, why, hello.journal)
        refused = await self._agent(hello.beat)
        self._deps.hosts.greeted(host)
        welcome = Welcome(cloud=cloud, position=now.n, era=now.era, older=older or bool(audit.later), accepted=accepted,
                          orphans=audit.unknown, controls=tuple(await self._around.controls()), refused=refused,
                          wrong=hello.beat.wrong)
        if why:
            log.error("a host takes no orders until an operator decides", host=host, why=why, accepted=accepted)
            self.meet_again(host)  # until it is decided
            if word is not None:
                await self._deps.ledger.catch_up(host, report.held, word)
                self._accepted[host] = said
            return welcome
        self._accepted.pop(host, None)
        if word is not None:  # which was not needed: it shall not let the next older database in
            await self._deps.ledger.catch_up(host, (), word)
        session = self._sessions[host] = Session()
        await self._notice(session, hello.beat)
        self._endings.begin(audit.ending)
        return welcome

    async def beat(self, beat: Beat) -> Heard:
        session = self._sessions.get(beat.host)
        if session is None:
            return Heard(again=True)
        refused, seen = "", self._around.seen()
        known = await self._deps.registry.get(beat.host) if beat.wrong else None
        if await self._deps.scheduler.report(self._read(beat, known)):
            refused = await self._agent(beat)
            await self._notice(session, beat)
        members, placed, routing = await self._around.behind(beat.host, beat.members, beat.placed, beat.routing)
        return Heard(
            wiring=self._around.wiring(beat.host), members=members, placed=placed, routing=routing,
            position=seen.n, era=seen.era, refused=refused, wrong=beat.wrong,
            period=min(SELDOM, len(self._sessions) / MOST_BEATS))

    async def guest_facts(self, host: str, server_id: str) -> GuestFacts:
        return await self._deps.progress.guest_facts(host, server_id)

    async def plan(self, order: StoryOrder, servers: tuple[Server, ...]) -> tuple[Placement, ...]:
        """Where these servers would be placed now. Changes nothing. Raises BadRequest."""
        group = await group_of(self._deps, servers[0])
        known = await known_to(self._deps, order, servers[0])
        return await self._deps.scheduler.plan(orders.placement_request(servers, order, group, known=known))

    def meet_again(self, host: str | None = None) -> None:
        """The host, or each, says hello at its next beat: there is something to say to it."""
        if host is None:
            self._sessions.clear()
        else:
            self._sessions.pop(host, None)

    def sessions(self) -> dict[str, Session]:
        """The hosts that speak to this process."""
        return self._sessions

    def _read(self, beat: Beat, known: HostState | None) -> HostReport:
        """The host's report: of what is wrong in it counts what it said before."""
        if not beat.wrong:
            return beat.report
        told = self._told.setdefault(beat.host, set())
        if news := {place: why for place, why in beat.wrong.items() if place not in told}:
            told.update(news)
            log.error("a part of what a host says of itself is refused", host=beat.host, wrong=news)
        before = {} if known is None else {name: getattr(known.report, name) for name in known.report.__struct_fields__
                                           if f"report.{name}" in beat.wrong and f"report.{name}" != HELD}
        return msgspec.structs.replace(beat.report, **before)

    async def _agent(self, beat: Beat) -> str:
        """Why the network does not take the report, if so: the host's guests are not the worse for it."""
        if wrong := [f"{place}: {why}" for place, why in beat.wrong.items() if place.startswith("agent.")]:
            return f"The network agent's report is refused: {wrong[0]}."
        if beat.agent.host != beat.host:
            return f"The network agent's report is refused: it is of {beat.agent.host[:64]}, and this is {beat.host}."
        try:
            await self._deps.network.agent_report(beat.agent)
        except BadRequest as error:
            return error.message
        return ""

    async def _notice(self, session: Session, beat: Beat) -> None:
        """Guests that are not as they were last said to be; now and then all of them."""
        held, whole = beat.report.held, session.beats % WHOLE == 0 and HELD not in beat.wrong
        session.works, session.held, session.beats = beat.works, held, session.beats + 1
        news = [h for h in held if whole or session.power.get(h.allocation) != (h.power, h.since)]
        unjudged = set[str]()
        for some in pieces(news, AT_ONCE):
            unjudged |= await self._deps.progress.noticed(beat.host, beat.report.number, some)
        if whole:
            for server in await self._deps.progress.missed(
                    beat.host, beat.report.number, held, settled=session.beats > 1):
                log.error("a server is not on its host", server=server, host=beat.host)
        session.power = {h.allocation: (h.power, h.since) for h in held if h.allocation not in unjudged}
