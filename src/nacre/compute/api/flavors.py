"""/flavors: list, show, make, describe, delete; who may use them; their extra specs."""

from typing import Any

from oslo_utils.strutils import bool_from_string, is_valid_boolstr

from nacre.base.errors import BadRequest, Conflict, NotFound
from nacre.base.serving.gate import AUTHENTICATED, Gate, asks
from nacre.base.web import Reply, Request, Route
from nacre.compute.api import types as t
from nacre.compute.api.microversions import known
from nacre.compute.api.paging import limit_and_marker, links, next_link
from nacre.compute.api.validation import Query, Schema
from nacre.compute.catalog.flavors import SORT_KEYS, Flavor, FlavorQuery, Flavors, spec_of
from nacre.compute.policies import rule
from nacre.identity.contract import Identity

_DESCRIPTION = {"type": ["string", "null"], "maxLength": 65535, "format": "printable"}
_SPECS = {"type": "object", "additionalProperties": False, "patternProperties": {
    "^[a-zA-Z0-9_:. -]{1,255}$": {"type": ["string", "number"], "maxLength": 255}}}

CREATE = Schema(t.wrap("flavor", t.obj({
    "name": t.NAME,
    "id": {"type": ["string", "number", "null"], "minLength": 1, "maxLength": 255,
           "pattern": "^(?! )[a-zA-Z0-9. _-]+(?<! )$"},
    "ram": t.POSITIVE, "vcpus": t.POSITIVE, "disk": t.NOT_NEGATIVE, "OS-FLV-EXT-DATA:ephemeral": t.NOT_NEGATIVE,
    "swap": t.NOT_NEGATIVE,
    "rxtx_factor": {"type": ["number", "string"], "pattern": r"^[0-9]{1,38}(\.[0-9]+)?$", "exclusiveMinimum": 0,
                    "maximum": 3.40282e+38},
    "os-flavor-access:is_public": t.BOOLEAN, "description": _DESCRIPTION,
}, "name", "ram", "vcpus", "disk", noun="flavor.create")))
UPDATE = Schema(t.wrap("flavor", t.obj({"description": _DESCRIPTION}, "description")))
LIST = Query("flavor.query", {
    **t.PAGING, "is_public": t.STRING, "minRam": t.STRING, "minDisk": t.STRING,
    "sort_key": {"type": "string", "enum": sorted(SORT_KEYS)}, "sort_dir": {"type": "string", "enum": ["asc", "desc"]}})
ADD_SPECS = Schema(t.wrap("extra_specs", _SPECS))
PUT_SPEC = Schema({**_SPECS, "minProperties": 1, "maxProperties": 1})
_TENANT = t.obj({"tenant": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[a-zA-Z0-9-]*$"}},
                "tenant")


class FlavorRoutes:
    """The flavor part of the API."""

    def __init__(self, flavors: Flavors, identity: Identity):
        self._flavors, self._identity = flavors, identity

    def routes(self) -> list[Route]:
        """Every URL under /flavors."""
        seen, specs = (rule("os-flavor-extra-specs:index"),), "/v2.1/flavors/{flavor_id}/os-extra_specs"
        one = "/v2.1/flavors/{flavor_id}"
        return [
            Route("GET", "/v2.1/flavors", self.index, AUTHENTICATED, query=LIST),
            Route("GET", "/v2.1/flavors/detail", self.detail, Gate(AUTHENTICATED.rules, parts=seen), query=LIST),
            Route("POST", "/v2.1/flavors", self.create, asks(rule("os-flavor-manage:create"), parts=seen), body=CREATE),
            Route("GET", one, self.show, Gate(AUTHENTICATED.rules, parts=seen)),
            Route("PUT", one, self.update, asks(rule("os-flavor-manage:update"), parts=seen), body=UPDATE,
                  since=(2, 55)),
            Route("DELETE", one, self.delete, rule("os-flavor-manage:delete")),
            Route("GET", one + "/os-flavor-access", self.access, rule("os-flavor-access")),
            Route("POST", one + "/action", self.grant, rule("os-flavor-access:add_tenant_access"),
                  body=Schema(t.wrap("addTenantAccess", _TENANT)), action="addTenantAccess"),
            Route("POST", one + "/action", self.revoke, rule("os-flavor-access:remove_tenant_access"),
                  body=Schema(t.wrap("removeTenantAccess", _TENANT)), action="removeTenantAccess"),
            Route("GET", specs, self.specs, rule("os-flavor-extra-specs:index")),
            Route("POST", specs, self.add_specs, rule("os-flavor-extra-specs:create"), body=ADD_SPECS),
            Route("GET", specs + "/{key}", self.spec, rule("os-flavor-extra-specs:show")),
            Route("PUT", specs + "/{key}", self.put_spec, rule("os-flavor-extra-specs:update"), body=PUT_SPEC),
            Route("DELETE", specs + "/{key}", self.drop_spec, rule("os-flavor-extra-specs:delete")),
        ]

    async def index(self, request: Request) -> Any:
        """GET /flavors: names."""
        found, more = await self._page(request)
        return {"flavors": [_brief(request, flavor) for flavor in found], **more}

    async def detail(self, request: Request) -> Any:
        """GET /flavors/detail."""
        found, more = await self._page(request)
        specs = self._shows_specs(request)
        return {"flavors": [view(request, flavor, specs) for flavor in found], **more}

    async def show(self, request: Request) -> Any:
        """GET /flavors/{id}."""
        return self._one(request, await self._find(request))

    async def create(self, request: Request) -> Any:
        """POST /flavors."""
        given = request.body["flavor"]
        flavor = Flavor(
            id=str(given.get("id") or ""), name=given["name"].strip(), memory_mb=int(given["ram"]),
            vcpus=int(given["vcpus"]), root_gb=int(given["disk"]),
            ephemeral_gb=int(given.get("OS-FLV-EXT-DATA:ephemeral", 0)), swap_mb=int(given.get("swap", 0)),
            rxtx_factor=float(given.get("rxtx_factor", 1.0)), description=given.get("description"),
            is_public=bool_from_string(given.get("os-flavor-access:is_public", True)))
        if flavor.rxtx_factor <= 0:
            raise BadRequest("Invalid input for field/attribute rxtx_factor. Value: 0. It must be more than 0.",
                             field="rxtx_factor")
        return self._one(request, await self._flavors.create(flavor))

    async def update(self, request: Request) -> Any:
        """PUT /flavors/{id}: the description."""
        flavor = await self._flavors.describe(request.context, request.params["flavor_id"],
                                              request.body["flavor"]["description"])
        return self._one(request, flavor)

    async def delete(self, request: Request) -> Any:
        """DELETE /flavors/{id}."""
        await self._flavors.delete(request.params["flavor_id"])
        return Reply(status=202)

    async def access(self, request: Request) -> Any:
        """GET .../os-flavor-access."""
        flavor = await self._find(request)
        if flavor.is_public:
            raise NotFound("Access list not available for public flavors.")
        return _access(flavor, await self._flavors.access(flavor.id))

    async def grant(self, request: Request) -> Any:
        """Action addTenantAccess."""
        project = request.body["addTenantAccess"]["tenant"]
        if not await self._identity.project_exists(project):
            raise BadRequest(f"Project ID {project} is not a valid project.", field="tenant")
        flavor = await self._find(request)
        if flavor.is_public and request.version >= (2, 7):
            raise Conflict("Can not add access to a public flavor.")
        await self._flavors.grant(flavor.id, project)
        return _access(flavor, await self._flavors.access(flavor.id))

    async def revoke(self, request: Request) -> Any:
        """Action removeTenantAccess. The project may be gone already."""
        flavor = await self._find(request)
        await self._flavors.revoke(flavor.id, request.body["removeTenantAccess"]["tenant"])
        return _access(flavor, await self._flavors.access(flavor.id))

    async def specs(self, request: Request) -> Any:
        """GET .../os-extra_specs."""
        return {"extra_specs": (await self._find(request)).extra_specs}

    async def add_specs(self, request: Request) -> Any:
        """POST .../os-extra_specs. Answers what was sent."""
        given = request.body["extra_specs"]
        await self._flavors.add_specs(request.context, request.params["flavor_id"], _as_text(given))
        return {"extra_specs": given}

    async def spec(self, request: Request) -> Any:
        """GET .../os-extra_specs/{key}."""
        return dict([spec_of(await self._find(request), request.params["key"])])

    async def put_spec(self, request: Request) -> Any:
        """PUT .../os-extra_specs/{key}."""
        if request.params["key"] not in request.body:
            raise BadRequest("Request body and URI mismatch")
        await self._flavors.add_specs(request.context, request.params["flavor_id"], _as_text(request.body))
        return request.body

    async def drop_spec(self, request: Request) -> Any:
        """DELETE .../os-extra_specs/{key}."""
        await self._flavors.drop_spec(request.context, request.params["flavor_id"], request.params["key"])
        return None

    async def _find(self, request: Request) -> Flavor:
        return await self._flavors.get(request.context, request.params["flavor_id"])

    def _shows_specs(self, request: Request) -> bool:
        return known("flavor.extra_specs", request.version) and request.allows(
            rule("os-flavor-extra-specs:index"))

    def _one(self, request: Request, flavor: Flavor) -> Any:
        return {"flavor": view(request, flavor, self._shows_specs(request))}

    async def _page(self, request: Request) -> tuple[list[Flavor], dict[str, Any]]:
        limit, marker = limit_and_marker(request)
        found = await self._flavors.search(request.context, FlavorQuery(
            public=_is_public(request), min_memory_mb=_number(request, "minRam"),
            min_root_gb=_number(request, "minDisk"), sort_key=request.one("sort_key") or "flavorid",
            descending=request.one("sort_dir") == "desc", limit=limit, marker=marker))
        more = next_link(request, found, found[-1].id if found else "", limit)
        return found, {"flavors_links": more} if more else {}


def _access(flavor: Flavor, projects: tuple[str, ...]) -> dict[str, Any]:
    return {"flavor_access": [{"flavor_id": flavor.id, "tenant_id": project} for project in projects]}


def _as_text(specs: dict[str, Any]) -> dict[str, str]:
    text = {key: str(value) for key, value in specs.items()}
    for key, value in text.items():
        if len(value) > 255:
            raise BadRequest(f"extra_specs value has {len(value)} characters, more than 255.", field=key)
    return text


def _number(request: Request, name: str) -> int | None:
    text = request.one(name)
    if text is None:
        return None
    if not text.lstrip("-").isdigit() or not text.isascii() or len(text) > 10:
        raise BadRequest(f"Invalid {name} filter [{text}]", field=name)
    return min(int(text), t.MAX_INT)


def _is_public(request: Request) -> bool | None:
    text = request.one("is_public")
    if text is None or not request.context.is_admin:
        return True
    if text.lower() == "none":
        return None
    if not is_valid_boolstr(text):
        raise BadRequest(f"Invalid is_public filter [{text}]", field="is_public")
    return bool(bool_from_string(text))


def _brief(request: Request, flavor: Flavor) -> dict[str, Any]:
    found: dict[str, Any] = {"id": flavor.id, "name": flavor.name, "links": links(request, "flavors", flavor.id)}
    if known("flavor.description", request.version):
        found["description"] = flavor.description
    return found


def view(request: Request, flavor: Flavor, specs: bool) -> dict[str, Any]:
    """A flavor as clients of the request's version know it."""
    version = request.version
    found = _brief(request, flavor) | {
        "ram": flavor.memory_mb, "disk": flavor.root_gb, "vcpus": flavor.vcpus,
        "swap": flavor.swap_mb or (0 if known("flavor.swap_is_number", version) else ""),
        "OS-FLV-EXT-DATA:ephemeral": flavor.ephemeral_gb, "OS-FLV-DISABLED:disabled": False,
        "os-flavor-access:is_public": flavor.is_public}
    if known("flavor.rxtx_factor", version):
        found["rxtx_factor"] = flavor.rxtx_factor
    if specs:
        found["extra_specs"] = flavor.extra_specs
    return found
