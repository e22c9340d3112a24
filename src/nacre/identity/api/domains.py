"""/v3/domains and the configuration that each may have."""

from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from nacre.base.errors import Forbidden
from nacre.base.web import Reply, Request, Route
from nacre.identity import tables as t
from nacre.identity.api.desk import Desk, many, one, own_domain, page_of
from nacre.identity.api.projects import check_mutable, remove_domain
from nacre.identity.api.validation import BOOLEAN, IMMUTABLE, SHORT_NAME, TAGS, TEXT, boolean, wrapped
from nacre.identity.records import DOMAIN, find, get, given, insert, listing, missing, update

PROPERTIES = {"name": SHORT_NAME, "description": TEXT, "enabled": BOOLEAN, "tags": TAGS, "options": IMMUTABLE}
CREATE = wrapped("domain", {**PROPERTIES, "explicit_domain_id": {
    "type": "string", "pattern": "^([0-9a-f]{32}|default)$"}}, ["name"])
UPDATE = wrapped("domain", PROPERTIES, minProperties=1)


class Domains:
    """Handlers of /v3/domains."""

    def __init__(self, desk: Desk):
        self._desk, self._store = desk, desk.store

    async def index(self, request: Request) -> Any:
        only = own_domain(request.context)
        self._desk.check(request, "list_domains", {"target.domain.id": request.context.domain_id})
        page = page_of(request, "name", "enabled", "description")
        where = [t.projects.c.is_domain, *([t.projects.c.id == only] if only else [])]
        return many(request, DOMAIN, await self._store.read(lambda conn: listing(conn, DOMAIN, page, *where)), page)

    async def create(self, request: Request) -> Reply:
        body = given(DOMAIN, request.body)
        self._desk.check(request, "create_domain")
        values = {**body, "id": body.pop("explicit_domain_id", None) or uuid4().hex, "domain_id": "",
                  "parent_id": None, "is_domain": True, "name": body["name"].strip(),
                  "enabled": boolean(body.get("enabled", True))}
        values.pop("explicit_domain_id", None)
        return Reply(one(request, DOMAIN, await self._store.write(lambda conn: insert(conn, DOMAIN, values))), 201)

    async def show(self, request: Request) -> Any:
        return one(request, DOMAIN, await self._target(request, "get_domain"))

    async def update(self, request: Request) -> Any:
        row = await self._target(request, "update_domain")
        changes = {k: v for k, v in given(DOMAIN, request.body).items()
                   if k not in ("domain_id", "parent_id", "is_domain")}
        check_mutable("domain", row, changes)
        if "enabled" in changes:
            changes["enabled"] = boolean(changes["enabled"])
        return one(request, DOMAIN, await self._store.write(
            lambda conn: update(conn, DOMAIN, get(conn, DOMAIN, row["id"]), changes)))

    async def delete(self, request: Request) -> Reply:
        row = await self._target(request, "delete_domain")
        check_mutable("domain", row, None)

        def unit(conn: sa.Connection) -> None:
            if get(conn, DOMAIN, row["id"])["enabled"]:
                raise Forbidden("Cannot delete a domain that is enabled, please disable it first.")
            remove_domain(conn, row["id"])
        await self._store.write(unit)
        return Reply(None, 204)

    async def _target(self, request: Request, rule: str) -> Any:
        id = request.params["domain_id"]
        row = await self._store.read(lambda conn: find(conn, DOMAIN, id))
        self._desk.check(request, rule, {"target.domain.id": row["id"] if row else None})
        if row is None:
            raise missing(DOMAIN, id)
        return row


def routes(desk: Desk) -> list[Route]:
    api = Domains(desk)
    return [
        Route("GET", "/v3/domains", api.index),
        Route("POST", "/v3/domains", api.create, body=CREATE),
        Route("GET", "/v3/domains/{domain_id}", api.show),
        Route("PATCH", "/v3/domains/{domain_id}", api.update, body=UPDATE),
        Route("DELETE", "/v3/domains/{domain_id}", api.delete),
    ]
