"""/v3/auth: tokens and what a token's holder may ask about itself."""

from collections.abc import Awaitable, Callable
from typing import Any

import sqlalchemy as sa

from nacre.base.errors import BadRequest, NotFound, Unauthenticated
from nacre.base.serving.gate import PUBLIC, Subject
from nacre.base.web import Reply, Request, Route
from nacre.identity import catalog, derive
from nacre.identity import tables as t
from nacre.identity.api.answers import collection, many, url
from nacre.identity.api.providers import Providers, asking
from nacre.identity.api.validation import wrapped
from nacre.identity.login import login
from nacre.identity.records import DOMAIN, PROJECT, truth
from nacre.identity.service import Known

TEXT = {"type": "string", "maxLength": 4096}
DOMAIN_REF = {"type": "object", "properties": {"id": TEXT, "name": TEXT},
              "anyOf": [{"required": ["id"]}, {"required": ["name"]}]}
NAMED = {"type": "object", "properties": {"id": TEXT, "name": TEXT, "domain": DOMAIN_REF},
         "anyOf": [{"required": ["id"]}, {"required": ["name"]}]}
AUTH = wrapped("auth", {
    "identity": {"type": "object", "required": ["methods"], "properties": {
        "methods": {"type": "array", "items": {"type": "string"}, "maxItems": 10},
        "password": {"type": "object", "required": ["user"], "properties": {
            "user": {**NAMED, "properties": {**NAMED["properties"], "password": TEXT}}}},  # type: ignore[dict-item]
        "token": {"type": "object", "properties": {"id": TEXT}, "required": ["id"]},
        "application_credential": {"type": "object", "required": ["secret"], "properties": {
            "id": TEXT, "name": TEXT, "secret": TEXT, "user": NAMED},
            "anyOf": [{"required": ["id"]}, {"required": ["name", "user"]}]}}},
    "scope": {"type": ["object", "string"], "properties": {
        "project": NAMED, "domain": DOMAIN_REF, "system": {"type": "object"},
        "OS-TRUST:trust": {"type": "object", "properties": {"id": TEXT}, "required": ["id"]}}}},
    ["identity"])


#: The OAuth access token that a login is signed with, None if it is not; raises Unauthenticated.
Signed = Callable[[Request], Awaitable[dict[str, Any] | None]]


class Auth:
    """Handlers of /v3/auth."""

    def __init__(self, providers: Providers, signed: Signed | None = None):
        self._providers, self._identity, self._signed = providers, providers.identity, signed

    async def create(self, request: Request) -> Reply:
        signed = await self._signed(request) if self._signed else None
        token, known = await login(self._identity, request.body, signed)
        return _token_reply(request, token, known, 201)

    async def show(self, request: Request) -> Reply:
        token, known = request.found
        return _token_reply(request, token, known, 200)

    async def check(self, request: Request) -> Reply:
        token, known = request.found
        return _token_reply(request, token, known, 200)

    async def revoke(self, request: Request) -> Reply:
        token, _ = request.found
        await self._identity.revoke(token)
        return Reply(None, 204)

    async def catalog(self, request: Request) -> Any:
        context = request.context
        if not (context.project_id or context.domain_id or context.system):
            raise Unauthenticated  # an unscoped token has no catalog
        rows = await self._providers.store.read(lambda conn: catalog.rows(conn, context.project_id))
        items = catalog.catalog(rows, context.user_id or "", context.project_id)
        return {"catalog": items, "links": {"next": None, "self": url(request) + "/auth/catalog", "previous": None}}

    async def projects(self, request: Request) -> Any:
        user_id = request.context.user_id or ""
        rows = await self._providers.store.read(lambda conn: reachable(conn, user_id, "project"))
        return many(request, PROJECT, rows)

    async def domains(self, request: Request) -> Any:
        user_id = request.context.user_id or ""
        rows = await self._providers.store.read(lambda conn: reachable(conn, user_id, "domain"))
        return many(request, DOMAIN, rows)

    async def system(self, request: Request) -> Any:
        user_id = request.context.user_id or ""
        roles = await self._providers.store.read(lambda conn: derive.roles_on(conn, user_id, "system", None))
        return collection(request, "system", [{"all": True}] if roles else [])

    async def subject(self, request: Request) -> Subject:
        """The token that the request is about, and what it means. A bad one is not told from none."""
        token = request.headers.get("x-subject-token")
        if not token:
            raise BadRequest("Expecting to find X-Subject-Token in the request's headers.", field="X-Subject-Token")
        try:
            known = await self._identity.inspect(token)
        except Unauthenticated:
            raise NotFound("Could not find token.") from None
        return Subject({"target.token.user_id": known.payload.user_id}, (token, known))


def reachable(conn: sa.Connection, user_id: str, kind: str) -> list[dict[str, Any]]:
    """The enabled projects or domains on which a user has a role."""
    a, p = t.assignments.c, t.projects.c
    groups = conn.scalars(sa.select(t.memberships.c.group_id).where(t.memberships.c.user_id == user_id)).all()
    mine = sa.or_(sa.and_(a.actor_type == "user", a.actor_id == user_id),
                  sa.and_(a.actor_type == "group", a.actor_id.in_(groups)))
    direct = sa.select(a.target_id).where(mine, a.target_type == kind, a.inherited.is_(False))
    wanted = [p.id.in_(direct)]
    if kind == "project":
        above = list(conn.scalars(sa.select(a.target_id).where(mine, a.inherited.is_(True))))
        wanted += [p.domain_id.in_(above), p.id.in_(below(conn, above))]
    query = sa.select(t.projects).where(sa.or_(*wanted), p.enabled, p.is_domain.is_(kind == "domain"))
    return [dict(r) for r in conn.execute(query.order_by(p.id)).mappings()]


def below(conn: sa.Connection, ids: list[str]) -> list[str]:
    """Every project under `ids`, at any depth."""
    found: list[str] = []
    while ids and len(found) < 10_000:
        ids = list(conn.scalars(sa.select(t.projects.c.id).where(t.projects.c.parent_id.in_(ids))))
        found += ids
    return found


def _token_reply(request: Request, token: str, known: Known, status: int) -> Reply:
    bare = request.one("nocatalog") is not None and truth(request.one("nocatalog"))
    body = known.without_catalog if bare else known.with_catalog
    return Reply(body, status, {"X-Subject-Token": token, "Vary": "X-Auth-Token"})


def routes(providers: Providers, signed: Signed | None = None) -> list[Route]:
    api = Auth(providers, signed)
    return [
        Route("POST", "/v3/auth/tokens", api.create, PUBLIC, body=AUTH),
        Route("GET", "/v3/auth/tokens", api.show, asking("validate_token", about=api.subject)),
        Route("HEAD", "/v3/auth/tokens", api.check, asking("check_token", about=api.subject)),
        Route("DELETE", "/v3/auth/tokens", api.revoke, asking("revoke_token", about=api.subject)),
        Route("GET", "/v3/auth/catalog", api.catalog, asking("get_auth_catalog")),
        Route("GET", "/v3/auth/projects", api.projects, asking("get_auth_projects")),
        Route("GET", "/v3/auth/domains", api.domains, asking("get_auth_domains")),
        Route("GET", "/v3/auth/system", api.system, asking("get_auth_system")),
        Route("GET", "/v3/OS-FEDERATION/projects", api.projects, asking("get_auth_projects")),
        Route("GET", "/v3/OS-FEDERATION/domains", api.domains, asking("get_auth_domains")),
    ]
