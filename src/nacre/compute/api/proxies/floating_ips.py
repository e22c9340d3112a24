"""Actions addFloatingIp and removeFloatingIp of a server, to 2.43."""

from typing import Any

from nacre.base.errors import BadRequest, Conflict, NotFound
from nacre.base.serving.inside import Asked
from nacre.base.web import Reply, Request, Route, Version
from nacre.compute.api import types as t
from nacre.compute.api.proxies.ports import ports_of
from nacre.compute.api.servers.finding import Finder
from nacre.compute.api.validation import Schema

UNTIL: Version = (2, 43)
_ADD = Schema(t.wrap("addFloatingIp", t.obj({"address": t.ADDRESS, "fixed_address": t.ADDRESS}, "address")))
_REMOVE = Schema(t.wrap("removeFloatingIp", t.obj({"address": t.ADDRESS}, "address")))
_FLOATING_IPS = "/v2.0/floatingips"


class FloatingIpActions:
    """Which of a server's addresses a floating IP stands for. network: the network service."""

    def __init__(self, network: Asked, find: Finder):
        self._network, self._find = network, find

    def routes(self) -> list[Route]:
        """Both actions."""
        url = "/v2.1/servers/{server_id}/action"
        may = self._find.may
        return [Route("POST", url, self.add, may("os-floating-ips:add"), body=_ADD, action="addFloatingIp",
                      until=UNTIL),
                Route("POST", url, self.remove, may("os-floating-ips:remove"), body=_REMOVE,
                      action="removeFloatingIp", until=UNTIL)]

    async def add(self, request: Request) -> Any:
        """Action addFloatingIp: for the address given, or for the server's first of IPv4."""
        server = request.found
        given = request.body["addFloatingIp"]
        fixed = [(port["id"], each["ip_address"]) for port in await ports_of(self._network, request)
                 for each in port["fixed_ips"]]
        if not fixed:
            raise BadRequest("No fixed IPs associated to instance")
        wanted = given.get("fixed_address")
        fitting = [each for each in fixed if (each[1] == wanted if wanted else ":" not in each[1])]
        if not fitting:
            raise BadRequest("Specified fixed address not assigned to instance" if wanted else
                             f"Unable to associate floating IP {given['address']} to any fixed IPs for instance "
                             f"{server.id}. Instance has no fixed IPv4 addresses to associate.")
        port, address = fitting[0]
        floating = await self._floating_ip(request, given["address"])
        try:
            await self._network.ask(request.context, f"PUT {_FLOATING_IPS}/{floating['id']}", {
                "floatingip": {"port_id": port, "fixed_ip_address": address}})
        except (Conflict, NotFound) as error:
            raise BadRequest(f"Floating IP {given['address']} association has failed: {error.message}") from None
        return Reply(status=202)

    async def remove(self, request: Request) -> Any:
        """Action removeFloatingIp."""
        server = request.found
        address = request.body["removeFloatingIp"]["address"]
        floating = await self._floating_ip(request, address)
        mine = {port["id"] for port in await ports_of(self._network, request)}
        if floating["port_id"] not in mine:
            raise Conflict(f"Floating IP {address} is not associated with instance {server.id}.")
        await self._network.ask(request.context, f"PUT {_FLOATING_IPS}/{floating['id']}", {
            "floatingip": {"port_id": None}})
        return Reply(status=202)

    async def _floating_ip(self, request: Request, address: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = (await self._network.ask(request.context, f"GET {_FLOATING_IPS}", query=[
            ("floating_ip_address", address)]))["floatingips"]
        if not found:
            raise NotFound("floating IP not found")
        if len(found) > 1:
            raise Conflict(f"Multiple floating IPs are found for address {address}.")
        return found[0]
