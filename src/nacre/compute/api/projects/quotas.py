"""/os-quota-sets, /os-quota-class-sets, /limits: what a project may have, and what it has."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from oslo_utils.strutils import bool_from_string

from nacre.base.errors import BadRequest, NotFound
from nacre.base.serving.gate import Gate, asks, stated
from nacre.base.web import Reply, Request, Route
from nacre.compute.api import types as t
from nacre.compute.api.microversions import known
from nacre.compute.api.validation import Query, Schema
from nacre.compute.catalog.quotas import DEFAULTS, Quotas, check_lowered
from nacre.compute.policies import rule
from nacre.identity.contract import Identity

#: What a project (or one user of it) has now, by resource.
Usage = Callable[[str | None, str | None], Awaitable[Mapping[str, int]]]

_FIELDS: t.J = {**dict.fromkeys((*DEFAULTS, "networks"), t.LIMIT), "force": t.BOOLEAN}
UPDATE = Schema(t.wrap("quota_set", t.obj(_FIELDS, noun="quota")))
UPDATE_CLASS = Schema(t.wrap("quota_class_set", t.obj(dict.fromkeys(DEFAULTS, t.LIMIT), noun="quota")))
QUERY = Query("quota.query", {"user_id": t.STRING})
LIMITS = Query("limits.query", {"reserved": t.STRING, "tenant_id": t.STRING})

_ABSOLUTE = {
    "maxTotalInstances": "instances", "maxTotalCores": "cores", "maxTotalRAMSize": "ram",
    "maxServerMeta": "metadata_items", "maxImageMeta": "metadata_items", "maxPersonality": "injected_files",
    "maxPersonalitySize": "injected_file_content_bytes", "maxTotalKeypairs": "key_pairs",
    "maxServerGroups": "server_groups", "maxServerGroupMembers": "server_group_members",
    "maxTotalFloatingIps": "floating_ips", "maxSecurityGroups": "security_groups",
    "maxSecurityGroupRules": "security_group_rules"}
_USED = {"totalRAMUsed": "ram", "totalCoresUsed": "cores", "totalInstancesUsed": "instances",
         "totalFloatingIpsUsed": "floating_ips", "totalSecurityGroupsUsed": "security_groups",
         "totalServerGroupsUsed": "server_groups"}


class QuotaRoutes:
    """The quota part of the API."""

    def __init__(self, quotas: Quotas, usage: Usage, identity: Identity):
        self._quotas, self._usage, self._identity = quotas, usage, identity

    def routes(self) -> list[Route]:
        """Every URL of quotas and limits."""
        def of(verb: str) -> Gate:
            return asks(rule(f"os-quota-sets:{verb}"), about=stated(lambda r: {"project_id": r.params["project_id"]}))

        one, classes = "/v2.1/os-quota-sets/{project_id}", "/v2.1/os-quota-class-sets/{name}"
        return [
            Route("GET", "/v2.1/limits", self.limits, asks(
                rule("limits"), parts=(rule("limits:other_project"),)), query=LIMITS),
            Route("GET", one, self.show, of("show"), query=QUERY),
            Route("GET", one + "/detail", self.detail, of("detail"), query=QUERY),
            Route("GET", one + "/defaults", self.defaults, of("defaults")),
            Route("PUT", one, self.update, of("update"), body=UPDATE, query=QUERY),
            Route("DELETE", one, self.delete, of("delete"), query=QUERY),
            Route("GET", classes, self.show_class, rule("os-quota-class-sets:show")),
            Route("PUT", classes, self.update_class, rule("os-quota-class-sets:update"), body=UPDATE_CLASS),
        ]

    async def limits(self, request: Request) -> Any:
        """GET /limits: the caller's project's, or another's for administrators."""
        project = request.context.project_id
        if (other := request.one("tenant_id")) is not None and other != project:
            request.require(rule("limits:other_project"))
            project = other
        limits, used = await self._quotas.limits(project), await self._usage(project, None)
        absolute = {name: limits[resource] for name, resource in _ABSOLUTE.items()
                    if known(f"quota.{resource}", request.version)
                    and (name != "maxImageMeta" or known("limits.max_image_meta", request.version))}
        absolute |= {name: used.get(resource, 0) for name, resource in _USED.items()
                     if known(f"quota.{resource}", request.version)}
        return {"limits": {"rate": [], "absolute": absolute}}

    async def show(self, request: Request) -> Any:
        """GET /os-quota-sets/{project}."""
        project, user = await self._whose(request)
        return self._set(request, await self._quotas.limits(project, user or ""), project)

    async def detail(self, request: Request) -> Any:
        """GET .../detail: with what is in use."""
        project, user = await self._whose(request)
        limits, used = await self._quotas.limits(project, user or ""), await self._usage(project, user)
        return self._set(request, {name: {"limit": limit, "in_use": used.get(name, 0), "reserved": 0}
                                   for name, limit in limits.items()}, project)

    async def defaults(self, request: Request) -> Any:
        """GET .../defaults: the limits of a project for which none were set."""
        project, _ = await self._whose(request)
        return self._set(request, await self._quotas.limits(""), project)

    async def update(self, request: Request) -> Any:
        """PUT /os-quota-sets/{project}."""
        project, user = await self._whose(request)
        given = dict(request.body["quota_set"])
        if "networks" in given:
            raise BadRequest("The networks quota has been removed", field="networks")
        forced = bool_from_string(given.pop("force", False))
        wanted = {name: int(value) for name, value in given.items()}
        if not forced:
            check_lowered(wanted, await self._usage(project, user))
            await self._check_user(project, user, wanted)
        await self._quotas.set(project, wanted, user or "")
        return self._set(request, await self._quotas.limits(project, user or ""), None)

    async def delete(self, request: Request) -> Any:
        """DELETE /os-quota-sets/{project}: back to the defaults. The project may be gone already."""
        await self._quotas.reset(request.params["project_id"], request.one("user_id"))
        return Reply(status=202)

    async def show_class(self, request: Request) -> Any:
        """GET /os-quota-class-sets/{name}: only `default` has a meaning."""
        return self._class(request, await self._quotas.limits(""), request.params["name"])

    async def update_class(self, request: Request) -> Any:
        """PUT /os-quota-class-sets/default: new defaults for every project without limits of its own."""
        if request.params["name"] != "default":
            raise NotFound(f"Quota class {request.params['name']} could not be found.")
        wanted = {name: int(value) for name, value in request.body["quota_class_set"].items()}
        await self._quotas.set("", wanted)
        return self._class(request, await self._quotas.limits(""), None)

    async def _whose(self, request: Request) -> tuple[str, str | None]:
        """Whose quotas. Raises BadRequest for a project that is not there."""
        project = request.params["project_id"]
        if not await self._identity.project_exists(project):
            raise BadRequest(f"Project ID {project} is not a valid project.", field="project_id")
        return project, request.one("user_id") or None

    async def _check_user(self, project: str, user: str | None, wanted: Mapping[str, int]) -> None:
        if user is None:
            return
        limits = await self._quotas.limits(project)
        for name, value in wanted.items():
            if limits[name] >= 0 and (value < 0 or value > limits[name]):
                raise BadRequest(f"Quota limit {value} for {name} must be less than or equal to {limits[name]}.",
                                 field=name)

    def _set(self, request: Request, values: Mapping[str, Any], project: str | None) -> Any:
        shown = {name: value for name, value in values.items() if known(f"quota.{name}", request.version)}
        return {"quota_set": {"id": project, **shown} if project else shown}

    def _class(self, request: Request, values: Mapping[str, int], name: str | None) -> Any:
        version = request.version
        shown: dict[str, Any] = {resource: value for resource, value in values.items() if known(
            f"quota.{resource}", version) and (not resource.startswith("server_group")
                                               or known("quota.class_server_groups", version))}
        return {"quota_class_set": {"id": name, **shown} if name else shown}
