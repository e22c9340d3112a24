"""Host aggregates, and the availability zones that some of them are.

A host is in as many aggregates as wanted, but in one zone only: that of the aggregate whose metadata names one, else
the default zone.
"""

import uuid
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from nacre.base.clock import Clock
from nacre.base.db import Database
from nacre.base.durable import changes
from nacre.base.errors import BadRequest, Conflict, NotFound
from nacre.compute.catalog.tables import aggregate_hosts, aggregates

#: The zone of hosts that are in no other.
DEFAULT_ZONE = "nova"
#: The zone of services that are no compute hosts.
INTERNAL_ZONE = "internal"


class Aggregate(msgspec.Struct, frozen=True, kw_only=True):
    """A named set of hosts."""

    id: int
    uuid: str
    name: str
    metadata: dict[str, str]
    hosts: tuple[str, ...]
    created_at: datetime
    updated_at: datetime | None = None

    @property
    def zone(self) -> str | None:
        """The availability zone that this aggregate is, if any."""
        return self.metadata.get("availability_zone")


def all_aggregates(connection: sa.Connection) -> list[Aggregate]:
    """Every aggregate, for use inside another unit of work."""
    hosts: dict[int, list[str]] = {}
    for row in connection.execute(sa.select(aggregate_hosts).order_by(aggregate_hosts.c.host)):
        hosts.setdefault(row.aggregate_id, []).append(row.host)
    rows = connection.execute(sa.select(aggregates).order_by(aggregates.c.id)).mappings()
    return [Aggregate(**row, hosts=tuple(hosts.get(row["id"], ()))) for row in rows]


def zones_of(found: list[Aggregate]) -> dict[str, str]:
    """Host -> zone, for the hosts that are not in the default zone."""
    return {host: aggregate.zone for aggregate in found if aggregate.zone for host in aggregate.hosts}


def _one(connection: sa.Connection, aggregate_id: int) -> Aggregate:
    found = next((a for a in all_aggregates(connection) if a.id == aggregate_id), None)
    if found is None:
        raise NotFound(f"Aggregate {aggregate_id} could not be found.")
    return found


def _check_one_zone(connection: sa.Connection, changed: Aggregate) -> None:
    """Raises Conflict where a host of `changed` is in another zone already."""
    if not changed.zone:
        return
    others = zones_of([a for a in all_aggregates(connection) if a.id != changed.id])
    both = sorted(host for host in changed.hosts if others.get(host, changed.zone) != changed.zone)
    if both:
        raise Conflict(f"Cannot add host to aggregate {changed.id}. Reason: One or more hosts already in availability "
                       f"zone(s) {sorted({others[host] for host in both})}: {', '.join(both)}.")


def _check_unused(connection: sa.Connection, name: str, but: int | None = None) -> None:
    taken = connection.execute(sa.select(aggregates.c.id).where(aggregates.c.name == name)).scalar()
    if taken is not None and taken != but:
        raise Conflict(f"Aggregate {name} already exists.")


class Aggregates:
    """Aggregates in the database. changed: told when hosts' aggregates or what these say has changed."""

    def __init__(self, db: Database, clock: Clock, changed: Callable[[], Awaitable[None]]):
        self._db, self._clock, self._changed = db, clock, changed

    def _now(self) -> datetime:
        return self._clock.now().astimezone(UTC).replace(tzinfo=None)

    async def all(self) -> list[Aggregate]:
        """In order of their ids."""
        return await self._db.read(all_aggregates)

    async def by_host(self) -> dict[str, tuple[Aggregate, ...]]:
        """Host -> its aggregates, in order of their ids."""
        found: dict[str, tuple[Aggregate, ...]] = {}
        for aggregate in await self.all():
            for host in aggregate.hosts:
                found[host] = (*found.get(host, ()), aggregate)
        return found

    async def zones(self) -> dict[str, str]:
        """Host -> zone, for the hosts that are not in the default zone."""
        return zones_of(await self.all())

    async def get(self, aggregate_id: int) -> Aggregate:
        """Raises NotFound."""
        return await self._db.read(lambda c: _one(c, aggregate_id))

    async def create(self, name: str, zone: str | None) -> Aggregate:
        """Raises Conflict where the name is taken."""
        now = self._now()

        def unit(c: sa.Connection) -> Aggregate:
            _check_unused(c, name)
            metadata = {"availability_zone": zone} if zone else {}
            key: Any = c.execute(sa.insert(aggregates).values(
                uuid=str(uuid.uuid4()), name=name, metadata=metadata, created_at=now)).inserted_primary_key
            return _one(c, key[0])

        return await self._db.run(unit)

    async def update(self, aggregate_id: int, name: str | None, metadata: Mapping[str, str | None]) -> Aggregate:
        """A new name, and metadata to set (None drops a key). Raises NotFound, Conflict; BadRequest where servers'
        zone would change under them."""
        now = self._now()

        def unit(c: sa.Connection) -> Aggregate:
            aggregate = _one(c, aggregate_id)
            if name is not None:
                _check_unused(c, name, but=aggregate_id)
            merged = {**aggregate.metadata, **metadata}
            kept = {key: value for key, value in merged.items() if value is not None}
            changed = msgspec.structs.replace(aggregate, metadata=kept)
            try:
                _check_one_zone(c, changed)
            except Conflict as error:
                raise BadRequest(error.message) from None
            c.execute(sa.update(aggregates).where(aggregates.c.id == aggregate_id).values(
                name=name or aggregate.name, metadata=kept, updated_at=now))
            return _one(c, aggregate_id)

        return await self._run(unit)

    async def delete(self, aggregate_id: int) -> None:
        """Raises NotFound; BadRequest while it has hosts."""
        def unit(c: sa.Connection) -> None:
            if _one(c, aggregate_id).hosts:
                raise BadRequest(f"Cannot remove host aggregate {aggregate_id}: it is not empty. "
                                 "Remove its hosts first.")
            c.execute(sa.delete(aggregates).where(aggregates.c.id == aggregate_id))

        await self._db.run(unit)

    async def add_host(self, aggregate_id: int, host: str) -> Aggregate:
        """Raises NotFound, Conflict."""
        now = self._now()

        def unit(c: sa.Connection) -> Aggregate:
            aggregate = _one(c, aggregate_id)
            if host in aggregate.hosts:
                raise Conflict(f"Aggregate {aggregate_id} already has host {host}.")
            _check_one_zone(c, msgspec.structs.replace(aggregate, hosts=(*aggregate.hosts, host)))
            c.execute(sa.insert(aggregate_hosts).values(aggregate_id=aggregate_id, host=host))
            c.execute(sa.update(aggregates).where(aggregates.c.id == aggregate_id).values(updated_at=now))
            return _one(c, aggregate_id)

        return await self._run(unit)

    async def remove_host(self, aggregate_id: int, host: str) -> Aggregate:
        """Raises NotFound."""
        now = self._now()

        def unit(c: sa.Connection) -> Aggregate:
            gone = c.execute(sa.delete(aggregate_hosts).where(
                aggregate_hosts.c.aggregate_id == aggregate_id, aggregate_hosts.c.host == host)).rowcount
            if not gone:
                raise NotFound(f"Cannot remove host {host} in aggregate {aggregate_id}")
            c.execute(sa.update(aggregates).where(aggregates.c.id == aggregate_id).values(updated_at=now))
            return _one(c, aggregate_id)

        return await self._run(unit)

    async def forget_host(self, host: str) -> None:
        """The host is in none any more."""
        for aggregate in await self.all():
            if host in aggregate.hosts:
                await self.remove_host(aggregate.id, host)

    async def _run(self, unit: Callable[[sa.Connection], Aggregate]) -> Aggregate:
        now = self._now()

        def noted(connection: sa.Connection) -> Aggregate:
            aggregate = unit(connection)
            changes.note(connection, now, ("aggregate", str(aggregate.id)))
            return aggregate

        changed = await self._db.run(noted)
        await self._changed()
        return changed
