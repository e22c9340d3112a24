"""/os-services: the processes of the cloud, and which hosts take new servers."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from oslo_utils.strutils import bool_from_string
from oslo_utils.uuidutils import is_uuid_like

from nacre.base.durable.processes import Process
from nacre.base.errors import BadRequest, NotFound
from nacre.base.web import Reply, Request, Route
from nacre.compute.api import types as t
from nacre.compute.api.microversions import known
from nacre.compute.api.validation import Query, Schema, Since
from nacre.compute.catalog.aggregates import DEFAULT_ZONE, INTERNAL_ZONE, Aggregates
from nacre.compute.policies import rule
from nacre.conductor.contract import Removal
from nacre.scheduler.contract import Hosts, HostState

COMPUTE = "nova-compute"
#: What every control process is, by the names that clients know.
CONTROL = ("nova-conductor", "nova-scheduler")
#: The control processes, dead ones too.
Controls = Callable[[], Awaitable[Sequence[Process]]]
#: The processes of hosts.
Nodes = Controls
#: The servers on each of these hosts, as (id, domain name) pairs.
HostServers = Callable[[Sequence[str]], Awaitable[Mapping[str, Sequence[tuple[str, str]]]]]

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

    def __init__(self, hosts: Hosts, aggregates: Aggregates, removal: Removal, controls: Controls):
        self._hosts, self._aggregates, self._removal, self._controls = hosts, aggregates, removal, controls

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
        hosts, zones = await self._hosts.all(), await self._aggregates.zones()
        found = [_view(request, host, zones) for host in hosts] + _of_controls(request, await self._controls())
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
        """DELETE /os-services/{id}: a host that will not come back. Refused while it has allocations."""
        await self._removal.remove((await self._find(request)).report.host)
        return Reply(status=204)

    async def _update_by_uuid(self, request: Request) -> Any:
        given, host = request.body, await self._find(request)
        reason = given.get("disabled_reason")
        if reason and given.get("status") != "disabled":
            raise BadRequest("Specifying disabled_reason when status is 'enabled' is invalid." if "status" in given
                             else "Specifying disabled_reason without status 'disabled' is invalid.",
                             field="disabled_reason")
        changed = await self._hosts.set_service(
            host.report.host, disabled=given["status"] == "disabled" if "status" in given else None, reason=reason,
            forced_down=bool_from_string(given["forced_down"]) if "forced_down" in given else None)
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
                down = bool_from_string(given["forced_down"])
                change, said = {"forced_down": down}, {"forced_down": down}
            case _:
                raise NotFound("Unknown action")
        if given["binary"] != COMPUTE:
            raise BadRequest(f"Updating a {given['binary']} service is not supported. Only nova-compute services can "
                             "be updated.", field="binary")
        try:
            await self._hosts.set_service(given["host"], **change)
        except NotFound:
            raise NotFound(f"Could not find binary {given['binary']} on host {given['host']}.") from None
        return {"service": {**name, **said}}

    async def _find(self, request: Request) -> HostState:
        ident = request.params["service_id"]
        by_uuid = known("service.by_uuid", request.version)
        if by_uuid and not is_uuid_like(ident):
            raise BadRequest(f"Invalid uuid {ident}", field="id")
        if not by_uuid and not (ident.isascii() and ident.isdigit()):
            raise BadRequest(f"Invalid input received: id must be an integer, not {ident}", field="id")
        for host in await self._hosts.all():
            if ident == (host.uuid if by_uuid else str(host.id)):
                return host
        raise NotFound(f"Service {ident} not found.")


def _of_controls(request: Request, controls: Sequence[Process]) -> list[dict[str, Any]]:
    """The services of every control process."""
    found: list[dict[str, Any]] = []
    for number, (control, binary) in enumerate((c, b) for c in controls for b in CONTROL):
        ident: Any = str(uuid5(NAMESPACE_OID, f"{control.id}/{binary}"))
        service = {"id": ident if known("service.by_uuid", request.version) else 1_000_000 + number, "binary": binary,
                   "host": control.name, "zone": INTERNAL_ZONE, "status": "enabled",
                   "state": "up" if control.alive else "down", "updated_at": moment(control.seen_at),
                   "disabled_reason": None}
        found.append(service | ({"forced_down": False} if known("service.forced_down", request.version) else {}))
    return found


def moment(heard: datetime | None) -> str | None:
    """A time as these lists write it."""
    return heard.strftime("%Y-%m-%dT%H:%M:%S.%f") if heard else None


def _view(request: Request, host: HostState, zones: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": host.uuid if known("service.by_uuid", request.version) else host.id, "binary": COMPUTE,
        "host": host.report.host, "zone": zones.get(host.report.host, DEFAULT_ZONE),
        "status": "disabled" if host.disabled else "enabled", "state": "up" if host.up else "down",
        "updated_at": moment(host.updated_at),
        "disabled_reason": host.disabled_reason}
    if known("service.forced_down", request.version):
        found["forced_down"] = host.forced_down
    return found
