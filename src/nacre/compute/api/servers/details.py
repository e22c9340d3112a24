"""What belongs to one server: metadata, tags, addresses, interfaces, security groups."""

from collections.abc import Callable
from typing import Any

from nacre.base.errors import BadRequest, NotBuilt, NotFound, QuotaExceeded
from nacre.base.serving.gate import Gate
from nacre.base.web import Reply, Request, Route
from nacre.compute.api import types as t
from nacre.compute.api.microversions import known
from nacre.compute.api.servers import schemas
from nacre.compute.api.servers.finding import Finder, unlocked
from nacre.compute.api.servers.views import plain_addresses
from nacre.compute.api.validation import Schema
from nacre.compute.catalog.quotas import Quotas
from nacre.compute.contract import Server
from nacre.compute.servers import Servers
from nacre.network.contract import Network, PortFacts

MAX_TAGS = 50
_ONE = "/v2.1/servers/{server_id}"
_TAG = Schema(t.wrap("tag", t.TAG))


class MetadataRoutes:
    """/servers/{id}/metadata."""

    def __init__(self, servers: Servers, quotas: Quotas):
        self._servers, self._quotas, self._find = servers, quotas, Finder(servers)

    def routes(self) -> list[Route]:
        """Every URL of metadata."""
        many, one = _ONE + "/metadata", _ONE + "/metadata/{key}"

        def may(verb: str) -> Gate:
            return self._find.may(f"server-metadata:{verb}")

        return [
            Route("GET", many, self.index, may("index")),
            Route("POST", many, self.merge, may("create"), body=schemas.METADATA),
            Route("PUT", many, self.replace, may("update_all"), body=schemas.METADATA),
            Route("GET", one, self.show, may("show")),
            Route("PUT", one, self.put, may("update"), body=schemas.ONE_METADATA),
            Route("DELETE", one, self.delete, may("delete")),
        ]

    async def index(self, request: Request) -> Any:
        """GET .../metadata."""
        return {"metadata": request.found.metadata}

    async def merge(self, request: Request) -> Any:
        """POST .../metadata: sets these keys, leaves the others."""
        server = unlocked(request)
        return {"metadata": await self._set(server, lambda now: {**now, **request.body["metadata"]})}

    async def replace(self, request: Request) -> Any:
        """PUT .../metadata: these keys and no others."""
        server = unlocked(request)
        return {"metadata": await self._set(server, lambda now: request.body["metadata"])}

    async def show(self, request: Request) -> Any:
        """GET .../metadata/{key}."""
        server, key = request.found, request.params["key"]
        if key not in server.metadata:
            raise NotFound("Metadata item was not found")
        return {"meta": {key: server.metadata[key]}}

    async def put(self, request: Request) -> Any:
        """PUT .../metadata/{key}."""
        if request.params["key"] not in request.body["meta"]:
            raise BadRequest("Request body and URI mismatch")
        server = unlocked(request)
        await self._set(server, lambda now: {**now, **request.body["meta"]})
        return {"meta": request.body["meta"]}

    async def delete(self, request: Request) -> Any:
        """DELETE .../metadata/{key}."""
        server, key = unlocked(request), request.params["key"]

        def without(now: dict[str, str]) -> dict[str, str]:
            if key not in now:
                raise NotFound("Metadata item was not found")
            return {k: v for k, v in now.items() if k != key}

        await self._set(server, without)
        return Reply(status=204)

    async def _set(self, server: Server, change: Callable[[dict[str, str]], dict[str, str]]) -> dict[str, str]:
        """change: from the metadata of the moment to the new, in the transaction that writes it."""
        limit = await self._quotas.limit(server.project_id, "metadata_items", server.user_id)

        def changed(now: Server) -> dict[str, Any]:
            metadata = change(now.metadata)
            if 0 <= limit < len(metadata):
                raise QuotaExceeded(f"Maximum number of metadata items exceeds {limit}")
            return {"metadata": metadata}

        return (await self._servers.update(server.id, changed)).metadata


class TagRoutes:
    """/servers/{id}/tags, from 2.26 on."""

    def __init__(self, servers: Servers):
        self._servers, self._find = servers, Finder(servers)

    def routes(self) -> list[Route]:
        """Every URL of tags."""
        many, one, since = _ONE + "/tags", _ONE + "/tags/{tag}", (2, 26)

        def may(verb: str) -> Gate:
            return self._find.may(f"os-server-tags:{verb}")

        return [
            Route("GET", many, self.index, may("index"), since=since),
            Route("PUT", many, self.replace, may("update_all"), body=schemas.TAGS, since=since),
            Route("DELETE", many, self.clear, may("delete_all"), since=since),
            Route("GET", one, self.show, may("show"), since=since),
            Route("PUT", one, self.put, may("update"), since=since),
            Route("DELETE", one, self.delete, may("delete"), since=since),
        ]

    async def index(self, request: Request) -> Any:
        """GET .../tags."""
        return {"tags": list(request.found.tags)}

    async def replace(self, request: Request) -> Any:
        """PUT .../tags: these and no others."""
        server = unlocked(request)
        tags = tuple(dict.fromkeys(request.body["tags"]))
        return {"tags": list((await self._servers.update(server.id, lambda now: {"tags": tags})).tags)}

    async def clear(self, request: Request) -> Any:
        """DELETE .../tags."""
        server = unlocked(request)
        await self._servers.update(server.id, lambda now: {"tags": ()})
        return Reply(status=204)

    async def show(self, request: Request) -> Any:
        """GET .../tags/{tag}: 204 where the server has it."""
        _has(request.found, request.params["tag"])
        return Reply(status=204)

    async def put(self, request: Request) -> Any:
        """PUT .../tags/{tag}: 201 where it is new."""
        server, tag = unlocked(request), request.params["tag"]
        _TAG.check(request.version, {"tag": tag})
        if tag in server.tags:
            return Reply(status=204)

        def added(now: Server) -> dict[str, Any]:
            if len(now.tags) >= MAX_TAGS and tag not in now.tags:
                raise BadRequest(f"The number of tags exceeded the per-server limit {MAX_TAGS}", field="tag")
            return {"tags": tuple(dict.fromkeys((*now.tags, tag)))}

        await self._servers.update(server.id, added)
        return Reply(status=201, headers={"location": f"{request.base_url}{request.path}"})

    async def delete(self, request: Request) -> Any:
        """DELETE .../tags/{tag}."""
        server, tag = unlocked(request), request.params["tag"]

        def without(now: Server) -> dict[str, Any]:
            _has(now, tag)
            return {"tags": tuple(other for other in now.tags if other != tag)}

        await self._servers.update(server.id, without)
        return Reply(status=204)


def _has(server: Server, tag: str) -> None:
    if tag not in server.tags:
        raise NotFound(f"Server {server.id} has no tag '{tag}'")


class InterfaceRoutes:
    """/servers/{id}/ips, /os-interface."""

    def __init__(self, servers: Servers, network: Network):
        self._network, self._find = network, Finder(servers)

    def routes(self) -> list[Route]:
        """Every URL about a server's interfaces."""
        ports, may = _ONE + "/os-interface", self._find.may
        return [
            Route("GET", _ONE + "/ips", self.addresses, may("ips:index")),
            Route("GET", _ONE + "/ips/{network}", self.address, may("ips:show")),
            Route("GET", ports, self.interfaces, may("os-attach-interfaces:list")),
            Route("GET", ports + "/{port_id}", self.interface, may("os-attach-interfaces:show")),
            Route("POST", ports, self.attach, may("os-attach-interfaces:create"), body=Schema({"type": "object"})),
            Route("DELETE", ports + "/{port_id}", self.detach, may("os-attach-interfaces:delete")),
        ]

    async def addresses(self, request: Request) -> Any:
        """GET .../ips."""
        server = request.found
        return {"addresses": plain_addresses(await self._ports(server))}

    async def address(self, request: Request) -> Any:
        """GET .../ips/{network}."""
        server, network = request.found, request.params["network"]
        found = plain_addresses(await self._ports(server))
        if network not in found:
            raise NotFound("Instance is not a member of specified network")
        return {network: found[network]}

    async def interfaces(self, request: Request) -> Any:
        """GET .../os-interface."""
        server = request.found
        return {"interfaceAttachments": [_interface(request, port) for port in await self._ports(server)]}

    async def interface(self, request: Request) -> Any:
        """GET .../os-interface/{port}."""
        server, ident = request.found, request.params["port_id"]
        for port in await self._ports(server):
            if port.id == ident:
                return {"interfaceAttachment": _interface(request, port)}
        raise NotFound(f"Instance {server.id} does not have a port with id {ident}")

    async def attach(self, request: Request) -> Any:
        """POST .../os-interface."""
        unlocked(request)
        raise NotBuilt("Nacre does not attach interfaces to running servers yet.")

    async def detach(self, request: Request) -> Any:
        """DELETE .../os-interface/{port}."""
        unlocked(request)
        raise NotBuilt("Nacre does not detach interfaces from running servers yet.")

    async def _ports(self, server: Server) -> tuple[PortFacts, ...]:
        return (await self._network.ports_of((server.id,))).get(server.id, ())


def _interface(request: Request, port: PortFacts) -> dict[str, Any]:
    found: dict[str, Any] = {
        "port_id": port.id, "net_id": port.network_id, "mac_addr": port.mac_address, "port_state": port.status,
        "fixed_ips": [{"subnet_id": fixed.subnet_id, "ip_address": fixed.ip_address} for fixed in port.fixed_ips]}
    if known("interface.tag", request.version):
        found["tag"] = port.tag
    return found
