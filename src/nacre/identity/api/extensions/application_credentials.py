"""/v3/users/{user_id}/application_credentials and the access rules that narrow them."""

import secrets
from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from nacre.base.errors import BadRequest, Conflict, Forbidden, NotFound
from nacre.base.web import Reply, Request, Route
from nacre.identity import tables as t
from nacre.identity.api.answers import collection, page_of, url
from nacre.identity.api.providers import Providers, UserLimits, asking, stated
from nacre.identity.api.validation import NAME, TEXT, moment, wrapped
from nacre.identity.derive import Facts, access_rules
from nacre.identity.passwords import MAX_PASSWORD
from nacre.identity.records import Kind, Page, delete, find, listing, missing
from nacre.identity.service import when

APPLICATION_CREDENTIAL = Kind("application_credential", "application_credentials", t.application_credentials,
                              frozenset({"secret_hash"}), noun="Application Credential", lender="user_id")
ACCESS_RULE = Kind("access_rule", "access_rules", t.access_rules, noun="Access Rule")
RULE = {"type": "object", "additionalProperties": False, "properties": {
    "id": {"type": "string", "maxLength": 64}, "service": {"type": "string", "minLength": 1, "maxLength": 64},
    "path": {"type": "string", "maxLength": 225, "pattern": "^/"},
    "method": {"enum": ["DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"]}},
    "anyOf": [{"required": ["id"]}, {"required": ["service", "path", "method"]}]}
ROLE_REF = {"type": "object", "properties": {
    "id": {"type": "string", "maxLength": 64}, "name": {"type": "string", "maxLength": 255}},
    "anyOf": [{"required": ["id"]}, {"required": ["name"]}]}
CREATE = wrapped("application_credential", {
    "name": NAME, "description": TEXT, "secret": {"type": ["string", "null"], "maxLength": MAX_PASSWORD},
    "expires_at": {"type": ["string", "null"], "maxLength": 64}, "unrestricted": {"type": ["boolean", "null"]},
    "roles": {"type": "array", "items": ROLE_REF, "maxItems": 200},
    "access_rules": {"type": "array", "items": RULE, "maxItems": 200}}, ["name"])


class ApplicationCredentials:
    """Handlers of application credentials."""

    def __init__(self, providers: Providers):
        self._providers, self._store = providers, providers.store

    async def index(self, request: Request) -> Any:
        user_id = request.params["user_id"]
        await self._unrestricted(request)
        page, table = page_of(request, "name"), t.application_credentials

        def unit(conn: sa.Connection) -> Any:
            rows = listing_of(conn, page, table.c.user_id == user_id)
            return [_shown(conn, request, r) for r in rows]
        return collection(request, "application_credentials", await self._store.read(unit), page)

    async def create(self, request: Request) -> Reply:
        user_id, body = request.params["user_id"], request.body
        facts = await self._unrestricted(request)
        if facts.project is None:
            raise BadRequest("Expecting to find a project-scoped token: an application credential is for a project.",
                             field="X-Auth-Token")
        project_id, secret = facts.project["id"], body.get("secret") or secrets.token_urlsafe(64)
        expires = moment(body.get("expires_at"), "expires_at")
        if expires is not None and expires <= self._store.now():
            raise BadRequest("The expires_at must not be before now.", field="expires_at")
        stored = await self._providers.identity.passwords.hash(secret)

        limits = self._providers.limits

        def unit(conn: sa.Connection) -> Any:
            limits.room(conn, "application_credentials", user_id)
            roles = _chosen(conn, body.get("roles"), facts)
            rules = None if body.get("access_rules") is None else [
                _rule(conn, user_id, r, limits) for r in body["access_rules"]]
            row = {"id": uuid4().hex, "user_id": user_id, "project_id": project_id, "name": body["name"].strip(),
                   "secret_hash": stored, "role_ids": roles, "access_rule_ids": rules, "expires_at": expires,
                   "unrestricted": bool(body.get("unrestricted")), "description": body.get("description")}
            conn.execute(sa.insert(t.application_credentials).values(row))
            return _shown(conn, request, row)
        try:
            shown = await self._store.write(unit)
        except Conflict:
            raise Conflict("Conflict occurred attempting to store application_credential - Duplicate entry found with"
                           f" name {body['name']}.") from None
        return Reply({"application_credential": {**shown, "secret": secret}}, 201)

    async def show(self, request: Request) -> Any:
        row = await self._row(request)
        return {"application_credential": await self._store.read(lambda conn: _shown(conn, request, row))}

    async def delete(self, request: Request) -> Reply:
        row = await self._row(request)
        await self._store.write(lambda conn: delete(conn, APPLICATION_CREDENTIAL, row["id"]))
        return Reply(None, 204)

    async def rules(self, request: Request) -> Any:
        user_id = request.params["user_id"]
        page = page_of(request, "service", "path", "method")
        rows = await self._store.read(
            lambda conn: _plain(conn, t.access_rules, page, t.access_rules.c.user_id == user_id))
        return collection(request, "access_rules", [_rule_shown(request, r) for r in rows], page)

    async def show_rule(self, request: Request) -> Any:
        return {"access_rule": _rule_shown(request, await self._rule_row(request))}

    async def delete_rule(self, request: Request) -> Reply:
        row = await self._rule_row(request)
        await self._unrestricted(request)

        def unit(conn: sa.Connection) -> None:
            held = conn.scalars(sa.select(t.application_credentials.c.access_rule_ids).where(
                t.application_credentials.c.user_id == row["user_id"]))
            if any(row["id"] in (ids or ()) for ids in held):
                raise Forbidden("You are not authorized to perform the requested action: the access rule is used by an"
                                " application credential.")
            delete(conn, ACCESS_RULE, row["id"])
        await self._store.write(unit)
        return Reply(None, 204)

    async def _row(self, request: Request) -> Any:
        user_id, id = request.params["user_id"], request.params["id"]
        await self._unrestricted(request)
        row = await self._store.read(lambda conn: find(conn, APPLICATION_CREDENTIAL, id))
        if row is None or row["user_id"] != user_id:
            raise missing(APPLICATION_CREDENTIAL, id)
        return row

    async def _rule_row(self, request: Request) -> Any:
        user_id, id = request.params["user_id"], request.params["id"]
        row = await self._store.read(lambda conn: find(conn, ACCESS_RULE, id))
        if row is None or row["user_id"] != user_id:
            raise missing(ACCESS_RULE, id)
        return row

    async def _unrestricted(self, request: Request) -> Facts:
        """What the caller's token means. Raises Forbidden for one that may not lead to further credentials."""
        facts = (await self._providers.identity.inspect(request.token or "")).facts
        if facts.delegated and not (facts.credential is not None and facts.credential["unrestricted"]):
            raise Forbidden("You are not authorized to perform the requested action: a delegated token cannot manage"
                            " application credentials.")
        return facts


def listing_of(conn: sa.Connection, page: Page, *where: Any) -> list[dict[str, Any]]:
    """A page of application credentials."""
    return _plain(conn, t.application_credentials, page, *where)


def _plain(conn: sa.Connection, table: sa.Table, page: Page, *where: Any) -> list[dict[str, Any]]:
    kind, order = (APPLICATION_CREDENTIAL, "") if table is t.application_credentials else (ACCESS_RULE, "number")
    known = [f for f in page.filters if f[0] in table.c]
    return listing(conn, kind, Page(known, page.sort_key or order, page.descending, page.limit, page.marker), *where)


def _chosen(conn: sa.Connection, wanted: Any, facts: Facts) -> list[str]:
    """The ids of the roles that it shall have. Raises NotFound for one that the token has not."""
    held = dict(facts.roles)
    if not wanted:
        return list(held)
    names = {name: id for id, name in facts.roles}
    found = []
    for ref in wanted:
        id = ref.get("id") or names.get(ref.get("name", ""))
        if id not in held:
            raise NotFound(f"Could not find role assignment with role: {ref.get('id') or ref.get('name')}, user or"
                           f" group: {facts.user['id']}, project, domain, or system:"
                           f" {facts.project['id'] if facts.project else ''}.")
        found.append(id)
    return found


def _rule(conn: sa.Connection, user_id: str, rule: dict[str, str], limits: UserLimits) -> str:
    """The id of an access rule of this user, made if it is not there."""
    table = t.access_rules
    if "id" in rule:
        row = find(conn, ACCESS_RULE, rule["id"])
        if row is None or row["user_id"] != user_id:
            raise missing(ACCESS_RULE, rule["id"])
        return rule["id"]
    key = {k: rule[k] for k in ("service", "path", "method")}
    there = conn.scalar(sa.select(table.c.id).where(
        table.c.user_id == user_id, *(table.c[k] == v for k, v in key.items())))
    if there:
        return str(there)
    limits.room(conn, "access_rules", user_id)
    id, last = uuid4().hex, conn.scalar(sa.select(sa.func.max(table.c.number)).where(table.c.user_id == user_id))
    conn.execute(sa.insert(table).values(id=id, user_id=user_id, number=(last or 0) + 1, **key))
    return id


def _shown(conn: sa.Connection, request: Request, row: Any) -> dict[str, Any]:
    roles = conn.execute(sa.select(t.roles.c.id, t.roles.c.name, t.roles.c.domain_id).where(
        t.roles.c.id.in_(row["role_ids"])).order_by(t.roles.c.name))
    shown = {k: row[k] for k in ("id", "name", "description", "project_id", "user_id", "unrestricted")}
    expires = when(row["expires_at"])
    shown |= {"expires_at": expires.rstrip("Z") if expires else None, "system": None,
              "roles": [{"id": r.id, "name": r.name, "domain_id": r.domain_id or None} for r in roles],
              "links": {"self": f"{url(request)}/users/{row['user_id']}/application_credentials/{row['id']}"}}
    if row["access_rule_ids"] is not None:
        shown["access_rules"] = [{k: r[k] for k in ("id", "service", "path", "method")}
                                 for r in access_rules(conn, row["access_rule_ids"])]
    return shown


def _rule_shown(request: Request, row: Any) -> dict[str, Any]:
    here = f"{url(request)}/users/{row['user_id']}/access_rules/{row['id']}"
    return {**{k: row[k] for k in ("id", "service", "path", "method")}, "links": {"self": here}}


def routes(providers: Providers) -> list[Route]:
    api = ApplicationCredentials(providers)
    path, rules = "/v3/users/{user_id}/application_credentials", "/v3/users/{user_id}/access_rules"
    mine = stated(lambda request: {"user_id": request.params["user_id"]})
    of_user = stated(lambda request: {"target.user.id": request.params["user_id"]})
    return [
        Route("GET", path, api.index, asking("list_application_credentials", about=mine)),
        Route("POST", path, api.create, asking("create_application_credential", about=mine), body=CREATE),
        Route("GET", path + "/{id}", api.show, asking("get_application_credential", about=mine)),
        Route("DELETE", path + "/{id}", api.delete, asking("delete_application_credential", about=mine)),
        Route("GET", rules, api.rules, asking("list_access_rules", about=of_user)),
        Route("GET", rules + "/{id}", api.show_rule, asking("get_access_rule", about=of_user)),
        Route("DELETE", rules + "/{id}", api.delete_rule, asking("delete_access_rule", about=of_user)),
    ]
