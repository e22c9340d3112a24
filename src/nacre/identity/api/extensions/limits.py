"""/v3/registered_limits and /v3/limits: how much of what a service may give out, in all and to whom.

They are kept for services that ask; Nacre's own services have quotas of their own. The model is flat.
"""

from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from nacre.base.errors import Conflict, Forbidden, NotFound
from nacre.base.serving.gate import Subject
from nacre.base.web import Reply, Request, Route
from nacre.identity import tables as t
from nacre.identity.api.answers import collection, page_of, url
from nacre.identity.api.extensions.documents import Document, fetch, held
from nacre.identity.api.providers import Providers, asking
from nacre.identity.api.validation import ID_OR_NULL, NAME, TEXT, schema, wrapped
from nacre.identity.records import DOMAIN, PROJECT, REGION, SERVICE, find, get, matches

AMOUNT = {"type": "integer", "minimum": -1, "maximum": 2**31 - 1}
WHAT = {"service_id": {"type": "string", "maxLength": 64}, "resource_name": NAME,
        "region_id": {"type": ["string", "null"], "maxLength": 255}, "description": TEXT}
REGISTERED = {**WHAT, "default_limit": AMOUNT}
LIMIT = {**WHAT, "resource_limit": AMOUNT, "project_id": ID_OR_NULL, "domain_id": ID_OR_NULL}
STRICT: dict[str, Any] = {"additionalProperties": False}


def _several(key: str, properties: Any, required: list[str], **more: Any) -> Any:
    item = {"type": "object", "properties": properties, "required": required, **STRICT, **more}
    return schema({"type": "object", "required": [key], "properties": {
        key: {"type": "array", "minItems": 1, "maxItems": 1000, "items": item}}})


CREATE_REGISTERED = _several("registered_limits", REGISTERED, ["service_id", "resource_name", "default_limit"])
UPDATE_REGISTERED = wrapped("registered_limit", REGISTERED, **STRICT)
CREATE_LIMITS = _several("limits", LIMIT, ["service_id", "resource_name", "resource_limit"],
                         oneOf=[{"required": ["project_id"]}, {"required": ["domain_id"]}])
UPDATE_LIMIT = wrapped("limit", {"resource_limit": AMOUNT, "description": TEXT}, **STRICT)
FILTERS = ("service_id", "region_id", "resource_name", "project_id", "domain_id")


class Limits:
    """Handlers of one of the two kinds: `registered_limit`, `limit`."""

    def __init__(self, providers: Providers, kind: str):
        self._providers, self._store, self._kind = providers, providers.store, kind

    async def index(self, request: Request) -> Any:
        page = page_of(request, *FILTERS)
        found = await self._store.read(lambda conn: held(conn, self._kind))
        found = [d for d in found if all(matches(d.get(name), how, value) for name, how, value in page.filters)]
        if self._kind == "limit":
            found = [d for d in found if request.allows("identity:get_limit", _target(d))]
        return collection(request, f"{self._kind}s", [self._shown(request, d) for d in found])

    async def create(self, request: Request) -> Reply:
        key = f"{self._kind}s"
        extra = {"project_id": None, "domain_id": None} if self._kind == "limit" else {}
        rows = [{"region_id": None, "description": None, **extra, **d, "id": uuid4().hex} for d in request.body[key]]

        def unit(conn: sa.Connection) -> None:
            for row in rows:
                self._check(conn, row)
                conn.execute(sa.insert(t.documents).values(kind=self._kind, id=row["id"], extra=row))
        await self._store.write(unit)
        return Reply({key: [self._shown(request, r) for r in rows]}, 201)

    async def show(self, request: Request) -> Any:
        return {self._kind: self._shown(request, request.found)}

    async def update(self, request: Request) -> Any:

        def unit(conn: sa.Connection) -> Document:
            row = fetch(conn, self._kind, request.params["id"]) or _raise(self._missing(request))
            new = {**row, **request.body}
            if any(new[k] != row[k] for k in ("service_id", "region_id", "resource_name")):
                self._check_unused(conn, row)
                self._check(conn, new)
            d = t.documents
            conn.execute(sa.update(d).where(d.c.kind == self._kind, d.c.id == row["id"]).values(extra=new))
            return new
        return {self._kind: self._shown(request, await self._store.write(unit))}

    async def delete(self, request: Request) -> Reply:

        def unit(conn: sa.Connection) -> None:
            row = fetch(conn, self._kind, request.params["id"]) or _raise(self._missing(request))
            self._check_unused(conn, row)
            d = t.documents
            conn.execute(sa.delete(d).where(d.c.kind == self._kind, d.c.id == row["id"]))
        await self._store.write(unit)
        return Reply(None, 204)

    def _check(self, conn: sa.Connection, row: Document) -> None:
        """Raises for what a limit names and is not there, and for one there is already."""
        if find(conn, SERVICE, row["service_id"]) is None:
            raise Forbidden(f"Invalid resource limit: there is no service {row['service_id']}.")
        if row["region_id"] and find(conn, REGION, row["region_id"]) is None:
            raise Forbidden(f"Invalid resource limit: there is no region {row['region_id']}.")
        same = ("service_id", "region_id", "resource_name", "project_id", "domain_id")
        if any(all(d.get(k) == row.get(k) for k in same) and d["id"] != row["id"] for d in held(conn, self._kind)):
            raise Conflict(f"Conflict occurred attempting to store {self._kind} - Duplicate entry found.")
        if self._kind == "limit":
            if row["project_id"]:
                get(conn, PROJECT, row["project_id"])
            if row["domain_id"]:
                get(conn, DOMAIN, row["domain_id"])
            if not any(_covers(r, row) for r in held(conn, "registered_limit")):
                raise Forbidden("Unable to create a limit that has no corresponding registered limit.")

    def _check_unused(self, conn: sa.Connection, row: Document) -> None:
        if self._kind == "registered_limit" and any(_covers(row, d) for d in held(conn, "limit")):
            raise Forbidden(f"Unable to update or delete registered limit {row['id']} because there are project limits"
                            " associated with it.")

    async def one(self, request: Request) -> Subject:
        """The limit of the URL."""
        row = await self._store.read(lambda conn: fetch(conn, self._kind, request.params["id"]))
        return Subject(_target(row or {}), row, missing=self._missing(request))

    def _missing(self, request: Request) -> NotFound:
        return NotFound(f"Could not find {self._kind.replace('_', ' ')} for {request.params['id']}.")

    def _shown(self, request: Request, row: Document) -> Document:
        return {**row, "links": {"self": f"{url(request)}/{self._kind}s/{row['id']}"}}


def _raise(error: NotFound) -> Document:
    raise error


def _covers(registered: Document, limit: Document) -> bool:
    return all(registered[k] == limit[k] for k in ("service_id", "region_id", "resource_name"))


def _target(row: Document) -> dict[str, Any]:
    return {f"target.limit.{k}": row.get(k) for k in ("project_id", "domain_id") if row.get(k)}


def routes(providers: Providers) -> list[Route]:
    async def model(request: Request) -> Any:
        return {"model": {"name": "flat", "description": "Limit enforcement and validation does not take project"
                                                         " hierarchy into consideration."}}

    found = [Route("GET", "/v3/limits/model", model, asking("get_limit_model"))]
    for kind, create, update in (("registered_limit", CREATE_REGISTERED, UPDATE_REGISTERED),
                                 ("limit", CREATE_LIMITS, UPDATE_LIMIT)):
        api, path = Limits(providers, kind), f"/v3/{kind}s"
        shown = ("get_limit",) if kind == "limit" else ()
        found += [
            Route("GET", path, api.index, asking(f"list_{kind}s", parts=shown)),
            Route("POST", path, api.create, asking(f"create_{kind}s"), body=create),
            Route("GET", path + "/{id}", api.show, asking(f"get_{kind}", about=api.one)),
            Route("PATCH", path + "/{id}", api.update, asking(f"update_{kind}"), body=update),
            Route("DELETE", path + "/{id}", api.delete, asking(f"delete_{kind}"))]
    return found
