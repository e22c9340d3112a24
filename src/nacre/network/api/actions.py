"""PUT actions on single resources that change one list of theirs."""

import ipaddress
from collections.abc import Callable
from typing import Any

from nacre.base.errors import BadRequest, NotBuilt
from nacre.base.serving.gate import Gate, asks
from nacre.base.web import Request, Route
from nacre.network.addresses.address_groups import AddressGroups
from nacre.network.addresses.subnetpools import Subnetpools
from nacre.network.api.resource import Controller
from nacre.network.manager import NetworkManager
from nacre.network.nouns import checks
from nacre.network.nouns.address import SubnetPool
from nacre.network.nouns.noun import View
from nacre.network.work import Work


class AddressGroupActions:
    """add_addresses and remove_addresses of address groups."""

    def __init__(self, manager: NetworkManager, controller: Controller):
        self._manager, self._controller, self._store = manager, controller, AddressGroups()

    def routes(self) -> list[Route]:
        one = "/v2.0/address-groups/{id}"
        about = self._controller.about
        def act(rule: str) -> Gate:
            return asks(rule, about=about, parts=("get_address_group",))

        return [Route("PUT", f"{one}/add_addresses", self.add, act("add_addresses"), body=_addresses),
                Route("PUT", f"{one}/remove_addresses", self.remove, act("remove_addresses"), body=_addresses)]

    async def add(self, request: Request) -> View:
        return await self._change(request, True)

    async def remove(self, request: Request) -> View:
        return await self._change(request, False)

    async def _change(self, request: Request, add: bool) -> View:
        def step(work: Work) -> View:
            current = self._controller.one(work, request.params["id"])
            self._store.change(work, current, request.body, add=add)
            return self._controller.view(work, request.params["id"])

        return {"address_group": await self._manager.write(request.context, step)}


class SubnetpoolActions:
    """What adds prefixes to a subnet pool and takes them away."""

    def __init__(self, manager: NetworkManager, controller: Controller):
        self._manager, self._controller, self._store = manager, controller, Subnetpools()

    def routes(self) -> list[Route]:
        one = "/v2.0/subnetpools/{id}"
        about = self._controller.about
        return [Route("PUT", f"{one}/add_prefixes", self.add, asks("add_prefixes", about=about), body=_prefixes),
                Route("PUT", f"{one}/remove_prefixes", self.remove, asks("remove_prefixes", about=about),
                      body=_prefixes),
                Route("PUT", f"{one}/onboard_network_subnets", _onboard, asks("onboard_network_subnets", about=about))]

    async def add(self, request: Request) -> View:
        return await self._change(request, lambda work, pool: self._store.update(
            work, pool, {"prefixes": [*pool.prefixes, *request.body]}))

    async def remove(self, request: Request) -> View:
        return await self._change(request, lambda work, pool: self._store.remove_prefixes(
            work, pool, request.body))

    async def _change(self, request: Request, change: Callable[[Work, SubnetPool], object]) -> View:
        def step(work: Work) -> View:
            pool = self._controller.one(work, request.params["id"])
            change(work, pool)
            return {"prefixes": self._controller.view(work, request.params["id"])["prefixes"]}

        return await self._manager.write(request.context, step)


async def _onboard(request: Request) -> View:
    raise NotBuilt("Subnets are not taken into a pool once they are there: make them from the pool.")


def _cidrs(given: Any, field: str) -> list[str]:
    try:
        found: list[str] = checks.cidrs(given)
    except ValueError as error:
        raise BadRequest(f"Invalid input for {field}. Reason: {error}.", field=field, type="HTTPBadRequest") from None
    return found


def _addresses(request: Request, body: Any) -> list[str]:
    inner = body.get("address_group", body) if isinstance(body, dict) else None
    if not isinstance(inner, dict) or set(inner) != {"addresses"}:
        raise BadRequest("Unable to find 'addresses' in request body", field="addresses")
    given = inner["addresses"]
    return _cidrs([_host_net(a) for a in given] if isinstance(given, list) else given, "addresses")


def _host_net(address: Any) -> Any:
    """A single address as the subnet of itself; whatever else is given is for the check to refuse."""
    try:
        return str(ipaddress.ip_network(checks.ip(address)))
    except ValueError:
        return address


def _prefixes(request: Request, body: Any) -> list[str]:
    if not isinstance(body, dict) or set(body) != {"prefixes"}:
        raise BadRequest("Unable to find 'prefixes' in request body", field="prefixes")
    return _cidrs(body["prefixes"], "prefixes")
