"""Who is told of a change: which hosts a unit of work concerns, and messages to them. Only speed depends on messages:
hosts also ask by themselves.

Who joined or left a security group is told to the hosts whose rules name it, which port of a network is where to those
that keep that (placed.py), and that something else is routed to those that route it (routed.py). What changes within
some tens of milliseconds is read together, once for all hosts, and goes to each as one message. A message says from
which number on it is complete: a host that has missed something before that asks (members.py, placed.py). One that was
lost is noticed with the host's next beat, which names the numbers it has.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar

import msgspec
import sqlalchemy as sa
import structlog

from nacre.base.clock import Clock
from nacre.base.db import Database
from nacre.base.db.together import Together
from nacre.base.durable import changes as outbox
from nacre.base.durable.changes import Change
from nacre.network import tables as t
from nacre.network.contract import MOST_GROUPS, Differences, GroupMembers, NetworkPorts, Peer, PlacedPort
from nacre.network.hosts import members, placed, routed
from nacre.network.hosts.members import MEMBERS
from nacre.network.hosts.placed import PLACED, any_port, named_in
from nacre.network.hosts.routed import ROUTED, ROUTING
from nacre.network.nouns.agent import OVS
from nacre.network.nouns.port import Binding
from nacre.network.work import Work

log = structlog.get_logger()

#: Seconds for which a host that did not answer gets no messages: at first, and at most.
QUIET = 5.0, 300.0
#: Differences that come together make one message (seconds); and what each message to a host costs the next
#: ones: a process sends no more than five hundred of them a second.
GATHER, EACH = 0.05, 0.002
#: Who hears that it routes something else asks for all that it routes: the next such news of the same network or host
#: rests for as many seconds, at least and at most, and for so many for each host that was told.
REST, ASKED = (1.0, 10.0), 0.1
#: Ports and CIDRs of one message: a host's door takes some four times as much.
MOST_IN_ONE = 20_000

Affected = dict[str, set[str]]


# --- which hosts have ports of groups -----------------------------------------------------------------------

_IDS: sa.BindParameter[Any] = sa.bindparam("ids", expanding=True)
_G, _A = t.binding_groups.c, t.agents.c
_OF_GROUPS = any_port(t.binding_groups, _G.group_id, sa.select(t.security_groups.c.id).where(
    t.security_groups.c.id.in_(_IDS)))
#: Hosts of the release before.
_FORMER = sa.select(_A.host).where(_A.agent_type == OVS, _A.takes_differences.is_(False))
_R = t.security_group_rules.c
#: The groups with rules that name these security groups, or these address groups.
_NAMING, _NAMING_LISTS = (sa.select(_R.security_group_id).distinct().where(column.in_(sa.bindparam(
    "ids", expanding=True))) for column in (_R.remote_group_id, _R.remote_address_group_id))


def hosts_of_groups(connection: sa.Connection, group_ids: Collection[str]) -> list[tuple[str, str]]:
    """(one of its ports, host) for each host of each of the security groups."""
    return [(port, host) for port, host in connection.execute(_OF_GROUPS, {"ids": list(group_ids)})]


def hosts_naming(connection: sa.Connection, group: str) -> set[str]:
    """The hosts where rules of ports name the group."""
    groups = list(connection.execute(_NAMING, {"ids": [group]}).scalars())
    return {host for _, host in hosts_of_groups(connection, groups)} if groups else set()


# --- whom a unit of work concerns ---------------------------------------------------------------------------


def affected(work: Work) -> Affected:
    """host -> ports whose wiring the unit changed; none: all of the host's. Of a whole network or group a port a host
    stands for all: what is fetched for it holds the new facts. Ports elsewhere are news for hosts of before only."""
    changes = work.changes
    found = defaultdict[str, set[str]](set, changes.left)
    if changes.ports:
        for binding in work.select(Binding, port_id=changes.ports):
            found[binding.host].add(binding.port_id)
    pairs = placed.hosts_of_networks(work.conn, changes.networks) if changes.networks else []
    if changes.places and (former := set(work.conn.execute(_FORMER).scalars())):
        pairs += [pair for pair in placed.hosts_of_networks(work.conn, changes.places) if pair[1] in former]
    groups = set(changes.groups)
    if changes.address_groups:
        groups.update(work.conn.execute(_NAMING_LISTS, {"ids": list(changes.address_groups)}).scalars())
    if groups:
        pairs += hosts_of_groups(work.conn, groups)
    for port_id, host in pairs:
        found[host].add(port_id)
    found.pop("", None)
    return {**found, **{host: set() for host in changes.hosts}}


def record(work: Work, hosts: Collection[str]) -> tuple[int, Mapping[str, int]]:
    """Writes down which hosts the unit concerns. The number of that change, and that of each host's before it."""
    return outbox.chain(work.conn, work.now, "wiring", hosts)


# --- messages -----------------------------------------------------------------------------------------------


class Message(Protocol):
    """Something for a host to hear."""

    @property
    def host(self) -> str: ...
    def then(self, other: Self) -> Self:
        """Both in one."""
        ...


M = TypeVar("M", bound=Message)


@dataclass(frozen=True)
class Notice:
    """These ports (none: all) of a host are to be wired anew. n: the number of the change; before: that of the change
    of this host before it. A host that has taken in that one misses nothing with this one."""

    host: str
    ports: frozenset[str]
    n: int = 0
    before: int = 0

    def then(self, other: "Notice") -> "Notice":
        """Both in one. Where another process's change lies between them, the host has to see that it misses it."""
        first, last = sorted((self, other), key=lambda each: each.n)
        whole = not self.ports or not other.ports
        return Notice(self.host, frozenset() if whole else self.ports | other.ports, last.n,
                      first.before if last.before <= first.n else last.before)


class Notifier(Generic[M]):
    """Sends hosts what concerns them: one message to a host at a time, what comes meanwhile is gathered into the next.
    One that did not answer is left alone for a while: it hears the number of the last change with its next beat, so
    that a lost notice costs time only, and however many hosts are silent, the others are not kept waiting."""

    def __init__(self, notify: Callable[[M], Awaitable[None]] | None):
        self._notify = notify
        self._pending: dict[str, M] = {}
        self._sending: dict[str, asyncio.Task[None]] = {}
        self._silent: dict[str, tuple[float, float]] = {}  # host -> until when, and how long that was

    def add(self, notices: Iterable[M]) -> None:
        """Send these soon."""
        if self._notify is None:
            return
        loop = asyncio.get_running_loop()
        for notice in notices:
            if self._silent.get(notice.host, (0.0, 0.0))[0] > loop.time():
                continue
            known = self._pending.get(notice.host)
            self._pending[notice.host] = known.then(notice) if known else notice
            if notice.host not in self._sending:
                self._sending[notice.host] = loop.create_task(self._send(notice.host, self._notify))

    async def _send(self, host: str, notify: Callable[[M], Awaitable[None]]) -> None:
        try:
            while host in self._pending:
                await asyncio.sleep(0)
                await notify(self._pending.pop(host))
                self._silent.pop(host, None)
        except Exception as error:
            before = self._silent.get(host, (0.0, 0.0))[1]
            pause = min(2 * before, QUIET[1]) or QUIET[0]
            self._silent[host] = asyncio.get_running_loop().time() + pause, pause
            self._pending.pop(host, None)
            log.info("a host does not hear of network changes", host=host, why=str(error), seconds=pause)
        finally:
            del self._sending[host]


# --- differences --------------------------------------------------------------------------------------------

#: A thing that many hosts keep: a group, by its members, or a network, by its ports. Or one of which it is only told
#: that something else is routed (routed.py).
Thing = tuple[str, str]
#: Which of the groups and networks of a `Lag` are its host's; up to which change there is news of what it routes.
Own = tuple[Collection[str], Collection[str], int]
GROUP, NETWORK = "group", "network"
D = TypeVar("D", GroupMembers, NetworkPorts)


@dataclass(frozen=True)
class News:
    """What a host is to hear: by group, by network, by host. routing: as in `Differences`."""

    host: str
    members: Mapping[str, GroupMembers]
    placed: Mapping[str, NetworkPorts]
    peers: Mapping[str, Peer]
    routing: int = 0

    def message(self) -> Differences:
        """What is sent: no more than a host takes at once. Of what is too much only the number, so that it asks."""
        every: list[GroupMembers | NetworkPorts] = [*self.members.values(), *self.placed.values()]
        if len(every) <= MOST_GROUPS and sum(map(_weight, every)) <= MOST_IN_ONE:
            return Differences(members=tuple(self.members.values()), placed=tuple(self.placed.values()),
                               peers=self._named(self.placed.values()), routing=self.routing)
        return self._bounded(every)

    def _named(self, placed: Iterable[NetworkPorts]) -> dict[str, Peer]:
        """The peers that are named there: of others' networks this host is told nothing."""
        return {host: self.peers[host] for host in named_in(placed) & self.peers.keys()}

    def _bounded(self, every: Iterable[GroupMembers | NetworkPorts]) -> Differences:
        room, fits = MOST_IN_ONE, dict[str, bool]()
        for each in sorted(every, key=lambda each: len(each.ports)):
            room -= _weight(each)
            fits[each.id] = room >= 0
        placed = _bounded(self.placed, fits)
        return Differences(members=_bounded(self.members, fits), placed=placed, peers=self._named(placed),
                           routing=self.routing)

    def then(self, other: "News") -> "News":
        """Both in one."""
        newest = sorted([*self.peers.items(), *other.peers.items()], key=lambda each: each[1].n)
        return News(self.host, _both(self.members, other.members), _both(self.placed, other.placed), dict(newest),
                    max(self.routing, other.routing))


def _weight(each: GroupMembers | NetworkPorts) -> int:
    """Ports, and what is said of each."""
    return sum(1 + len(said.addresses if isinstance(said, PlacedPort) else said) for said in each.ports.values())


def _bounded(some: Mapping[str, D], fits: Mapping[str, bool]) -> tuple[D, ...]:
    return tuple(each if fits[each.id] else msgspec.structs.replace(each, since=each.n, ports={})
                 for each in list(some.values())[:MOST_GROUPS])


def _both(some: Mapping[str, D], others: Mapping[str, D]) -> dict[str, D]:
    return {**some, **others, **{id: joined(some[id], others[id]) for id in some.keys() & others.keys()}}


def joined(one: D, other: D) -> D:
    """Both differences in one; where something lies between them, the later alone: who hears it sees the gap."""
    first, last = sorted((one, other), key=lambda each: each.n)
    if first.era != last.era or first.since is None or last.since is None or last.since > first.n:
        return last
    return msgspec.structs.replace(last, since=min(first.since, last.since), ports={**first.ports, **last.ports})


class Lag(NamedTuple):
    """The groups and networks of which a host may lack something; by which networks, up to which change, what it routes
    may be news, and up to which it is."""

    host: str
    groups: Collection[str]
    networks: Collection[str]
    routed: Mapping[str, int]
    routing: int


class DifferenceNotifier:
    """tell: a message to a host; only speed depends on it. last: the number of each thing's last change, as far as this
    process has read."""

    def __init__(self, db: Database, clock: Clock, tell: Callable[[News], Awaitable[None]] | None):
        self._db, self._clock, self._tell = db, clock, tell
        self._notices = Notifier(tell)
        self._due: dict[Thing, int] = {}
        self._task: asyncio.Task[None] | None = None
        self._rest = 0.0  # until then nothing is sent
        self._resting = dict[Thing, float]()  # until when there are no news of what is routed by these
        self.last: dict[str, dict[str, int]] = {GROUP: {}, NETWORK: {}, ROUTED: {}, ROUTING: {}}
        self._lags = Together[Lag, Own](self._own)

    def add(self, changed: Mapping[Thing, int]) -> None:
        """Tell of these soon: the number of the change before."""
        if self._tell is None or not changed:
            return
        for thing, before in changed.items():
            self._due[thing] = min(before, self._due.get(thing, before))
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._send())

    async def _send(self) -> None:
        while self._due:
            await self._clock.sleep(max(GATHER, self._rest - self._clock.monotonic()))
            due, self._due = self._due, {}
            if self._resting and not (due := self._ripe(due)):
                continue
            try:
                found, routed_to = await self._db.read(lambda connection, due=due: read_news(connection, due))  # type: ignore[misc]
            except Exception as error:  # hosts hear it with their next beat
                log.info("hosts do not hear of differences at once", things=len(due), why=str(error))
                continue
            self._rest = self._clock.monotonic() + EACH * len(found)
            for thing, hosts in routed_to.items():
                self._resting[thing] = self._clock.monotonic() + min(max(REST[0], ASKED * hosts), REST[1])
            self._notices.add(found)

    def _ripe(self, due: Mapping[Thing, int]) -> dict[Thing, int]:
        """Those that do not rest; the others stay due."""
        now = self._clock.monotonic()
        self._resting = {thing: until for thing, until in self._resting.items() if until > now}
        self._due = {thing: before for thing, before in due.items() if thing in self._resting}
        return {thing: before for thing, before in due.items() if thing not in self._due}

    async def behind(self, host: str, groups: Mapping[str, int], networks: Mapping[str, int],
                     routing: int | None = None) -> tuple[dict[str, int], dict[str, int], int]:
        """Of a host that has these: the numbers of those groups and networks that have changed since, and are the
        host's to know of; and up to which change there is news of what it routes (0: none). routing: as far as it knows
        that; None: it does not say. None while the database is away: the host's next beat asks again."""
        found = _later(self.last[GROUP], groups), _later(self.last[NETWORK], networks)
        routed_by, own = dict[str, int](), self.last[ROUTING].get(host, 0)
        if routing is not None:
            routed_by = _later(self.last[ROUTED], dict.fromkeys(networks, routing))
            own = own if own > routing else 0
        if not any((*found, routed_by)):
            return *found, own
        try:
            known = await self._lags(Lag(host, *found, routed_by, own))
        except Exception as error:  # the beat counts: its host lives, whatever the database does
            log.info("a host does not hear now what it lacks", host=host, why=str(error))
            return {}, {}, 0
        return {id: found[0][id] for id in known[0]}, {id: found[1][id] for id in known[1]}, known[2]

    async def _own(self, lags: Sequence[Lag]) -> list[Own]:
        """Those of each that are its own: one read for all."""
        return await self._db.read(lambda connection: [(
            members.named(connection, lag.host, lag.groups), placed.kept(connection, lag.host, lag.networks),
            routed.newest(connection, lag.host, lag.routed, lag.routing)) for lag in lags])

    async def changed(self, changes: Sequence[Change]) -> None:
        """A reader of changes: something changed, in whatever process."""
        after = changes[0].n - 1
        for kind, newer in (await self._db.read(lambda connection: _newer(connection, after))).items():
            self.last[kind] |= newer

    async def reload(self) -> None:
        """Everything anew."""
        self.last = await self._db.read(_newer)


def note(work: Work) -> dict[Thing, int]:
    """Writes down, under one number, what the unit changed of things. Of each the number of the change before."""
    kinds = ((GROUP, MEMBERS, work.changes.members), (NETWORK, PLACED, work.changes.places))
    routes = routed.marks(work) if work.changes.routes else {}
    if not routes and not any(any(moved.values()) for _, _, moved in kinds):
        return {}
    n = outbox.number(work.conn, work.now, "differences")
    if routes:
        routed.write(work, routes, n)
    return {(kind, id): before for kind, things, moved in kinds
            for id, before in things.note(work.conn, moved, n).items()} | {
                (kind, id): n for kind, ids in routes.items() for id in ids}


def _later(known: Mapping[str, int], versions: Mapping[str, int]) -> dict[str, int]:
    return {id: last for id, n in versions.items() if (last := known.get(id, 0)) > n}


def _newer(connection: sa.Connection, n: int = 0) -> dict[str, dict[str, int]]:
    return {GROUP: MEMBERS.newer(connection, n), NETWORK: PLACED.newer(connection, n),
            **{kind: outbox.latest(connection, kind, n) for kind in (ROUTED, ROUTING)}}


def read_news(connection: sa.Connection, due: Mapping[Thing, int]) -> tuple[list[News], dict[Thing, int]]:
    """What there is to say, and to whom; to how many hosts that something else is routed, by each thing."""
    groups = {id: hosts for kind, id in due if kind == GROUP and (hosts := hosts_naming(connection, id))}
    networks = {id: hosts for kind, id in due if kind == NETWORK and (hosts := placed.keepers(connection, id))}
    routes, counts = routed.told(connection, asked) if (asked := due.keys() - {
        (kind, id) for kind, id in due if kind in (GROUP, NETWORK)}) else ({}, {})
    joined = MEMBERS.news(connection, {id: due[GROUP, id] for id in groups})
    places = PLACED.news(connection, {id: due[NETWORK, id] for id in networks})
    ways = placed.peers(connection, named_in(places))
    return [News(host, {m.id: m for m in joined if host in groups[m.id]},
                 {p.id: p for p in places if host in networks[p.id]}, ways, routes.get(host, 0))
            for host in sorted(set(routes).union(*groups.values(), *networks.values()))], counts
