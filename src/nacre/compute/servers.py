"""Servers: found, changed, and what the API asks to be done with them, written in one transaction with the story that
will make it so, and only then said to be accepted."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from nacre.base.clock import Clock
from nacre.base.context import Context
from nacre.base.db import Database
from nacre.base.durable import changes
from nacre.base.durable.stories import Stories, Story
from nacre.base.errors import Conflict
from nacre.compute import history, quota_usage, records
from nacre.compute.contract import Server, ServerQuery, ServerSpec, StoryOrder
from nacre.compute.create import CreateDeps, Creation, Run
from nacre.compute.records import get_row, move, server_of
from nacre.compute.tables import server_tags, servers

_encode = msgspec.msgpack.Encoder().encode


class Servers:
    """What the API does to servers. Callers have checked policy."""

    def __init__(self, db: Database, clock: Clock, ask: CreateDeps, stories: Stories, run: Run):
        self._db, self._clock, self._stories, self._run = db, clock, stories, run
        self._creation = Creation(db, clock, ask, stories, run)

    async def get(self, server_id: str, *, deleted: bool = False) -> Server:
        """One server. deleted: also one that is gone. Raises NotFound."""
        return server_of(await self._db.read(lambda c: get_row(c, server_id, deleted=deleted)))

    async def search(self, query: ServerQuery) -> list[Server]:
        """The servers of a query. Raises BadRequest."""
        return await self._db.read(lambda c: records.search(c, query))

    async def used(self, project_id: str, user_id: str | None = None) -> dict[str, int]:
        """What a project's servers take: instances, cores, ram (MB)."""
        return await self._db.read(lambda c: quota_usage.used(c, project_id, user_id))

    async def lived(self, start: datetime, end: datetime, project_id: str | None) -> list[Server]:
        """Every server, of a project or of all, that was there at some time between `start` and `end`: deleted ones
        too."""
        c = servers.c
        wanted = [c.launched_at.is_not(None), c.launched_at < end,
                  sa.or_(c.terminated_at.is_(None), c.terminated_at >= start)]
        if project_id is not None:
            wanted.append(c.project_id == project_id)
        rows = await self._db.read(lambda connection: connection.execute(
            sa.select(servers).where(*wanted).order_by(c.number)).mappings().all())
        return [server_of(dict(row)) for row in rows]

    async def on_hosts(self, hosts: Iterable[str]) -> dict[str, list[tuple[str, str]]]:
        """host -> its servers as (id, domain name)."""
        wanted = list(hosts)
        rows = await self._db.read(lambda c: c.execute(sa.select(
            servers.c.host, servers.c.id, servers.c.number).where(
            servers.c.deleted.is_(False), servers.c.host.in_(wanted)).order_by(servers.c.number)).all())
        found: dict[str, list[tuple[str, str]]] = {}
        for host, server_id, number in rows:
            found.setdefault(host, []).append((server_id, records.domain_name(number, server_id)))
        return found

    async def create(self, context: Context, specs: tuple[ServerSpec, ...]) -> tuple[Server, ...]:
        """As `Creation.create`."""
        return await self._creation.create(context, specs)

    async def sketch(self, context: Context, spec: ServerSpec) -> tuple[Server, ...]:
        """As `Creation.sketch`."""
        return await self._creation.sketch(context, spec)

    async def delete(self, context: Context, server: Server) -> None:
        """Accept a delete; the story does it. Harmless where one is under way."""
        await self._begin(context, server, "delete", "delete", "delete")

    async def power(self, context: Context, server: Server, action: str) -> None:
        """action: start, stop, reboot-soft, reboot-hard. Raises Conflict in a state that forbids it."""
        await self._begin(context, server, action, "power", action.partition("-")[0])

    async def _begin(self, context: Context, server: Server, event: str, kind: str, action: str) -> None:
        """Compare-and-set to the event's state, with the action's start and the story, in one transaction."""
        now = self._now()

        def unit(connection: sa.Connection) -> Story | None:
            row = get_row(connection, server.id)
            if row["task_state"] == "deleting" and event == "delete":
                return None
            move(connection, row, event, now)
            if kind == "power" and not row["host"]:
                raise Conflict(f"Instance {server.id} is not ready")  # it was never built, and its fault says why
            history.begin(connection, context, [server.id], action, now)
            changes.note(connection, now, ("server", server.id), project_id=row["project_id"])
            return self._stories.insert(connection, kind, _encode(StoryOrder(
                context=context, server_ids=(server.id,), action=event)), now)

        if story := await self._db.run(unit):
            self._run(story)

    async def update(self, server_id: str, change: Callable[[Server], Mapping[str, Any]]) -> Server:
        """Change plain fields (name, description, hostname, metadata, tags, addresses, lock). change: from the server
        as it is in the transaction to the fields' new values, so that of two at once none is lost. Raises NotFound, and
        what `change` raises."""
        now = self._now()

        def unit(connection: sa.Connection) -> Server:
            row = get_row(connection, server_id)
            values = dict(change(server_of(row)))
            if not values:
                return server_of(row)
            if "tags" in values:
                values["tags"] = list(values["tags"])
                connection.execute(sa.delete(server_tags).where(server_tags.c.server_id == server_id))
                if values["tags"]:
                    connection.execute(sa.insert(server_tags), [
                        {"server_id": server_id, "tag": t} for t in values["tags"]])
            connection.execute(sa.update(servers).where(servers.c.id == server_id).values(**values, updated_at=now))
            changes.note(connection, now, ("server", server_id), project_id=row["project_id"])
            return server_of(get_row(connection, server_id))

        return await self._db.run(unit)

    def _now(self) -> datetime:
        return self._clock.now().replace(tzinfo=None)
