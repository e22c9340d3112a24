"""/os-aggregates: named sets of hosts, and the availability zones among them."""

import re
from collections.abc import Awaitable, Callable
from typing import Any

from nacre.base.errors import BadRequest, NotBuilt, NotFound
from nacre.base.web import Request, Route
from nacre.compute.api import types as t
from nacre.compute.api.microversions import known
from nacre.compute.api.validation import Schema
from nacre.compute.catalog.aggregates import Aggregate, Aggregates
from nacre.compute.policies import rule

_ZONE = {"oneOf": [t.AZ_NAME, {"type": "null"}]}
CREATE = Schema(t.wrap("aggregate", t.obj({"name": t.NAME, "availability_zone": _ZONE}, "name")))
UPDATE = Schema(t.wrap("aggregate", {**t.obj({"name": t.SPACED_NAME, "availability_zone": _ZONE}),
                                     "anyOf": [{"required": ["name"]}, {"required": ["availability_zone"]}]}))
_HOST = t.obj({"host": t.FQDN}, "host")
METADATA = Schema(t.wrap("set_metadata", t.obj({"metadata": t.METADATA_OR_NULL}, "metadata")))
IMAGES = Schema(t.wrap("cache", {"type": "array", "minItems": 1, "items": t.obj({"id": t.UUID}, "id")}))

#: The names of the compute hosts there are.
HostNames = Callable[[], Awaitable[set[str]]]


class AggregateRoutes:
    """The aggregate part of the API."""

    def __init__(self, aggregates: Aggregates, hosts: HostNames):
        self._aggregates, self._hosts = aggregates, hosts

    def routes(self) -> list[Route]:
        """Every URL under /os-aggregates."""
        many, one, name = "/v2.1/os-aggregates", "/v2.1/os-aggregates/{aggregate_id}", "os-aggregates:"
        return [
            Route("GET", many, self.index, rule(name + "index")),
            Route("POST", many, self.create, rule(name + "create"), body=CREATE),
            Route("GET", one, self.show, rule(name + "show")),
            Route("PUT", one, self.update, rule(name + "update"), body=UPDATE),
            Route("DELETE", one, self.delete, rule(name + "delete")),
            Route("POST", one + "/action", self.add_host, rule(name + "add_host"),
                  body=Schema(t.wrap("add_host", _HOST)), action="add_host"),
            Route("POST", one + "/action", self.remove_host, rule(name + "remove_host"),
                  body=Schema(t.wrap("remove_host", _HOST)), action="remove_host"),
            Route("POST", one + "/action", self.set_metadata, rule(name + "set_metadata"), body=METADATA,
                  action="set_metadata"),
            Route("POST", one + "/images", self.images, "compute:aggregates:images", body=IMAGES, since=(2, 81)),
        ]

    async def index(self, request: Request) -> Any:
        """GET /os-aggregates."""
        return {"aggregates": [view(request, a) for a in await self._aggregates.all()]}

    async def create(self, request: Request) -> Any:
        """POST /os-aggregates. The answer has no hosts and no metadata yet."""
        given = request.body["aggregate"]
        zone = given.get("availability_zone")
        made = view(request, await self._aggregates.create(given["name"].strip(), zone.strip() if zone else None))
        return {"aggregate": {k: v for k, v in made.items() if k not in ("hosts", "metadata")}}

    async def show(self, request: Request) -> Any:
        """GET /os-aggregates/{id}."""
        return self._one(request, await self._aggregates.get(_id(request)))

    async def update(self, request: Request) -> Any:
        """PUT /os-aggregates/{id}: name, zone."""
        given = request.body["aggregate"]
        zone = {"availability_zone": given["availability_zone"]} if "availability_zone" in given else {}
        name = given["name"].strip() if "name" in given else None
        return self._one(request, await self._aggregates.update(_id(request), name, zone))

    async def delete(self, request: Request) -> Any:
        """DELETE /os-aggregates/{id}."""
        await self._aggregates.delete(_id(request))
        return None

    async def add_host(self, request: Request) -> Any:
        """Action add_host."""
        ident, host = _id(request), request.body["add_host"]["host"]
        if host not in await self._hosts():
            raise NotFound(f"Compute host {host} could not be found.")
        return self._one(request, await self._aggregates.add_host(ident, host))

    async def remove_host(self, request: Request) -> Any:
        """Action remove_host."""
        return self._one(request, await self._aggregates.remove_host(
            _id(request), request.body["remove_host"]["host"]))

    async def set_metadata(self, request: Request) -> Any:
        """Action set_metadata: a null takes a key away."""
        return self._one(request, await self._aggregates.update(
            _id(request), None, request.body["set_metadata"]["metadata"]))

    async def images(self, request: Request) -> Any:
        """POST .../images: fetch images ahead of time."""
        await self._aggregates.get(_id(request))
        raise NotBuilt("Nacre does not fetch images ahead of time; hosts fetch and keep them at first use.")

    def _one(self, request: Request, aggregate: Aggregate) -> Any:
        return {"aggregate": view(request, aggregate)}


def _id(request: Request) -> int:
    text = request.params["aggregate_id"]
    if not re.fullmatch("-?[0-9]+", text):
        raise BadRequest("Invalid input received: id must be an integer", field="id")
    if len(text) > 10 or not 0 <= int(text) <= t.MAX_INT:
        raise NotFound(f"Aggregate {text[:40]} could not be found.")
    return int(text)


def view(request: Request, aggregate: Aggregate) -> dict[str, Any]:
    """An aggregate as clients of the request's version know it."""
    found: dict[str, Any] = {
        "id": aggregate.id, "name": aggregate.name, "availability_zone": aggregate.zone,
        "hosts": list(aggregate.hosts), "metadata": aggregate.metadata,
        "created_at": aggregate.created_at.isoformat(),
        "updated_at": aggregate.updated_at.isoformat() if aggregate.updated_at else None,
        "deleted": False, "deleted_at": None}
    if known("aggregate.uuid", request.version):
        found["uuid"] = aggregate.uuid
    return found
