"""The story of a stop, start or reboot. Its order has an epoch of its own: repeated, after a crash or by another
process, it is done once, and not at all once the host has seen a later one."""

from nacre.base.durable.stories import Lease
from nacre.base.errors import NacreError, Words, words_of
from nacre.compute.contract import Outcome, Server, StoryOrder
from nacre.conductor.deps import StoryDeps
from nacre.conductor.events import ActionEvents
from nacre.node.contract import Guest, PowerOrder

#: guest's power -> what happened to the server, where that was asked for. One that halted again is news, not an end.
_STOPPED, _RUNNING = {"shutdown": "stopped", "crashed": "stopped"}, {"running": "running"}
#: action -> the server's task while it goes on. A hard reboot takes the place of a soft one.
_TASKS = {"stop": "powering-off", "start": "powering-on", "reboot-soft": "rebooting", "reboot-hard": "rebooting_hard"}


class Switch:
    """Runs power stories."""

    def __init__(self, deps: StoryDeps):
        self._deps = deps

    async def run(self, lease: Lease, order: StoryOrder) -> None:
        """Do the story's action; a host that cannot leaves the server as it was, with the reason as its fault."""
        server = await self._server(lease, order)
        if server is None:
            return
        events, action = ActionEvents(self._deps.clock), order.action
        wish = PowerOrder(cloud=self._deps.cloud(), allocation=server.allocation_id, server_id=server.id,
                          epoch=server.epoch, action=action)
        guest: Guest | None = None
        why: Words | None = None
        try:
            with events.step(action, server.host):
                guest = await self._deps.hosts.order(server.host, lambda node: node.power(wish))
        except NacreError as error:
            why = words_of(error)
        event = (_STOPPED if action == "stop" else _RUNNING).get(guest.power, "give up") if guest else "give up"
        if guest and event == "give up":
            why = Words(f"Its guest is {guest.power} after that.")
        await self._end(lease, event, Outcome(
            server_id=server.id, request_id=order.context.request_id, steps=tuple(events.steps), guest=guest,
            message=why and why.message, details=why.details if why else "", task=_TASKS[action]))

    async def give_up(self, lease: Lease, order: StoryOrder, why: str) -> None:
        """The server stays as it was, with the reason as its fault."""
        if (server := await self._server(lease, order)) is not None:
            await self._end(lease, "give up", Outcome(
                server_id=server.id, request_id=order.context.request_id, message=why, task=_TASKS[order.action]))

    async def _server(self, lease: Lease, order: StoryOrder) -> Server | None:
        found = await self._deps.progress.load(order.server_ids)
        if found and found[0].task_state == _TASKS[order.action]:
            return found[0]
        await self._deps.progress.finish(lease)
        return None

    async def _end(self, lease: Lease, event: str, outcome: Outcome) -> None:
        if not await self._deps.progress.powered(lease, event, outcome):
            await self._deps.progress.finish(lease)  # it is being deleted, or another task has begun
