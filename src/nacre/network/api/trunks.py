"""The actions of trunks."""

from collections.abc import Callable
from typing import Any, TypeVar

from nacre.base.errors import BadRequest
from nacre.base.serving.gate import asks
from nacre.base.web import Request, Route
from nacre.network.api.resource import Controller
from nacre.network.l2.trunks import Trunks
from nacre.network.manager import NetworkManager
from nacre.network.nouns.noun import View
from nacre.network.nouns.trunk import removed, subports
from nacre.network.work import Work

T = TypeVar("T")


class TrunkActions:
    """/v2.0/trunks/<id>/add_subports, remove_subports, get_subports."""

    def __init__(self, manager: NetworkManager, controller: Controller):
        self._manager, self._controller, self._store = manager, controller, Trunks()

    def routes(self) -> list[Route]:
        one, about = "/v2.0/trunks/{id}", self._controller.about
        return [Route("PUT", f"{one}/add_subports", self.add, asks("add_subports", about=about), body=_body(subports)),
                Route("PUT", f"{one}/remove_subports", self.remove, asks("remove_subports", about=about),
                      body=_body(removed)),
                Route("GET", f"{one}/get_subports", self.show, asks("get_subports", about=about))]

    async def add(self, request: Request) -> View:
        return await self._change(request, self._store.add_subports)

    async def remove(self, request: Request) -> View:
        return await self._change(request, self._store.remove_subports)

    async def _change(self, request: Request, change: Callable[[Work, Any, Any], None]) -> View:
        """As in Neutron, the answer is the bare trunk."""
        def step(work: Work) -> View:
            change(work, self._controller.one(work, request.params["id"]), request.body)
            return self._controller.view(work, request.params["id"])

        return await self._manager.write(request.context, step)

    async def show(self, request: Request) -> View:
        trunk = await self._manager.read(request.context, lambda work: self._controller.view(
            work, request.params["id"]))
        return {"sub_ports": trunk["sub_ports"]}


def _body(check: Callable[[Any], T]) -> Callable[[Request, Any], T]:
    def parse(request: Request, body: Any) -> T:
        if not isinstance(body, dict) or set(body) != {"sub_ports"}:
            raise BadRequest("Unable to find 'sub_ports' in request body", field="sub_ports", type="HTTPBadRequest")
        try:
            return check(body["sub_ports"])
        except ValueError as error:
            raise BadRequest(f"Invalid input for sub_ports. Reason: {error}.", field="sub_ports",
                             type="InvalidInput") from None
    return parse
