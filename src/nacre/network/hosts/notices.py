"""Which hosts a change concerns, and messages to them: only speed depends on those, agents also ask by themselves."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping

import sqlalchemy as sa
import structlog

from nacre.network import tables as t
from nacre.network.hosts import reach
from nacre.network.work import Work

log = structlog.get_logger()

Notify = Callable[[set[str], tuple[str, ...]], Awaitable[None]]
Affected = dict[str, set[str]]


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
        self._pending: Affected = {}
        self._task: asyncio.Task[None] | None = None

    def add(self, hosts: Mapping[str, set[str]]) -> None:
        """Send to these hosts soon. An empty set means: everything of that host."""
        if not hosts or self._notify is None:
            return
        for host, ports in hosts.items():
            known = self._pending.get(host)
            whole = known == set() or not ports
            self._pending[host] = set() if whole else (known or set()) | ports
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(self._notify))

    async def _run(self, notify: Notify) -> None:
        while self._pending:
            await asyncio.sleep(0)
            batch, self._pending = self._pending, {}
            for host, ports in batch.items():
                try:
                    await notify({host}, tuple(sorted(ports)))
                except Exception as error:
                    # The agent asks for everything periodically: a lost notice costs time only.
                    log.warning("a message about a network change is lost", host=host, error=repr(error))
