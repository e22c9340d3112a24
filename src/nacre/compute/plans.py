"""What if: a create that is only thought through. The conductor is asked where its servers would go; nothing is
written, reserved or taken."""

from nacre.base.context import Context
from nacre.compute.contract import ServerSpec, StoryOrder
from nacre.compute.servers import Servers
from nacre.conductor.contract import Planner
from nacre.scheduler.contract import Placement


class Plans:
    """Callers have checked policy."""

    def __init__(self, servers: Servers, conductor: Planner):
        self._servers, self._conductor = servers, conductor

    async def __call__(self, context: Context, spec: ServerSpec) -> tuple[Placement, ...]:
        """A placement for each of the servers. Raises as a create would, but for quotas."""
        sketch = await self._servers.sketch(context, spec)
        order = StoryOrder(context=context, server_ids=tuple(server.id for server in sketch), spec=spec)
        return await self._conductor.plan(order, sketch)
