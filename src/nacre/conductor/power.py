"""The story of a stop, start or reboot. The host's verb is idempotent towards the wanted state: a crash repeats it."""

from nacre.base.db import DatabaseUnavailable
from nacre.base.errors import NacreError
from nacre.compute.contract import Outcome, Story
from nacre.conductor.parts import Parts
from nacre.conductor.timeline import Timeline

#: guest's power -> what happened to the server
_EVENTS = {"running": "running", "shutdown": "stopped", "crashed": "stopped"}


class Switch:
    """Runs power stories."""

    def __init__(self, parts: Parts):
        self._p = parts

    async def tell(self, story: Story) -> None:
        """Do the story's action; a host that cannot leaves the server as it was, with the reason as its fault."""
        found = await self._p.progress.load(story.order.server_ids)
        if not found or found[0].task_state in (None, "deleting"):
            return
        server, timeline, action = found[0], Timeline(self._p.clock), story.order.action
        _, epoch, _ = await self._p.progress.guest_facts(server.id)
        event, power, message = "give up", "", None
        try:
            with timeline.step(action, server.host):
                guest = await self._p.hosts.ask(
                    server.host, lambda node: node.power(server.id, epoch, action), self._p.patience.cleanup)
            event, power = _EVENTS.get(guest.power, "give up"), guest.power
        except DatabaseUnavailable:
            raise
        except NacreError as error:
            message = error.message
        await self._p.progress.powered(server.id, event, Outcome(
            request_id=story.order.context.request_id, steps=tuple(timeline.steps), power=power, message=message))
