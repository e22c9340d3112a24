"""The story of a rebuild: the server's host makes it anew, of another image or the same, in the room and with the ports
that it has. Its order has an epoch of its own; until the host has written down that the old disks are given up the
guest goes on, and from then on the server ends made anew, or in ERROR with its reason."""

from nacre.base.durable.stories import Lease
from nacre.base.errors import NacreError, NoValidHost, Words, words_of
from nacre.compute.contract import Outcome, Server, StoryOrder
from nacre.conductor import orders
from nacre.conductor.deps import StoryDeps
from nacre.conductor.events import ActionEvents
from nacre.conductor.hosts import Silence
from nacre.node.contract import Guest, RebuildOrder

TASK = "rebuilding"


class Rebuilder:
    """Runs rebuild stories."""

    def __init__(self, deps: StoryDeps):
        self._deps = deps

    async def run(self, lease: Lease, order: StoryOrder) -> None:
        """A host that cannot leaves the server in ERROR, with the reason as its fault."""
        server = await self._server(lease, order)
        if server is None:
            return
        events = ActionEvents(self._deps.clock)
        guest: Guest | None = None
        why: Words | None = None
        try:
            wish = await self._wish(lease, order, server, events)
            with events.step("rebuild", server.host):
                guest = await self._deps.hosts.order(
                    server.host, lambda node: node.rebuild(wish), Silence(self._deps.hosts.patience.silence))
        except NacreError as error:
            why = words_of(error)
        wanted = {"shutdown": "rebuilt stopped"} if server.vm_state == "stopped" else {"running": "rebuilt"}
        event = wanted.get(guest.power, "rebuild failed") if guest else "rebuild failed"
        if guest:
            events.add("host", guest.steps, server.host)
            if event == "rebuild failed":
                why = Words(f"Its guest is {guest.power} after that.")
        await self._end(lease, event, Outcome(
            server_id=server.id, request_id=order.context.request_id, steps=tuple(events.steps), guest=guest,
            message=why and why.message, details=why.details if why else "", task=TASK, epoch=server.epoch))

    async def give_up(self, lease: Lease, order: StoryOrder, why: str) -> None:
        """The server is in ERROR, with the reason."""
        if (server := await self._server(lease, order)) is not None:
            await self._end(lease, "rebuild failed", Outcome(
                server_id=server.id, request_id=order.context.request_id, message=why, task=TASK, epoch=server.epoch))

    async def _wish(self, lease: Lease, order: StoryOrder, server: Server, events: ActionEvents) -> RebuildOrder:
        """Raises NacreError: there is no such image any more, or the host may not have it."""
        spec, deps = order.rebuild, self._deps
        assert spec is not None
        if server.image_id != spec.was:
            why = await deps.scheduler.misfit(orders.placement_request([server], order), server.host)
            if why is not None:
                raise NoValidHost(f"No valid host was found. The server's host may not have this image: hosts {why}",
                                  details=server.host)
        image, kernel, ramdisk = [
            await deps.images.find(order.context, id) if id else None
            for id in (server.image_id, server.kernel_id, server.ramdisk_id)]
        with events.step("network.plug", server.host):
            plugged = await deps.network.plug(orders.ports_order(server, order, lease), server.host)
        return orders.rebuild_order(deps.cloud(), server, spec, orders.Made(
            guest=await deps.progress.guest_facts(server.host, server.id), images=(image, kernel, ramdisk),
            plugged=plugged))

    async def _server(self, lease: Lease, order: StoryOrder) -> Server | None:
        found = await self._deps.progress.load(order.server_ids)
        if found and found[0].task_state == TASK:
            return found[0]
        await self._deps.progress.finish(lease)
        return None

    async def _end(self, lease: Lease, event: str, outcome: Outcome) -> None:
        if not await self._deps.progress.powered(lease, event, outcome):
            await self._deps.progress.finish(lease)  # it is being deleted, or an administrator said otherwise
