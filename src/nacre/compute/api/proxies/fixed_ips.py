"""Actions addFixedIp and removeFixedIp of a server, to 2.43: addresses of its ports, asked of the network service in
the caller's name. What cannot be done is said at once, where Nova accepts it and writes a fault."""

from typing import Any

from nacre.base.errors import BadRequest, Conflict, NotFound
from nacre.base.serving.inside import Asked
from nacre.base.web import Reply, Request, Route, Version
from nacre.compute.api import types as t
from nacre.compute.api.proxies.ports import ports_of
from nacre.compute.api.servers.finding import Finder, unlocked
from nacre.compute.api.validation import Schema

UNTIL: Version = (2, 43)
_ADD = Schema(t.wrap("addFixedIp", t.obj({"networkId": {
    "type": ["string", "number"], "minLength": 1, "maxLength": 255}}, "networkId")))
_REMOVE = Schema(t.wrap("removeFixedIp", t.obj({"address": t.ADDRESS}, "address")))


class FixedIpActions:
    """One more address of a server's port, or one less. network: the network service."""

    def __init__(self, network: Asked, find: Finder):
        self._network, self._find = network, find

    def routes(self) -> list[Route]:
        """Both actions."""
        url = "/v2.1/servers/{server_id}/action"
        may = self._find.may
        return [Route("POST", url, self.add, may("os-multinic:add"), body=_ADD, action="addFixedIp", until=UNTIL),
                Route("POST", url, self.remove, may("os-multinic:remove"), body=_REMOVE, action="removeFixedIp",
                      until=UNTIL)]

    async def add(self, request: Request) -> Any:
        """Action addFixedIp: of the network's first subnet that has one, for the server's first port there."""
        server = unlocked(request)
        network = str(request.body["addFixedIp"]["networkId"])
        ports = [port for port in await ports_of(self._network, request) if port["network_id"] == network]
        subnets = (await self._network.ask(request.context, "GET /v2.0/subnets", query=[("network_id", network)]))[
            "subnets"] if ports else []
        if not subnets:
            raise NotFound(f"Network could not be found for instance {server.id}.")
        refused: Conflict | None = None
        for subnet in subnets:
            try:
                return await self._put(request, ports[0], [*ports[0]["fixed_ips"], {"subnet_id": subnet["id"]}])
            except Conflict as error:
                refused = error
        raise BadRequest(f"No fixed IP addresses available for network {network}: {refused and refused.message}")

    async def remove(self, request: Request) -> Any:
        """Action removeFixedIp."""
        server = unlocked(request)
        address = request.body["removeFixedIp"]["address"]
        for port in await ports_of(self._network, request):
            left = [each for each in port["fixed_ips"] if each["ip_address"] != address]
            if len(left) < len(port["fixed_ips"]):
                return await self._put(request, port, left)
        raise NotFound(f"Instance {server.id} doesn't have fixed IP {address}.")

    async def _put(self, request: Request, port: dict[str, Any], fixed: list[dict[str, str]]) -> Reply:
        await self._network.ask(request.context, f"PUT /v2.0/ports/{port['id']}", {"port": {"fixed_ips": fixed}})
        return Reply(status=202)
