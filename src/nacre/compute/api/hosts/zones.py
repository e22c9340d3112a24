"""/os-availability-zone and /os-hosts (up to 2.42): where servers may run."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from nacre.base.errors import NotBuilt, NotFound
from nacre.base.web import Request, Route
from nacre.compute.api.hosts.services import COMPUTE, CONTROL, Controls, HostServers, moment
from nacre.compute.catalog.aggregates import DEFAULT_ZONE, INTERNAL_ZONE, Aggregates
from nacre.compute.policies import rule
from nacre.scheduler.contract import Hosts, HostState


class ZoneRoutes:
    """The part of the API about zones, and the old view of hosts."""

    def __init__(self, hosts: Hosts, aggregates: Aggregates, servers: HostServers, controls: Controls):
        self._hosts, self._aggregates, self._servers, self._controls = hosts, aggregates, servers, controls

    def routes(self) -> list[Route]:
        """Every URL of zones and of /os-hosts."""
        old, one = (2, 42), "/v2.1/os-hosts/{host}"
        return [
            Route("GET", "/v2.1/os-availability-zone", self.index, rule("os-availability-zone:list")),
            Route("GET", "/v2.1/os-availability-zone/detail", self.detail, rule("os-availability-zone:detail")),
            Route("GET", "/v2.1/os-hosts", self.hosts, rule("os-hosts:list"), until=old),
            Route("GET", one, self.host, rule("os-hosts:show"), until=old),
            Route("PUT", one, self.power, rule("os-hosts:update"), until=old),
            Route("GET", one + "/startup", self.power, rule("os-hosts:start"), until=old),
            Route("GET", one + "/shutdown", self.power, rule("os-hosts:shutdown"), until=old),
            Route("GET", one + "/reboot", self.power, rule("os-hosts:reboot"), until=old),
        ]

    async def index(self, request: Request) -> Any:
        """GET /os-availability-zone: a zone is available while one of its hosts takes servers."""
        zones = self._zones(await self._hosts.all(), await self._aggregates.zones())
        return {"availabilityZoneInfo": [
            {"zoneName": name, "zoneState": {"available": any(_takes(h) for h in hosts)}, "hosts": None}
            for name, hosts in sorted(zones.items())]}

    async def detail(self, request: Request) -> Any:
        """GET /os-availability-zone/detail: with the hosts, and the control services' own zone."""
        zones = self._zones(await self._hosts.all(), await self._aggregates.zones())
        found = [{"zoneName": name, "zoneState": {"available": any(_takes(h) for h in hosts)},
                  "hosts": {host.report.host: {COMPUTE: _state(host)} for host in hosts}}
                 for name, hosts in sorted(zones.items())]
        controls = {c.name: dict.fromkeys(CONTROL, _state_of(True, c.alive, c.seen_at)) for c in await self._controls()}
        return {"availabilityZoneInfo": [
            *found, {"zoneName": INTERNAL_ZONE, "zoneState": {"available": True}, "hosts": controls}]}

    async def hosts(self, request: Request) -> Any:
        """GET /os-hosts."""
        zones = await self._aggregates.zones()
        names = [host.report.host for host in await self._hosts.all()]
        found = [{"host_name": n, "service": "compute", "zone": zones.get(n, DEFAULT_ZONE)} for n in names]
        found += [{"host_name": control.name, "service": binary.removeprefix("nova-"), "zone": INTERNAL_ZONE}
                  for control in await self._controls() for binary in CONTROL]
        wanted = request.one("zone")
        return {"hosts": [host for host in found if wanted in (None, "", host["zone"])]}

    async def host(self, request: Request) -> Any:
        """GET /os-hosts/{host}: total and use, one row each."""
        name = request.params["host"]
        for host in await self._hosts.all():
            if host.report.host == name:
                return {"host": _rows(host)}
        raise NotFound(f"Compute host {name} could not be found.")

    async def power(self, request: Request) -> Any:
        """Switching a host on or off is not Nacre's business."""
        await self.host(request)
        raise NotBuilt("Nacre does not switch hosts on or off.")

    def _zones(self, hosts: tuple[HostState, ...], zones: Mapping[str, str]) -> dict[str, list[HostState]]:
        found: dict[str, list[HostState]] = {}
        for host in hosts:
            found.setdefault(zones.get(host.report.host, DEFAULT_ZONE), []).append(host)
        return found or {DEFAULT_ZONE: []}


def _takes(host: HostState) -> bool:
    return host.up and not host.disabled


def _state(host: HostState) -> dict[str, Any]:
    return _state_of(not host.disabled, host.up, host.updated_at)


def _state_of(active: bool, available: bool, heard: datetime | None) -> dict[str, Any]:
    return {"active": active, "available": available, "updated_at": moment(heard)}


def _rows(host: HostState) -> list[dict[str, Any]]:
    report = host.report
    return [{"resource": {"host": report.host, "project": whose, "cpu": cpu, "memory_mb": memory, "disk_gb": disk}}
            for whose, cpu, memory, disk in (
                ("(total)", report.vcpus, report.memory_mb, report.disk_gb),
                ("(used_now)", report.vcpus_used, report.memory_mb_used, int(report.disk_gb_used)))]
