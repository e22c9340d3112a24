"""/os-services: the processes of the cloud, and which hosts take new servers."""

from collections.abc import Mapping
from typing import Any

from nacre.base.clock import Clock
from nacre.base.errors import BadRequest, Conflict, NotFound
from nacre.base.web import Reply, Request, Route
from nacre.compute.api import types as t
from nacre.compute.api.hosts.counts import HostCounts
from nacre.compute.api.microversions import known
from nacre.compute.api.validation import Query, Schema, Since, is_uuid
from nacre.compute.catalog.aggregates import DEFAULT_ZONE, INTERNAL_ZONE, Aggregates
from nacre.compute.policies import rule
from nacre.scheduler.contract import HostState, Scheduler

COMPUTE = "nova-compute"
#: The processes beside the hosts. They are one here, and up when they can answer; the names are those clients know.
CONTROL = ("nova-conductor", "nova-scheduler")

_REASON = {"type": "string", "minLength": 1, "maxLength": 255, "format": "printable"}
_OLD = {"type": "object", "required": ["host", "binary"], "additionalProperties": False, "noun": "service.update",
        "properties": {"host": t.FQDN, "binary": {"type": "string", "minLength": 1, "maxLength": 255},
                       "disabled_reason": _REASON, "forced_down": t.BOOLEAN}}
_NEW = {"type": "object", "additionalProperties": False, "minProperties": 1, "properties": {
    "status": {"type": "string", "enum": ["enabled", "disabled"]}, "disabled_reason": _REASON,
    "forced_down": t.BOOLEAN}}
UPDATE = Schema(Since({1: _OLD, 53: _NEW}))
LIST = Query("service.query", {"host": t.STRING, "binary": t.STRING})


class ServiceRoutes:
    """The part of the API about services."""

    def __init__(self, scheduler: Scheduler, aggregates: Aggregates, counts: HostCounts, clock: Clock):
        self._scheduler, self._aggregates, self._counts, self._clock = scheduler, aggregates, counts, clock

    def routes(self) -> list[Route]:
        """Every URL under /os-services."""
        one = "/v2.1/os-services/{service_id}"
        return [
            Route("GET", "/v2.1/os-services", self.index, rule("os-services:list"), query=LIST),
            Route("PUT", one, self.update, rule("os-services:update"), body=UPDATE),
            Route("DELETE", one, self.delete, rule("os-services:delete")),
        ]

    async def index(self, request: Request) -> Any:
        """GET /os-services."""
        hosts, zones = await self._scheduler.hosts(), await self._aggregates.zones()
        found = [_view(request, host, zones) for host in hosts] + self._control(request, hosts)
        for name in ("host", "binary"):
            if wanted := request.one(name):
                found = [service for service in found if service[name] == wanted]
        return {"services": found}

    async def update(self, request: Request) -> Any:
        """PUT /os-services/{id}; before 2.53 the last part of the URL is what to do and the body says to whom."""
        if known("service.by_uuid", request.version):
            return await self._update_by_uuid(request)
        return await self._act(request)

    async def delete(self, request: Request) -> Any:
        """DELETE /os-services/{id}: a host that will not come back. Refused while it has servers."""
        host = await self._find(request)
        if (await self._counts([host.report.host])).get(host.report.host):
            raise Conflict("Unable to delete compute service that is hosting instances. Migrate or delete the "
                           "instances first.")
        for aggregate in await self._aggregates.all():
            if host.report.host in aggregate.hosts:
                await self._aggregates.remove_host(aggregate.id, host.report.host)
        await self._scheduler.forget(host.report.host)
        return Reply(status=204)

    async def _update_by_uuid(self, request: Request) -> Any:
        given, host = request.body, await self._find(request)
        reason = given.get("disabled_reason")
        if reason and given.get("status") != "disabled":
            raise BadRequest("Specifying disabled_reason when status is 'enabled' is invalid." if "status" in given
                             else "Specifying disabled_reason without status 'disabled' is invalid.",
                             field="disabled_reason")
        changed = await self._scheduler.set_service(
            host.report.host, disabled=given["status"] == "disabled" if "status" in given else None, reason=reason,
            forced_down=t.as_bool(given["forced_down"]) if "forced_down" in given else None)
        return {"service": _view(request, changed, await self._aggregates.zones())}

    async def _act(self, request: Request) -> Any:
        given, action = request.body, request.params["service_id"]
        name = {"host": given["host"], "binary": given["binary"]}
        said: dict[str, Any]
        change: dict[str, Any]
        match action:
            case "enable":
                change, said = {"disabled": False}, {"status": "enabled"}
            case "disable":
                change, said = {"disabled": True}, {"status": "disabled"}
            case "disable-log-reason":
                if "disabled_reason" not in given:
                    raise BadRequest("Missing disabled reason field", field="disabled_reason")
                reason = given["disabled_reason"]
                change = {"disabled": True, "reason": reason}
                said = {"status": "disabled", "disabled_reason": reason}
            case "force-down" if known("service.forced_down", request.version):
                if "forced_down" not in given:
                    raise BadRequest("Missing forced_down field", field="forced_down")
                down = t.as_bool(given["forced_down"])
                change, said = {"forced_down": down}, {"forced_down": down}
            case _:
                raise NotFound("Unknown action")
        if given["binary"] != COMPUTE:
            raise BadRequest(f"Updating a {given['binary']} service is not supported. Only nova-compute services can "
                             "be updated.", field="binary")
        try:
            await self._scheduler.set_service(given["host"], **change)
        except NotFound:
            raise NotFound(f"Could not find binary {given['binary']} on host {given['host']}.") from None
        return {"service": {**name, **said}}

    async def _find(self, request: Request) -> HostState:
        ident = request.params["service_id"]
        by_uuid = known("service.by_uuid", request.version)
        if by_uuid and not is_uuid(ident):
            raise BadRequest(f"Invalid uuid {ident}", field="id")
        if not by_uuid and not (ident.isascii() and ident.isdigit()):
            raise BadRequest(f"Invalid input received: id must be an integer, not {ident}", field="id")
        for host in await self._scheduler.hosts():
            if ident == (host.uuid if by_uuid else str(host.id)):
                return host
        raise NotFound(f"Service {ident} not found.")

    def _control(self, request: Request, hosts: tuple[HostState, ...]) -> list[dict[str, Any]]:
        """The control processes: this one answers, so it is up."""
        now = self._clock.now().strftime("%Y-%m-%dT%H:%M:%S.%f")
        found: list[dict[str, Any]] = []
        for number, binary in enumerate(CONTROL, start=1):
            ident: Any = f"00000000-0000-4000-8000-{number:012d}"
            service = {"id": ident if known("service.by_uuid", request.version) else 1_000_000 + number,
                       "binary": binary, "host": "control", "zone": INTERNAL_ZONE, "status": "enabled",
                       "state": "up", "updated_at": now, "disabled_reason": None}
            found.append(service | ({"forced_down": False} if known("service.forced_down", request.version) else {}))
        return found


def _view(request: Request, host: HostState, zones: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": host.uuid if known("service.by_uuid", request.version) else host.id, "binary": COMPUTE,
        "host": host.report.host, "zone": zones.get(host.report.host, DEFAULT_ZONE),
        "status": "disabled" if host.disabled else "enabled", "state": "up" if host.up else "down",
        "updated_at": host.updated_at.strftime("%Y-%m-%dT%H:%M:%S.%f") if host.updated_at else None,
        "disabled_reason": host.disabled_reason}
    if known("service.forced_down", request.version):
        found["forced_down"] = host.forced_down
    return found
