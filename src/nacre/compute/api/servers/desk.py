"""What the API asks about servers, in one place: the service, the history, the hosts, and a few sums of its own."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from nacre.base.context import Context
from nacre.base.db import Database
from nacre.base.errors import Conflict, NotFound
from nacre.compute import records
from nacre.compute.contract import Action, Event, Server, ServerQuery, ServerSpec
from nacre.compute.history import History
from nacre.compute.servers import Servers
from nacre.compute.tables import servers as table
from nacre.node.contract import Node


class ServerDesk:
    """Servers for the API. node: the way to a host, by its name."""

    def __init__(self, db: Database, servers: Servers, history: History, node: Callable[[str], Node]):
        self._db, self._servers, self._history, self._node = db, servers, history, node

    async def find(self, server_id: str, *, deleted: bool = False) -> Server:
        """A server of any project. deleted: also one that is gone. Raises NotFound."""
        return await self._servers.get(server_id, deleted=deleted)

    async def search(self, query: ServerQuery) -> Sequence[Server]:
        """Raises BadRequest for a marker that is not there."""
        return await self._servers.search(query)

    async def create(self, context: Context, specs: tuple[ServerSpec, ...]) -> tuple[Server, ...]:
        """All or none. Raises BadRequest, Conflict, QuotaExceeded."""
        return await self._servers.create(context, specs)

    async def delete(self, context: Context, server: Server) -> None:
        """Accepts a delete."""
        await self._servers.delete(context, server)

    async def power(self, context: Context, server: Server, action: str) -> None:
        """action: start, stop, reboot-soft, reboot-hard. Raises Conflict in a state that forbids it."""
        await self._servers.power(context, server, action)

    async def change(self, server_id: str, change: Callable[[Server], Mapping[str, Any]]) -> Server:
        """Sets plain fields (names, addresses, metadata, tags, the lock) to what `change` makes of the server as it is.
        Raises NotFound."""
        return await self._servers.update(server_id, change)

    async def actions(self, server_id: str) -> Sequence[Action]:
        """The newest first."""
        return await self._history.actions(server_id)

    async def action(self, server_id: str, request_id: str) -> tuple[Action, Sequence[Event]]:
        """With its events, the oldest first. Raises NotFound."""
        return await self._history.action(server_id, request_id)

    async def console(self, server: Server, lines: int | None) -> str:
        """The end of the serial console's output. Raises Conflict where the server is on no host."""
        if not server.host:
            raise Conflict(f"Instance {server.id} is not ready")
        try:
            return await self._node(server.host).console(server.id, lines)
        except NotFound:
            raise Conflict(f"Instance {server.id} is not ready") from None

    async def used(self, project_id: str | None, user_id: str | None) -> Mapping[str, int]:
        """instances, cores and ram (MB) in use."""
        return await self._servers.used(project_id or "", user_id)

    async def on_hosts(self, hosts: Sequence[str]) -> Mapping[str, Sequence[tuple[str, str]]]:
        """The servers on each host: (id, domain name)."""
        return await self._servers.on_hosts(hosts)

    async def members(self, group_ids: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """The servers of each server group."""
        if not group_ids:
            return {}
        c = table.c
        rows = await self._db.read(lambda connection: connection.execute(sa.select(c.group_id, c.id).where(
            c.group_id.in_(group_ids), c.deleted.is_(False)).order_by(c.number)).all())
        found: dict[str, list[str]] = {}
        for group_id, server_id in rows:
            found.setdefault(group_id, []).append(server_id)
        return found

    async def lived(self, start: datetime, end: datetime, project_id: str | None) -> Sequence[Server]:
        """Every server that ran at some time between `start` and `end`, deleted ones too."""
        c = table.c
        wanted = [c.launched_at.is_not(None), c.launched_at < end,
                  sa.or_(c.terminated_at.is_(None), c.terminated_at >= start)]
        if project_id is not None:
            wanted.append(c.project_id == project_id)
        rows = await self._db.read(lambda connection: connection.execute(
            sa.select(table).where(*wanted).order_by(c.number)).mappings().all())
        return [records.server_of(dict(row)) for row in rows]
