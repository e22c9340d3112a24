"""/v3/OS-TRUST/trusts: one user lends another some of its roles on a project."""

from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from nacre.base.errors import BadRequest, Forbidden, NotBuilt, NotFound
from nacre.base.serving.gate import Subject
from nacre.base.web import Reply, Request, Route
from nacre.identity import derive, ended
from nacre.identity import tables as t
from nacre.identity.api.answers import collection, many, one, page_of, url
from nacre.identity.api.extensions.application_credentials import ROLE_REF
from nacre.identity.api.providers import Providers, asking, stated
from nacre.identity.api.validation import ANY_ID, moment, wrapped
from nacre.identity.records import PROJECT, ROLE, USER, Kind, Page, delete, find, get, listing, missing
from nacre.identity.service import when

TRUST = Kind("trust", "OS-TRUST/trusts", t.trusts, lender="trustor_user_id")
CREATE = wrapped("trust", {
    "trustor_user_id": ANY_ID, "trustee_user_id": ANY_ID, "impersonation": {"type": "boolean"},
    "project_id": {"type": ["string", "null"], "maxLength": 64},
    "expires_at": {"type": ["string", "null"], "maxLength": 64},
    "remaining_uses": {"type": ["integer", "null"], "minimum": 1, "maximum": 2**31 - 1},
    "roles": {"type": "array", "items": ROLE_REF, "maxItems": 200}, "allow_redelegation": {"type": ["boolean", "null"]},
    "redelegation_count": {"type": ["integer", "null"], "minimum": 0, "maximum": 1000}},
    ["trustor_user_id", "trustee_user_id", "impersonation"])


class Trusts:
    """Handlers of trusts. A trust cannot be lent on: redelegation is not built."""

    def __init__(self, providers: Providers):
        self._providers, self._store = providers, providers.store

    async def index(self, request: Request) -> Any:
        await self._undelegated(request)
        page = page_of(request, "trustor_user_id", "trustee_user_id")
        rows = await self._store.read(lambda conn: listing(conn, TRUST, page))
        return collection(request, "trusts", [_shown(request, r) for r in rows], page)

    async def create(self, request: Request) -> Reply:
        body = request.body
        await self._undelegated(request)
        if body.get("allow_redelegation"):
            raise NotBuilt("Trusts that may be lent on (allow_redelegation) are not built.")
        expires = moment(body.get("expires_at"), "expires_at")
        if expires is not None and expires <= self._store.now():
            raise BadRequest("The expires_at must not be before now.", field="expires_at")
        if bool(body.get("roles")) != bool(body.get("project_id")):
            raise BadRequest("At least one role should be specified for a project, and none without one.",
                             field="roles")

        def unit(conn: sa.Connection) -> Any:
            get(conn, USER, body["trustee_user_id"])
            _forget_expired(conn, body["trustor_user_id"], self._store.now())
            self._providers.limits.room(conn, "trusts", body["trustor_user_id"])
            row = {"id": uuid4().hex, "trustor_user_id": body["trustor_user_id"],
                   "trustee_user_id": body["trustee_user_id"], "project_id": body.get("project_id"),
                   "impersonation": body["impersonation"], "role_ids": _lent(conn, body), "expires_at": expires,
                   "remaining_uses": body.get("remaining_uses"), "extra": {}}
            conn.execute(sa.insert(t.trusts).values(row))
            return row, _roles(conn, row)
        row, roles = await self._store.write(unit)
        return Reply({"trust": _shown(request, row, roles)}, 201)

    async def show(self, request: Request) -> Any:
        row = await self._row(request)
        roles = await self._store.read(lambda conn: _roles(conn, row))
        return {"trust": _shown(request, row, roles)}

    async def delete(self, request: Request) -> Reply:
        row = await self._row(request)
        await self._store.write(lambda conn: delete(conn, TRUST, row["id"]))
        return Reply(None, 204)

    async def roles(self, request: Request) -> Any:
        row = await self._row(request)
        return many(request, ROLE, await self._store.read(lambda conn: _roles(conn, row)))

    async def role(self, request: Request) -> Any:
        row, id = await self._row(request), request.params["role_id"]
        found = [r for r in await self._store.read(lambda conn: _roles(conn, row)) if r["id"] == id]
        if not found:
            raise missing(ROLE, id)
        return one(request, ROLE, found[0])

    async def listed(self, request: Request) -> Subject:
        """Whose trusts are listed."""
        for who in ("trustor", "trustee"):
            if user_id := request.one(f"{who}_user_id"):
                return Subject({f"target.trust.{who}_user_id": user_id}, rule=f"identity:list_trusts_for_{who}")
        return Subject({})

    async def one(self, request: Request) -> Subject:
        """The trust of the URL. To strangers, too: Keystone answers 404 before it asks who it is. One that is used up
        is there no more but for who may delete it: its tokens may live, and it counts."""
        id, now = request.params["id"], self._store.now()
        row = await self._store.read(lambda conn: find(conn, TRUST, id))
        used_up = row is not None and row["remaining_uses"] == 0
        if row is None or (row["expires_at"] or now + 1) <= now or (used_up and request.method != "DELETE"):
            raise missing(TRUST, id)
        return Subject({f"target.trust.{k}": row[k] for k in ("trustor_user_id", "trustee_user_id")}, row,
                       missing=missing(TRUST, id), seen="identity:delete_trust" if used_up else None)

    async def _row(self, request: Request) -> Any:
        await self._undelegated(request)
        return request.found

    async def _undelegated(self, request: Request) -> None:
        """Raises Forbidden for a token that is itself lent: with it one would lend more than one was lent."""
        facts = (await self._providers.identity.inspect(request.token or "")).facts
        if facts.delegated and not (facts.trust is not None and request.method == "GET"):
            raise Forbidden("You are not authorized to perform the requested action: Delegated tokens cannot manage"
                            " trusts.")


def _forget_expired(conn: sa.Connection, trustor: str, now: float) -> None:
    """They count no more, and lead to no token: which of theirs were taken back need not be known."""
    over = t.trusts.c.trustor_user_id == trustor, t.trusts.c.expires_at <= now
    loans = [ended.of_loan(id) for id in conn.execute(sa.select(t.trusts.c.id).where(*over)).scalars()]
    conn.execute(sa.delete(t.ended).where(t.ended.c.owner.in_(loans)))
    conn.execute(sa.delete(t.trusts).where(*over))


def _lent(conn: sa.Connection, body: dict[str, Any]) -> list[str]:
    """The ids of the roles to lend. Raises NotFound for a project, and for a role that the trustor has not on it."""
    if not body.get("project_id"):
        return []
    project = get(conn, PROJECT, body["project_id"])
    held = dict(derive.roles_on(conn, body["trustor_user_id"], "project", project))
    names = {name: id for id, name in held.items()}
    found = []
    for ref in body["roles"]:
        id = ref.get("id") or names.get(ref.get("name", ""))
        if id not in held:
            raise NotFound(f"Could not find role: {ref.get('id') or ref.get('name')}.")
        found.append(id)
    return found


def _roles(conn: sa.Connection, row: Any) -> list[dict[str, Any]]:
    return listing(conn, ROLE, Page(), t.roles.c.id.in_(row["role_ids"]))


def _shown(request: Request, row: Any, roles: Any = None) -> dict[str, Any]:
    here = f"{url(request)}/OS-TRUST/trusts/{row['id']}"
    shown = {k: row[k] for k in ("id", "trustor_user_id", "trustee_user_id", "project_id", "impersonation",
                                 "remaining_uses")}
    shown |= {"expires_at": when(row["expires_at"]), "deleted_at": None, "redelegation_count": 0,
              "roles_links": {"self": here + "/roles", "next": None, "previous": None}, "links": {"self": here}}
    if roles is not None:
        shown["roles"] = [one(request, ROLE, r)["role"] for r in roles]
    return shown


def routes(providers: Providers) -> list[Route]:
    api, path = Trusts(providers), "/v3/OS-TRUST/trusts"
    lent = stated(lambda request: {"target.trust.trustor_user_id": request.body["trustor_user_id"]})
    return [
        Route("GET", path, api.index, asking(
            "list_trusts", "list_trusts_for_trustor", "list_trusts_for_trustee", about=api.listed)),
        Route("POST", path, api.create, asking("create_trust", about=lent), body=CREATE),
        Route("GET", path + "/{id}", api.show, asking("get_trust", about=api.one)),
        Route("DELETE", path + "/{id}", api.delete, asking("delete_trust", about=api.one)),
        Route("GET", path + "/{id}/roles", api.roles, asking("list_roles_for_trust", about=api.one)),
        Route("GET", path + "/{id}/roles/{role_id}", api.role, asking("get_role_for_trust", about=api.one)),
    ]
