"""Small things around servers: what is always empty here, what is not built, and what other services tell us."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from nacre.base.errors import BadRequest, NotBuilt, NotFound
from nacre.base.web import Reply, Request, Route, Version
from nacre.compute.api import types as t
from nacre.compute.api.servers.finding import Finder
from nacre.compute.api.validation import Schema, Since
from nacre.compute.policies import rule
from nacre.compute.servers import Servers

_ONE = "/v2.1/servers/{server_id}"
_EVENTS = ["network-changed", "network-vif-plugged", "network-vif-unplugged", "network-vif-deleted"]
_ADDED = {51: ["volume-extended"], 76: ["power-update"], 82: ["accelerator-request-bound"], 93: ["volume-reimaged"]}


def _names() -> Since:
    found, parts = list(_EVENTS), {1: {"type": "string", "enum": list(_EVENTS)}}
    for minor, added in _ADDED.items():
        found += added
        parts[minor] = {"type": "string", "enum": list(found)}
    return Since(parts)


EVENTS = Schema(t.wrap("events", {"type": "array", "minItems": 1, "items": t.obj({
    "name": _names(), "server_uuid": t.UUID, "tag": {"type": "string", "maxLength": 255},
    "status": {"type": "string", "enum": ["failed", "completed", "in-progress"]}}, "name", "server_uuid")}))

#: (method, URL after the server's, policy, first version): parts of the API that are not built.
NOT_BUILT: tuple[tuple[str, str, str, Version | None], ...] = (
    ("GET", "/diagnostics", "os-server-diagnostics", None),
    ("POST", "/remote-consoles", "os-remote-consoles", (2, 6)),
    ("POST", "/os-volume_attachments", "os-volumes-attachments:create", None),
    ("PUT", "/os-volume_attachments/{volume_id}", "os-volumes-attachments:update", None),
)


class RestRoutes:
    """What has no better place."""

    def __init__(self, servers: Servers):
        self._servers, self._find = servers, Finder(servers)

    def routes(self) -> list[Route]:
        """All of it."""
        audit, may = "/v2.1/os-instance_usage_audit_log", self._find.may
        volumes, secret = _ONE + "/os-volume_attachments", _ONE + "/os-server-password"
        return [
            Route("GET", volumes, _empty("volumeAttachments"), may("os-volumes-attachments:index")),
            Route("GET", volumes + "/{volume_id}", self.no_volume, may("os-volumes-attachments:show")),
            Route("DELETE", volumes + "/{volume_id}", self.no_volume, may("os-volumes-attachments:delete")),
            Route("GET", _ONE + "/migrations", _empty("migrations"), may("servers:migrations:index"), since=(2, 23)),
            Route("GET", secret, self.password, may("os-server-password:show")),
            Route("DELETE", secret, self.forget_password, may("os-server-password:clear")),
            *(Route(method, _ONE + path, _not_built(path), may(verb), since=since,
                    body=Schema({"type": "object"}) if method != "GET" else None)
              for method, path, verb, since in NOT_BUILT),
            Route("GET", "/v2.1/os-migrations", self.migrations, rule("os-migrations:index")),
            Route("POST", "/v2.1/os-server-external-events", self.events, rule("os-server-external-events:create"),
                  body=EVENTS),
            Route("GET", "/v2.1/extensions", self.extensions, rule("extensions")),
            Route("GET", "/v2.1/extensions/{alias}", self.extension, rule("extensions")),
            Route("GET", audit, self.audit, rule("os-instance-usage-audit-log:list")),
            Route("GET", audit + "/{before}", self.audit_before, rule("os-instance-usage-audit-log:show")),
        ]

    async def no_volume(self, request: Request) -> Any:
        """There are no volumes, so none is attached."""
        raise NotFound(f"Volume {request.params['volume_id']} could not be found.")

    async def password(self, request: Request) -> Any:
        """GET .../os-server-password: no guest can leave one here yet, so there is none."""
        return {"password": ""}

    async def forget_password(self, request: Request) -> Any:
        """DELETE .../os-server-password."""
        return Reply(status=204)

    async def migrations(self, request: Request) -> Any:
        """GET /os-migrations: servers do not migrate yet."""
        return {"migrations": []}

    async def events(self, request: Request) -> Any:
        """POST /os-server-external-events. Nacre's own network needs none of them; others' are answered as asked."""
        found, status = [], 200
        for event in request.body["events"]:
            code = await self._code(event)
            status = status if code == 200 else 207
            found.append({**event, "status": "completed" if code == 200 else "failed", "code": code})
        return Reply({"events": found}, status)

    async def extensions(self, request: Request) -> Any:
        """GET /extensions: the list of old; microversions took its place."""
        return {"extensions": [_extension(alias) for alias in EXTENSIONS]}

    async def extension(self, request: Request) -> Any:
        """GET /extensions/{alias}."""
        if request.params["alias"] not in EXTENSIONS:
            raise NotFound("The resource could not be found.")
        return {"extension": _extension(request.params["alias"])}

    async def audit(self, request: Request) -> Any:
        """GET /os-instance_usage_audit_log."""
        raise NotBuilt("Nacre keeps no usage audit log; see /os-simple-tenant-usage.")

    async def audit_before(self, request: Request) -> Any:
        """GET /os-instance_usage_audit_log/{time}."""
        text = request.params["before"]
        try:
            datetime.strptime(text, "%Y-%m-%d %H:%M:%S.%f" if "." in text else "%Y-%m-%d %H:%M:%S")
        except ValueError:
            raise BadRequest(f"Invalid timestamp for date {text}", field="before") from None
        return await self.audit(request)

    async def _code(self, event: dict[str, Any]) -> int:
        try:
            server = await self._servers.get(event["server_uuid"])
        except NotFound:
            return 404
        if event["name"] == "volume-extended" and event.get("tag") is None:
            return 400
        return 200 if server.host else 422


def _empty(name: str) -> Callable[[Request], Awaitable[Any]]:
    async def handler(request: Request) -> Any:
        return {name: []}

    return handler


def _not_built(path: str) -> Callable[[Request], Awaitable[Any]]:
    async def handler(request: Request) -> Any:
        raise NotBuilt(f"Nacre does not have {path.split('/')[1]} of servers yet.")

    return handler


#: The parts of the API that work, by the aliases and names they had as extensions.
EXTENSIONS = {
    "NMN": "Multinic", "OS-DCF": "DiskConfig", "OS-EXT-AZ": "ExtendedAvailabilityZone", "OS-EXT-IMG-SIZE": "ImageSize",
    "OS-EXT-IPS": "ExtendedIps", "OS-EXT-IPS-MAC": "ExtendedIpsMac", "OS-EXT-SRV-ATTR": "ExtendedServerAttributes",
    "OS-EXT-STS": "ExtendedStatus", "OS-FLV-DISABLED": "FlavorDisabled", "OS-FLV-EXT-DATA": "FlavorExtraData",
    "OS-SCH-HNT": "SchedulerHints", "OS-SRV-USG": "ServerUsage", "os-access-ips": "AccessIPs",
    "os-aggregates": "Aggregates", "os-attach-interfaces": "AttachInterfaces",
    "os-availability-zone": "AvailabilityZone", "os-config-drive": "ConfigDrive",
    "os-console-output": "ConsoleOutput", "os-extended-status": "ExtendedStatus", "os-flavor-access": "FlavorAccess",
    "os-flavor-extra-specs": "FlavorExtraSpecs", "os-flavor-manage": "FlavorManage", "os-flavor-rxtx": "FlavorRxtx",
    "os-flavor-swap": "FlavorSwap", "os-hosts": "Hosts", "os-hypervisors": "Hypervisors",
    "os-instance-actions": "InstanceActions", "os-keypairs": "Keypairs", "os-lock-server": "LockServer",
    "os-multiple-create": "MultipleCreate", "os-quota-class-sets": "QuotaClasses", "os-quota-sets": "Quotas",
    "os-server-external-events": "ServerExternalEvents", "os-server-groups": "ServerGroups",
    "os-server-list-multi-status": "ServerListMultiStatus", "os-server-sort-keys": "ServerSortKeys",
    "os-server-start-stop": "ServerStartStop", "os-services": "Services",
    "os-simple-tenant-usage": "SimpleTenantUsage", "os-used-limits": "UsedLimits", "os-user-data": "UserData",
}


def _extension(alias: str) -> dict[str, Any]:
    return {"alias": alias, "name": EXTENSIONS[alias], "namespace": "", "description": "", "links": [],
            "updated": "2014-12-03T00:00:00Z"}
