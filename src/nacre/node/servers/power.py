"""Stop, start, reboot: towards a wanted state, so that a repeated order is harmless."""

import asyncio

from nacre.base.errors import NotFound, Refused
from nacre.base.undo import Undo
from nacre.node.contract import Guest, PowerOrder
from nacre.node.journal import Entry
from nacre.node.servers.state import NodeState
from nacre.node.servers.works import Doing

ACTIONS = ("start", "stop", "reboot-soft", "reboot-hard")
POLL = 0.25


class Power:
    """The power of one host's guests."""

    def __init__(self, node: NodeState):
        self._node = node

    async def switch(self, order: PowerOrder, doing: Doing) -> Guest:
        """Raises NotFound, Refused, BuildFailed."""
        node = self._node
        async with node.locks(order.server_id):
            entry = node.journal.get(order.allocation)
            if entry is None or entry.stage != "running":
                raise NotFound(f"Server {order.server_id} is not on this host.")
            if order.epoch < node.journal.seen(order.server_id):
                raise Refused(f"a later order for server {order.server_id} was seen here")
            power = (await node.hypervisor.guests()).get(order.server_id, "missing")
            if order.action in ("stop", "reboot-soft") and power == "running":
                doing.begin("the guest shuts down")
                await self._shut_down(order.server_id)
            elif order.action == "reboot-hard" or (order.action == "stop" and power == "paused"):
                await node.hypervisor.halt(order.server_id)
            if order.action.startswith("reboot") or (order.action == "start" and power != "running"):
                doing.begin("the guest starts")
                await self._boot(entry)
            return await node.guest(entry)

    async def _shut_down(self, server_id: str) -> None:
        """By its power button; one that does not follow it in time is cut off."""
        node = self._node
        await node.hypervisor.shutdown(server_id)
        end = node.clock.monotonic() + node.settings.shutdown_timeout
        while (await node.hypervisor.guests()).get(server_id) == "running":
            if node.clock.monotonic() >= end:
                await node.hypervisor.halt(server_id)
                return
            await node.clock.sleep(POLL)

    async def _boot(self, entry: Entry) -> None:
        """A guest that cannot be wired is halted: nobody would ever resume it."""
        node = self._node
        async with Undo(but=asyncio.CancelledError) as undo:
            undo.add(node.hypervisor.halt, entry.server_id)
            await node.hypervisor.boot(entry.server_id)
            if entry.spawn is not None and entry.spawn.ports:
                await node.wiring.wire(entry.spawn.ports, entry.spawn.networks)
            await node.hypervisor.resume(entry.server_id)
