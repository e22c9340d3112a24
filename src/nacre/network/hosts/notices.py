"""Which hosts a change concerns, and messages to them: only speed depends on those, agents also ask by themselves."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

import sqlalchemy as sa
import structlog

from nacre.base.durable import changes as outbox
from nacre.network import tables as t
from nacre.network.hosts import reach
from nacre.network.work import Work

log = structlog.get_logger()

#: Seconds for which a host that did not answer gets no messages: at first, and at most.
QUIET = 5.0, 300.0

Affected = dict[str, set[str]]


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


_R = t.security_group_rules.c
#: The groups with rules that name these security groups, or these address groups.
_NAMING, _NAMING_LISTS = (sa.select(_R.security_group_id).distinct().where(column.in_(sa.bindparam(
    "ids", expanding=True))) for column in (_R.remote_group_id, _R.remote_address_group_id))


def affected(work: Work) -> Affected:
    """host -> ports whose wiring the unit changed; none: all of the host's. For changes to a whole network or group one
    port a host stands for all: what a host fetches for it holds the network's or group's new facts. Of members hosts
    hear otherwise (member_news.py)."""
    changes = work.changes
    found = defaultdict[str, set[str]](set, changes.left)
    if changes.ports:
        for binding in work.find(t.bindings, port_id=changes.ports):
            found[binding["host"]].add(binding["port_id"])
    pairs = reach.of_networks(work, changes.networks) if changes.networks else []
    groups = set(changes.groups)
    if changes.address_groups:
        groups.update(work.conn.execute(_NAMING_LISTS, {"ids": list(changes.address_groups)}).scalars())
    if groups:
        pairs += reach.of_groups(work.conn, groups)
    for port_id, host in pairs:
        found[host].add(port_id)
    found.pop("", None)
    return {**found, **{host: set() for host in changes.hosts}}


def record(work: Work, hosts: Collection[str]) -> tuple[int, Mapping[str, int]]:
    """Writes down which hosts the unit concerns. The number of that change, and that of each host's before it."""
    return outbox.chain(work.conn, work.now, "wiring", hosts)


def naming(connection: sa.Connection, group: str) -> set[str]:
    """The hosts where rules of ports name the group."""
    groups = list(connection.execute(_NAMING, {"ids": [group]}).scalars())
    return {host for _, host in reach.of_groups(connection, groups)} if groups else set()


class Notices(Generic[M]):
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
