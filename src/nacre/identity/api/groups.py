"""/v3/groups and who is in them."""

from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from nacre.base.errors import BadRequest, NotFound
from nacre.base.serving.gate import Subject
from nacre.base.web import Reply, Request, Route
from nacre.identity import ended
from nacre.identity import tables as t
from nacre.identity.api.answers import domain_for_new, many, one, own_domain, page_of
from nacre.identity.api.providers import Providers, about, asking, facts, stated
from nacre.identity.api.validation import ID, NAME, TEXT, wrapped
from nacre.identity.records import (
    DOMAIN,
    GROUP,
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

PROPERTIES = {"name": NAME, "domain_id": ID, "description": TEXT}
CREATE = wrapped("group", PROPERTIES, ["name"])
UPDATE = wrapped("group", PROPERTIES, minProperties=1)


class Groups:
    """Handlers of /v3/groups."""

    def __init__(self, providers: Providers):
        self._providers, self._store = providers, providers.store

    async def index(self, request: Request) -> Any:
        domain_id = own_domain(request.context)
        page = page_of(request, "name", "domain_id", "description")
        where = [t.groups.c.domain_id == domain_id] if domain_id else []
        return many(request, GROUP, await self._store.read(lambda conn: listing(conn, GROUP, page, *where)), page)

    async def create(self, request: Request) -> Reply:
        body = request.found
        values = {**body, "id": uuid4().hex, "name": body["name"].strip()}

        def unit(conn: sa.Connection) -> Any:
            get(conn, DOMAIN, values["domain_id"])
            return insert(conn, GROUP, values)
        return Reply(one(request, GROUP, await self._store.write(unit)), 201)

    async def show(self, request: Request) -> Any:
        return one(request, GROUP, request.found)

    async def update(self, request: Request) -> Any:
        row = request.found
        changes = given(GROUP, request.body)
        if changes.get("domain_id", row["domain_id"]) != row["domain_id"]:
            raise BadRequest("Cannot change the domain of a group (domain_id).", field="domain_id")
        return one(request, GROUP, await self._store.write(
            lambda conn: update(conn, GROUP, get(conn, GROUP, row["id"]), changes)))

    async def delete(self, request: Request) -> Reply:
        row = request.found
        await self._store.write(lambda conn: remove_group(conn, row["id"]))
        return Reply(None, 204)

    async def members(self, request: Request) -> Any:
        row = request.found
        page = page_of(request, "name", "domain_id", "enabled")
        mine = sa.select(t.memberships.c.user_id).where(t.memberships.c.group_id == row["id"])
        rows = await self._store.read(lambda conn: listing(conn, USER, page, t.users.c.id.in_(mine)))
        return many(request, USER, rows, page)

    async def add(self, request: Request) -> Reply:
        user_id, group_id = request.found

        def unit(conn: sa.Connection) -> None:
            conn.execute(sa.delete(t.memberships).where(*_is(user_id, group_id)))
            conn.execute(sa.insert(t.memberships).values(user_id=user_id, group_id=group_id))
        await self._store.write(unit)
        return Reply(None, 204)

    async def contains(self, request: Request) -> Reply:
        user_id, group_id = request.found
        query = sa.select(t.memberships).where(*_is(user_id, group_id))
        if not await self._store.read(lambda conn: conn.execute(query).first() is not None):
            raise NotFound(f"User '{user_id}' not found in group '{group_id}'.")
        return Reply(None, 204)

    async def remove(self, request: Request) -> Reply:
        user_id, group_id = request.found
        def unit(conn: sa.Connection) -> int:
            gone = conn.execute(sa.delete(t.memberships).where(*_is(user_id, group_id))).rowcount
            ended.end(conn, [ended.of_user(user_id)] if gone else [])
            return gone
        if not await self._store.write(unit):
            raise NotFound(f"User '{user_id}' not found in group '{group_id}'.")
        return Reply(None, 204)

    async def new(self, request: Request) -> Subject:
        """The group that a body describes."""
        body = given(GROUP, request.body)
        body["domain_id"] = body.get("domain_id") or domain_for_new(request.context)
        return Subject(about(GROUP, body), body)

    async def pair(self, request: Request) -> Subject:
        """The ids of the user and the group of the URL."""
        user_id, group_id = request.params["user_id"], request.params["group_id"]
        user, group = await self._store.read(lambda conn: (find(conn, USER, user_id), find(conn, GROUP, group_id)))
        return Subject(facts({"target.group.domain_id": group["domain_id"] if group else None,
                              "target.user.domain_id": user["domain_id"] if user else None}),
                       (user_id, group_id) if user and group else None,
                       missing=missing(USER, user_id) if group else missing(GROUP, group_id))


def remove_group(conn: sa.Connection, id: str) -> None:
    """A group, its memberships and its roles."""
    ended.take_grants(conn, t.assignments.c.actor_type == "group", t.assignments.c.actor_id == id)
    conn.execute(sa.delete(t.memberships).where(t.memberships.c.group_id == id))
    delete(conn, GROUP, id)


def _is(user_id: str, group_id: str) -> tuple[Any, Any]:
    return t.memberships.c.user_id == user_id, t.memberships.c.group_id == group_id


def routes(providers: Providers) -> list[Route]:
    api, one, members = Groups(providers), providers.row(GROUP, "group_id"), "/v3/groups/{group_id}/users"
    own = stated(lambda request: {"target.group.domain_id": request.context.domain_id})
    return [
        Route("GET", "/v3/groups", api.index, asking("list_groups", about=own)),
        Route("POST", "/v3/groups", api.create, asking("create_group", about=api.new), body=CREATE),
        Route("GET", "/v3/groups/{group_id}", api.show, asking("get_group", about=one)),
        Route("PATCH", "/v3/groups/{group_id}", api.update, asking("update_group", about=one), body=UPDATE),
        Route("DELETE", "/v3/groups/{group_id}", api.delete, asking("delete_group", about=one)),
        Route("GET", members, api.members, asking("list_users_in_group", about=one)),
        Route("PUT", members + "/{user_id}", api.add, asking("add_user_to_group", about=api.pair)),
        Route("GET", members + "/{user_id}", api.contains, asking("check_user_in_group", about=api.pair)),
        Route("DELETE", members + "/{user_id}", api.remove, asking("remove_user_from_group", about=api.pair)),
    ]
