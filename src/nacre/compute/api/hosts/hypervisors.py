"""/os-hypervisors: the hosts' sizes and what is used of them."""

from collections.abc import Sequence
from typing import Any

from oslo_utils.strutils import bool_from_string
from oslo_utils.uuidutils import is_uuid_like

from nacre.base import bounds
from nacre.base.errors import BadRequest, NotFound
from nacre.base.serving.paths import after
from nacre.base.web import Request, Route
from nacre.compute.api import types as t
from nacre.compute.api.hosts.services import HostServers
from nacre.compute.api.microversions import known
from nacre.compute.api.paging import MAX_LIMIT, limit_and_marker, next_link
from nacre.compute.api.validation import Query
from nacre.compute.policies import rule
from nacre.scheduler.contract import Hosts, HostState

_FLAG = {**t.STRING, "enum": [value for value in t.BOOLEAN["enum"] if isinstance(value, str)]}




LIST = Query("hypervisor.query", {
    **t.PAGING, "hypervisor_hostname_pattern": {"type": "string", "minLength": 1}, "with_servers": _FLAG},
    strict_from=53)
SHOW = Query("hypervisor.query", {"with_servers": _FLAG}, strict_from=53)

_SUMS = ("vcpus", "memory_mb", "local_gb", "vcpus_used", "memory_mb_used", "local_gb_used", "free_ram_mb",
         "free_disk_gb", "current_workload", "running_vms", "disk_available_least")


class HypervisorRoutes:
    """The hypervisor part of the API."""

    def __init__(self, hosts: Hosts, servers: HostServers):
        self._hosts, self._servers = hosts, servers

    def routes(self) -> list[Route]:
        """Every URL under /os-hypervisors."""
        many, one, name = "/v2.1/os-hypervisors", "/v2.1/os-hypervisors/{hypervisor_id}", "os-hypervisors:"
        return [
            Route("GET", many, self.index, rule(name + "list"), query=LIST),
            Route("GET", many + "/detail", self.detail, rule(name + "list-detail"), query=LIST),
            Route("GET", many + "/statistics", self.statistics, rule(name + "statistics"), until=(2, 87)),
            Route("GET", one, self.show, rule(name + "show"), query=SHOW),
            Route("GET", one + "/uptime", self.uptime, rule(name + "uptime"), until=(2, 87)),
            Route("GET", one + "/search", self.search, rule(name + "search"), until=(2, 52)),
            Route("GET", one + "/servers", self.servers, rule(name + "servers"), until=(2, 52)),
        ]

    async def index(self, request: Request) -> Any:
        """GET /os-hypervisors."""
        return await self._list(request, full=False)

    async def detail(self, request: Request) -> Any:
        """GET /os-hypervisors/detail."""
        return await self._list(request, full=True)

    async def show(self, request: Request) -> Any:
        """GET /os-hypervisors/{id}."""
        host = await self._find(request)
        return {"hypervisor": (await self._views(request, [host], full=True))[0]}

    async def statistics(self, request: Request) -> Any:
        """GET /os-hypervisors/statistics: sums over the hosts that are enabled."""
        hosts = [host for host in await self._hosts.all() if not host.disabled]
        usages = [_usage(host) for host in hosts]
        return {"hypervisor_statistics": {
            "count": len(hosts), **{name: sum(usage[name] for usage in usages) for name in _SUMS}}}

    async def uptime(self, request: Request) -> Any:
        """GET /os-hypervisors/{id}/uptime. Hosts do not report theirs."""
        host = await self._find(request)
        if not host.up:
            raise BadRequest(f"Compute service of {host.report.host} is unavailable at this time.")
        return {"hypervisor": _brief(request, host) | {"uptime": ""}}

    async def search(self, request: Request) -> Any:
        """GET /os-hypervisors/{pattern}/search."""
        found = _matching(await self._hosts.all(), request.params["hypervisor_id"])
        return {"hypervisors": [_brief(request, host) for host in found]}

    async def servers(self, request: Request) -> Any:
        """GET /os-hypervisors/{pattern}/servers."""
        found = _matching(await self._hosts.all(), request.params["hypervisor_id"])
        return {"hypervisors": await self._views(request, found, full=False, servers=True)}

    async def _list(self, request: Request, full: bool) -> Any:
        version = request.version
        hosts: Sequence[HostState] = await self._hosts.all()
        pattern = request.one("hypervisor_hostname_pattern") if known("hypervisor.by_uuid", version) else None
        if pattern is not None:
            if request.one("limit") is not None or request.one("marker") is not None:
                raise BadRequest("Paging over hypervisors with the hypervisor_hostname_pattern query parameter is not "
                                 "supported.")
            return {"hypervisors": await self._views(request, _matching(hosts, pattern), full)}
        paging = known("hypervisor.paging", version)
        limit, marker = limit_and_marker(request) if paging else (MAX_LIMIT, None)
        if marker is not None:
            following = after(hosts, marker, lambda host: str(_ident(request, host)))
            if following is None:
                raise BadRequest(f"marker [{marker}] not found", field="marker")
            hosts = list(following)
        shown = await self._views(request, hosts[:limit], full)
        answer: dict[str, Any] = {"hypervisors": shown}
        if paging and shown and (more := next_link(request, shown, str(shown[-1]["id"]), limit)):
            answer["hypervisors_links"] = more
        return answer

    async def _views(self, request: Request, hosts: Sequence[HostState], full: bool,
                     servers: bool = False) -> list[dict[str, Any]]:
        version = request.version
        wanted = servers or (known("hypervisor.by_uuid", version) and bool_from_string(request.one("with_servers")))
        on = await self._servers([host.report.host for host in hosts]) if wanted else {}
        found = []
        for host in hosts:
            shown = _full(request, host) if full else _brief(request, host)
            mine = [{"name": name, "uuid": ident} for ident, name in on.get(host.report.host, ())]
            if mine or (wanted and known("hypervisor.servers_always", version)):
                shown["servers"] = mine
            found.append(shown)
        return found

    async def _find(self, request: Request) -> HostState:
        ident = request.params["hypervisor_id"]
        if known("hypervisor.by_uuid", request.version) and not is_uuid_like(ident):
            raise BadRequest(f"Invalid uuid {ident}", field="id")
        for host in await self._hosts.all():
            if ident == _ident(request, host):
                return host
        raise NotFound(f"Hypervisor with ID '{ident}' could not be found.")


def _ident(request: Request, host: HostState) -> str:
    return host.uuid if known("hypervisor.by_uuid", request.version) else str(host.id)


def _matching(hosts: Sequence[HostState], pattern: str) -> list[HostState]:
    found = [host for host in hosts if pattern in host.report.host]
    if not found:
        raise NotFound(f"No hypervisor matching '{pattern}' could be found.")
    return found


def _brief(request: Request, host: HostState) -> dict[str, Any]:
    by_uuid = known("hypervisor.by_uuid", request.version)
    return {"id": host.uuid if by_uuid else host.id, "hypervisor_hostname": host.report.host,
            "state": "up" if host.up else "down", "status": "disabled" if host.disabled else "enabled"}


def _usage(host: HostState) -> dict[str, int]:
    """What the host has and uses, as its last report says. Memory MB, disks GB."""
    report = host.report
    free_disk = report.disk_gb - int(report.disk_gb_used)
    return {
        "vcpus": report.vcpus, "memory_mb": report.memory_mb, "local_gb": report.disk_gb,
        "vcpus_used": report.vcpus_used, "memory_mb_used": report.memory_mb_used,
        "local_gb_used": int(report.disk_gb_used), "free_ram_mb": report.memory_mb - report.memory_mb_used,
        "free_disk_gb": free_disk, "current_workload": 0, "running_vms": report.running,
        "disk_available_least": free_disk}


def _full(request: Request, host: HostState) -> dict[str, Any]:
    version, report = request.version, host.report
    found = _brief(request, host) | {
        "hypervisor_type": report.hypervisor_type, "hypervisor_version": report.hypervisor_version,
        "host_ip": report.host_ip,
        "service": {"id": host.uuid if known("hypervisor.by_uuid", version) else host.id, "host": host.report.host,
                    "disabled_reason": host.disabled_reason}}
    if known("hypervisor.usage", version):
        found |= _usage(host)
        found["cpu_info"] = report.cpu_info
        if known("hypervisor.cpu_info_object", version):
            found["cpu_info"] = bounds.facts(report.cpu_info)
    if known("hypervisor.uptime", version):
        found["uptime"] = None
    return found
