"""/os-simple-tenant-usage: how long the servers of a project ran, and what they took."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from nacre.base.clock import Clock
from nacre.base.errors import BadRequest, NoSuchRoute
from nacre.base.serving.gate import Subject, asks
from nacre.base.serving.paths import after
from nacre.base.web import Request, Route
from nacre.compute.api import types as t
from nacre.compute.api.microversions import known
from nacre.compute.api.paging import MAX_LIMIT, limit_and_marker, next_link
from nacre.compute.api.validation import Query
from nacre.compute.contract import Server
from nacre.compute.policies import rule
from nacre.compute.servers import Servers

QUERY = Query("usage.query", {"start": t.STRING, "end": t.STRING, "detailed": t.STRING, **t.PAGING})
_FORMS = ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S.%f", "%Y-%m-%d %H:%M:%S.%f")


class UsageRoutes:
    """The usage part of the API."""

    def __init__(self, servers: Servers, clock: Clock):
        self._source, self._clock = servers, clock

    def routes(self) -> list[Route]:
        """Every URL of usage."""
        many = "/v2.1/os-simple-tenant-usage"
        return [Route("GET", many, self.index, rule("os-simple-tenant-usage:list"), query=QUERY),
                Route("GET", many + "/{project_id}", self.show, asks(
                    rule("os-simple-tenant-usage:show"), about=_project), query=QUERY)]

    async def index(self, request: Request) -> Any:
        """GET /os-simple-tenant-usage: every project."""
        servers, period, more = await self._servers(request, None)
        projects = dict.fromkeys(server.project_id for server in servers)
        detailed = request.one("detailed") == "1"
        found = [self._usage([s for s in servers if s.project_id == p], p, period, detailed) for p in projects]
        return {"tenant_usages": found, **({"tenant_usages_links": more} if more else {})}

    async def show(self, request: Request) -> Any:
        """GET /os-simple-tenant-usage/{project}: with its servers."""
        project: str = request.found
        servers, period, more = await self._servers(request, project)
        found = self._usage(servers, project, period, True) if servers else {}
        return {"tenant_usage": found, **({"tenant_usage_links": more} if more else {})}

    async def _servers(self, request: Request, project: str | None) -> tuple[
            list[Server], tuple[datetime, datetime], list[dict[str, str]]]:
        now = self._now()
        start, end = _time(request.one("start"), now), _time(request.one("end"), now)
        if start >= end:
            raise BadRequest("Invalid start time. The start time cannot occur after the end time.", field="start")
        end = min(end, now)
        found = list(await self._source.lived(start, end, project))
        if not known("usage.paging", request.version):
            return found[:MAX_LIMIT], (start, end), []
        limit, marker = limit_and_marker(request)
        if marker is not None:
            following = after(found, marker, lambda server: server.id)
            if following is None:
                raise BadRequest(f"Marker {marker} could not be found.", field="marker")
            found = list(following)
        found = found[:limit]
        more = next_link(request, found, found[-1].id if found else "", limit)
        return found, (start, end), more

    def _now(self) -> datetime:
        return self._clock.now().astimezone(UTC).replace(tzinfo=None)

    def _usage(self, servers: Sequence[Server], project: str, period: tuple[datetime, datetime],
               detailed: bool) -> dict[str, Any]:
        rows = [_row(server, period, self._now()) for server in servers]
        total: dict[str, Any] = {
            "tenant_id": project, "start": period[0].isoformat(), "stop": period[1].isoformat(),
            "total_hours": sum(row["hours"] for row in rows)}
        for name in ("local_gb", "vcpus", "memory_mb"):
            total[f"total_{name}_usage"] = sum(row[name] * row["hours"] for row in rows)
        if detailed:
            total["server_usages"] = rows
        return total


async def _project(request: Request) -> Subject:
    project = request.params["project_id"]
    if "/" in project:  # no id looks so; Nova's URL does not take it
        raise NoSuchRoute
    return Subject({"project_id": project}, project)


def _time(text: str | None, now: datetime) -> datetime:
    if not text:
        return now
    for form in _FORMS:
        try:
            return datetime.strptime(text, form)
        except ValueError:
            continue
    raise BadRequest("Invalid datetime string: Datetime is in invalid format", field="start")


def _row(server: Server, period: tuple[datetime, datetime], now: datetime) -> dict[str, Any]:
    begun, ended, flavor = server.launched_at, server.terminated_at, server.flavor
    ran = (min(ended or period[1], period[1]) - max(begun, period[0])).total_seconds() if begun else 0.0
    return {
        "hours": max(ran, 0.0) / 3600, "flavor": flavor.name, "instance_id": server.id, "name": server.name,
        "tenant_id": server.project_id, "memory_mb": flavor.memory_mb,
        "local_gb": flavor.root_gb + flavor.ephemeral_gb, "vcpus": flavor.vcpus,
        "started_at": begun.isoformat(timespec="microseconds") if begun else None,
        "ended_at": ended.isoformat(timespec="microseconds") if ended else None,
        "state": "terminated" if ended else server.vm_state,
        "uptime": int(((ended or now) - begun).total_seconds()) if begun else 0}
