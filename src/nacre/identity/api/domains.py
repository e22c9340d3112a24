"""/v3/domains and the configuration that each may have."""

from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from nacre.base.errors import Forbidden
from nacre.base.serving.gate import Subject
from nacre.base.web import Reply, Request, Route
from nacre.identity import tables as t
from nacre.identity.api.answers import many, one, own_domain, page_of
from nacre.identity.api.projects import check_mutable, remove_domain
from nacre.identity.api.providers import Providers, asking, stated
from nacre.identity.api.validation import BOOLEAN, IMMUTABLE, SHORT_NAME, TAGS, TEXT, boolean, wrapped
from nacre.identity.records import DOMAIN, find, get, given, insert, listing, missing, update

PROPERTIES = {"name": SHORT_NAME, "description": TEXT, "enabled": BOOLEAN, "tags": TAGS, "options": IMMUTABLE}
CREATE = wrapped("domain", {**PROPERTIES, "explicit_domain_id": {
    "type": "string", "pattern": "^([0-9a-f]{32}|default)$"}}, ["name"])
UPDATE = wrapped("domain", PROPERTIES, minProperties=1)


class Domains:
    """Handlers of /v3/domains."""

    def __init__(self, providers: Providers):
        self._providers, self._store = providers, providers.store

    async def index(self, request: Request) -> Any:
        only = own_domain(request.context)
        page = page_of(request, "name", "enabled", "description")
        where = [t.projects.c.is_domain, *([t.projects.c.id == only] if only else [])]
        return many(request, DOMAIN, await self._store.read(lambda conn: listing(conn, DOMAIN, page, *where)), page)

    async def create(self, request: Request) -> Reply:
        body = given(DOMAIN, request.body)
        values = {**body, "id": body.pop("explicit_domain_id", None) or uuid4().hex, "domain_id": "",
                  "parent_id": None, "is_domain": True, "name": body["name"].strip(),
                  "enabled": boolean(body.get("enabled", True))}
        values.pop("explicit_domain_id", None)
        return Reply(one(request, DOMAIN, await self._store.write(lambda conn: insert(conn, DOMAIN, values))), 201)

    async def show(self, request: Request) -> Any:
        return one(request, DOMAIN, request.found)

    async def update(self, request: Request) -> Any:
        row = request.found
        changes = {k: v for k, v in given(DOMAIN, request.body).items()
                   if k not in ("domain_id", "parent_id", "is_domain")}
        check_mutable("domain", row, changes)
        if "enabled" in changes:
            changes["enabled"] = boolean(changes["enabled"])
        return one(request, DOMAIN, await self._store.write(
            lambda conn: update(conn, DOMAIN, get(conn, DOMAIN, row["id"]), changes)))

    async def delete(self, request: Request) -> Reply:
        row = request.found
        check_mutable("domain", row, None)

        def unit(conn: sa.Connection) -> None:
            if get(conn, DOMAIN, row["id"])["enabled"]:
                raise Forbidden("Cannot delete a domain that is enabled, please disable it first.")
            remove_domain(conn, row["id"])
        await self._store.write(unit)
        return Reply(None, 204)

    async def one(self, request: Request) -> Subject:
        """The domain of the URL."""
        id = request.params["domain_id"]
        row = await self._store.read(lambda conn: find(conn, DOMAIN, id))
        return Subject({"target.domain.id": row["id"]} if row else {}, row, missing=missing(DOMAIN, id))


def routes(providers: Providers) -> list[Route]:
    api = Domains(providers)
    own = stated(lambda request: {"target.domain.id": request.context.domain_id})
    return [
        Route("GET", "/v3/domains", api.index, asking("list_domains", about=own)),
        Route("POST", "/v3/domains", api.create, asking("create_domain"), body=CREATE),
        Route("GET", "/v3/domains/{domain_id}", api.show, asking("get_domain", about=api.one)),
        Route("PATCH", "/v3/domains/{domain_id}", api.update, asking("update_domain", about=api.one), body=UPDATE),
        Route("DELETE", "/v3/domains/{domain_id}", api.delete, asking("delete_domain", about=api.one)),
    ]
