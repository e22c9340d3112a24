"""/os-server-groups: servers that shall run together, or apart."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from nacre.base.errors import BadRequest, NotFound
from nacre.base.serving.gate import Subject, asks
from nacre.base.web import Reply, Request, Route
from nacre.compute.api import types as t
from nacre.compute.api.microversions import known
from nacre.compute.api.paging import MAX_LIMIT
from nacre.compute.api.validation import Query, Schema, Since
from nacre.compute.catalog.quotas import Quotas
from nacre.compute.catalog.server_groups import ServerGroup, ServerGroups
from nacre.compute.policies import rule

_HARD = ["anti-affinity", "affinity"]
_ALL = [*_HARD, "soft-anti-affinity", "soft-affinity"]


def _policies(names: list[str]) -> t.J:
    return {"type": "array", "items": {"type": "string", "enum": names}, "minItems": 1, "maxItems": 1}


CREATE = Schema(t.wrap("server_group", {**t.obj({
    "name": t.NAME, "policies": Since({1: _policies(_HARD), 15: _policies(_ALL)}),
    "policy": {"type": "string", "enum": _ALL}, "rules": t.obj({"max_server_per_host": t.POSITIVE}),
}, noun="group.create"), "required": Since({1: ["name", "policies"], 64: ["name", "policy"]})}))
LIST = Query("group.query", {"all_projects": t.STRING, "limit": t.COUNT, "offset": t.COUNT})


class GroupRoutes:
    """The server group part of the API."""

    def __init__(self, groups: ServerGroups, quotas: Quotas):
        self._groups, self._quotas = groups, quotas

    def routes(self) -> list[Route]:
        """Every URL under /os-server-groups."""
        many, one = "/v2.1/os-server-groups", "/v2.1/os-server-groups/{group_id}"
        return [
            Route("GET", many, self.index, asks(
                rule("os-server-groups:index"), parts=(rule("os-server-groups:index:all_projects"),)), query=LIST),
            Route("POST", many, self.create, rule("os-server-groups:create"), body=CREATE),
            Route("GET", one, self.show, asks(rule("os-server-groups:show"), about=self._find)),
            Route("DELETE", one, self.delete, asks(rule("os-server-groups:delete"), about=self._find)),
        ]

    async def index(self, request: Request) -> Any:
        """GET /os-server-groups."""
        everyone = request.one("all_projects") is not None and request.context.is_admin
        if everyone:
            request.require(rule("os-server-groups:index:all_projects"))
        found = await self._groups.of_project(None if everyone else request.context.project_id or "")
        start, limit = int(request.one("offset") or 0), int(request.one("limit") or MAX_LIMIT)
        found = found[start:start + min(limit or MAX_LIMIT, MAX_LIMIT)]
        members = await self._groups.members([group.id for group in found])
        return {"server_groups": [view(request, group, members.get(group.id, ())) for group in found]}

    async def create(self, request: Request) -> Any:
        """POST /os-server-groups."""
        given, context = request.body["server_group"], request.context
        kind = given["policy"] if "policy" in given else given["policies"][0]
        rules = {name: int(value) for name, value in given.get("rules", {}).items()}
        if rules and kind != "anti-affinity":
            raise BadRequest("Only anti-affinity policy supports rules.", field="rules")
        limit = await self._quotas.limit(context.project_id, "server_groups", context.user_id or "")
        group = await self._groups.create(ServerGroup(
            id="", name=given["name"].strip(), project_id=context.project_id or "", user_id=context.user_id or "",
            policy=kind, rules=rules, created_at=datetime.min), limit)
        return {"server_group": view(request, group, ())}

    async def show(self, request: Request) -> Any:
        """GET /os-server-groups/{id}."""
        group: ServerGroup = request.found
        return {"server_group": view(request, group, (await self._groups.members([group.id])).get(group.id, ()))}

    async def delete(self, request: Request) -> Any:
        """DELETE /os-server-groups/{id}."""
        await self._groups.delete(request.found.id)
        return Reply(status=204)

    async def _find(self, request: Request) -> Subject:
        """The group of the URL. Raises NotFound also for another project's."""
        group = await self._groups.get(request.params["group_id"])
        if group.project_id != request.context.project_id and not request.context.is_admin:
            raise NotFound(f"Instance group {group.id} could not be found.")
        return Subject({"project_id": group.project_id}, group)


def view(request: Request, group: ServerGroup, members: Sequence[str]) -> dict[str, Any]:
    """A group as clients of the request's version know it."""
    found: dict[str, Any] = {"id": group.id, "name": group.name}
    if known("group.policy", request.version):
        found |= {"policy": group.policy, "rules": group.rules}
    else:
        found |= {"policies": [group.policy], "metadata": {}}
    found["members"] = list(members)
    if known("group.owner", request.version):
        found |= {"project_id": group.project_id, "user_id": group.user_id}
    return found
