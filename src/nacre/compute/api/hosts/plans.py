"""Placement plans: where a request of N servers would go now, or why not. Nacre's own; changes nothing."""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from nacre.base.context import Context
from nacre.base.web import Request, Route
from nacre.compute.api import types as t
from nacre.compute.api.servers.limits import Limits
from nacre.compute.api.servers.parse import hints_of, planned
from nacre.compute.api.servers.schemas import HINTS
from nacre.compute.api.validation import Schema
from nacre.compute.contract import ServerSpec, StoryOrder
from nacre.compute.policies import rule
from nacre.compute.servers import Servers
from nacre.conductor.contract import Planner as Conductor
from nacre.scheduler.contract import Placement, Scheduler

#: No plan is for more servers: each is really looked for.
MOST = 1000

PLAN = Schema(t.obj({
    "plan": {"type": "object", "noun": "plan", "required": ["flavorRef", "imageRef"], "additionalProperties": False,
             "properties": {
                 "flavorRef": {"type": ["string", "integer"], "minLength": 1, "maxLength": 255}, "imageRef": t.UUID,
                 "count": {"type": "integer", "minimum": 1, "maximum": MOST}, "availability_zone": t.NAME}},
    "os:scheduler_hints": HINTS, "OS-SCH-HNT:scheduler_hints": HINTS}, "plan"))

#: What a create of these servers would be answered by the scheduler.
Planner = Callable[[Context, ServerSpec], Awaitable[tuple[Placement, ...]]]


class Plans:
    """What if: a create that is only thought through. Callers have checked policy; nothing is written or taken."""

    def __init__(self, servers: Servers, conductor: Conductor):
        self._servers, self._conductor = servers, conductor

    async def __call__(self, context: Context, spec: ServerSpec) -> tuple[Placement, ...]:
        """A placement for each of the servers. Raises as a create would, but for quotas."""
        sketch = await self._servers.sketch(context, spec)
        order = StoryOrder(context=context, server_ids=tuple(server.id for server in sketch), spec=spec)
        return await self._conductor.plan(order, sketch)


class PlanRoutes:
    """POST /os-nacre-plans."""

    def __init__(self, planner: Planner, scheduler: Scheduler, limits: Limits):
        self._planner, self._scheduler, self._limits = planner, scheduler, limits

    def routes(self) -> list[Route]:
        return [Route("POST", "/v2.1/os-nacre-plans", self.create, rule("os-nacre-plans:create"), body=self._body)]

    def _body(self, request: Request, body: Any) -> Any:
        self._limits.check_body(body)
        return PLAN(request, body)

    async def create(self, request: Request) -> Any:
        """Where the servers would go."""
        given, hints = request.body["plan"], hints_of(request.body)
        spec = planned(given, hints)
        if isinstance(query := spec.hints.get("query"), str):
            await self._scheduler.check(query)
        return {"plan": view(await self._planner(request.context, spec))}


def view(placements: tuple[Placement, ...]) -> Mapping[str, Any]:
    """The plan by hosts; for those without room the reason, and the host that was nearest."""
    hosts = Counter((p.host, p.selected_dir) for p in placements if p.host)
    refused = next((p for p in placements if not p.host), None)
    return {
        "count": len(placements), "placed": hosts.total(),
        "hosts": [{"host": host, "count": count, **({"selected_dir": where} if where else {})}
                  for (host, where), count in hosts.items()],
        "reason": refused.why if refused else None, "nearest": (refused.details or None) if refused else None}
