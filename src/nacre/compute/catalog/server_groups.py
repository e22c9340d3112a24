"""Server groups: servers that shall run together, or apart."""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from nacre.base.clock import Clock
from nacre.base.db import Database
from nacre.base.errors import NotFound, QuotaExceeded
from nacre.compute.catalog.tables import server_groups
from nacre.compute.tables import servers


class ServerGroup(msgspec.Struct, frozen=True, kw_only=True):
    """A group. policy: affinity, anti-affinity, or their soft forms. Its members are the servers that name it."""

    id: str
    name: str
    project_id: str
    user_id: str
    policy: str
    rules: dict[str, int] = {}
    created_at: datetime


def find_group(connection: sa.Connection, group_id: str) -> ServerGroup:
    """For use inside another unit of work. Raises NotFound."""
    row = connection.execute(sa.select(server_groups).where(server_groups.c.id == group_id)).mappings().first()
    if row is None:
        raise NotFound(f"Instance group {group_id} could not be found.")
    return ServerGroup(**row)


class ServerGroups:
    """Groups in the database."""

    def __init__(self, db: Database, clock: Clock):
        self._db, self._clock = db, clock

    async def of_project(self, project_id: str | None) -> list[ServerGroup]:
        """By age. None: of all projects."""
        wanted = sa.true() if project_id is None else server_groups.c.project_id == project_id
        rows = await self._db.read(lambda c: c.execute(sa.select(server_groups).where(wanted).order_by(
            server_groups.c.created_at, server_groups.c.id)).mappings().all())
        return [ServerGroup(**row) for row in rows]

    async def get(self, group_id: str) -> ServerGroup:
        """Raises NotFound."""
        return await self._db.read(lambda c: find_group(c, group_id))

    async def members(self, group_ids: Sequence[str]) -> dict[str, list[str]]:
        """The servers of each group, the oldest first; without those that have none."""
        rows = await self._db.read(lambda c: c.execute(sa.select(servers.c.group_id, servers.c.id).where(
            servers.c.group_id.in_(group_ids), servers.c.deleted.is_(False)).order_by(servers.c.number)).all())
        found: dict[str, list[str]] = {}
        for group_id, server_id in rows:
            found.setdefault(group_id, []).append(server_id)
        return found

    async def create(self, group: ServerGroup, limit: int) -> ServerGroup:
        """The group with its id and time. limit: how many the project may have. Raises QuotaExceeded."""
        made = msgspec.structs.replace(group, id=str(uuid.uuid4()),
                                       created_at=self._clock.now().astimezone(UTC).replace(tzinfo=None))

        def unit(c: sa.Connection) -> None:
            count: Any = c.execute(sa.select(sa.func.count()).where(
                server_groups.c.project_id == group.project_id)).scalar()
            if 0 <= limit <= count:
                raise QuotaExceeded("Quota exceeded, too many server groups.")
            c.execute(sa.insert(server_groups).values(msgspec.structs.asdict(made)))

        await self._db.run(unit)
        return made

    async def delete(self, group_id: str) -> None:
        """Its servers stay where they are. Raises NotFound."""
        if not await self._db.run(lambda c: c.execute(
                sa.delete(server_groups).where(server_groups.c.id == group_id)).rowcount):
            raise NotFound(f"Instance group {group_id} could not be found.")
