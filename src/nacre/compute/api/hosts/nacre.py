"""/os-nacre-hosts and /os-nacre-orphans: what Nacre's operators do with hosts, and OpenStack has no word for.

To drain a host is what it always was: `PUT /os-services/{id}` with status disabled."""

from collections.abc import Mapping
from typing import Any

from nacre.base.durable.processes import Process
from nacre.base.errors import Conflict, NotFound
from nacre.base.web import Reply, Request, Route
from nacre.compute.api import types as t
from nacre.compute.api.hosts.services import HostServers, Nodes
from nacre.compute.api.validation import Query, Schema
from nacre.compute.policies import rule
from nacre.conductor.contract import AdoptWish, OrphanAt, Orphans, Removal
from nacre.network.contract import Named, PortFacts
from nacre.scheduler.contract import Hosts, HostState

ORPHANS = Query("orphans.query", {"host": t.STRING}, strict_from=1)
REMOVE = Query("host-remove.query", {"dead": {"enum": ["true", "false"]}}, strict_from=1)
ACCEPT = Schema(t.wrap("accept", {"type": "null"}))
FORGET = Schema(t.wrap("forget", {"oneOf": [{"type": "null"}, t.obj({"host": t.NAME}, "host")]}))
SEGMENTS = {"type": "array", "maxItems": 200, "items": {
    "type": "string", "pattern": "^(flat:[^:]{1,64}|vlan:[^:]{1,64}:[0-9]{1,4})$"}}
ADDRESSES = {"type": "array", "maxItems": 1000, "items": {"type": "string", "pattern": "^[0-9a-fA-F:.]{2,45}$"}}
ADOPT = Schema(t.wrap("adopt", {"oneOf": [{"type": "null"}, t.obj({
    "name": t.NAME, "host": t.NAME, "project_id": {"type": "string", "pattern": "^[a-zA-Z0-9-]{1,64}$"},
    "segments": SEGMENTS, "addresses": ADDRESSES})]}))


class NacreHostRoutes:
    """The extension's part of the API. nodes: the processes of hosts."""

    def __init__(self, hosts: Hosts, servers: HostServers, orphans: Orphans, removal: Removal, nodes: Nodes):
        self._hosts, self._servers, self._orphans, self._removal = hosts, servers, orphans, removal
        self._nodes = nodes

    def routes(self) -> list[Route]:
        """Every URL of the extension."""
        many, guests = "/v2.1/os-nacre-hosts", "/v2.1/os-nacre-orphans"
        return [
            Route("GET", many, self.index, rule("os-nacre-hosts:list")),
            Route("DELETE", many + "/{host}", self.remove, rule("os-nacre-hosts:remove"), query=REMOVE),
            Route("POST", many + "/{host}/action", self.accept, rule("os-nacre-hosts:accept"), body=ACCEPT,
                  action="accept"),
            Route("GET", guests, self.orphans, rule("os-nacre-orphans:list"), query=ORPHANS),
            Route("POST", guests + "/{guest}/action", self.adopt, rule("os-nacre-orphans:adopt"), body=ADOPT,
                  action="adopt"),
            Route("POST", guests + "/{guest}/action", self.forget, rule("os-nacre-orphans:forget"), body=FORGET,
                  action="forget"),
        ]

    async def index(self, request: Request) -> Any:
        """GET /os-nacre-hosts: every host that belongs to the cloud, whether it ever reported or not."""
        states = {state.report.host: state for state in await self._hosts.all()}
        nodes = {node.name: node for node in await self._nodes()}
        servers, orphans = await self._servers(list(states)), await self._orphans.counts()
        found = []
        for name in sorted({*states, *nodes}):
            state = states.get(name)
            found.append({
                **_known(nodes.get(name)), **(_reported(state) if state else _UNHEARD), "name": name,
                "servers": len(servers.get(name, ())), "orphans": orphans.get(name, 0)})
        return {"hosts": found}

    async def remove(self, request: Request) -> Any:
        """DELETE /os-nacre-hosts/{name}: its key opens nothing any more. Refused while it has allocations; ?dead=true,
        an operator's word that the machine is gone for good: what was ending there has ended."""
        await self._removal.remove(request.params["host"], dead=request.one("dead") == "true")
        return Reply(status=204)

    async def accept(self, request: Request) -> Any:
        """POST .../action accept: this database is right for a host that has seen a later one, or another cloud's."""
        name = request.params["host"]
        state = await self._hosts.get(name)
        if state is None:
            raise NotFound(f"Compute host {name} could not be found.")
        if not state.barred:
            raise Conflict(f"Host {name} takes this cloud's orders: there is nothing to accept.")
        await self._hosts.accept(name)
        return Reply(status=202)

    async def orphans(self, request: Request) -> Any:
        """GET /os-nacre-orphans: guests that hosts have and the database does not know."""
        return {"orphans": [_orphan(each) for each in await self._orphans.all(request.one("host"))]}

    async def adopt(self, request: Request) -> Any:
        """POST .../action adopt: the guest is a server again."""
        wish = request.body["adopt"] or {}
        done = await self._orphans.adopt(request.context, request.params["guest"], AdoptWish(
            name=wish.get("name", ""), project_id=wish.get("project_id", ""), host=wish.get("host", ""),
            named=Named(segments=tuple(wish.get("segments", ())), addresses=tuple(wish.get("addresses", ())))))
        server = done.server
        return {"adopted": {
            "server": {"id": server.id, "name": server.name, "project_id": server.project_id, "host": done.host},
            "ports": [{"id": port.id, "network_id": port.network_id, **_addresses(port)} for port in done.ports],
            "lost_security_groups": list(done.lost_groups)}}

    async def forget(self, request: Request) -> Any:
        """POST .../action forget: its host ends the guest."""
        ending = await self._orphans.forget(request.params["guest"], (request.body["forget"] or {}).get("host", ""))
        return Reply({"forgotten": {"id": ending.server_id, "allocation": ending.id, "host": ending.host}}, 202)


def _known(node: Process | None) -> dict[str, Any]:
    return {"version": node.version if node else "", "address": node.address if node else ""}


#: A host that joined and has not reported.
_UNHEARD: Mapping[str, Any] = {
    "state": "unheard", "status": "enabled", "disabled_reason": None, "barred": None, "met": False, "last_beat": None,
    "capacity": None, "used": None, "guests": None}


def _reported(state: HostState) -> dict[str, Any]:
    r = state.report
    return {
        "state": ("barred" if state.barred else "up") if state.up else "down",
        "status": "disabled" if state.disabled else "enabled", "disabled_reason": state.disabled_reason,
        "barred": state.barred or None, "met": state.met,
        "last_beat": state.updated_at.isoformat(timespec="seconds") + "Z" if state.updated_at else None,
        "capacity": {"vcpus": r.vcpus, "memory_mb": r.memory_mb, "disk_gb": r.disk_gb},
        "used": {"vcpus": r.vcpus_used, "memory_mb": r.memory_mb_used, "disk_gb": r.disk_gb_used}, "guests": r.running}


def _addresses(port: PortFacts) -> dict[str, Any]:
    return {"mac_address": port.mac_address, "addresses": [ip.ip_address for ip in port.fixed_ips]}


def _orphan(at: OrphanAt) -> dict[str, Any]:
    found, order = at.found, at.found.order
    return {
        "id": found.server_id, "allocation": found.allocation, "host": at.host, "power": found.power,
        "name": order.guest.name if order else None, "project_id": order.guest.project_id if order else None,
        "user_id": order.guest.user_id if order else None, "flavor": order.guest.flavor_name if order else None,
        "vcpus": order.vcpus if order else None, "memory_mb": order.memory_mb if order else None,
        "created_at": (order.guest.created_at or None) if order else None,
        "ports": [{"id": port.id, "project_id": port.project_id, "network_id": port.network_id,
                   "network": port.network_name, "port_security_enabled": port.port_security,
                   **_addresses(port)} for port in found.ports],
        "networks": [{"id": network.id, "name": network.name, "project_id": network.project_id,
                      "network_type": network.network_type, "physical_network": network.physical_network,
                      "segmentation_id": network.segmentation_id} for network in found.networks],
        "adoptable": not at.why, "why_not": at.why or None}
