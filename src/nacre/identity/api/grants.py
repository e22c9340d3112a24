"""Who has which role on what: assignments to a user or group on a project, a domain or the system."""

from typing import Any

import msgspec
import sqlalchemy as sa

from nacre.base.errors import Forbidden, NotFound
from nacre.base.web import Reply, Request, Route
from nacre.identity import tables as t
from nacre.identity.api.desk import Desk, many
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

    def __init__(self, desk: Desk, place: Place):
        self._desk, self._store, self._place = desk, desk.store, place

    async def index(self, request: Request) -> Any:
        where, _ = await self._where(request, "list_grants", "list")
        held = sa.select(t.assignments.c.role_id).where(*where)
        rows = await self._store.read(lambda conn: listing(conn, ROLE, Page(), t.roles.c.id.in_(held)))
        return many(request, ROLE, rows)

    async def grant(self, request: Request) -> Reply:
        where, values = await self._where(request, "create_grant", "create", must=True)

        def unit(conn: sa.Connection) -> None:
            conn.execute(sa.delete(t.assignments).where(*where))
            conn.execute(sa.insert(t.assignments).values(values))
        await self._store.write(unit)
        return Reply(None, 204)

    async def check(self, request: Request) -> Reply:
        where, values = await self._where(request, "check_grant", "check")
        if not await self._store.read(lambda conn: conn.execute(
                sa.select(t.assignments.c.role_id).where(*where)).first()):
            raise _none(values)
        return Reply(None, 204)

    async def revoke(self, request: Request) -> Reply:
        where, values = await self._where(request, "revoke_grant", "revoke")

        def unit(conn: sa.Connection) -> None:
            if not take_grants(conn, *where):
                raise _none(values)
        await self._store.write(unit)
        return Reply(None, 204)

    async def _where(self, request: Request, rule: str, verb: str, must: bool = False
                     ) -> tuple[list[Any], dict[str, Any]]:
        """The condition for, and the values of, the assignments that a URL names. Checks policy and existence."""
        place, params = self._place, request.params
        parts = {place.actor: params["actor_id"]}
        if place.target != "system":
            parts[place.target] = params["target_id"]
        role_id = params.get("role_id")
        found = await self._store.read(lambda conn: {k: find(conn, KINDS[k], id) for k, id in parts.items()})
        role = await self._store.read(lambda conn: find(conn, ROLE, role_id)) if role_id else None
        if place.target == "system":
            grants = "system_grants" if verb == "list" else "system_grant"
            self._desk.check(request, f"{verb}_{grants}_for_{place.actor}")
        else:
            self._desk.check(request, rule, _target(found, role))
        for kind, row in found.items():
            if row is None and (must or verb != "revoke" or kind == place.target):
                raise missing(KINDS[kind], parts[kind])
        if role_id and role is None:
            raise missing(ROLE, role_id)
        _check_domain_role(role, found.get("project"))
        values = {"actor_type": place.actor, "actor_id": params["actor_id"], "target_type": place.target,
                  "target_id": params.get("target_id", "all"), "inherited": place.inherited}
        if role_id:
            values["role_id"] = role_id
        return [t.assignments.c[k] == v for k, v in values.items()], values


def _target(found: dict[str, Any], role: Any) -> dict[str, Any]:
    target: dict[str, Any] = {}
    for kind, row in found.items():
        if row is not None:
            target[f"target.{kind}.id"] = row["id"]
            target[f"target.{kind}.domain_id"] = row["domain_id"] or None
    if role is not None:
        target |= {"target.role.name": role["name"], "target.role.domain_id": role["domain_id"] or None}
    return target


def _check_domain_role(role: Any, project: Any) -> None:
    if role and role["domain_id"] and project and project["domain_id"] != role["domain_id"]:
        raise Forbidden(f"Project {project['id']} must be in the same domain as the role {role['id']} being assigned.")


def _none(values: dict[str, Any]) -> NotFound:
    return NotFound(f"Could not find role assignment with role: {values['role_id']}, user or group:"
                    f" {values['actor_id']}, project, domain, or system: {values['target_id']}.")


def routes(desk: Desk) -> list[Route]:
    found = []
    for actor in ("user", "group"):
        for target in ("project", "domain", "system"):
            root = "/v3/system" if target == "system" else f"/v3/{target}s/{{target_id}}"
            api, base = Grants(desk, Place(actor, target)), f"{root}/{actor}s/{{actor_id}}/roles"
            found += [Route("GET", base, api.index), *_verbs(api, base + "/{role_id}")]
            if target != "system":
                below = Grants(desk, Place(actor, target, inherited=True))
                base = f"/v3/OS-INHERIT/{target}s/{{target_id}}/{actor}s/{{actor_id}}/roles"
                found += [Route("GET", base + "/inherited_to_projects", below.index),
                          *_verbs(below, base + "/{role_id}/inherited_to_projects")]
    return found


def _verbs(api: Grants, path: str) -> list[Route]:
    return [Route("PUT", path, api.grant), Route("GET", path, api.check), Route("DELETE", path, api.revoke)]
