"""Which hosts a change concerns, and messages to them: only speed depends on those, agents also ask by themselves."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

import sqlalchemy as sa
import structlog

from nacre.network import tables as t
from nacre.network.hosts import reach
from nacre.network.work import Work

log = structlog.get_logger()

Affected = dict[str, set[str]]


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


Notify = Callable[[Notice], Awaitable[None]]

_R = t.security_group_rules.c
#: The groups with rules that name these security groups, or these address groups.
_NAMING, _NAMING_LISTS = (sa.select(_R.security_group_id).distinct().where(column.in_(sa.bindparam(
    "ids", expanding=True))) for column in (_R.remote_group_id, _R.remote_address_group_id))


def affected(work: Work) -> Affected:
    """host -> ports whose wiring the unit changed; none: all of the host's. For changes to a whole network or group one
    port a host stands for all: what a host fetches for it holds the network's or group's new facts."""
    changes = work.changes
    found = defaultdict[str, set[str]](set, changes.left)
    if changes.ports:
        for binding in work.find(t.bindings, port_id=changes.ports):
            found[binding["host"]].add(binding["port_id"])
    pairs = reach.of_networks(work, changes.networks) if changes.networks else []
    groups = set(changes.groups)
    for statement, named in ((_NAMING, changes.members), (_NAMING_LISTS, changes.address_groups)):
        if named:
            groups.update(work.conn.execute(statement, {"ids": list(named)}).scalars())
    if groups:
        pairs += reach.of_groups(work, groups)
    for port_id, host in pairs:
        found[host].add(port_id)
    found.pop("", None)
    return {**found, **{host: set() for host in changes.hosts}}


class Notices:
    """Gathers what concerns hosts while earlier messages are under way."""

    def __init__(self, notify: Notify | None):
        self._notify = notify
        self._pending: dict[str, Notice] = {}
        self._task: asyncio.Task[None] | None = None

    def add(self, notices: Iterable[Notice]) -> None:
        """Send these soon."""
        if self._notify is None:
            return
        for notice in notices:
            known = self._pending.get(notice.host)
            self._pending[notice.host] = known.then(notice) if known else notice
        if self._pending and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._run(self._notify))

    async def _run(self, notify: Notify) -> None:
        while self._pending:
            await asyncio.sleep(0)
            batch, self._pending = self._pending, {}
            for notice in batch.values():
                try:
                    await notify(notice)
                except Exception as error:
                    # The host hears the change's number with its next beat: a lost notice costs time only.
                    log.warning("a message about a network change is lost", host=notice.host, error=repr(error))
