"""/servers: create, list, show, change, delete."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec
import re2
from oslo_utils.strutils import bool_from_string

from nacre.base.errors import BadRequest
from nacre.base.serving.gate import Gate, Subject, asks
from nacre.base.web import Reply, Request, Route
from nacre.compute.api.microversions import known
from nacre.compute.api.paging import next_link
from nacre.compute.api.servers import schemas
from nacre.compute.api.servers.finding import Finder, unlocked
from nacre.compute.api.servers.limits import Limits
from nacre.compute.api.servers.lists import parse
from nacre.compute.api.servers.parse import ADMIN_HINTS, HINT_NAMES, hints_of, ipv6, spec_of
from nacre.compute.api.servers.views import Lens, brief, detail, server_links
from nacre.compute.catalog.aggregates import DEFAULT_ZONE, Aggregates
from nacre.compute.contract import Server, ServerQuery, ServerSpec
from nacre.compute.policies import rule
from nacre.compute.servers import Servers
from nacre.network.contract import Network
from nacre.scheduler.contract import Hosts, HostState, Scheduler

_CHANGES = {"name": "name", "description": "description", "hostname": "hostname", "accessIPv4": "access_ip_v4",
            "accessIPv6": "access_ip_v6", "OS-DCF:diskConfig": "disk_config",
            "pinned_availability_zone": "pinned_zone"}


class ServerRoutes:
    """The part of the API about servers themselves."""

    def __init__(self, servers: Servers, network: Network, hosts: "HostFacts", limits: Limits):
        self._servers, self._network, self._hosts, self._limits = servers, network, hosts, limits
        self._find = Finder(servers)

    def routes(self) -> list[Route]:
        """Every URL of servers themselves."""
        one, may = "/v2.1/servers/{server_id}", self._find.may
        listed, shown = ("servers:allow_all_filters",), (
            "servers:show:host_status", "os-extended-server-attributes", "servers:show:flavor-extra-specs")

        def lists(verb: str, *parts: str) -> Gate:
            return asks(rule(f"servers:{verb}"), parts=tuple(map(rule, (
                f"servers:{verb}:get_all_tenants", *listed, *parts))))

        return [
            Route("GET", "/v2.1/servers", self.index, lists("index"), query=schemas.LIST),
            Route("GET", "/v2.1/servers/detail", self.detail, lists("detail", *shown), query=schemas.LIST),
            Route("POST", "/v2.1/servers", self.create, asks(
                rule("servers:create"), about=self._wished, parts=(*(wish for wish, _ in WISHES), *LATER)),
                body=self._create_body),
            Route("GET", one, self.show, may("servers:show", parts=shown)),
            Route("PUT", one, self.update, may("servers:update", parts=shown), body=schemas.UPDATE),
            Route("DELETE", one, self.delete, may("servers:delete")),
        ]

    async def index(self, request: Request) -> Any:
        """GET /servers."""
        found, limit = await self._search(request, "index")
        lens = Lens(request.version, request.service_url)
        return _page(request, [brief(server, lens) for server in found], limit)

    async def detail(self, request: Request) -> Any:
        """GET /servers/detail: one query for the servers, one for all their ports."""
        found, limit = await self._search(request, "detail")
        return _page(request, await self.views(request, found), limit)

    async def show(self, request: Request) -> Any:
        """GET /servers/{id}."""
        server: Server = request.found
        return {"server": (await self.views(request, [server], groups=True))[0]}

    async def create(self, request: Request) -> Any:
        """POST /servers. A batch answers with all its servers."""
        body = request.body
        batch = body.get("servers")
        specs: tuple[ServerSpec, ...] = request.found
        for spec in specs:
            await self._hosts.check(spec)
        made = await self._servers.create(request.context, specs)
        if batch is not None:
            return Reply({"servers": _batch(request, specs, made), "reservation_id": made[0].reservation_id}, 202)
        if bool_from_string(body["server"].get("return_reservation_id", False)):
            return Reply({"reservation_id": made[0].reservation_id}, 202)
        shown = _created(request, specs[0], made[0])
        if "security_groups" not in shown:
            shown["security_groups"] = [{"name": "default"}]
        return Reply({"server": shown}, 202, {"location": shown["links"][0]["href"]})

    async def update(self, request: Request) -> Any:
        """PUT /servers/{id}."""
        server = unlocked(request)
        given = request.body["server"]
        changes = {_CHANGES[name]: value.strip() if name == "name" else value for name, value in given.items()}
        if changes.get("access_ip_v4") == "":
            changes["access_ip_v4"] = None
        if "access_ip_v6" in changes:
            changes["access_ip_v6"] = ipv6(changes["access_ip_v6"])
        if (zone := changes.get("pinned_zone")) and zone != await self._hosts.zone_of(server):
            raise BadRequest(f"The server is not in availability zone {zone}.", field="pinned_availability_zone")
        changed = await self._servers.update(server.id, lambda now: changes) if changes else server
        shown = (await self.views(request, [changed], groups=True))[0]
        return {"server": shown if known("server.whole_on_update", request.version) else _old_update(request, shown)}

    async def delete(self, request: Request) -> Any:
        """DELETE /servers/{id}."""
        await self._servers.delete(request.context, unlocked(request))
        return Reply(status=204)

    async def views(self, request: Request, servers: Sequence[Server], groups: bool = False) -> list[dict[str, Any]]:
        """The servers in full. groups: with their server groups, which lists do not show."""
        if not servers:
            return []
        ports = await self._network.ports_of(tuple(server.id for server in servers))
        lens = await self._lens(request, {server.host for server in servers}, {
            group for facts in ports.values() for port in facts for group in port.security_groups})
        found = [detail(server, ports.get(server.id, ()), lens) for server in servers]
        if not groups:
            for shown in found:
                shown.pop("server_groups", None)
        return found

    async def _lens(self, request: Request, hosts: set[str], group_ids: set[str]) -> Lens:
        context, version = request.context, request.version
        status = known("server.host_status", version) and request.allows(rule("servers:show:host_status"))
        return Lens(
            version, request.service_url,
            admin=request.allows(rule("os-extended-server-attributes")),
            flavor_specs=known("server.embedded_flavor", version) and request.allows(
                rule("servers:show:flavor-extra-specs")),
            host_status=status, faults=context.is_admin, zones=await self._hosts.zones(),
            hosts=await self._hosts.statuses(hosts) if status else {},
            group_names=await self._network.group_names(tuple(sorted(group_ids))) if group_ids else {})

    async def _search(self, request: Request, verb: str) -> tuple[Sequence[Server], int]:
        query = parse(request, verb)
        if query is None or query.limit == 0:
            return [], 0
        if query.addresses:
            found = await _with_addresses(self._servers, self._network, query)
            return found[:query.limit], query.limit
        return await self._servers.search(query), query.limit

    def _create_body(self, request: Request, body: Any) -> Any:
        """One server, or a batch of different ones (`{"servers": [...]}`)."""
        self._limits.check_body(body)
        batch = isinstance(body, dict) and "servers" in body
        return (schemas.CREATE_BATCH if batch else schemas.CREATE)(request, body)

    async def _wished(self, request: Request) -> Subject:
        """What a body asks for, and the rules of the parts that not everybody may. Raises BadRequest."""
        context, shared, body = request.context, hints_of(request.body), request.body
        me = {"project_id": context.project_id, "user_id": context.user_id}
        specs, more = [], dict[str, None]()
        for item in body["servers"] if "servers" in body else [body["server"]]:
            hints = {**shared, **hints_of(item)}
            plain = {name: value for name, value in item.items() if name not in HINT_NAMES}
            spec = spec_of(plain, hints, request.version)
            more |= {wish: None for wish, is_asked in WISHES if is_asked(spec, item, hints)}
            specs.append(spec)
        return Subject(me, tuple(specs), more=tuple((wish, me) for wish in more))


def _names_host(item: Mapping[str, Any]) -> bool:
    return bool(item.get("host") or item.get("hypervisor_hostname"))


#: What a new server may ask for by a rule of its own: (spec, the body's item, hints) -> whether this one does.
WISHES: tuple[tuple[str, Callable[[ServerSpec, Mapping[str, Any], Mapping[str, Any]], bool]], ...] = (
    ("compute:servers:create:requested_destination", lambda spec, item, _: bool(spec.host) and _names_host(item)),
    (rule("servers:create:forced_host"), lambda spec, item, hints: (bool(spec.host) and not _names_host(item))
     or any(name in hints for name in ADMIN_HINTS)),
    (rule("servers:create:attach_network"), lambda spec, *_: bool(spec.networks)),
    (rule("servers:create:trusted_certs"), lambda spec, *_: bool(spec.trusted_certs)))
#: Asked where a flavor and the networks are looked at.
LATER = (rule("servers:create:zero_disk_flavor"), "network:attach_external_network")


class HostFacts:
    """What server views say of hosts: zones and whether they answer. One read each, asked for once an answer."""

    def __init__(self, scheduler: Scheduler, hosts: Hosts, aggregates: Aggregates):
        self._scheduler, self._hosts, self._aggregates = scheduler, hosts, aggregates

    async def check(self, spec: ServerSpec) -> None:
        """Raises BadRequest: a hint that the scheduler could not read, a zone without a host that takes servers."""
        if isinstance(query := spec.hints.get("query"), str):
            await self._scheduler.check(query)
        if spec.availability_zone and not spec.host:
            zones, hosts = await self.zones(), await self._hosts.all()
            open_ = {zones.get(host.report.host, DEFAULT_ZONE) for host in hosts if not host.disabled}
            if spec.availability_zone not in (open_ if hosts else {DEFAULT_ZONE}):
                raise BadRequest("The requested availability zone is not available", field="availability_zone")

    async def zones(self) -> dict[str, str]:
        """Host -> zone, but for the default zone."""
        return await self._aggregates.zones()

    async def zone_of(self, server: Server) -> str:
        """The zone a server runs in."""
        return (await self.zones()).get(server.host, DEFAULT_ZONE)

    async def statuses(self, names: Collection[str]) -> dict[str, str]:
        """Of those of these hosts that are known: UP, DOWN, MAINTENANCE or UNKNOWN."""
        return {name: _status(host) for name in names if (host := await self._hosts.get(name)) is not None}


async def _with_addresses(servers: Servers, network: Network, query: ServerQuery) -> list[Server]:
    """Servers of `query` with an address that contains a match of each of its patterns."""
    found = await servers.search(msgspec.structs.replace(query, limit=1 << 31))
    ports = await network.ports_of(tuple(server.id for server in found))
    patterns = [(version, re2.compile(pattern)) for version, pattern in query.addresses]
    return [server for server in found if all(
        any((6 if ":" in fixed.ip_address else 4) == version and pattern.search(fixed.ip_address)
            for port in ports.get(server.id, ()) for fixed in port.fixed_ips)
        for version, pattern in patterns)]


def _status(host: HostState) -> str:
    if host.forced_down:
        return "DOWN"
    if not host.up:
        return "UNKNOWN"
    return "MAINTENANCE" if host.disabled else "UP"


def _page(request: Request, shown: list[dict[str, Any]], limit: int) -> dict[str, Any]:
    answer: dict[str, Any] = {"servers": shown}
    if shown and (more := next_link(request, shown, shown[-1]["id"], limit)):
        answer["servers_links"] = more
    return answer


def _created(request: Request, spec: ServerSpec, server: Server) -> dict[str, Any]:
    """What a create answers of one server: the only time its password is seen."""
    found = {"id": server.id, "links": server_links(request.service_url, server.id),
             "OS-DCF:diskConfig": server.disk_config, "adminPass": spec.admin_password}
    if spec.security_groups:
        found["security_groups"] = [{"name": name} for name in spec.security_groups]
    return found


def _batch(request: Request, specs: Sequence[ServerSpec], made: Sequence[Server]) -> list[dict[str, Any]]:
    """The servers of a batch, in the order of their specs; a spec may have made several."""
    found, rest = [], list(made)
    for spec in specs:
        mine, rest = rest[:spec.max_count], rest[spec.max_count:]
        found += [_created(request, spec, server) | {"name": server.name} for server in mine]
    return found


_ONLY_LATER = ("OS-EXT-", "OS-SRV-USG:", "os-extended-volumes:", "config_drive", "key_name", "security_groups",
               "host_status", "server_groups")


def _old_update(request: Request, shown: dict[str, Any]) -> dict[str, Any]:
    """Before 2.75 the answer of an update had no extended fields."""
    return {name: value for name, value in shown.items() if not name.startswith(_ONLY_LATER)}
