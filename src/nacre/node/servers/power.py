"""Stop, start, reboot: each order once. The journal has it before it is done and after, so that neither a late order
nor one that is repeated, by whichever control process, changes what came after it."""

import asyncio

import msgspec
import structlog

from nacre.base.errors import NotFound, Refused
from nacre.base.undo import Undo
from nacre.node.contract import Guest, PowerOrder
from nacre.node.journal import Entry, Switch, unwritten
from nacre.node.servers.state import NodeState
from nacre.node.servers.works import Doing

log = structlog.get_logger()

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
            switch = Switch(epoch=order.epoch, action=order.action, done=True)
            if entry.switch != switch:
                entry = await self._note(msgspec.structs.replace(entry, epoch=order.epoch),
                                         msgspec.structs.replace(switch, done=False))
                await self._act(entry, order.action, doing)
                entry = await self._done(entry)
            return await node.guest(entry)

    async def resume(self, allocation: str, doing: Doing) -> None:
        """A guest that an interrupted start or reboot left paused runs; one that it left otherwise is reported as it
        is. Raises Refused, BuildFailed."""
        entry = self._node.journal.get(allocation)
        if entry is None or not self.is_interrupted(entry):
            return
        if (await self._node.hypervisor.guests()).get(entry.server_id) == "paused":
            doing.begin("the guest starts")
            await self._boot(entry)
            await self._done(entry)
        else:
            await self._note(entry, None)

    def is_interrupted(self, entry: Entry) -> bool:
        """Whether a start or reboot began that did not get through."""
        switch = entry.switch
        return entry.stage == "running" and switch is not None and not switch.done and switch.action != "stop"

    async def _act(self, entry: Entry, action: str, doing: Doing) -> None:
        node, server_id = self._node, entry.server_id
        power = (await node.hypervisor.guests()).get(server_id, "missing")
        if action in ("stop", "reboot-soft") and power == "running":
            doing.begin("the guest shuts down")
            await self._shut_down(server_id)
        elif action == "reboot-hard" or (action == "stop" and power == "paused"):
            await node.hypervisor.halt(server_id)
        if action.startswith("reboot") or (action == "start" and power != "running"):
            doing.begin("the guest starts")
            await self._boot(entry)

    async def _note(self, entry: Entry, switch: Switch | None) -> Entry:
        try:
            return await self._node.journal.write(msgspec.structs.replace(entry, switch=switch))
        except OSError as error:
            raise unwritten(error) from error

    async def _done(self, entry: Entry) -> Entry:
        """What is done and could not be noted is done again, if it is ordered again."""
        assert entry.switch is not None
        try:
            return await self._note(entry, msgspec.structs.replace(entry.switch, done=True))
        except Refused as error:
            log.warning("an order was done and is not noted", server=entry.server_id, why=str(error))
            return entry

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
