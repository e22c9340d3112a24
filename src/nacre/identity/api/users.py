"""/v3/users."""

from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from nacre.base.errors import BadRequest, Forbidden, Unauthenticated
from nacre.base.serving.gate import PUBLIC, Subject
from nacre.base.web import Reply, Request, Route
from nacre.identity import tables as t
from nacre.identity.api.answers import domain_for_new, many, one, own_domain, page_of
from nacre.identity.api.auth import reachable
from nacre.identity.api.providers import Providers, about, asking, stated
from nacre.identity.api.validation import BOOLEAN, ID, NAME, TEXT, boolean, wrapped
from nacre.identity.passwords import MAX_PASSWORD
from nacre.identity.records import (
    DOMAIN,
    GROUP,
    PROJECT,
    USER,
    delete,
    find,
    get,
    given,
    insert,
    listing,
    missing,
    update,
)

FLAG = {"type": ["boolean", "null"]}
OPTIONS = {"type": "object", "additionalProperties": False, "properties": {
    **dict.fromkeys(("ignore_change_password_upon_first_use", "ignore_password_expiry",
                     "ignore_lockout_failure_attempts", "lock_password", "ignore_user_inactivity",
                     "multi_factor_auth_enabled"), FLAG),
    "multi_factor_auth_rules": {"type": ["array", "null"], "items": {
        "type": "array", "items": {"type": "string"}, "minItems": 1, "uniqueItems": True}, "uniqueItems": True}}}
PROPERTIES = {
    "name": NAME, "domain_id": ID, "enabled": BOOLEAN, "description": TEXT, "password": {"type": ["string", "null"]},
    "default_project_id": {"type": ["string", "null"], "maxLength": 64}, "options": OPTIONS,
    "federated": {"type": "array"}}
CREATE = wrapped("user", PROPERTIES, ["name"])
UPDATE = wrapped("user", PROPERTIES, minProperties=1)
PASSWORD = wrapped("user", {"original_password": {"type": "string"}, "password": {"type": "string"}},
                   ["original_password", "password"])


class Users:
    """Handlers of /v3/users."""

    def __init__(self, providers: Providers):
        self._providers, self._store, self._passwords = providers, providers.store, providers.identity.passwords

    async def index(self, request: Request) -> Any:
        domain_id = own_domain(request.context)
        page = page_of(request, "name", "domain_id", "enabled", "default_project_id", "description", "email")
        where = [t.users.c.domain_id == domain_id] if domain_id else []
        return many(request, USER, await self._store.read(lambda conn: listing(conn, USER, page, *where)), page)

    async def create(self, request: Request) -> Reply:
        body = request.found
        values = {"default_project_id": None, **body, **_options(body, {}), "id": uuid4().hex,
                  "enabled": boolean(body.get("enabled", True)), "name": body["name"].strip(),
                  "password_hash": await self._hash(body.pop("password", None))}
        values.pop("password", None)

        def unit(conn: sa.Connection) -> Any:
            get(conn, DOMAIN, values["domain_id"])
            _check_default_project(conn, values)
            return insert(conn, USER, values)
        return Reply(one(request, USER, await self._store.write(unit)), 201)

    async def show(self, request: Request) -> Any:
        return one(request, USER, request.found)

    async def update(self, request: Request) -> Any:
        row = request.found
        changes = given(USER, request.body)
        if changes.get("domain_id", row["domain_id"]) != row["domain_id"]:
            raise BadRequest("Cannot change the domain of a user (domain_id).", field="domain_id")
        changes |= _options(changes, row["extra"])
        if "enabled" in changes:
            changes["enabled"] = boolean(changes["enabled"])
        if "password" in changes:
            changes["password_hash"] = await self._hash(changes.pop("password"))

        def unit(conn: sa.Connection) -> Any:
            _check_default_project(conn, changes)
            return update(conn, USER, get(conn, USER, row["id"]), changes)
        return one(request, USER, await self._store.write(unit))

    async def delete(self, request: Request) -> Reply:
        row = request.found
        await self._store.write(lambda conn: remove_user(conn, row["id"]))
        return Reply(None, 204)

    async def change_password(self, request: Request) -> Reply:
        body, id = request.body, request.params["user_id"]
        row = await self._store.read(lambda conn: find(conn, USER, id))
        if not await self._passwords.matches(row["password_hash"] if row else None, body["original_password"]):
            raise Unauthenticated
        if row is None or not row["enabled"]:
            raise Unauthenticated
        if row["extra"].get("options", {}).get("lock_password"):
            raise BadRequest("The password of this user is locked; ask your administrator.", field="password")
        if body["password"] == body["original_password"]:
            raise BadRequest("Password validation error: the new password is the old one.", field="password")
        stored = await self._hash(body["password"])
        await self._store.write(lambda conn: update(conn, USER, get(conn, USER, id), {"password_hash": stored}))
        return Reply(None, 204)

    async def groups(self, request: Request) -> Any:
        id, page = request.params["user_id"], page_of(request, "name", "domain_id")
        mine = sa.select(t.memberships.c.group_id).where(t.memberships.c.user_id == id)
        rows = await self._store.read(lambda conn: listing(conn, GROUP, page, t.groups.c.id.in_(mine)))
        return many(request, GROUP, rows, page)

    async def projects(self, request: Request) -> Any:
        row = request.found
        rows = await self._store.read(lambda conn: reachable(conn, row["id"], "project"))
        name = request.one("name")
        return many(request, PROJECT, [r for r in rows if name in (None, r["name"])])

    async def _hash(self, password: str | None) -> str | None:
        if password is None:
            return None
        if len(password) > MAX_PASSWORD:
            raise Forbidden(f"The password length must be less than or equal to {MAX_PASSWORD}. The server could not"
                            " comply with the request because the password is invalid.")
        return await self._passwords.hash(password)

    async def new(self, request: Request) -> Subject:
        """The user that a body describes."""
        body = given(USER, request.body)
        body["domain_id"] = body.get("domain_id") or domain_for_new(request.context)
        return Subject(about(USER, body), body)

    async def one(self, request: Request) -> Subject:
        """The user of the URL. One that is gone may still be asked about by itself."""
        id = request.params["user_id"]
        row = await self._store.read(lambda conn: find(conn, USER, id))
        return Subject({"user_id": id, **about(USER, row or ({"id": id} if id == request.context.user_id else None))},
                       row, missing=missing(USER, id))


def remove_user(conn: sa.Connection, id: str) -> None:
    """A user and all that is only its own."""
    conn.execute(sa.delete(t.memberships).where(t.memberships.c.user_id == id))
    conn.execute(sa.delete(t.assignments).where(
        t.assignments.c.actor_type == "user", t.assignments.c.actor_id == id))
    for table in (t.credentials, t.application_credentials, t.access_rules):
        conn.execute(sa.delete(table).where(table.c.user_id == id))
    conn.execute(sa.delete(t.trusts).where((t.trusts.c.trustor_user_id == id) | (t.trusts.c.trustee_user_id == id)))
    delete(conn, USER, id)


def _options(changes: dict[str, Any], held: dict[str, Any]) -> dict[str, Any]:
    """Options as they become: given ones replace, null ones go."""
    if "options" not in changes:
        return {}
    merged = {**held.get("options", {}), **changes["options"]}
    return {"options": {k: v for k, v in merged.items() if v is not None}}


def _check_default_project(conn: sa.Connection, values: dict[str, Any]) -> None:
    project = values.get("default_project_id") and find(conn, PROJECT, values["default_project_id"])
    if project and project["is_domain"]:
        raise BadRequest("User's default project ID cannot be a domain ID.", field="default_project_id")



def routes(providers: Providers) -> list[Route]:
    api = Users(providers)
    own = stated(lambda request: {"target.domain_id": request.context.domain_id})
    return [
        Route("GET", "/v3/users", api.index, asking("list_users", about=own)),
        Route("POST", "/v3/users", api.create, asking("create_user", about=api.new), body=CREATE),
        Route("GET", "/v3/users/{user_id}", api.show, asking("get_user", about=api.one)),
        Route("PATCH", "/v3/users/{user_id}", api.update, asking("update_user", about=api.one), body=UPDATE),
        Route("DELETE", "/v3/users/{user_id}", api.delete, asking("delete_user", about=api.one)),
        # the old password is the proof
        Route("POST", "/v3/users/{user_id}/password", api.change_password, PUBLIC, body=PASSWORD),
        Route("GET", "/v3/users/{user_id}/groups", api.groups, asking("list_groups_for_user", about=api.one)),
        Route("GET", "/v3/users/{user_id}/projects", api.projects, asking("list_user_projects", about=api.one)),
    ]
