"""/v3/projects, their tags and their place in the tree."""

from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from nacre.base.errors import BadRequest, Forbidden, NotFound
from nacre.base.serving.gate import Gate, Subject
from nacre.base.web import Reply, Request, Route
from nacre.identity import tables as t
from nacre.identity.api.answers import domain_for_new, many, one, own_domain, page_of, url
from nacre.identity.api.groups import remove_group
from nacre.identity.api.providers import Providers, about, asking, stated
from nacre.identity.api.users import remove_user
from nacre.identity.api.validation import (
    BOOLEAN,
    ID_OR_NULL,
    IMMUTABLE,
    SHORT_NAME,
    TAG,
    TAGS,
    TEXT,
    boolean,
    schema,
    wrapped,
)
from nacre.identity.catalog import unlink
from nacre.identity.derive import MAX_DEPTH
from nacre.identity.ended import take_grants
from nacre.identity.records import (
    DOMAIN,
    PROJECT,
    Page,
    delete,
    document,
    find,
    get,
    given,
    insert,
    listing,
    update,
)

PROPERTIES = {
    "name": SHORT_NAME, "description": TEXT, "domain_id": ID_OR_NULL, "parent_id": ID_OR_NULL, "enabled": BOOLEAN,
    "is_domain": BOOLEAN, "tags": TAGS, "options": IMMUTABLE}
CREATE = wrapped("project", PROPERTIES, ["name"])
UPDATE = wrapped("project", PROPERTIES, minProperties=1)
SET_TAGS = schema({"type": "object", "properties": {"tags": TAGS}, "required": ["tags"], "additionalProperties": False})
ONE_TAG = schema({"type": "object", "properties": {"tag": TAG}})
#: Projects below a domain may be this deep.
MAX_LEVELS = 5


class Projects:
    """Handlers of /v3/projects."""

    def __init__(self, providers: Providers):
        self._providers, self._store = providers, providers.store

    async def index(self, request: Request) -> Any:
        domain_id = own_domain(request.context)
        page = page_of(request, "name", "domain_id", "enabled", "parent_id", "is_domain", "description")
        where = [t.projects.c.domain_id == domain_id] if domain_id else []
        if request.one("is_domain") is None:
            where.append(t.projects.c.is_domain.is_(False))
        rows = await self._store.read(lambda conn: listing(conn, PROJECT, page, *where))
        return many(request, PROJECT, [r for r in rows if _tagged(request, set(r["extra"].get("tags") or ()))], page)

    async def create(self, request: Request) -> Reply:
        body = given(PROJECT, request.body)
        is_domain = boolean(body.get("is_domain", False))

        def place(conn: sa.Connection) -> Any:
            return placed(conn, body, is_domain, domain_for_new(request.context))
        values = {**body, **request.found, "id": uuid4().hex, "name": body["name"].strip(), "is_domain": is_domain,
                  "enabled": boolean(body.get("enabled", True))}

        def unit(conn: sa.Connection) -> Any:
            place(conn)
            return insert(conn, PROJECT, values)
        return Reply(one(request, PROJECT, await self._store.write(unit)), 201)

    async def show(self, request: Request) -> Any:
        row = request.found
        asked = {k for k, _ in request.query} & {
            "parents_as_list", "parents_as_ids", "subtree_as_list", "subtree_as_ids"}
        answer = one(request, PROJECT, row)
        for kind in ("parents", "subtree"):
            if {f"{kind}_as_list", f"{kind}_as_ids"} <= asked:
                raise BadRequest(f"Cannot use {kind}_as_list and {kind}_as_ids query params at the same time.")
        if asked:
            tree = await self._store.read(lambda conn: _tree(conn, row, url(request)))
            shown = answer["project"]
            for key in asked:
                shown[key.split("_")[0]] = tree[key]
        return answer

    async def update(self, request: Request) -> Any:
        row = request.found
        changes = given(PROJECT, request.body)
        for fixed in ("domain_id", "parent_id", "is_domain"):
            if fixed in changes and (changes.pop(fixed) or None) != (row[fixed] or None):
                if fixed == "domain_id":
                    raise BadRequest("Cannot change the domain of a project (domain_id).", field=fixed)
                raise Forbidden(f"You are not authorized to perform the requested action: Update of `{fixed}` is not"
                                " allowed.")
        check_mutable("project", row, changes)
        if "enabled" in changes:
            changes["enabled"] = boolean(changes["enabled"])

        def unit(conn: sa.Connection) -> Any:
            fresh = get(conn, PROJECT, row["id"])
            if "enabled" in changes and not fresh["is_domain"]:
                _check_enabled(conn, fresh, changes["enabled"])
            return update(conn, PROJECT, fresh, changes)
        return one(request, PROJECT, await self._store.write(unit))

    async def delete(self, request: Request) -> Reply:
        row = request.found
        check_mutable("project", row, None)

        def unit(conn: sa.Connection) -> None:
            fresh = get(conn, PROJECT, row["id"])
            if fresh["is_domain"] and fresh["enabled"]:
                raise Forbidden("Cannot delete a domain that is enabled, please disable it first.")
            if conn.execute(sa.select(t.projects.c.id).where(t.projects.c.parent_id == row["id"])).first():
                raise Forbidden(f"You are not authorized to perform the requested action: Cannot delete the project"
                                f" {row['id']} since it is not a leaf in the hierarchy.")
            (remove_domain if fresh["is_domain"] else remove_project)(conn, row["id"])
        await self._store.write(unit)
        return Reply(None, 204)

    async def tags(self, request: Request) -> Any:
        row = request.found
        return _tags_shown(request, row)

    async def set_tags(self, request: Request) -> Any:
        row = request.found
        return _tags_shown(request, await self._change_tags(row["id"], lambda held: request.body["tags"]))

    async def clear_tags(self, request: Request) -> Reply:
        row = request.found
        await self._change_tags(row["id"], lambda held: [])
        return Reply(None, 204)

    async def has_tag(self, request: Request) -> Reply:
        row = request.found
        if request.params["tag"] not in (row["extra"].get("tags") or ()):
            raise NotFound(f"Could not find project tag: {request.params['tag']}.")
        return Reply(None, 204)

    async def add_tag(self, request: Request) -> Reply:
        row, tag = request.found, request.params["tag"]
        ONE_TAG(request, {"tag": tag})

        def added(held: list[str]) -> list[str]:
            if len(held) >= 80 and tag not in held:
                raise BadRequest("A project has at most 80 tags.", field="tags")
            return [*held, tag] if tag not in held else held
        await self._change_tags(row["id"], added)
        return Reply(None, 201, {"Location": f"{url(request)}/projects/{row['id']}/tags/{tag}"})

    async def remove_tag(self, request: Request) -> Reply:
        row, tag = request.found, request.params["tag"]

        def removed(held: list[str]) -> list[str]:
            if tag not in held:
                raise NotFound(f"Could not find project tag: {tag}.")
            return [x for x in held if x != tag]
        await self._change_tags(row["id"], removed)
        return Reply(None, 204)

    async def _change_tags(self, id: str, change: Any) -> Any:
        def unit(conn: sa.Connection) -> Any:
            row = get(conn, PROJECT, id)
            return update(conn, PROJECT, row, {"tags": change(list(row["extra"].get("tags") or ()))})
        return await self._store.write(unit)

    async def new(self, request: Request) -> Subject:
        """Where a new project would be."""
        body = given(PROJECT, request.body)
        where = await self._store.read(lambda conn: placed(
            conn, body, boolean(body.get("is_domain", False)), domain_for_new(request.context)))
        return Subject(about(PROJECT, where), where)


def placed(conn: sa.Connection, body: dict[str, Any], is_domain: bool, default: str) -> dict[str, Any]:
    """domain_id and parent_id of a new project. Raises BadRequest, NotFound, Forbidden where there is no such place."""
    parent_id, domain_id = body.get("parent_id"), body.get("domain_id")
    if is_domain:
        if parent_id or domain_id:
            raise BadRequest("A project acting as a domain has no parent_id and no domain_id.", field="parent_id")
        return {"domain_id": "", "parent_id": None}
    parent = get(conn, PROJECT, parent_id or domain_id or default)
    if not parent["enabled"]:
        raise BadRequest(f"The parent project {parent['id']} is disabled.", field="parent_id")
    home = parent["id"] if parent["is_domain"] else parent["domain_id"]
    if domain_id and domain_id != home:
        raise BadRequest("The project's domain_id is not that of its parent.", field="domain_id")
    depth, above = 1, parent
    while not above["is_domain"] and depth <= MAX_DEPTH:
        depth, above = depth + 1, get(conn, PROJECT, above["parent_id"] or above["domain_id"])
    if depth > MAX_LEVELS:
        raise Forbidden(f"Max hierarchy depth reached: projects may be {MAX_LEVELS} deep below their domain.")
    return {"domain_id": home, "parent_id": parent["id"]}


def remove_project(conn: sa.Connection, id: str) -> None:
    """A project and what hangs on it."""
    conn.execute(sa.delete(t.assignments).where(t.assignments.c.target_id == id))
    for table in (t.credentials, t.application_credentials, t.trusts):
        conn.execute(sa.delete(table).where(table.c.project_id == id))
    unlink(conn, id)
    conn.execute(sa.update(t.users).where(t.users.c.default_project_id == id).values(default_project_id=None))
    delete(conn, PROJECT, id)


def remove_domain(conn: sa.Connection, id: str) -> None:
    """A domain with its users, groups, projects and roles."""
    for table, remove in ((t.users, remove_user), (t.groups, remove_group), (t.projects, remove_project)):
        for each in conn.scalars(sa.select(table.c.id).where(table.c.domain_id == id)).all():
            remove(conn, each)
    for role in conn.scalars(sa.select(t.roles.c.id).where(t.roles.c.domain_id == id)).all():
        take_grants(conn, t.assignments.c.role_id == role)
        conn.execute(sa.delete(t.implied_roles).where(
            (t.implied_roles.c.prior_id == role) | (t.implied_roles.c.implied_id == role)))
        conn.execute(sa.delete(t.roles).where(t.roles.c.id == role))
    conn.execute(sa.delete(t.assignments).where(t.assignments.c.target_id == id))
    conn.execute(sa.delete(t.documents).where(t.documents.c.kind == "domain_config", t.documents.c.id == id))
    delete(conn, DOMAIN, id)


def check_mutable(name: str, row: Any, changes: dict[str, Any] | None) -> None:
    """Raises Forbidden if the thing is marked immutable and this does not lift that, or if it is the default domain,
    which would lock everybody out. changes None: a delete."""
    if row["id"] == "default":
        if changes is None:
            raise Forbidden("You are not authorized to perform the requested action: delete the default domain.")
        if not boolean(changes.get("enabled", True)):
            raise Forbidden("The default domain cannot be disabled: it holds the administrator.")
    if not (row["extra"].get("options") or {}).get("immutable"):
        return
    if changes is None:
        raise Forbidden(f"Unable to delete immutable {name} resource: `{row['id']}. Set resource option \"immutable\""
                        " to false first.")
    if (changes.get("options") or {}).get("immutable", True):
        raise Forbidden(f"Unable to update immutable {name} resource: `{row['id']}. Set resource option \"immutable\""
                        " to false first.")


def _check_enabled(conn: sa.Connection, row: Any, enabled: bool) -> None:
    if enabled and row["parent_id"]:
        parent = find(conn, PROJECT, row["parent_id"])
        if parent and not parent["enabled"]:
            raise Forbidden(f"Cannot enable project {row['id']} since it has disabled parents.")
    if not enabled and conn.execute(sa.select(t.projects.c.id).where(
            t.projects.c.parent_id == row["id"], t.projects.c.enabled)).first():
        raise Forbidden(f"Cannot disable project {row['id']} since its subtree contains enabled projects.")


def _tree(conn: sa.Connection, row: Any, base: str) -> dict[str, Any]:
    at = row
    parents: list[Any] = []
    while at["parent_id"] and len(parents) < MAX_DEPTH:
        at = get(conn, PROJECT, at["parent_id"])
        parents.append(at)
    ids: dict[str, Any] | None = None
    for parent in reversed(parents):
        ids = {parent["id"]: ids}
    flat: list[Any] = []

    def children(id: str) -> dict[str, Any] | None:
        found = {}
        for child in listing(conn, PROJECT, Page(), t.projects.c.parent_id == id):
            flat.append({"project": document(PROJECT, child, base)})
            found[child["id"]] = children(child["id"])
        return found or None
    below = children(row["id"])
    return {"parents_as_list": [{"project": document(PROJECT, p, base)} for p in parents if not p["is_domain"]],
            "parents_as_ids": ids, "subtree_as_list": flat, "subtree_as_ids": below}


def _tagged(request: Request, held: set[str]) -> bool:
    for key, test in TAG_FILTERS.items():
        value = request.one(key)
        if value is not None and not test(set(value.split(",")), held):
            return False
    return True


TAG_FILTERS = {
    "tags": lambda wanted, held: wanted <= held, "tags-any": lambda wanted, held: bool(wanted & held),
    "not-tags": lambda wanted, held: not wanted <= held, "not-tags-any": lambda wanted, held: not wanted & held}


def _tags_shown(request: Request, row: Any) -> dict[str, Any]:
    here = f"{url(request)}/projects/{row['id']}/tags"
    return {"tags": row["extra"].get("tags") or [], "links": {"next": None, "previous": None, "self": here}}


def routes(providers: Providers) -> list[Route]:
    api, tags = Projects(providers), "/v3/projects/{project_id}/tags"
    own = stated(lambda request: {"target.domain_id": request.context.domain_id})

    def of(rule: str) -> Gate:
        return asking(rule, about=providers.row(PROJECT, "project_id"))

    return [
        Route("GET", "/v3/projects", api.index, asking("list_projects", about=own)),
        Route("POST", "/v3/projects", api.create, asking("create_project", about=api.new), body=CREATE),
        Route("GET", "/v3/projects/{project_id}", api.show, of("get_project")),
        Route("PATCH", "/v3/projects/{project_id}", api.update, of("update_project"), body=UPDATE),
        Route("DELETE", "/v3/projects/{project_id}", api.delete, of("delete_project")),
        Route("GET", tags, api.tags, of("list_project_tags")),
        Route("PUT", tags, api.set_tags, of("update_project_tags"), body=SET_TAGS),
        Route("DELETE", tags, api.clear_tags, of("delete_project_tags")),
        Route("GET", tags + "/{tag}", api.has_tag, of("get_project_tag")),
        Route("PUT", tags + "/{tag}", api.add_tag, of("create_project_tag")),
        Route("DELETE", tags + "/{tag}", api.remove_tag, of("delete_project_tag")),
    ]
