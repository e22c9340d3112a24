"""The gateway hosts of routers: elections are held here, beside the write lane, and each new term is one row that is
written if nothing that it was held on has changed meanwhile. So it does not matter which control process holds them.

A host can be elected if it says that it has an L3 agent, and an operator has switched that on (as Neutron's with
`enable_new_agents` off): what it says alone does not let strangers' traffic go through it.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import sqlalchemy as sa
import structlog

from nacre.base.bounds import pieces
from nacre.base.clock import Clock
from nacre.base.context import Context, service_context
from nacre.network import tables as t
from nacre.network.hosts import agents
from nacre.network.l3 import statuses
from nacre.network.l3.elections import Candidate, Seat, Term, elect
from nacre.network.ml2.driver_api import HostAgent
from nacre.network.ml2.mechanism_drivers.openvswitch import reaches
from nacre.network.nouns.agent import L3, OVS
from nacre.network.nouns.network import NetworkSegment
from nacre.network.work import Work

log = structlog.get_logger()

#: Seconds between looks for gateways that were just set, and of all routers; so often in a row such a look must find
#: that a host cannot serve: a cloud that comes back hears its hosts one after the other.
LOOK, SWEEP, MISSED = 1.0, 10.0, 3
#: Terms of one transaction.
AT_ONCE = 200

_R, _A = t.routers.c, t.agents.c
_PAIRS = sa.select(_R.gateway_host, _R.gateway_network_id).distinct().where(_R.gateway_network_id.is_not(None))
_LOAD = sa.select(_R.gateway_host, sa.func.count()).where(_R.gateway_host.is_not(None)).group_by(_R.gateway_host)
_INNER = sa.select(t.ports.c.device_id, t.ports.c.network_id).where(
    t.ports.c.device_id.in_(sa.bindparam("routers", expanding=True)), t.is_leg(t.ports))
_L3 = t.agents.alias("l3")


class Place(NamedTuple):
    """A host as the gateway host of an external network (None: there is none)."""

    host: str | None
    network: str


class Network(Protocol):
    """What elections need of the network service."""

    async def read(self, context: Context, step: Callable[[Work], Any]) -> Any: ...
    def write(self, context: Context, step: Callable[[Work], Any]) -> Awaitable[Any]: ...


class Elections:
    """patience: seconds from the start until every host that lives has been heard: before, none is judged. due: routers
    with a new gateway."""

    def __init__(self, network: Network, clock: Clock, patience: float):
        self._network, self._clock, self._patience, self.due = network, clock, patience, set[str]()
        self._missed: Counter[Place] = Counter()

    async def run(self) -> None:
        """For ever."""
        began = self._clock.monotonic()
        swept = began - SWEEP
        while True:
            await self._clock.sleep(LOOK)
            try:
                await self.look()
                if (now := self._clock.monotonic()) - swept >= SWEEP:
                    swept = now
                    await self.sweep(standing=now - began >= self._patience)
            except Exception as error:  # the database is away: the next look finds the same
                log.info("no gateway host can be elected now", why=str(error))

    async def look(self) -> None:
        """Those that are due: who have none, or one that says itself that it does not reach what they join now. Whether
        one that is not heard can go on is for sweeps to judge."""
        due, self.due = self.due, set()
        try:
            for some in pieces(sorted(due), AT_ONCE):
                await self._hold(partial(_of_routers, some), judged=False)
        except BaseException:
            self.due |= due
            raise

    async def sweep(self, *, standing: bool = True) -> None:
        """All routers: where nobody serves, and (standing) where somebody has not been able to for long enough."""
        failing = await self._network.read(service_context(), failed)
        self._missed = Counter({place: self._missed[place] + 1 for place in failing if standing or place.host is None})
        if places := [place for place, times in self._missed.items() if place.host is None or times >= MISSED]:
            await self._hold(partial(_at, places))

    async def _hold(self, seats: Callable[[Work], list[Seat]], *, judged: bool = True) -> None:
        found = await self._network.read(service_context(), lambda work: hold(work, seats(work), judged=judged))
        for some in pieces(found, AT_ONCE):
            await self._network.write(service_context(), partial(write, some))


def hold(work: Work, seats: Sequence[Seat], *, judged: bool = True) -> list[tuple[Seat, Term]]:
    """The new terms of those of these whose host cannot serve. judged: also where it seems to be away, or not to reach
    the outside. Nothing is written."""
    able = _able(work, {Place(seat.term.host, seat.network) for seat in seats})
    inside = _able(work, {Place(seat.term.host, network) for seat in seats for network in seat.inner}, inner=True)
    lacking = {seat.router for seat in seats if any(Place(seat.term.host, net) not in inside for net in seat.inner)}
    vacant = {seat.router: seat for seat in seats if (
        seat.router in lacking if Place(seat.term.host, seat.network) in able else judged or not seat.term.host)}
    outside = {seat.network for seat in vacant.values()}
    found = elect(vacant.values(), candidates(work, outside, {
        network for seat in vacant.values() for network in seat.inner})) if vacant else {}
    return [(vacant[router], term) for router, term in found.items()]


def write(terms: Collection[tuple[Seat, Term]], work: Work) -> None:
    """They hold from now on, but for those of routers of which something else was written meanwhile."""
    new = [seat for seat, term in terms if work.conn.execute(sa.update(t.routers).where(
        _R.id == seat.router, _R.gateway_network_id == seat.network, _R.gateway_term == seat.term.number,
        _R.gateway_host.is_not_distinct_from(seat.term.host)).values(
            gateway_host=term.host, gateway_term=term.number)).rowcount]
    if new:
        statuses.elected(work, [seat.router for seat in new])
        work.changes.routers.update(seat.router for seat in new)
        work.changes.routing.update(seat.term.host for seat in new if seat.term.host)


def forget(work: Work, host: str) -> None:
    """The host is removed: its routers have no gateway host until the next election."""
    routers = list(work.conn.execute(sa.select(_R.id).where(_R.gateway_host == host)).scalars())
    for some in pieces(routers, AT_ONCE):
        work.conn.execute(sa.update(t.routers).where(_R.id.in_(some)).values(gateway_host=None))
        statuses.elected(work, some)
    work.changes.routers.update(routers)


def failed(work: Work) -> list[Place]:
    """Where routers have their gateways, and it cannot be."""
    places = {Place(*row) for row in work.conn.execute(_PAIRS)}
    return sorted(places - _able(work, places), key=str)


def candidates(work: Work, outside: Collection[str], inner: Collection[str] = ()) -> list[Candidate]:
    """The hosts that may be gateway hosts of these external networks, and which of them and of the inner ones each
    reaches."""
    segments = _segments(work, {*outside, *inner})
    wanted = {each.physical_network or each.network_type for network in outside for each in segments[network]}
    says = [sa.cast(_A.configurations, sa.String).contains(json.dumps(name), autoescape=True) for name in wanted]
    load = Counter[str](dict(work.conn.execute(_LOAD).all()))
    return [Candidate(agent.host, agent.alive, frozenset(network for network, each in segments.items() if any(
        _reaches(agent, segment, inner=network not in outside) for segment in each)), load[agent.host])
        for agent in _agents(work, sa.or_(*says))] if wanted else []


def _reaches(agent: HostAgent, segment: NetworkSegment, *, inner: bool) -> bool:
    """As binding would; but other hosts' ports inside only where a tunnel does not end on its own host."""
    return reaches(agent, segment.offered()) and not (
        inner and not agent.tunnelled and segment.network_type in agent.tunnel_types)


def _agents(work: Work, where: sa.ColumnElement[bool]) -> Iterator[HostAgent]:
    """The Open vSwitch agents for which that holds, of hosts whose L3 agent an operator has switched on."""
    names = work.conn.execute(sa.select(_A.host).where(_A.agent_type == OVS, where, sa.exists().where(
        _L3.c.host == _A.host, _L3.c.agent_type == L3, _L3.c.admin_state_up))).scalars().all()
    for some in pieces(names, AT_ONCE):
        yield from agents.of_hosts(work, some).values()


def _able(work: Work, places: Collection[Place], *, inner: bool = False) -> set[Place]:
    """Those of these that can be."""
    hosts, found = {place.host for place in places if place.host}, set[Place]()
    segments = _segments(work, {place.network for place in places if place.host})
    for some in pieces(sorted(hosts), AT_ONCE):
        for agent in _agents(work, _A.host.in_(some)):
            found |= {place for place in places if place.host == agent.host and agent.alive and any(
                _reaches(agent, segment, inner=inner) for segment in segments[place.network])}
    return found


def _segments(work: Work, network_ids: Collection[str]) -> dict[str, list[NetworkSegment]]:
    found = defaultdict[str, list[NetworkSegment]](list)
    for segment in work.select(NetworkSegment, network_id=sorted(network_ids), dynamic=False) if network_ids else ():
        found[segment.network_id].append(segment)
    return found


def _of_routers(router_ids: Collection[str], work: Work) -> list[Seat]:
    return _seats(work, _R.id.in_(router_ids))


def _at(places: Collection[Place], work: Work) -> list[Seat]:
    return [seat for host, network in places for seat in _seats(
        work, _R.gateway_host.is_not_distinct_from(host), _R.gateway_network_id == network)]


def _seats(work: Work, *where: sa.ColumnElement[bool]) -> list[Seat]:
    rows = work.rows(sa.select(_R.id, _R.gateway_network_id, _R.gateway_host, _R.gateway_term).where(
        _R.gateway_network_id.is_not(None), *where))
    inner = defaultdict[str, set[str]](set)
    for some in pieces((row["id"] for row in rows), AT_ONCE):
        for router, network in work.conn.execute(_INNER, {"routers": some}):
            inner[router].add(network)
    return [Seat(row["id"], row["gateway_network_id"], Term(row["gateway_host"], row["gateway_term"]),
                 frozenset(inner[row["id"]])) for row in rows]
