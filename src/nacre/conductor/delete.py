"""The story of a delete: fence what still builds it, take it from every host that may have it, then ports, then row.

A host that does not answer does not hold a delete up: it is told at its next hello, as the server is gone by then.
"""

import structlog

from nacre.base.db import DatabaseUnavailable
from nacre.base.errors import NacreError, NotFound, Unavailable
from nacre.compute.contract import Outcome, Server, Story
from nacre.conductor import orders
from nacre.conductor.parts import Parts
from nacre.conductor.timeline import Timeline

log = structlog.get_logger()


class Deleter:
    """Runs delete stories."""

    def __init__(self, parts: Parts):
        self._p = parts

    async def tell(self, story: Story) -> None:
        """Delete the story's server, whatever state it is in."""
        found = await self._p.progress.load(story.order.server_ids)
        if not found:
            return
        server, timeline = found[0], Timeline(self._p.clock)
        try:
            epoch = await self._p.progress.fence(server.id)
        except NotFound:
            return
        hosts = {a.host for a in await self._p.progress.attempts(server.id)} | ({server.host} if server.host else set())
        gone = True
        for host in sorted(hosts):
            gone = await self._leave(host, server, epoch, timeline) and gone
        with timeline.step("network.deallocate"):
            await self._p.network.deallocate(server.id)
        await self._p.progress.deleted(server.id, Outcome(
            request_id=story.order.context.request_id, steps=tuple(timeline.steps)), gone=gone)
        log.info("server deleted", server=server.id, request_id=story.order.context.request_id)

    async def _leave(self, host: str, server: Server, epoch: int, timeline: Timeline) -> bool:
        """Whether the host confirmed that nothing of the server is left."""
        try:
            with timeline.step("destroy", host):
                await self._p.hosts.ask(host, lambda node: node.destroy(server.id, epoch), await self._patience(host))
        except DatabaseUnavailable:
            raise
        except NacreError as error:
            log.warning("host did not confirm a delete", server=server.id, host=host, why=error.message,
                        silent=isinstance(error, Unavailable))
            return False
        await self._p.scheduler.released(host, server.id, orders.taken(server, server.selected_dir))
        return True

    async def _patience(self, host: str) -> float:
        """A host that is known to be down is not waited for."""
        state = await self._p.scheduler.state(host)
        return self._p.patience.cleanup if state is not None and state.up else 0.0
