"""Who has which role on what: assignments to a user or group on a project, a domain or the system."""

from typing import Any

import msgspec
import sqlalchemy as sa

from nacre.base.errors import Forbidden, NotFound
from nacre.base.serving.gate import Gate, Subject
from nacre.base.web import Reply, Request, Route
from nacre.identity import tables as t
from nacre.identity.api.answers import many
from nacre.identity.api.providers import Providers, asking, facts
from nacre.identity.ended import take_grants
from nacre.identity.records import DOMAIN, GROUP, PROJECT, ROLE, USER, Page, find, listing, missing

KINDS = {"user": USER, "group": GROUP, "project": PROJECT, "domain": DOMAIN}


class Place(msgspec.Struct, frozen=True):
    """What one URL of this API is about."""

    actor: str  # user | group
    target: str  # project | domain | system
    inherited: bool = False


class Grants:
    """Handlers for one kind of place."""

    def __init__(self, providers: Providers, place: Place):
        self._store, self.place = providers.store, place

    async def index(self, request: Request) -> Any:
        where, _ = request.found
        held = sa.select(t.assignments.c.role_id).where(*where)
        rows = await self._store.read(lambda conn: listing(conn, ROLE, Page(), t.roles.c.id.in_(held)))
        return many(request, ROLE, rows)

    async def grant(self, request: Request) -> Reply:
        where, values = request.found

        def unit(conn: sa.Connection) -> None:
            conn.execute(sa.delete(t.assignments).where(*where))
            conn.execute(sa.insert(t.assignments).values(values))
        await self._store.write(unit)
        return Reply(None, 204)

    async def check(self, request: Request) -> Reply:
        where, values = request.found
        if not await self._store.read(lambda conn: conn.execute(
                sa.select(t.assignments.c.role_id).where(*where)).first()):
            raise _none(values)
        return Reply(None, 204)

    async def revoke(self, request: Request) -> Reply:
        where, values = request.found

        def unit(conn: sa.Connection) -> None:
            if not take_grants(conn, *where):
                raise _none(values)
        await self._store.write(unit)
        return Reply(None, 204)

    async def where(self, request: Request) -> Subject:
        """The condition for, and the values of, the assignments that a URL names. Of a grant that is taken back, the
        actor may be gone."""
        place, params = self.place, request.params
        parts = {place.actor: params["actor_id"]}
        if place.target != "system":
            parts[place.target] = params["target_id"]
        role_id = params.get("role_id")
        found = await self._store.read(lambda conn: {k: find(conn, KINDS[k], id) for k, id in parts.items()})
        role = await self._store.read(lambda conn: find(conn, ROLE, role_id)) if role_id else None
        asked = {} if place.target == "system" else facts(_target(found, role))
        for kind, row in found.items():
            if row is None and (request.method != "DELETE" or kind == place.target):
                return Subject(asked, missing=missing(KINDS[kind], parts[kind]))
        if role_id and role is None:
            return Subject(asked, missing=missing(ROLE, role_id))
        values = {"actor_type": place.actor, "actor_id": params["actor_id"], "target_type": place.target,
                  "target_id": params.get("target_id", "all"), "inherited": place.inherited}
        if role_id:
            values["role_id"] = role_id
        if (refusal := _other_domain(role, found.get("project"))) is not None:
            return Subject(asked, missing=refusal)
        return Subject(asked, ([t.assignments.c[k] == v for k, v in values.items()], values))


def _target(found: dict[str, Any], role: Any) -> dict[str, Any]:
    target: dict[str, Any] = {}
    for kind, row in found.items():
        if row is not None:
            target[f"target.{kind}.id"] = row["id"]
            target[f"target.{kind}.domain_id"] = row["domain_id"] or None
    if role is not None:
        target |= {"target.role.name": role["name"], "target.role.domain_id": role["domain_id"] or None}
    return target


def _other_domain(role: Any, project: Any) -> Forbidden | None:
    """What is answered for a role of a domain that is not the project's."""
    if not (role and role["domain_id"] and project and project["domain_id"] != role["domain_id"]):
        return None
    return Forbidden(f"Project {project['id']} must be in the same domain as the role {role['id']} being assigned.")


def _none(values: dict[str, Any]) -> NotFound:
    return NotFound(f"Could not find role assignment with role: {values['role_id']}, user or group:"
                    f" {values['actor_id']}, project, domain, or system: {values['target_id']}.")


def routes(providers: Providers) -> list[Route]:
    found = []
    for actor in ("user", "group"):
        for target in ("project", "domain", "system"):
            root = "/v3/system" if target == "system" else f"/v3/{target}s/{{target_id}}"
            api, base = Grants(providers, Place(actor, target)), f"{root}/{actor}s/{{actor_id}}/roles"
            found += _verbs(api, base, "")
            if target != "system":
                below = Grants(providers, Place(actor, target, inherited=True))
                found += _verbs(below, f"/v3/OS-INHERIT/{target}s/{{target_id}}/{actor}s/{{actor_id}}/roles",
                                "/inherited_to_projects")
    return found


def _verbs(api: Grants, base: str, end: str) -> list[Route]:
    def gate(verb: str, noun: str = "grant") -> Gate:
        rule = f"{verb}_{noun}" if api.place.target != "system" else f"{verb}_system_{noun}_for_{api.place.actor}"
        return asking(rule, about=api.where)

    one = f"{base}/{{role_id}}{end}"
    return [Route("GET", base + end, api.index, gate("list", "grants")),
            Route("PUT", one, api.grant, gate("create")), Route("GET", one, api.check, gate("check")),
            Route("DELETE", one, api.revoke, gate("revoke"))]
