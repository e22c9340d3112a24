"""Flavors: the sizes a server may have, who may use them, and what else they ask of a host."""

import uuid
from collections.abc import Mapping
from datetime import UTC
from typing import Any

import msgspec
import sqlalchemy as sa

from nacre.base.clock import Clock
from nacre.base.context import Context
from nacre.base.db import Database
from nacre.base.errors import BadRequest, Conflict, NotFound
from nacre.base.serving.paths import after
from nacre.compute.catalog.tables import flavor_access, flavors


class Flavor(msgspec.Struct, frozen=True, kw_only=True):
    """One size. Memory and swap in MB, disks in GB."""

    id: str
    name: str
    memory_mb: int
    vcpus: int
    root_gb: int
    ephemeral_gb: int = 0
    swap_mb: int = 0
    rxtx_factor: float = 1.0
    is_public: bool = True
    description: str | None = None
    extra_specs: dict[str, str] = {}


class FlavorQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which flavors to list. public None: all of them (administrators only)."""

    public: bool | None = True
    min_memory_mb: int | None = None
    min_root_gb: int | None = None
    sort_key: str = "flavorid"
    descending: bool = False
    limit: int = 1000
    marker: str | None = None


#: The names clients sort by. Those of columns that only Nova has sort by the id.
SORT_KEYS = {"created_at": "created_at", "description": "description", "disabled": "id", "ephemeral_gb": "ephemeral_gb",
             "flavorid": "id", "id": "id", "is_public": "is_public", "memory_mb": "memory_mb", "name": "name",
             "root_gb": "root_gb", "rxtx_factor": "rxtx_factor", "swap": "swap_mb", "updated_at": "updated_at",
             "vcpu_weight": "id", "vcpus": "vcpus"}


def _visible(context: Context) -> sa.ColumnElement[bool]:
    if context.is_admin:
        return sa.true()
    shared = sa.select(flavor_access.c.flavor_id).where(flavor_access.c.project_id == context.project_id)
    return flavors.c.is_public | flavors.c.id.in_(shared)


#: One flavor by its id: any, and if a project may see it. Each create asks, the refused ones too.
_ANY = sa.select(flavors).where(flavors.c.id == sa.bindparam("flavor"))
_SEEN = _ANY.where(sa.or_(flavors.c.is_public, flavors.c.id.in_(sa.select(flavor_access.c.flavor_id).where(
    flavor_access.c.project_id == sa.bindparam("project")))))


def _from_row(row: sa.Row[Any]) -> Flavor:
    fields = row._mapping
    return Flavor(**{name: fields[name] for name in Flavor.__struct_fields__})


def find_flavor(connection: sa.Connection, context: Context, flavor_id: str) -> Flavor:
    """The flavor, if `context` may see it; for use inside another unit of work. Raises NotFound."""
    row = connection.execute(_ANY, {"flavor": flavor_id}).first() if context.is_admin else connection.execute(
        _SEEN, {"flavor": flavor_id, "project": context.project_id}).first()
    if row is None:
        raise NotFound(f"Flavor {flavor_id} could not be found.", type="FlavorNotFound")
    return _from_row(row)


class Flavors:
    """Flavors in the database."""

    def __init__(self, db: Database, clock: Clock):
        self._db, self._clock = db, clock

    async def search(self, context: Context, query: FlavorQuery) -> list[Flavor]:
        """What `context` may see of what `query` asks. Raises BadRequest for a marker that is not there."""
        wanted = [_visible(context)]
        if query.public is not None:
            shared = sa.true() if query.public and not context.is_admin else flavors.c.is_public == query.public
            wanted.append(shared)
        if query.min_memory_mb is not None:
            wanted.append(flavors.c.memory_mb >= query.min_memory_mb)
        if query.min_root_gb is not None:
            wanted.append(flavors.c.root_gb >= query.min_root_gb)
        key = flavors.c[SORT_KEYS[query.sort_key]]
        order = [key.desc(), flavors.c.id.desc()] if query.descending else [key.asc(), flavors.c.id.asc()]
        rows = await self._db.read(lambda c: c.execute(sa.select(flavors).where(*wanted).order_by(*order)).all())
        found = [_from_row(row) for row in rows]
        if query.marker is not None:
            following = after(found, query.marker, lambda flavor: flavor.id)
            if following is None:
                raise BadRequest(f"marker [{query.marker}] not found", field="marker")
            found = list(following)
        return found[:query.limit]

    async def get(self, context: Context, flavor_id: str) -> Flavor:
        """Raises NotFound for one that is not there or not `context`'s to see."""
        return await self._db.read(lambda c: find_flavor(c, context, flavor_id))

    async def create(self, flavor: Flavor) -> Flavor:
        """An empty id gets a UUID. Raises Conflict where the name or the id is taken."""
        if not flavor.id:
            flavor = msgspec.structs.replace(flavor, id=str(uuid.uuid4()))
        now = self._clock.now().astimezone(UTC).replace(tzinfo=None)
        values = {**msgspec.structs.asdict(flavor), "created_at": now}

        def unit(c: sa.Connection) -> None:
            same = c.execute(sa.select(flavors.c.id, flavors.c.name).where(
                (flavors.c.id == flavor.id) | (flavors.c.name == flavor.name))).first()
            if same is not None:
                raise Conflict(f"Flavor with name {flavor.name} already exists." if same.name == flavor.name
                               else f"Flavor with ID {flavor.id} already exists.")
            c.execute(sa.insert(flavors).values(values))

        try:
            await self._db.run(unit)
        except sa.exc.IntegrityError:
            raise Conflict(f"Flavor with name {flavor.name} already exists.") from None
        return flavor

    async def describe(self, context: Context, flavor_id: str, description: str | None) -> Flavor:
        """Changes the one field that may change. Raises NotFound."""
        return await self._change(context, flavor_id, lambda _: {"description": description})

    async def delete(self, flavor_id: str) -> None:
        """Servers keep the size they were made with. Raises NotFound."""
        def unit(c: sa.Connection) -> None:
            c.execute(sa.delete(flavor_access).where(flavor_access.c.flavor_id == flavor_id))
            if c.execute(sa.delete(flavors).where(flavors.c.id == flavor_id)).rowcount == 0:
                raise NotFound(f"Flavor {flavor_id} could not be found.", type="FlavorNotFound")

        await self._db.run(unit)

    async def add_specs(self, context: Context, flavor_id: str, specs: Mapping[str, str]) -> None:
        """Sets these extra specs and leaves the others. Raises NotFound."""
        await self._change(context, flavor_id, lambda flavor: {"extra_specs": {**flavor.extra_specs, **specs}})

    async def drop_spec(self, context: Context, flavor_id: str, key: str) -> None:
        """Raises NotFound for a flavor or a key that is not there."""
        def without(flavor: Flavor) -> dict[str, Any]:
            return {"extra_specs": {k: v for k, v in flavor.extra_specs.items() if k != spec_of(flavor, key)[0]}}

        await self._change(context, flavor_id, without)

    async def access(self, flavor_id: str) -> tuple[str, ...]:
        """The projects that may use a private flavor."""
        rows = await self._db.read(lambda c: c.execute(
            sa.select(flavor_access.c.project_id).where(flavor_access.c.flavor_id == flavor_id)
            .order_by(flavor_access.c.project_id)).scalars().all())
        return tuple(rows)

    async def grant(self, flavor_id: str, project_id: str) -> None:
        """Raises Conflict where the project already may."""
        try:
            await self._db.run(lambda c: c.execute(
                sa.insert(flavor_access).values(flavor_id=flavor_id, project_id=project_id)).rowcount)
        except sa.exc.IntegrityError:
            raise Conflict(f"Flavor access already exists for flavor {flavor_id} and project {project_id} "
                           "combination.") from None

    async def revoke(self, flavor_id: str, project_id: str) -> None:
        """Raises NotFound where the project may not."""
        gone = await self._db.run(lambda c: c.execute(sa.delete(flavor_access).where(
            flavor_access.c.flavor_id == flavor_id, flavor_access.c.project_id == project_id)).rowcount)
        if not gone:
            raise NotFound(f"Flavor access not found for {flavor_id} / {project_id} combination.")

    async def _change(self, context: Context, flavor_id: str, change: Any) -> Flavor:
        now = self._clock.now().astimezone(UTC).replace(tzinfo=None)

        def unit(c: sa.Connection) -> Flavor:
            flavor = find_flavor(c, context, flavor_id)
            values = change(flavor)
            c.execute(sa.update(flavors).where(flavors.c.id == flavor_id).values(**values, updated_at=now))
            return msgspec.structs.replace(flavor, **values)

        return await self._db.run(unit)


def spec_of(flavor: Flavor, key: str) -> tuple[str, str]:
    """One extra spec. Raises NotFound."""
    if key not in flavor.extra_specs:
        raise NotFound(f"Flavor {flavor.id} has no extra specs with key {key}.")
    return key, flavor.extra_specs[key]
