"""/v3/roles and what they imply."""

from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from nacre.base.db import statements
from nacre.base.errors import BadRequest, Forbidden, NotFound
from nacre.base.serving.gate import Subject
from nacre.base.web import Reply, Request, Route
from nacre.identity import tables as t
from nacre.identity.api.answers import many, one, page_of, url
from nacre.identity.api.projects import check_mutable
from nacre.identity.api.providers import Providers, about, asking
from nacre.identity.api.validation import ID_OR_NULL, IMMUTABLE, NAME, TEXT, wrapped
from nacre.identity.ended import take_grants
from nacre.identity.records import DOMAIN, ROLE, delete, find, get, given, insert, listing, missing, update

PROPERTIES = {"name": NAME, "description": TEXT, "domain_id": ID_OR_NULL, "options": IMMUTABLE}
CREATE = wrapped("role", PROPERTIES, ["name"])
UPDATE = wrapped("role", PROPERTIES, minProperties=1)


class Roles:
    """Handlers of /v3/roles and /v3/role_inferences."""

    def __init__(self, providers: Providers):
        self._providers, self._store = providers, providers.store

    async def index(self, request: Request) -> Any:
        domain_id = request.one("domain_id") or ""
        page = page_of(request, "name", "description")
        rows = await self._store.read(lambda conn: listing(conn, ROLE, page, t.roles.c.domain_id == domain_id))
        return many(request, ROLE, rows, page)

    async def create(self, request: Request) -> Reply:
        body = given(ROLE, request.body)
        values = {**body, "id": uuid4().hex, "domain_id": body.get("domain_id") or "", "name": body["name"].strip()}

        def unit(conn: sa.Connection) -> Any:
            if values["domain_id"]:
                get(conn, DOMAIN, values["domain_id"])
            return insert(conn, ROLE, values)
        return Reply(one(request, ROLE, await self._store.write(unit)), 201)

    async def show(self, request: Request) -> Any:
        return one(request, ROLE, request.found)

    async def update(self, request: Request) -> Any:
        row = request.found
        changes = given(ROLE, request.body)
        if (changes.pop("domain_id", row["domain_id"]) or "") != row["domain_id"]:
            raise BadRequest("Cannot change the domain of a role (domain_id).", field="domain_id")
        check_mutable("role", row, changes)
        return one(request, ROLE, await self._store.write(
            lambda conn: update(conn, ROLE, get(conn, ROLE, row["id"]), changes)))

    async def delete(self, request: Request) -> Reply:
        row = request.found
        check_mutable("role", row, None)

        def unit(conn: sa.Connection) -> None:
            _end_credentials(conn, row["id"])
            take_grants(conn, t.assignments.c.role_id == row["id"])
            conn.execute(sa.delete(t.implied_roles).where(
                (t.implied_roles.c.prior_id == row["id"]) | (t.implied_roles.c.implied_id == row["id"])))
            delete(conn, ROLE, row["id"])
        await self._store.write(unit)
        return Reply(None, 204)

    async def implied(self, request: Request) -> Any:
        prior = await self._store.read(lambda conn: get(conn, ROLE, request.params["role_id"]))
        rules = await self._rules(request, prior["id"])
        shown = rules[0] if rules else {"prior_role": _brief(request, prior), "implies": []}
        return {"role_inference": shown, "links": {"self": f"{url(request)}/roles/{prior['id']}/implies"}}

    async def inferences(self, request: Request) -> Any:
        links = {"self": f"{url(request)}/role_inferences", "next": None, "previous": None}
        return {"role_inferences": await self._rules(request, None), "links": links}

    async def show_implied(self, request: Request) -> Any:
        prior, other = await self._pair(request)
        return self._inference(request, prior, other)

    async def imply(self, request: Request) -> Reply:
        prior, other = await self._pair(request, must=False)
        if other["name"] == "admin":
            raise Forbidden(f"You are not authorized to perform the requested action: {other['id']} cannot be an"
                            " implied role.")

        if other["domain_id"] and not prior["domain_id"]:
            raise Forbidden(f"You are not authorized to perform the requested action: {other['id']} is a role of one"
                            " domain and cannot be implied by one of the whole cloud.")

        def unit(conn: sa.Connection) -> None:
            i = t.implied_roles
            conn.execute(sa.delete(i).where(i.c.prior_id == prior["id"], i.c.implied_id == other["id"]))
            conn.execute(sa.insert(i).values(prior_id=prior["id"], implied_id=other["id"]))
        await self._store.write(unit)
        return Reply(self._inference(request, prior, other), 201)

    async def unimply(self, request: Request) -> Reply:
        prior, other = await self._pair(request)
        i = t.implied_roles
        await self._store.write(lambda conn: conn.execute(
            sa.delete(i).where(i.c.prior_id == prior["id"], i.c.implied_id == other["id"])).rowcount)
        return Reply(None, 204)

    async def check_implied(self, request: Request) -> Reply:
        await self._pair(request)
        return Reply(None, 204)

    def _inference(self, request: Request, prior: Any, other: Any) -> dict[str, Any]:
        return {"role_inference": {"prior_role": _brief(request, prior), "implies": _brief(request, other)},
                "links": {"self": f"{url(request)}/roles/{prior['id']}/implies/{other['id']}"}}

    async def _pair(self, request: Request, must: bool = True) -> tuple[Any, Any]:
        prior_id, other_id = request.params["role_id"], request.params["implied_id"]

        def unit(conn: sa.Connection) -> tuple[Any, Any]:
            prior, other = get(conn, ROLE, prior_id), get(conn, ROLE, other_id)
            i = t.implied_roles
            if must and not conn.execute(sa.select(i).where(
                    i.c.prior_id == prior_id, i.c.implied_id == other_id)).first():
                raise NotFound(f"{prior_id} does not imply {other_id}.")
            return prior, other
        return await self._store.read(unit)

    async def _rules(self, request: Request, prior_id: str | None) -> list[dict[str, Any]]:
        def unit(conn: sa.Connection) -> tuple[Any, Any]:
            rows = {r["id"]: dict(r) for r in conn.execute(sa.select(t.roles)).mappings()}
            return rows, [tuple(r) for r in conn.execute(sa.select(
                t.implied_roles.c.prior_id, t.implied_roles.c.implied_id))]
        rows, pairs = await self._store.read(unit)
        found: dict[str, dict[str, Any]] = {}
        for prior, other in pairs:
            if prior_id in (None, prior) and prior in rows and other in rows:
                entry = found.setdefault(prior, {"prior_role": _brief(request, rows[prior]), "implies": []})
                entry["implies"].append(_brief(request, rows[other]))
        return list(found.values())

    async def one(self, request: Request) -> Subject:
        """The role of the URL; of one of a single domain, rules of their own are asked."""
        id = request.params["role_id"]
        row = await self._store.read(lambda conn: find(conn, ROLE, id))
        return Subject(about(ROLE, row), row, _rule(request, bool(row and row["domain_id"])), missing=missing(ROLE, id))


def _end_credentials(conn: sa.Connection, role_id: str) -> None:
    """With a role go, as in Keystone, all application credentials of its users for the projects on which they have it;
    of users alone, not of groups' members."""
    a = t.assignments.c
    for user_id, project_id in conn.execute(sa.select(a.actor_id, a.target_id).where(
            a.role_id == role_id, a.actor_type == "user", a.target_type == "project")).fetchall():
        statements.delete(conn, t.application_credentials, user_id=user_id, project_id=project_id)


def _rule(request: Request, of_domain: bool) -> str:
    """Of the two rules that a route names, the one for roles of a domain or for those of the whole cloud."""
    rules = request.route.gate.rules if request.route else ()
    return rules[int(of_domain)]


def _brief(request: Request, row: Any) -> dict[str, Any]:
    return {"id": row["id"], "name": row["name"], "links": {"self": f"{url(request)}/roles/{row['id']}"}}


def routes(providers: Providers) -> list[Route]:
    api, implies = Roles(providers), "/v3/roles/{role_id}/implies"

    async def listed(request: Request) -> Subject:
        return Subject({}, rule=_rule(request, bool(request.one("domain_id"))))

    async def made(request: Request) -> Subject:
        return Subject({}, rule=_rule(request, bool(request.body.get("domain_id"))))

    return [
        Route("GET", "/v3/roles", api.index, asking("list_roles", "list_domain_roles", about=listed)),
        Route("POST", "/v3/roles", api.create, asking("create_role", "create_domain_role", about=made), body=CREATE),
        Route("GET", "/v3/roles/{role_id}", api.show, asking("get_role", "get_domain_role", about=api.one)),
        Route("PATCH", "/v3/roles/{role_id}", api.update, asking("update_role", "update_domain_role", about=api.one),
              body=UPDATE),
        Route("DELETE", "/v3/roles/{role_id}", api.delete, asking("delete_role", "delete_domain_role", about=api.one)),
        Route("GET", implies, api.implied, asking("list_implied_roles")),
        Route("GET", implies + "/{implied_id}", api.show_implied, asking("get_implied_role")),
        Route("PUT", implies + "/{implied_id}", api.imply, asking("create_implied_role")),
        Route("HEAD", implies + "/{implied_id}", api.check_implied, asking("check_implied_role")),
        Route("DELETE", implies + "/{implied_id}", api.unimply, asking("delete_implied_role")),
        Route("GET", "/v3/role_inferences", api.inferences, asking("list_role_inference_rules")),
    ]
