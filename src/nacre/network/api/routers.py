"""The actions of routers."""

from typing import Any

from nacre.base.errors import BadRequest
from nacre.base.serving.gate import Gate, asks
from nacre.base.web import Request, Route
from nacre.network.api.resource import Controller
from nacre.network.hosts import agents
from nacre.network.l3 import extraroutes, interfaces
from nacre.network.l3.routers import Routers
from nacre.network.manager import NetworkManager
from nacre.network.nouns import checks
from nacre.network.nouns.agent import L3, Agent
from nacre.network.nouns.attributes import Attributes
from nacre.network.nouns.noun import View
from nacre.network.nouns.router import Router
from nacre.network.work import Work


class RouterActions:
    """PUT /v2.0/routers/<id>/<action>."""

    def __init__(self, manager: NetworkManager, controller: Controller):
        self._manager, self._controller, self._store = manager, controller, Routers()

    def routes(self) -> list[Route]:
        one = "/v2.0/routers/{id}"

        def act(rule: str) -> Gate:
            return asks(rule, about=self._controller.about)

        return [Route("PUT", f"{one}/add_router_interface", self.add, act("add_router_interface"), body=_interface),
                Route("PUT", f"{one}/remove_router_interface", self.remove, act("remove_router_interface"),
                      body=_interface),
                Route("PUT", f"{one}/add_extraroutes", self.add_routes, act("add_extraroutes"), body=_routes),
                Route("PUT", f"{one}/remove_extraroutes", self.remove_routes, act("remove_extraroutes"), body=_routes),
                Route("GET", f"{one}/l3-agents", self.agents, "get_l3-agents")]

    async def add(self, request: Request) -> View:
        return await self._manager.write(request.context, lambda w: interfaces.add(
            w, self._controller.one(w, request.params["id"]), request.body))

    async def remove(self, request: Request) -> View:
        return await self._manager.write(request.context, lambda w: interfaces.remove(
            w, self._controller.one(w, request.params["id"]), request.body))

    async def add_routes(self, request: Request) -> View:
        return await self._routes(request, add=True)

    async def remove_routes(self, request: Request) -> View:
        return await self._routes(request, add=False)

    async def _routes(self, request: Request, *, add: bool) -> View:
        def step(work: Work) -> View:
            router = self._controller.one(work, request.params["id"])
            change = extraroutes.added if add else extraroutes.removed
            self._store.update(work, router, {"routes": change(router.routes, request.body)})
            return {"router": self._controller.view(work, request.params["id"])}

        return await self._manager.write(request.context, step)

    async def agents(self, request: Request) -> View:
        """Every router is forwarded for by all that forward."""
        return {"agents": await self._manager.read(request.context, lambda work: agents.views(
            work, work.select(Agent, agent_type=L3) if work.first(Router, id=request.params["id"]) else []))}


def _interface(request: Request, body: Any) -> Attributes:
    if not isinstance(body, dict) or not body:
        raise BadRequest("Bad router request: Either subnet_id or port_id must be specified.", field="subnet_id",
                         type="BadRequest")
    if unknown := [k for k in body if k not in ("subnet_id", "port_id")]:
        raise BadRequest(f"Bad router request: '{unknown[0][:64]}' is not known here.", field=unknown[0])
    try:
        return {k: checks.uuid_(v) for k, v in body.items()}
    except ValueError as error:
        raise BadRequest(f"Invalid input for router interface. Reason: {error}.", type="HTTPBadRequest") from None


def _routes(request: Request, body: Any) -> list[Attributes]:
    given = body.get("router") if isinstance(body, dict) else None
    if not isinstance(given, dict) or set(given) != {"routes"}:
        raise BadRequest("Unable to find 'router' with 'routes' in request body", field="router")
    try:
        found: list[Attributes] = checks.listing(checks.route, unique=True)(given["routes"])
    except ValueError as error:
        raise BadRequest(f"Invalid input for routes. Reason: {error}.", field="routes") from None
    return found
