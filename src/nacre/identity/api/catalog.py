"""/v3/regions, /v3/services, /v3/endpoints."""

from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from nacre.base.errors import BadRequest, Conflict, Forbidden
from nacre.base.web import Check, Reply, Request, Route
from nacre.identity import tables as t
from nacre.identity.api.answers import many, one, page_of
from nacre.identity.api.providers import Providers, asking
from nacre.identity.api.validation import TEXT, wrapped
from nacre.identity.catalog import unlink
from nacre.identity.records import ENDPOINT, REGION, SERVICE, Kind, delete, find, get, given, insert, listing, update

REGION_ID: dict[str, Any] = {"type": ["string", "null"], "maxLength": 255}
REGION_PROPERTIES = {"id": REGION_ID, "parent_region_id": REGION_ID, "description": TEXT}
SERVICE_PROPERTIES = {"type": {"type": "string", "minLength": 1, "maxLength": 255}, "enabled": {"type": "boolean"},
                      "name": {"type": ["string", "null"], "maxLength": 255}, "description": TEXT}
ENDPOINT_PROPERTIES = {
    "interface": {"enum": ["admin", "internal", "public"]}, "service_id": {"type": "string", "maxLength": 64},
    "url": {"type": "string", "minLength": 1, "maxLength": 2048, "pattern": "^[a-zA-Z0-9+.-]+:.+"},
    "enabled": {"type": "boolean"},
    "region_id": REGION_ID, "region": REGION_ID, "name": TEXT, "description": TEXT}


class Catalog:
    """Handlers for one of the three kinds. What they have in common is all but create and the regions' tree."""

    def __init__(self, providers: Providers, kind: Kind, filters: tuple[str, ...]):
        self._providers, self._store, self._kind, self._filters = providers, providers.store, kind, filters

    async def index(self, request: Request) -> Any:
        kind = self._kind
        page = page_of(request, *self._filters)
        return many(request, kind, await self._store.read(lambda conn: listing(conn, kind, page)), page)

    async def create(self, request: Request) -> Reply:
        kind = self._kind
        body = given(kind, request.body)
        id = request.body.get("id") if kind is REGION else None
        if request.params.get("id"):
            if id and id != request.params["id"]:
                raise BadRequest("The region's id in the URL is not that of the body.", field="id")
            id = request.params["id"]
            if len(id) > REGION_ID["maxLength"]:
                raise BadRequest(f"A region's id is at most {REGION_ID['maxLength']} characters long.", field="id")

        def unit(conn: sa.Connection) -> Any:
            values = {**_defaults(kind), **body, "id": id or uuid4().hex}
            return insert(conn, kind, _settled(conn, kind, values))
        try:
            return Reply(one(request, kind, await self._store.write(unit)), 201)
        except Conflict:
            raise Conflict(f"Conflict occurred attempting to store {kind.name} - Duplicate ID, {id}.") from None

    async def show(self, request: Request) -> Any:
        kind, id = self._kind, request.params["id"]
        return one(request, kind, await self._store.read(lambda conn: get(conn, kind, id)))

    async def update(self, request: Request) -> Any:
        kind, id = self._kind, request.params["id"]
        changes = given(kind, request.body)
        if request.body.get("id", id) != id:
            raise BadRequest("An id cannot be changed (id).", field="id")

        def unit(conn: sa.Connection) -> Any:
            return update(conn, kind, get(conn, kind, id), _settled(conn, kind, changes, id))
        return one(request, kind, await self._store.write(unit))

    async def delete(self, request: Request) -> Reply:
        kind, id = self._kind, request.params["id"]

        def unit(conn: sa.Connection) -> None:
            get(conn, kind, id)
            if kind is SERVICE:
                for each in conn.scalars(sa.select(t.endpoints.c.id).where(t.endpoints.c.service_id == id)).all():
                    unlink(conn, each)
                conn.execute(sa.delete(t.endpoints).where(t.endpoints.c.service_id == id))
            if kind is ENDPOINT:
                unlink(conn, id)
            if kind is REGION:
                _remove_regions(conn, id)
            delete(conn, kind, id)
        await self._store.write(unit)
        return Reply(None, 204)


def _defaults(kind: Kind) -> dict[str, Any]:
    if kind is REGION:
        return {"parent_region_id": None, "description": ""}
    return {"enabled": True, **({"region_id": None} if kind is ENDPOINT else {})}


def _settled(conn: sa.Connection, kind: Kind, values: dict[str, Any], id: str | None = None) -> dict[str, Any]:
    """`values` with what they name looked up. Raises BadRequest, NotFound for what is not there."""
    if kind is REGION and values.get("parent_region_id"):
        _check_parent(conn, values["parent_region_id"], id)
    if kind is ENDPOINT:
        values = _endpoint(conn, values)
    return values


def _endpoint(conn: sa.Connection, values: dict[str, Any]) -> dict[str, Any]:
    values = dict(values)
    if values.get("service_id") and find(conn, SERVICE, values["service_id"]) is None:
        raise BadRequest(f"Could not find service: {values['service_id']}.", field="service_id")
    legacy = values.pop("region", None)
    if legacy and not values.get("region_id"):
        if find(conn, REGION, legacy) is None:
            insert(conn, REGION, {"id": legacy, "parent_region_id": None, "description": ""})
        values["region_id"] = legacy
    elif values.get("region_id") and find(conn, REGION, values["region_id"]) is None:
        raise BadRequest(f"Could not find region: {values['region_id']}.", field="region_id")
    return values


def _check_parent(conn: sa.Connection, parent_id: str, id: str | None) -> None:
    seen: list[str] = []
    at: str | None = parent_id
    while at and at not in seen:
        if at == id:
            raise BadRequest(f"The specified parent region {parent_id} would create a circular region hierarchy.",
                             field="parent_region_id")
        seen.append(at)
        at = get(conn, REGION, at)["parent_region_id"]


def _remove_regions(conn: sa.Connection, id: str) -> None:
    ids, level = [id], [id]
    while level:
        level = list(conn.scalars(sa.select(t.regions.c.id).where(t.regions.c.parent_region_id.in_(level))))
        ids += level
    if conn.execute(sa.select(t.endpoints.c.id).where(t.endpoints.c.region_id.in_(ids))).first():
        raise Forbidden(f"Unable to delete region {id} because it or its child regions have associated endpoints.")
    conn.execute(sa.delete(t.regions).where(t.regions.c.id.in_(ids)))


def routes(providers: Providers) -> list[Route]:
    kinds: tuple[tuple[Kind, tuple[str, ...], Check, Check], ...] = (
        (REGION, ("parent_region_id", "name"), wrapped("region", REGION_PROPERTIES),
         wrapped("region", REGION_PROPERTIES, minProperties=1)),
        (SERVICE, ("type", "name", "enabled"), wrapped("service", SERVICE_PROPERTIES, ["type"]),
         wrapped("service", SERVICE_PROPERTIES, minProperties=1)),
        (ENDPOINT, ("interface", "service_id", "region_id", "enabled"),
         wrapped("endpoint", ENDPOINT_PROPERTIES, ["interface", "service_id", "url"]),
         wrapped("endpoint", ENDPOINT_PROPERTIES, minProperties=1)))
    found = []
    for kind, filters, create, change in kinds:
        api, path = Catalog(providers, kind, filters), f"/v3/{kind.plural}"
        found += [
            Route("GET", path, api.index, asking(f"list_{kind.plural}")),
            Route("POST", path, api.create, asking(f"create_{kind.name}"), body=create),
            Route("GET", path + "/{id}", api.show, asking(f"get_{kind.name}")),
            Route("PATCH", path + "/{id}", api.update, asking(f"update_{kind.name}"), body=change),
            Route("DELETE", path + "/{id}", api.delete, asking(f"delete_{kind.name}"))]
        if kind is REGION:
            found.append(Route("PUT", path + "/{id}", api.create, asking("create_region"), body=create))
    return found
