"""GET /v3/role_assignments: every grant, as given or (effective) as it works out."""

from typing import Any

import msgspec
import sqlalchemy as sa

from nacre.base.errors import BadRequest
from nacre.base.serving.gate import Subject
from nacre.base.web import Request, Route
from nacre.identity import tables as t
from nacre.identity.api.answers import collection, own_domain, url
from nacre.identity.api.auth import below
from nacre.identity.api.providers import Providers, asking, facts
from nacre.identity.records import truth


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """One assignment; the `by_` fields say what a worked-out one comes from."""

    actor_type: str
    actor_id: str
    target_type: str
    target_id: str
    role_id: str
    inherited: bool
    by_group: str | None = None
    by_target: tuple[str, str] | None = None
    by_role: str | None = None


class World(msgspec.Struct, frozen=True, kw_only=True):
    """What grants are worked out with."""

    members: dict[str, list[str]]  # group: users
    projects: dict[str, Any]  # by id; domains too
    below: dict[str, list[str]]  # a project or domain: the projects under it
    implied: dict[str, list[str]]
    domain_roles: set[str]  # they show only in what they imply


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a query asks for: of what is given twice the last counts, and what is empty is no filter."""

    filters: dict[str, str]
    effective: bool
    subtree: bool
    names: bool

    @property
    def project_id(self) -> str | None:
        """The one whose assignments are asked for."""
        return self.filters.get("scope.project.id")


def asked_of(request: Request) -> Asked:
    """The query of a request for assignments."""
    last = dict(request.query)
    effective, subtree, names = (name in last and truth(last[name])
                                 for name in ("effective", "include_subtree", "include_names"))
    return Asked(filters={k: v for k, v in last.items() if v}, effective=effective, subtree=subtree, names=names)


CONFLICTS = (("scope.domain.id", "scope.project.id", "Specify a domain or project, not both"),
             ("scope.domain.id", "scope.system", "Specify system or domain, not both"),
             ("scope.project.id", "scope.system", "Specify system or project, not both"),
             ("user.id", "group.id", "Specify a user or group, not both"))


class Assignments:
    """The handler."""

    def __init__(self, providers: Providers):
        self._providers, self._store = providers, providers.store

    async def index(self, request: Request) -> Any:
        asked = asked_of(request)
        _check(asked.filters, asked.effective, asked.subtree)
        only = own_domain(request.context)

        def unit(conn: sa.Connection) -> Any:
            rows = conn.execute(sa.select(t.assignments)).mappings()
            grants = [Grant(**{**r, "inherited": bool(r["inherited"])}) for r in rows]
            world = _world(conn, grants)
            if asked.effective:
                grants = worked_out(grants, world)
            project = asked.project_id
            projects = {project, *(below(conn, [project]) if asked.subtree else [])} if project else None
            kept = [g for g in grants if _wanted(g, asked.filters, projects) and (
                only is None or _home(g, world.projects) == only)]
            return kept, _names(conn) if asked.names else None
        kept, known = await self._store.read(unit)
        return collection(request, "role_assignments", [_shown(g, url(request), known) for g in kept])

    async def scope(self, request: Request) -> Subject:
        """Whose assignments are listed: those of a domain, or below a project."""
        asked, domain_id = asked_of(request), request.context.domain_id
        if not asked.subtree:
            return Subject(facts({"target.domain_id": domain_id}))
        if project_id := asked.project_id:
            query = sa.select(t.projects.c.domain_id).where(t.projects.c.id == project_id)
            domain_id = await self._store.read(lambda conn: conn.scalar(query))
        return Subject(facts({"target.domain_id": domain_id}), rule="identity:list_role_assignments_for_tree")


def _check(asked: dict[str, str], effective: bool, subtree: bool) -> None:
    """Raises BadRequest for filters that say nothing together."""
    if subtree and "scope.project.id" not in asked:
        raise BadRequest("scope.project.id must be specified if include_subtree is also specified",
                         field="scope.project.id")
    for one, other, message in CONFLICTS:
        if one in asked and other in asked:
            raise BadRequest(message, field=other)
    if effective and "group.id" in asked:
        raise BadRequest("Combining effective and group filter will always result in an empty list.",
                         field="group.id")
    if effective and "scope.domain.id" in asked and "scope.OS-INHERIT:inherited_to" in asked:
        raise BadRequest("Combining effective, domain and inherited filters will always result in an empty list.",
                         field="scope.OS-INHERIT:inherited_to")


def worked_out(grants: list[Grant], world: World) -> list[Grant]:
    """Grants with groups replaced by their users, inherited ones by those on the projects below, and implied roles."""
    found: dict[tuple[str, ...], Grant] = {}
    replace = msgspec.structs.replace
    for grant in grants:
        targets = [grant]
        if grant.inherited:
            targets = [replace(grant, target_type="project", target_id=p, inherited=False,
                               by_target=(grant.target_type, grant.target_id))
                       for p in world.below.get(grant.target_id, ())]
        for on in targets:
            users = [on] if on.actor_type == "user" else [
                replace(on, actor_type="user", actor_id=u, by_group=on.actor_id)
                for u in world.members.get(on.actor_id, ())]
            for by in users:
                for each in (by, *(replace(by, role_id=r, by_role=by.role_id)
                                   for r in _implied(by.role_id, world.implied))):
                    key = (each.actor_id, each.target_type, each.target_id, each.role_id,
                           each.by_group or "", str(each.by_target), each.by_role or "")
                    if each.role_id not in world.domain_roles:
                        found.setdefault(key, each)
    return list(found.values())


def _implied(role_id: str, implied: dict[str, list[str]]) -> list[str]:
    found: list[str] = []
    todo = [role_id]
    while todo:
        for other in implied.get(todo.pop(), ()):
            if other not in found and other != role_id:
                found.append(other)
                todo.append(other)
    return found


def _world(conn: sa.Connection, grants: list[Grant]) -> World:
    members: dict[str, list[str]] = {}
    for user_id, group_id in conn.execute(sa.select(t.memberships.c.user_id, t.memberships.c.group_id)):
        members.setdefault(group_id, []).append(user_id)
    projects = {r["id"]: dict(r) for r in conn.execute(sa.select(
        t.projects.c.id, t.projects.c.domain_id, t.projects.c.parent_id, t.projects.c.is_domain)).mappings()}
    under: dict[str, list[str]] = {}
    for target in {g.target_id for g in grants if g.inherited}:
        in_domain = [p["id"] for p in projects.values() if p["domain_id"] == target]
        under[target] = in_domain or below(conn, [target])
    implied: dict[str, list[str]] = {}
    for prior, other in conn.execute(sa.select(t.implied_roles.c.prior_id, t.implied_roles.c.implied_id)):
        implied.setdefault(prior, []).append(other)
    of_domains = set(conn.scalars(sa.select(t.roles.c.id).where(t.roles.c.domain_id != "")))
    return World(members=members, projects=projects, below=under, implied=implied, domain_roles=of_domains)


def _wanted(grant: Grant, asked: dict[str, str], projects: set[str] | None) -> bool:
    inherit = asked.get("scope.OS-INHERIT:inherited_to")
    tests = (
        ("user.id" in asked, (grant.actor_type, grant.actor_id) == ("user", asked.get("user.id"))),
        ("group.id" in asked, (grant.actor_type, grant.actor_id) == ("group", asked.get("group.id"))),
        ("role.id" in asked, grant.role_id == asked.get("role.id")),
        ("scope.domain.id" in asked,
         (grant.target_type, grant.target_id) == ("domain", asked.get("scope.domain.id"))),
        ("scope.system" in asked, grant.target_type == "system"),
        (projects is not None, grant.target_type == "project" and grant.target_id in (projects or ())),
        (inherit is not None, (grant.inherited or grant.by_target is not None) == (inherit == "projects")))
    return all(good for wanted, good in tests if wanted)


def _home(grant: Grant, projects: dict[str, Any]) -> str | None:
    row = projects.get(grant.target_id)
    return (row["domain_id"] or row["id"]) if row else None


def _names(conn: sa.Connection) -> dict[str, dict[str, Any]]:
    known = {}
    for table in (t.users, t.groups, t.roles, t.projects):
        for row in conn.execute(sa.select(table.c.id, table.c.name, table.c.domain_id)).mappings():
            known[row["id"]] = dict(row)
    return known


def _shown(grant: Grant, base: str, known: dict[str, dict[str, Any]] | None) -> dict[str, Any]:
    def ref(id: str) -> dict[str, Any]:
        if known is None or id not in known:
            return {"id": id}
        row = known[id]
        shown = {"id": id, "name": row["name"]}
        if home := known.get(row["domain_id"]):
            shown["domain"] = {"id": home["id"], "name": home["name"]}
        return shown
    scope = {"system": {"all": True}} if grant.target_type == "system" else {grant.target_type: ref(grant.target_id)}
    kind, target = grant.by_target or (grant.target_type, grant.target_id)
    path = "/system" if grant.target_type == "system" else f"/{kind}s/{target}"
    actor = f"/groups/{grant.by_group}" if grant.by_group else f"/{grant.actor_type}s/{grant.actor_id}"
    path += f"{actor}/roles/{grant.by_role or grant.role_id}"
    if grant.inherited or grant.by_target:
        scope["OS-INHERIT:inherited_to"] = "projects"  # type: ignore[assignment]
        path = f"/OS-INHERIT{path}/inherited_to_projects"
    links = {"assignment": base + path}
    if grant.by_group:
        links["membership"] = f"{base}/groups/{grant.by_group}/users/{grant.actor_id}"
    if grant.by_role:
        links["prior_role"] = f"{base}/prior_role/{grant.by_role}/implies/{grant.role_id}"
    return {"scope": scope, grant.actor_type: ref(grant.actor_id), "role": ref(grant.role_id), "links": links}


def routes(providers: Providers) -> list[Route]:
    api = Assignments(providers)
    return [Route("GET", "/v3/role_assignments", api.index, asking(
        "list_role_assignments", "list_role_assignments_for_tree", about=api.scope))]
