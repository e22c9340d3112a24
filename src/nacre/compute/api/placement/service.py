"""The placement API as one `Service`, under /placement."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import format_datetime
from typing import Any

from oslo_utils.uuidutils import is_uuid_like

from nacre.base.clock import Clock
from nacre.base.errors import BadRequest, NotBuilt, NotFound
from nacre.base.serving.gate import PUBLIC, Gate, Subject, asks
from nacre.base.web import Handler, Reply, Request, Route, Service, Version
from nacre.compute.allocations import Ledger
from nacre.compute.api.placement import candidates, queries
from nacre.compute.api.placement import providers as p
from nacre.compute.api.placement.providers import CLASSES, Provider
from nacre.compute.api.placement.wire import MAXIMUM, MINIMUM, Microversions, fault, text
from nacre.compute.catalog.aggregates import Aggregates
from nacre.compute.servers import Servers
from nacre.scheduler.contract import Hosts

PREFIX = "/placement"
_RP = "/resource_providers"
_ONE = _RP + "/{uuid}"

#: What is placement's to write elsewhere: (method, path, policy, first version).
NOT_BUILT: tuple[tuple[str, str, str, int], ...] = (
    ("POST", _RP, "resource_providers:create", 0), ("PUT", _ONE, "resource_providers:update", 0),
    ("DELETE", _ONE, "resource_providers:delete", 0),
    ("POST", _ONE + "/inventories", "resource_providers:inventories:create", 0),
    ("PUT", _ONE + "/inventories", "resource_providers:inventories:update", 0),
    ("DELETE", _ONE + "/inventories", "resource_providers:inventories:delete", 5),
    ("PUT", _ONE + "/inventories/{name}", "resource_providers:inventories:update", 0),
    ("DELETE", _ONE + "/inventories/{name}", "resource_providers:inventories:delete", 0),
    ("PUT", _ONE + "/aggregates", "resource_providers:aggregates:update", 1),
    ("PUT", _ONE + "/traits", "resource_providers:traits:update", 6),
    ("DELETE", _ONE + "/traits", "resource_providers:traits:delete", 6),
    ("POST", "/allocations", "allocations:manage", 13), ("PUT", "/allocations/{uuid}", "allocations:update", 0),
    ("DELETE", "/allocations/{uuid}", "allocations:delete", 0),
    ("POST", "/resource_classes", "resource_classes:create", 2),
    ("PUT", "/resource_classes/{name}", "resource_classes:update", 2),
    ("DELETE", "/resource_classes/{name}", "resource_classes:delete", 2),
    ("PUT", "/traits/{name}", "traits:update", 6), ("DELETE", "/traits/{name}", "traits:delete", 6),
    ("POST", "/reshaper", "reshaper:reshape", 30))


class CandidateThreads:
    """Questions for candidates have threads of their own: among very many hosts one takes long, and nothing but others
    like it (no password, nor the loop) is to wait for that."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(1, "candidates")

    async def find(self, wanted: candidates.Wish, every: Sequence[Provider], version: Version) -> dict[str, Any]:
        """The answer."""
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, candidates.candidates, wanted, every, version)

    async def close(self) -> None:
        """No more are begun."""
        self._threads.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class PlacementDeps:
    """What the API speaks for."""

    hosts: Hosts
    ledger: Ledger
    servers: Servers
    aggregates: Aggregates
    clock: Clock
    threads: CandidateThreads


def service(deps: PlacementDeps) -> Service:
    """The service to put into `App`."""
    return Service("placement", PREFIX, PlacementRoutes(deps).routes(), fault, Microversions())


class PlacementRoutes:
    """What may be asked."""

    def __init__(self, deps: PlacementDeps):
        self._deps = deps

    def routes(self) -> list[Route]:
        """Every URL."""
        def get(path: str, handler: Handler, policy: str | Gate, since: int = 0) -> Route:
            asked = policy if isinstance(policy, Gate) else asks(f"placement:{policy}")
            return Route("GET", path, _dated(handler, self._deps.clock), asked, since=(1, since))

        return [
            Route("GET", "/", self.versions, PUBLIC),
            get(_RP, self.providers, "resource_providers:list"), get(_ONE, self.provider, "resource_providers:show"),
            get(_ONE + "/inventories", self.inventories, "resource_providers:inventories:list"),
            get(_ONE + "/inventories/{name}", self.inventory, "resource_providers:inventories:show"),
            get(_ONE + "/usages", self.usages, "resource_providers:usages"),
            get(_ONE + "/aggregates", self.aggregates, "resource_providers:aggregates:list", 1),
            get(_ONE + "/traits", self.traits_of, "resource_providers:traits:list", 6),
            get(_ONE + "/allocations", self.allocations_of, "resource_providers:allocations:list"),
            get("/allocations/{uuid}", self.allocations, "allocations:list"),
            get("/allocation_candidates", self.candidates, "allocation_candidates:list", 10),
            get("/usages", self.total_usages, asks("placement:usages", about=_whose), 9),
            get("/resource_classes", self.classes, "resource_classes:list", 2),
            get("/resource_classes/{name}", self.a_class, "resource_classes:show", 2),
            get("/traits", self.traits, "traits:list", 6), get("/traits/{name}", self.trait, "traits:show", 6),
            *(Route(method, path, _not_built, f"placement:{policy}", since=(1, minor))
              for method, path, policy, minor in NOT_BUILT)]

    async def versions(self, request: Request) -> Any:
        """GET /."""
        return {"versions": [{"id": "v" + text(MINIMUM), "min_version": text(MINIMUM), "max_version": text(MAXIMUM),
                              "status": "CURRENT", "links": [{"rel": "self", "href": ""}]}]}

    async def providers(self, request: Request) -> Any:
        """GET /resource_providers."""
        wanted = _wanted(request)
        return {"resource_providers": [_view(request, one) for one in await self._all() if p.fits(one, wanted)]}

    async def provider(self, request: Request) -> Any:
        """GET /resource_providers/{uuid}."""
        return _view(request, await self._one(request))

    async def inventories(self, request: Request) -> Any:
        """GET .../inventories."""
        one = await self._one(request)
        return {"inventories": one.inventories, "resource_provider_generation": one.generation}

    async def inventory(self, request: Request) -> Any:
        """GET .../inventories/{class}."""
        one, name = await self._one(request), request.params["name"]
        if name not in one.inventories:
            raise NotFound(f"No inventory of class {name} for {one.uuid}")
        return {**one.inventories[name], "resource_provider_generation": one.generation}

    async def usages(self, request: Request) -> Any:
        """GET .../usages."""
        one = await self._one(request)
        return {"usages": one.usages, "resource_provider_generation": one.generation}

    async def aggregates(self, request: Request) -> Any:
        """GET .../aggregates."""
        one = await self._one(request)
        more = {"resource_provider_generation": one.generation} if request.version >= (1, 19) else {}
        return {"aggregates": list(one.aggregates), **more}

    async def traits_of(self, request: Request) -> Any:
        """GET .../traits."""
        one = await self._one(request)
        return {"traits": sorted(one.traits), "resource_provider_generation": one.generation}

    async def allocations_of(self, request: Request) -> Any:
        """GET .../allocations: by server."""
        one, found = await self._one(request), dict[str, Any]()
        for each in one.allocations:
            taken = found.setdefault(each.server_id, {"resources": {}})["resources"]
            for name, amount in p.resources(each.amounts).items():
                taken[name] = taken.get(name, 0) + amount
            if request.version >= (1, 28):
                found[each.server_id]["consumer_generation"] = each.epoch
        return {"allocations": found, "resource_provider_generation": one.generation}

    async def allocations(self, request: Request) -> Any:
        """GET /allocations/{server}: by host. Empty for what has none."""
        ident, found = request.params["uuid"], dict[str, Any]()
        mine = await self._deps.ledger.of_server(ident)
        known = {one.name: one for one in await self._all({each.host for each in mine})}
        for each in mine:
            if each.host in known:
                one = known[each.host]
                found[one.uuid] = {"resources": p.resources(each.amounts), "generation": one.generation}
        answer: dict[str, Any] = {"allocations": found}
        if found and request.version >= (1, 12):
            server = await self._deps.servers.get(ident, deleted=True)
            answer |= {"project_id": server.project_id, "user_id": server.user_id}
            if request.version >= (1, 28):
                answer["consumer_generation"] = mine[0].epoch
            if request.version >= (1, 38):
                answer["consumer_type"] = "INSTANCE"
        return answer

    async def candidates(self, request: Request) -> Any:
        """GET /allocation_candidates."""
        wanted, every = candidates.wish(request.query, request.version), await self._all()
        if strange := wanted.traits.difference(p.traits(every)):
            raise BadRequest(f"No such trait(s): {', '.join(sorted(strange))[:255]}.", field="required")
        return await self._deps.threads.find(wanted, every, request.version)

    async def total_usages(self, request: Request) -> Any:
        """GET /usages: a project's, or those of one of its users."""
        project, user, kind = request.found, request.one("user_id"), request.one("consumer_type")
        found, count = await self._deps.ledger.of_project(project, user)
        sums = {name: amount for name, amount in p.total(found).items() if amount}
        if request.version < (1, 38):
            return {"usages": sums}
        shown = {"all" if kind == "all" else "INSTANCE": {**sums, "consumer_count": count}}
        return {"usages": shown if count and kind in (None, "all", "INSTANCE") else {}}

    async def classes(self, request: Request) -> Any:
        """GET /resource_classes."""
        return {"resource_classes": [_class(name) for name in CLASSES]}

    async def a_class(self, request: Request) -> Any:
        """GET /resource_classes/{name}."""
        if (name := request.params["name"]) not in CLASSES:
            raise NotFound(f"No such resource class {name}.")
        return _class(name)

    async def traits(self, request: Request) -> Any:
        """GET /traits."""
        flag, name = (request.one("associated") or "").lower(), request.one("name")
        if flag not in ("", "true", "false"):
            raise BadRequest('The query parameter "associated" only accepts "true" or "false"', field="associated")
        found = p.traits(await self._all(), associated=None if not flag else flag == "true")
        if name is not None:
            how, _, what = name.partition(":")
            if how == "startswith" and what:
                found = [trait for trait in found if trait.startswith(what)]
            elif how == "in" and what:
                found = [trait for trait in found if trait in what.split(",")]
            else:
                raise BadRequest(f"Badly formatted name parameter. Expected name query string parameter in form: "
                                 f"?name=[in|startswith]:[name1,name2|prefix]. Got: \"{name[:255]}\"", field="name")
        return {"traits": found}

    async def trait(self, request: Request) -> Any:
        """GET /traits/{name}."""
        if (name := request.params["name"]) not in p.traits(await self._all()):
            raise NotFound(f"No such trait {name}.")
        return Reply(status=204)

    async def _all(self, names: Iterable[str] | None = None) -> list[Provider]:
        """Every provider, or those of these hosts, in the order of their names."""
        hosts = [host for host in await self._deps.hosts.all() if host.uuid and (
            names is None or host.report.host in names)]
        taken = await self._deps.ledger.on_hosts([host.report.host for host in hosts])
        every = await self._deps.aggregates.all()
        return [p.provider(host, taken.get(host.report.host, ()),
                           [each.uuid for each in every if host.report.host in each.hosts])
                for host in sorted(hosts, key=lambda host: host.report.host)]

    async def _one(self, request: Request) -> Provider:
        ident = request.params["uuid"]
        names = [host.report.host for host in await self._deps.hosts.all() if host.uuid == ident]
        if not names:
            raise NotFound(f"No resource provider with uuid {ident} found")
        return (await self._all(names))[0]


def _dated(handler: Handler, clock: Clock) -> Handler:
    """From 1.15 on answers say of when they are, and that they are not to be kept."""
    async def dated(request: Request) -> Reply:
        found = await handler(request)
        reply = found if isinstance(found, Reply) else Reply(found)
        if request.version >= (1, 15):
            reply.headers |= {"cache-control": "no-cache", "last-modified": format_datetime(
                clock.now().replace(microsecond=0), usegmt=True)}
        return reply

    dated.__doc__ = handler.__doc__
    return dated


async def _not_built(_: Request) -> Any:
    """What is written elsewhere."""
    raise NotBuilt("Nacre's placement is read only: hosts report what they have, and the scheduler writes who has what "
                   "of it.")


async def _whose(request: Request) -> Subject:
    """Whose usage. Raises BadRequest."""
    project = request.one("project_id")
    allowed = {"project_id", "user_id", *(("consumer_type",) if request.version >= (1, 38) else ())}
    if not project or {name for name, _ in request.query} - allowed:
        raise BadRequest("Invalid query string parameters: project_id is required, user_id"
                         f"{' and consumer_type' if 'consumer_type' in allowed else ''} may be given",
                         field="project_id")
    return Subject({"project_id": project}, project)


#: rel of a provider's links -> the first version that has it.
_LINKS: Mapping[str, Version] = {"inventories": (1, 0), "usages": (1, 0), "aggregates": (1, 1), "traits": (1, 6),
                                 "allocations": (1, 11)}


def _view(request: Request, one: Provider) -> dict[str, Any]:
    url = f"{PREFIX}{_RP}/{one.uuid}"
    found: dict[str, Any] = {
        "uuid": one.uuid, "name": one.name, "generation": one.generation, "links": [
            {"rel": "self", "href": url}, *({"rel": rel, "href": f"{url}/{rel}"} for rel, since in _LINKS.items()
                                            if request.version >= since)]}
    if request.version >= (1, 14):
        found |= {"parent_provider_uuid": None, "root_provider_uuid": one.uuid}
    return found


def _class(name: str) -> dict[str, Any]:
    return {"name": name, "links": [{"rel": "self", "href": f"{PREFIX}/resource_classes/{name}"}]}


def _wanted(request: Request) -> dict[str, Any]:
    """What a list asks for, for `providers.fits`. Raises BadRequest."""
    found = queries.group(request.query, request.version)
    for name, value in request.query:
        if name not in _SINCE or request.version < _SINCE[name]:
            raise BadRequest(f"Invalid query string parameters: {name[:64]!r} is not known", field=name[:64])
        if name in ("name", "uuid"):
            if name == "uuid" and not is_uuid_like(value):
                raise BadRequest(f"Invalid query string parameters: {value[:64]!r} is not a 'uuid'", field=name)
            found[name] = value
    return found


#: What a list of providers may ask -> the first version that has it.
_SINCE: Mapping[str, Version] = {"name": (1, 0), "uuid": (1, 0), "member_of": (1, 3), "resources": (1, 4),
                                 "in_tree": (1, 14), "required": (1, 18)}
