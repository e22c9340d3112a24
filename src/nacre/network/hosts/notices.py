"""Which hosts a change concerns, and telling them: only speed depends on it, agents also ask by themselves."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping

import sqlalchemy as sa
import structlog

from nacre.network import tables as t
from nacre.network.work import Work

log = structlog.get_logger()

Notify = Callable[[set[str], tuple[str, ...]], Awaitable[None]]
Affected = dict[str, set[str]]

_P, _G = t.ports.c, t.port_groups.c
#: One port a host, of networks and of groups.
_ON_NETWORKS = sa.select(sa.func.min(_P.id), _P.host).where(
    _P.network_id.in_(sa.bindparam("networks", expanding=True)), _P.host != "").group_by(_P.network_id, _P.host)
_IN_GROUPS = sa.select(sa.func.min(_P.id), _P.host).join_from(t.ports, t.port_groups, _G.port_id == _P.id).where(
    _G.group_id.in_(sa.bindparam("groups", expanding=True)), _P.host != "").group_by(_G.group_id, _P.host)


def affected(work: Work) -> Affected:
    """host -> ports whose wiring the unit changed. For changes to a whole network or group one port a host stands
    for all: what a host fetches for it holds the network's or group's new facts."""
    changes, found = work.changes, defaultdict[str, set[str]](set)
    for port_id, host in changes.ports.items():
        if host:
            found[host].add(port_id)
    if unknown := [i for i, host in changes.ports.items() if not host]:
        for port in work.find(t.ports, id=unknown):
            if port["host"]:
                found[port["host"]].add(port["id"])
    if changes.networks:
        for port_id, host in work.conn.execute(_ON_NETWORKS, {"networks": list(changes.networks)}):
            found[host].add(port_id)
    groups = set(changes.groups)
    if changes.members:
        groups.update(r["security_group_id"] for r in work.find(
            t.security_group_rules, remote_group_id=changes.members))
    if changes.address_groups:
        groups.update(r["security_group_id"] for r in work.find(
            t.security_group_rules, remote_address_group_id=changes.address_groups))
    if groups:
        for port_id, host in work.conn.execute(_IN_GROUPS, {"groups": list(groups)}):
            found[host].add(port_id)
    return dict(found)


class Notices:
    """Gathers what hosts are to be told while an earlier telling is under way."""

    def __init__(self, notify: Notify | None):
        self._notify = notify
        self._pending: Affected = {}
        self._task: asyncio.Task[None] | None = None

    def add(self, hosts: Mapping[str, set[str]]) -> None:
        """Tell these hosts soon. An empty set means: everything of that host."""
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
                    log.warning("host not told of a network change", host=host, error=repr(error))
